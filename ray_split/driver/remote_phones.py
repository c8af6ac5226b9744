"""Remote phones at the beginning of a round or of an evaluation: they are waited for, and it begins without those that
don't come.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence, Set
from typing import Any

from ray_split import config, logs
from ray_split.data.stream import Stream
from ray_split.driver.backend import Backend
from ray_split.errors import listed

SLICE = 1.0  # seconds that are waited at a time: a stop is looked at in between
REMIND = 30.0  # seconds from one line to the next while there are too few

logger = logs.get(__name__)

LOOK = 5.0  # seconds from one look at the devices to the next, in a round

Absent = Callable[[int, tuple[int, ...], str], None]
"""A round, the phones that are off in it, and why."""

Seen = Callable[[int, list[dict[str, Any]]], None]
"""A round, and how it stands with the devices."""


class RemotePhones:
    """Those of a run, and how long they are waited for."""

    def __init__(self, settings: config.Config, stream: Stream, backend: Backend, absent: Absent, seen: Seen) -> None:
        run = settings.run
        self._few, self._seconds, self._rounds = run.min_phones, run.wait_for_phones, run.rounds
        self._stream, self._backend, self._absent = stream, backend, absent
        self._seen, self._looked = seen, 0.0
        self._before: dict[str, int] = {}
        self._gone = set[int]()  # from the evaluation under way

    def gather(self, round: int) -> None:
        """Wait until a round's remote phones are there; those that are not are off in it."""
        gateway = self._backend.roles.gateway
        wanted = [phone for phone in self._stream.phones(round) if phone in self._stream.remote]
        if gateway is None or not wanted:
            return
        self._tell("waiting", f"waiting for round {round + 1} of {self._rounds}", round)
        start, said = time.monotonic(), 0.0
        while True:
            there = self._there(wanted, min(SLICE, self._seconds))
            missing, waited = sorted(set(wanted) - set(there)), time.monotonic() - start
            enough = len(self._stream.phones(round)) - len(missing) >= self._few
            if not missing or (waited >= self._seconds and enough):
                break
            if waited - said >= REMIND or not said:
                said = waited or SLICE
                _say(round, missing, enough)
        if missing:
            self._absent(round, tuple(missing), f"not connected within {self._seconds:g} seconds (run.wait_for_phones)")
        self._tell("training", f"training, round {round + 1} of {self._rounds}", round)

    def look(self, round: int, now: bool = False) -> None:
        """Tell how it stands with devices, if that was told some seconds ago, or is to be told `now`."""
        gateway = self._backend.roles.gateway
        if gateway is not None and (now or time.monotonic() - self._looked > LOOK):
            (devices,) = self._backend.get([gateway.devices.remote()])
            self._looked = time.monotonic()
            self._seen(round, devices)

    def begin_evaluation(self) -> None:
        """Nobody is gone from it yet."""
        self._gone.clear()

    def pass_over(self, round: int, phones: tuple[int, ...], reason: str) -> None:
        """Evaluate without these phones, once. They go on training: nothing of it depends on an evaluation."""
        self._gone |= set(phones)
        are = "are" if len(phones) > 1 else "is"
        logger.warning("after round %d %s %s not scored: %s", round, _named(phones), are, reason)

    def gone(self, round: int) -> frozenset[int]:
        """The remote phones that an evaluation of the start of `round` is without.

        As a round, it waits for those that are not there; but not for those that were off in the round before.
        """
        if self._backend.roles.gateway is None:
            return frozenset()
        stream = self._stream
        left_out = {phone for phone in stream.left_out if stream.is_left_out(phone, round - 1)}
        wanted = stream.remote - self._gone - left_out - stream.not_evaluated
        self._wait_for(wanted - stream.absent.get(round - 1, set()))
        return stream.remote - frozenset(self._there(wanted, 0.0))

    def _wait_for(self, wanted: Set[int]) -> None:
        start = time.monotonic()
        while wanted - set(self._there(wanted, min(SLICE, self._seconds))):
            if time.monotonic() - start >= self._seconds:
                return

    def _there(self, wanted: Iterable[int], seconds: float) -> list[int]:
        """Those that are connected, once all are, or after so many seconds."""
        gateway = self._backend.roles.gateway
        found: list[int] = self._backend.get([gateway.wait_for.remote(sorted(wanted), seconds)])[0]  # type: ignore[union-attr]
        return found

    def crossed(self) -> dict[str, int]:
        """Columns: what crossed between the gateway and devices since this was asked last."""
        gateway = self._backend.roles.gateway
        if gateway is None:
            return {}
        (now,) = self._backend.get([gateway.traffic.remote()])
        # A gateway that replaces one that died counts from 0.
        before = self._before if all(now[name] >= count for name, count in self._before.items()) else {}
        self._before = now
        return {f"device_{name}": count - before.get(name, 0) for name, count in now.items()}

    def _tell(self, state: str, text: str, round: int) -> None:
        self._backend.get([self._backend.roles.gateway.tell.remote(state, text, round)])  # type: ignore[union-attr]


def _named(phones: Sequence[int]) -> str:
    """The first ten by their numbers."""
    return f"phone{'s' * (len(phones) > 1)} {listed(map(str, phones[:10]))}{', ...' * (len(phones) > 10)}"


def _say(round: int, missing: Sequence[int], enough: bool) -> None:
    more = "" if enough else ", without which there are too few (run.min_phones)"
    logger.warning("round %d waits for %s%s", round + 1, _named(missing), more, extra=logs.about(round, missing))
