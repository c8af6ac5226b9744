"""One B for all phones, which take turns at it: sequential, splitfed_v2."""

from __future__ import annotations

from collections.abc import Sequence

from actors.b_ways.stepping import Stepping
from actors.b_ways.way import Call, backward_and_step, learn_and_step, only
from ray_split.data.stream import forward_seeds
from ray_split.messages.message import Groups, Message, Wanted
from ray_split.messages.state import State
from ray_split.messages.turn import Turn
from ray_split.segments.copies import Copies, Learned
from ray_split.tasks.task import Task


class InTurn:
    """One B, which steps after each phone's backward: between a forward and its backward nobody else has a turn."""

    def __init__(self, b: Copies, seed: int, task: Task, stepping: Stepping) -> None:
        self._b, self._seed, self._task, self._stepping = b, seed, task, stepping
        self._pending: Turn | None = None
        self._accumulating: tuple[int, ...] = ()  # whose gradients B has, and has not stepped on

    def begin(self, start: State) -> None:
        """As Way.begin."""
        self.drop()

    def drop(self) -> None:
        """As Way.drop: B is the server's."""
        self._pending, self._accumulating = None, ()

    def admit(self, turn: Turn, call: Call) -> None:
        """As Way.admit."""
        self._stepping.check()
        if call == "backward" and self._pending != turn:
            raise RuntimeError(f"step {turn.step} of phone {turn.phones[0]} is not the exchange under way")
        if call != "backward":
            self._check_none_waits(f"a {call} of phone {turn.phones[0]} came")
            if not turn.begins_update and self._accumulating != turn.phones:
                came = f"a {call} of phone {turn.phones[0]} came for its step {turn.step}, whose gradients are added up"
                raise RuntimeError(f"{came}, and another's was in between: a phone's turn ends with an update")
            self._accumulating = () if turn.updates_any else turn.phones

    def forward(self, turn: Turn, activations: Sequence[Message]) -> tuple[list[Groups], Wanted]:
        """As Way.forward."""
        activation = only(activations)
        self._pending = turn
        return [self._b.forward(activation.groups, self._seeds(turn), activation.wanted)], self._b.wanted

    def backward(self, turn: Turn, hidden_gradients: Sequence[Message]) -> list[Groups]:
        """As Way.backward; B steps."""
        self._pending = None
        return [backward_and_step(self._b, turn, only(hidden_gradients), self._stepping)]

    def learn(self, turn: Turn, activations: Sequence[Message]) -> list[Learned]:
        """As Way.learn; B steps."""
        return [learn_and_step(self._b, turn, only(activations), self._seeds(turn), self._task, self._stepping)]

    def end(self) -> None:
        """As Way.end."""
        self._stepping.check()
        self._check_none_waits("the round ended")

    def _check_none_waits(self, what: str) -> None:
        if self._pending is not None:
            waits = f"step {self._pending.step} of phone {self._pending.phones[0]}"
            raise RuntimeError(f"{what} while {waits} waits for its backward")

    def _seeds(self, turn: Turn) -> list[int]:
        return forward_seeds(self._seed, turn, "b", 1)
