"""In which order a remote phone's calls are made, whichever order they arrive in.

An actor that waits for many devices at a time works on many calls at a time. Each phone's own still come one after the
other: load, then forward, loss and backward of each step, then the end; in an evaluation, where a step is some of the
samples that are held out, forward and loss of each.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ray_split.errors import StateNotLoadedError
from ray_split.messages.turn import Turn

STAGES = ("forward", "loss", "backward")
SCORING = ("evaluate_own_forward", "evaluate_own_loss")
OVER = -1  # calls that were made, once none is due before the next load


class Order:
    """The calls of one phone."""

    def __init__(self, one_by_one: bool = False) -> None:
        """`one_by_one`: a call is made once the one before is over, so one that isn't due never will be."""
        self._one_by_one = one_by_one
        self._at = (-1, -1)  # attempt and round that are loaded
        self._done = 0  # calls since then
        self._steps = 0  # that the phone takes
        self._failed: Exception | None = None
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def load(self, turn: Turn, steps: int) -> AsyncIterator[None]:
        """Around the call that begins a round, or an attempt at it, with so many steps. What was before is void.

        Raises StateNotLoadedError for one that comes after that of a later attempt.
        """
        if _key(turn) < self._at:
            raise StateNotLoadedError(f"round {turn.round}, attempt {turn.attempt} is over")
        self._at, self._done, self._steps, self._failed = _key(turn), 0, steps, None
        await self._notify()
        async with self._telling(turn):
            yield

    @asynccontextmanager
    async def stage(self, turn: Turn, name: str) -> AsyncIterator[None]:
        """Around a step's call; waits for those before it. Raises what one of them raised."""
        await self._wait(turn, 1 + len(STAGES) * turn.step + STAGES.index(name))
        async with self._telling(turn):
            yield

    @asynccontextmanager
    async def scoring(self, turn: Turn, name: str) -> AsyncIterator[None]:
        """As `stage`, around a call of an evaluation."""
        await self._wait(turn, 1 + len(SCORING) * turn.step + SCORING.index(name))
        async with self._telling(turn):
            yield

    @asynccontextmanager
    async def end(self, turn: Turn) -> AsyncIterator[None]:
        """Around the call that ends the phone's round; waits for its last step.

        Of an evaluation, which may have the round's and the attempt's numbers, the turn's step is how many it had.
        """
        await self._wait(turn, None if turn.step < 0 else 1 + len(SCORING) * turn.step)
        async with self._telling(turn):
            yield
        if self._at == _key(turn):
            self._done = OVER

    async def _wait(self, turn: Turn, place: int | None) -> None:
        if not self._one_by_one:
            async with self._changed:
                await self._changed.wait_for(lambda: self._is_due(turn, place))
        if self._at != _key(turn) or not self._is_due(turn, place):
            raise StateNotLoadedError(f"round {turn.round}, attempt {turn.attempt} is not under way")
        if self._failed is not None:
            raise self._failed

    def _is_due(self, turn: Turn, place: int | None) -> bool:
        if self._at != _key(turn):
            return self._at > _key(turn)  # else its load is still to come
        wanted = 1 + len(STAGES) * self._steps if place is None else place
        return self._failed is not None or self._done == wanted

    @asynccontextmanager
    async def _telling(self, turn: Turn) -> AsyncIterator[None]:
        try:
            yield
        except Exception as error:
            if self._at == _key(turn):
                self._failed = error
                await self._notify()
            raise
        if self._at == _key(turn):
            self._done += 1
            await self._notify()

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()


def _key(turn: Turn) -> tuple[int, int]:
    return turn.attempt, turn.round
