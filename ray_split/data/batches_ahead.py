"""Batches that are made ahead, by threads, while whoever trains on them computes or waits (data.decoders)."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal

from ray_split.data.stream import Stream
from ray_split.data.types import LazyInputs
from ray_split.messages.turn import Turn

THREADS = "decoder"
"""How their names begin."""

Key = tuple[int, tuple[int, ...], int]


def decoders_of(asked: int | Literal["auto"], inputs: Any) -> int:
    """How many threads make batches ahead: where it isn't said one, if samples are read one by one and threads may.

    Of arrays a batch is there in microseconds.
    """
    return asked if asked != "auto" else int(isinstance(inputs, LazyInputs) and inputs.thread_safe)


class BatchesAhead:
    """Of each cohort under way as many of the next batches as there are threads."""

    def __init__(self, threads: int) -> None:
        self.depth = threads
        self._threads = ThreadPoolExecutor(threads, THREADS)
        self._begun: dict[Key, Future[Any]] = {}

    def begin(self, turn: Turn, make: Callable[[], Any]) -> None:
        """Let a thread make a turn's batches, if none does yet."""
        if _key(turn) not in self._begun:
            self._begun[_key(turn)] = self._threads.submit(make)

    def take(self, turn: Turn, make: Callable[[], Any]) -> Any:
        """A turn's batches, begun before or now: all are made by threads. Raises what making them raised."""
        self.begin(turn, make)
        return self._begun.pop(_key(turn)).result()

    def drop(self, phones: tuple[int, ...] | None = None) -> None:
        """Forget what was begun for these phones, or for all."""
        for key in [key for key in self._begun if phones is None or key[1] == phones]:
            self._begun.pop(key).cancel()

    def end(self) -> None:
        """Let the threads end, each once it is done with what it makes now."""
        self.drop()
        self._threads.shutdown(wait=False)


def _key(turn: Turn) -> Key:
    """Not of the attempt: it changes no draw."""
    return turn.round, turn.phones, turn.step


def next_in_turn(stream: Stream, turn: Turn, clients: int) -> Turn | None:
    """Where phones train one after the other, dealt to `clients`: the turn with which the same one's next begins."""
    reached = stream.fate(turn.round).reached
    phones = [phone for phone in stream.phones(turn.round) if phone in reached]
    place = phones.index(turn.phones[0]) + clients if turn.phones[0] in phones else len(phones)
    return turn._replace(phones=(phones[place],), step=0) if place < len(phones) else None
