"""Refuses calls for which an actor does not hold the right state, and keeps account of its time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from actors.process_memory import trim
from ray_split.errors import StateNotLoadedError
from ray_split.messages.message import Message
from ray_split.messages.report import Spent
from ray_split.messages.turn import Turn


class Guard:
    """After an exception Ray lets an actor go on with its next call. This one refuses, until state is loaded.

    It refuses with the exception that came first: whichever call's result is looked at tells what went wrong.
    """

    def __init__(self, who: str) -> None:
        self.who = who
        self._holds: tuple[int, int] | None = None
        self._failed: tuple[tuple[int, int], BaseException] | None = None
        self._free = time.time()  # when the last call ended
        self._spent = Spent()

    def loaded(self, turn: Turn) -> bool:
        """From now on calls for this round and attempt are right. Says whether they weren't before."""
        fresh = self._holds != (turn.round, turn.attempt)
        self._holds, self._failed = (turn.round, turn.attempt), None
        if fresh:
            trim()
        return fresh

    @contextmanager
    def loading(self, turn: Turn) -> Iterator[None]:
        """Around what `loaded` comes after: if it raises, the turn's calls raise the same."""
        try:
            yield
        except BaseException as error:
            self._holds, self._failed = None, ((turn.round, turn.attempt), error)
            raise

    def begin(self) -> None:
        """Begin a round's account of time."""
        self._spent, self._free = Spent(), time.time()

    def spent(self, turn: Turn) -> Spent:
        """Where the time went since this round and attempt were loaded; nowhere, if they weren't."""
        return self._spent if self._holds == (turn.round, turn.attempt) else Spent()

    @contextmanager
    def failing(self, turn: Turn) -> Iterator[None]:
        """Around what a call does with others: if it raises, the turn's calls after it raise the same."""
        try:
            yield
        except BaseException as error:
            at = (turn.round, turn.attempt)
            if self._holds == at:
                self._holds, self._failed = None, (at, error)
            raise

    @contextmanager
    def during(self, turn: Turn, *arrived: Message) -> Iterator[None]:
        """Around every call. Raises StateNotLoadedError; if the call raises, those after it raise the same."""
        at = (turn.round, turn.attempt)
        if self._failed is not None and self._failed[0] == at:
            raise self._failed[1]
        if self._holds != at:
            wanted = f"round {turn.round}, attempt {turn.attempt}"
            raise StateNotLoadedError(f"{self.who} has no state for {wanted}; it holds {self._holds}")
        start = time.time()
        with self.failing(turn):
            yield
        sent = max((message.at for message in arrived), default=0.0)
        before, self._free = self._free, time.time()
        self._spent = Spent(
            self._spent.compute + self._free - start,
            self._spent.waiting + max(0.0, sent - before),
            self._spent.transfer + (max(0.0, start - max(sent, before)) if arrived else 0.0),
        )
