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

NUMBER = re.compile(r"[-+]?(\d{1,40}\.?\d{0,40}|\.\d{1,40})(e[-+]?\d{1,5})?", re.IGNORECASE | re.ASCII)
LONGEST = 120  # characters of a value that are shown
MOST_SAID = 2000


class SettingsError(ValueError):
    """A person's mistake, in one line: the field as they wrote it, what is wrong, what to do. Exit status 2.

    Without `wrong` the line is "FIELD: must be ALLOWED, not VALUE.". Where that would read badly, `wrong` says what is
    wrong, as what follows the field's name ("is not set") or on its own ("there is no ..."), and `allowed` is a
    sentence: what there is, or what to do. A validator may raise it without a field; of a mistake in the words of a
    command line, which no flag has, there is none.
    """

    def __init__(self, field: str, value: Any, allowed: str, wrong: str = "", note: str = "") -> None:
        super().__init__(field, value, allowed, wrong, note)
        self.field, self.value, self.allowed, self.wrong, self.note = field, value, allowed, wrong, note

    def __str__(self) -> str:
        wrong = self.fault
        wrong = f"{wrong.rstrip('.')} ({self.note})" if self.note else wrong
        sentences = (wrong, self.allowed.strip() if self.wrong else "")
        said = " ".join(sentence(masked(each)[:MOST_SAID]) for each in sentences if each)
        named = not self.field or self.wrong.endswith(f"'{self.field}'")  # once is enough
        return " ".join((said if named else f"{_cut(self.field)}: {said}").splitlines())

    @property
    def fault(self) -> str:
        """What is wrong, without what to do."""
        if self.wrong:
            return self.wrong
        if self.value is None or self.value == "":
            return f"is {'not set' if self.value is None else 'empty'}, but must be {self.allowed}"
        return f"must be {self.allowed}, not {shown(self.value)}"

    def of(self, field: str) -> SettingsError:
        """The same of another field, such as the flag that was typed."""
        return SettingsError(field, self.value, self.allowed, self.wrong, self.note)

    def with_note(self, note: str) -> SettingsError:
        """The same of a place, which the note tells: the point of a sweep, a run of a comparison, a line of a file."""
        return SettingsError(self.field, self.value, self.allowed, self.wrong, note)


def listed(words: Iterable[str], last: str = "and") -> str:
    """Words as a sentence has them: `a, b and c`."""
    *most, end = [*words] or ["nothing"]
    return f"{', '.join(most)} {last} {end}" if most else end


def sentence(text: str) -> str:
    """With a full stop, if it doesn't end."""
    return text if text.endswith((".", "?", "!")) else f"{text}."


def shown(value: Any) -> str:
    """A value as a line of an error has it: without credentials, and cut off where it is long."""
    if isinstance(value, bool):
        return str(value).lower()  # as in YAML
    if isinstance(value, str) and NUMBER.fullmatch(value):
        return value  # a flag's text
    return _cut(masked(brief(value, 4 * LONGEST)))  # masked before it is cut: a part of a secret is one too


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
    return f"{_words(error)}{place}"


def failed(name: str, error: BaseException) -> str:
    """What is said of somebody's function that raised: the file and line of theirs, and the error."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{name} failed{place} with {_words(error)}"


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split()[:40])}"


def first_line(error: BaseException) -> str:
    """The first line of what an error says; libraries can be long-winded."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class StateNotLoadedError(RuntimeError):
    """A call for a round whose start state this actor doesn't hold: it is new, or an earlier call failed."""


class ActorLostError(RuntimeError):
    """An actor died (its process, or its node). The round can be run again."""


class DeviceMemoryError(RuntimeError):
    """A GPU has no room for what a call computes: the server's. The round can be run again in smaller pieces."""


class ClientMemoryError(DeviceMemoryError):
    """A client's GPU has no room for its part of the model. The round can be run again with fewer cohorts at once."""

    def __init__(self, phones: tuple[int, ...], part: str, device: str, reason: str) -> None:
        """`phones`: that are computed at once; none: it evaluates what all have in common. `part`: such as 'A'."""
        super().__init__(phones, part, device, reason)
        self.phones, self.part, self.device, self.reason = phones, part, device, reason

    def __str__(self) -> str:
        whose = f" of {named(self.phones)}" if self.phones else ""
        return f"{self.device} has no room for {self.part}{whose} ({self.reason})"


class PhonesError(RuntimeError):
    """What went wrong with some phones. The round can be run again without them."""

    def __init__(self, phones: tuple[int, ...], reason: str) -> None:
        super().__init__(phones, reason)
        self.phones, self.reason = tuple(int(phone) for phone in phones), reason

    def __str__(self) -> str:
        return f"{named(self.phones)}: {self.reason}"


def named(phones: tuple[int, ...]) -> str:
    """Phones, for people; of many the first."""
    shown = ", ".join(map(str, phones[:10])) + (", ..." if len(phones) > 10 else "")
    return f"{'phone' if len(phones) == 1 else 'phones'} {shown}"


class BadPhoneError(PhonesError):
    """A phone sent what it may not send, or its data can't be read. The round can be run again without it."""


class PhoneGoneError(PhonesError):
    """A remote phone left in the middle of a round, which can be run again without it. It may be in the next one."""


class DivergedError(RuntimeError):
    """What all phones share is not finite any more, and it is no phone's fault alone."""


class RunFailedError(RuntimeError):
    """The run ended before its last round. The last checkpoint stands."""


class CallbackError(RunFailedError):
    """A callback raised: what the run has completed is written, and it can be resumed."""


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
            raise RunFailedError(f"more failures than run.max_failures, {self._most}: {error}{died}") from error

    def died(self, names: Iterable[str]) -> None:
        """Who it was that died."""
        self._deaths.update(names)


def masked(text: str) -> str:
    """A message without the credentials of URIs in it."""
    return SECRET.sub(r"\1", SLOPPY_USER.sub("", text)) if "://" in text else text
