"""What can go wrong, by kind, and how often it may. Carrying out what follows is round_runner.py's."""

from __future__ import annotations

import math
import re
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

# What a model or a loss raises when it is given data that it isn't made for: of classes of its own too.
MISFITS = (Exception,)

# What somebody's function may raise where it is called for the first time: whatever it is, a setting named it.
BROKEN = (Exception, SystemExit)


SECRET = re.compile(r"([?&][^=&\s]*(?:secret|token|password|sas|sig|key)[^=&\s]*=)[^&\s'\"]*", re.IGNORECASE)
SLOPPY_USER = re.compile(r"(?<=://)[^\s'\"@?]*:[^\s'\"@?]*@")  # also where a secret's / should have been written %2F

LONGEST = 120  # characters of a value that are shown
MOST_ALLOWED = 2000


class SettingsError(ValueError):
    """A person's mistake: one line that names the field, what it was and what it may be. Exit status 2."""

    def __init__(self, field: str, value: Any, allowed: str) -> None:
        super().__init__(field, value, allowed)
        self.field, self.value, self.allowed = field, value, allowed

    def __str__(self) -> str:
        shown = masked(brief(self.value, 4 * LONGEST))  # before it is cut: a part of a secret is one too
        allowed = masked(self.allowed)[:MOST_ALLOWED]
        line = f"{_cut(self.field)}: {_cut(shown)} is not possible; it may be {allowed}"
        return " ".join(line.splitlines())


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


def brief(value: Any, most: int) -> str:
    """As repr() has it, or the beginning of that: no more is made of a value than is shown."""
    shown = ""
    for part in _pieces(value):
        shown += part
        if len(shown) > most:
            break
    return shown


def _pieces(value: Any) -> Iterator[str]:
    if type(value) in (list, tuple):
        opens, closes = ("[", "]") if isinstance(value, list) else ("(", ",)" if len(value) == 1 else ")")
        yield opens
        for number, each in enumerate(value):
            yield ", " * (number > 0)
            yield from _pieces(each)
        yield closes
    elif type(value) is dict:
        yield "{"
        for number, (key, each) in enumerate(value.items()):
            yield ", " * (number > 0)
            yield from _pieces(key)
            yield ": "
            yield from _pieces(each)
        yield "}"
    elif isinstance(value, int) and value.bit_length() > 4 * LONGEST:
        yield f"a number of {int(value.bit_length() * math.log10(2)) + 1} digits"
    else:
        yield repr(value[: 8 * LONGEST] if isinstance(value, str | bytes) else value)


def told(error: BaseException) -> str:
    """An error of somebody's code in one line, with the place that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {' '.join(str(error).split()[:40])}{place}"


def first_line(error: BaseException) -> str:
    """The first line of what an error says; libraries can be long-winded."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class StateNotLoadedError(RuntimeError):
    """A call for a round whose start state this actor doesn't hold: it is new, or an earlier call failed."""


class ActorLostError(RuntimeError):
    """An actor died (its process, or its node). The round can be run again."""


class BadPhoneError(RuntimeError):
    """A phone sent what it may not send, or its data can't be read. The round can be run again without it."""

    def __init__(self, phones: tuple[int, ...], reason: str) -> None:
        super().__init__(phones, reason)
        self.phones, self.reason = tuple(int(phone) for phone in phones), reason

    def __str__(self) -> str:
        shown = ", ".join(map(str, self.phones[:10])) + (", ..." if len(self.phones) > 10 else "")
        return f"{'phone' if len(self.phones) == 1 else 'phones'} {shown}: {self.reason}"


class DivergedError(RuntimeError):
    """What all phones share is not finite any more, and it is no phone's fault alone."""


class RunFailedError(RuntimeError):
    """The run ended before its last round. The last checkpoint stands."""


class OutOfTimeError(RunFailedError):
    """The run has lasted for run.max_hours: what it has completed is written, and it can be resumed."""

    def __init__(self, hours: float) -> None:
        super().__init__(f"run.max_hours, {hours:g}, is over; --run.resume goes on, for as many hours again")


class RunStoppedError(KeyboardInterrupt):
    """The run was asked to stop, by SIGINT or SIGTERM. A KeyboardInterrupt, so that no handler for errors eats it."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.signal_number = signal_number


class Failures:
    """The lost actors that a run has survived, up to run.max_failures (as Ray Train's FailureConfig)."""

    def __init__(self, most: int) -> None:
        self._most = most  # -1: any number
        self._count = 0
        self._deaths: Counter[str] = Counter()

    def add(self, error: ActorLostError) -> None:
        """Count a failure. Raises RunFailedError if there were too many."""
        self._count += 1
        if self._count > self._most >= 0:
            before = ", ".join(f"{name} ({times})" for name, times in self._deaths.items())
            died = f"; before that died: {before}" if before else ""
            raise RunFailedError(f"more than run.max_failures {self._most} failures: {error}{died}") from error

    def died(self, names: Iterable[str]) -> None:
        """Who it was that died."""
        self._deaths.update(names)


def masked(text: str) -> str:
    """A message without the credentials of URIs in it."""
    return SECRET.sub(r"\1", SLOPPY_USER.sub("", text)) if "://" in text else text
