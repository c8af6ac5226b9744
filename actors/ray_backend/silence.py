"""For how long actors have been silent, and when to say that something is waited for. Knows no Ray and no clock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

LOOK_SECONDS = 5.0  # between two looks at the actors that are waited for; and between two signs that they give
TELL_SECONDS = 120.0  # of waiting, before it is told; then after twice as long, and so on
FIRST_SECONDS = 120.0  # at least, for a process's first sign: it loads torch before


def period(silent_seconds: float | None) -> float:
    """Seconds between two signs, or two looks: a few in the time after which an actor is replaced."""
    return LOOK_SECONDS if silent_seconds is None else min(LOOK_SECONDS, silent_seconds / 4)


class Silence:
    """Counts the seconds in which an actor's sign did not change.

    They are those that pass here, and no more than `most` from one look to the next: when this process, or the whole
    machine, was stopped meanwhile, nobody else could be heard.
    """

    def __init__(self, most: float) -> None:
        self._most = most
        self._last: float | None = None  # when the actors were looked at
        self._signs: dict[str, object] = {}
        self._seconds: dict[str, float] = {}

    def look(self, signs: Mapping[str, object], now: float) -> dict[str, float]:
        """The seconds of silence of each actor, from its last sign."""
        passed = 0.0 if self._last is None else min(now - self._last, self._most)
        self._last = now
        for actor, sign in signs.items():
            heard = actor not in self._signs or self._signs[actor] != sign
            self._seconds[actor] = 0.0 if heard else self._seconds[actor] + passed
            self._signs[actor] = sign
        return {actor: self._seconds[actor] for actor in signs}

    def rest(self) -> None:
        """Nobody is waited for: the time until the next look doesn't count."""
        self._last = None


def too_long(seconds: Mapping[str, float], signs: Mapping[str, object], limit: float | None) -> list[str]:
    """The actors that have been silent for too long. One that never gave a sign has more time: it is starting."""
    if limit is None:
        return []
    first = max(limit, FIRST_SECONDS)
    return [actor for actor, silent in seconds.items() if silent > (limit if signs[actor] is not None else first)]


def waits(seconds: float, awaited: Iterable[str], silent: Mapping[str, float]) -> str:
    """'waits for client 0 and client 1 since 120 s; no sign of life from server for 118 s'."""
    text = f"waits for {', '.join(awaited) or 'the actors'} since {seconds:.0f} s"
    quiet = [f"{name} for {count:.0f} s" for name, count in silent.items()]
    return text + (f"; no sign of life from {', '.join(quiet)}" if quiet else "; all give signs of life")
