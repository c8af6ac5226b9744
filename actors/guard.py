"""Refuses calls for which an actor does not hold the right state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ray_split.draws import Turn
from ray_split.failure import StateNotLoadedError


class Guard:
    """After an exception Ray lets an actor go on with its next call. This one refuses, until state is loaded."""

    def __init__(self, who: str) -> None:
        self.who = who
        self._holds: tuple[int, int] | None = None

    def loaded(self, turn: Turn) -> None:
        """From now on calls for this round and attempt are right."""
        self._holds = (turn.round, turn.attempt)

    @contextmanager
    def during(self, turn: Turn) -> Iterator[None]:
        """Around every call. Raises StateNotLoadedError; if the call raises, those after it are refused."""
        if self._holds != (turn.round, turn.attempt):
            wanted = f"round {turn.round}, attempt {turn.attempt}"
            raise StateNotLoadedError(f"{self.who} has no state for {wanted}; it holds {self._holds}")
        try:
            yield
        except BaseException:
            self._holds = None
            raise
