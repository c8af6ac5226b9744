"""An exponential moving average of a run's weights, round by round: what is evaluated, instead of the last ones.

To the bits of torch.optim.swa_utils.AveragedModel(model, avg_fn=get_ema_avg_fn(decay), use_buffers=True), told of the
model after each round. numpy alone: the fed server has it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from ray_split.arrays import Array
from ray_split.messages import bits
from ray_split.messages.state import State

PREFIX = "ema_"
"""Of its parts in a checkpoint, before a segment's name."""


class WeightsEma:
    """Of all segments' weights and buffers. Begins with those after the first round; integers are always the last."""

    def __init__(self, decay: float) -> None:
        self._decay = decay
        self._states: dict[str, State] = {}

    def clear(self) -> None:
        """A run begins, or its state comes from a checkpoint."""
        self._states = {}

    def follow(self, states: Mapping[str, State]) -> None:
        """A round was committed, with these states."""
        for name, state in states.items():
            before = self._states.get(name, {})
            kept = {key: array for key, array in state.items() if not key.startswith("optimizer/")}
            self._states[name] = {key: self._moved(before.get(key), array) for key, array in kept.items()}

    def _moved(self, before: Array | None, now: Array) -> Array:
        now = bits.wide(now)  # in half precision small steps would be lost
        # What nobody trains stays, to the last bit.
        if before is None or not bits.is_inexact(now.dtype) or np.array_equal(before, now):
            return now
        kind = now.real.dtype.type
        return np.asarray(kind(self._decay) * before + kind(1 - self._decay) * now)

    def states(self, like: Mapping[str, State]) -> dict[str, State]:
        """The average as states of the types of these; these themselves before the first round."""
        return {
            name: {key: bits.narrow(array, like[name][key].dtype) for key, array in state.items()}
            for name, state in (self._states or like).items()
        }

    def parts(self) -> Iterator[tuple[str, State]]:
        """Everything, for a checkpoint."""
        yield from ((PREFIX + name, state) for name, state in self._states.items())

    def restore(self, name: str, state: State) -> bool:
        """Take one part of a checkpoint; says whether it is one of its own."""
        if name.startswith(PREFIX):
            self._states[name.removeprefix(PREFIX)] = state
        return name.startswith(PREFIX)
