"""The fed server: keeps the state at the round's start, and writes checkpoints and the model. No torch in its process.

It never sees an activation, a gradient or data.
"""

from __future__ import annotations

from pathlib import Path

from ray_split import checkpoint
from ray_split.draws import Turn
from ray_split.failure import StateNotLoadedError
from ray_split.metrics import Report
from ray_split.state import Ends, State, state_bytes, weights


class FedServer:
    """The state that every attempt of a round begins with. It moves on only by `commit`."""

    def __init__(self, folder: Path, num_to_keep: int | None) -> None:
        self._folder = folder
        self._num_to_keep = num_to_keep
        self._round = -1
        self._states: dict[str, State] = {}

    def commit(self, round: int, ends: Ends, middle: State) -> Report:
        """The state of A, C and B at the start of `round`: the one before is dropped."""
        self._round, self._states = round, {"a": ends["a"], "b": middle, "c": ends["c"]}
        return Report(bytes_weights=sum(state_bytes(state) for state in self._states.values()))

    def client_state(self, turn: Turn) -> Ends:
        """A's and C's state at the turn's round's start. Raises StateNotLoadedError for another round."""
        states = self._at(turn.round)
        return {"a": states["a"], "c": states["c"]}

    def server_state(self, turn: Turn) -> State:
        """B's state at the turn's round's start. Raises StateNotLoadedError for another round."""
        return self._at(turn.round)["b"]

    def _at(self, round: int) -> dict[str, State]:
        if round != self._round:
            raise StateNotLoadedError(f"the fed server holds the start of round {self._round}, not {round}")
        return self._states

    def save_checkpoint(self) -> str:
        """Write a checkpoint of the state it holds; returns its path."""
        path = checkpoint.save(self._folder / "checkpoints", self._round, self._states, self._num_to_keep)
        return str(path)

    def restore(self, path: str) -> int:
        """Take a checkpoint's state; returns the round that it is the start of. Raises CheckpointError."""
        self._round, self._states = checkpoint.load(Path(path))
        return self._round

    def save_model(self) -> str:
        """Write model.safetensors under the unsplit model's keys; returns its path."""
        path = self._folder / "model.safetensors"
        merged: State = {}
        for state in self._states.values():
            merged.update(weights(state))
        checkpoint.write_model(path, merged)
        return str(path)
