"""What can go wrong, by kind, and what to do about it. The decision is here; carrying it out is training.py's."""

from __future__ import annotations

import traceback
from enum import Enum
from pathlib import Path
from typing import Any

# What a model or a loss raises when it is given data that it isn't made for.
MISFITS = (RuntimeError, ValueError, IndexError, TypeError, AttributeError, NotImplementedError)


class SettingsError(ValueError):
    """A person's mistake: one line that names the field, what it was and what it may be. Exit status 2."""

    def __init__(self, field: str, value: Any, allowed: str) -> None:
        super().__init__(field, value, allowed)
        self.field, self.value, self.allowed = field, value, allowed

    def __str__(self) -> str:
        shown = repr(self.value)
        if len(shown) > 120:
            shown = shown[:117] + "..."
        return f"{self.field}: {shown} is not possible; it may be {self.allowed}"


def told(error: BaseException) -> str:
    """An error of somebody's code in one line, with the place that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {' '.join(str(error).split()[:40])}{place}"


class StateNotLoadedError(RuntimeError):
    """A call for a round whose start state this actor doesn't hold: it is new, or an earlier call failed."""


class ActorLostError(RuntimeError):
    """An actor died (its process, or its node). The round can be run again."""


class RunFailedError(RuntimeError):
    """The run ended before its last round. The last checkpoint stands."""


class RunStoppedError(KeyboardInterrupt):
    """The run was asked to stop, by SIGINT or SIGTERM. A KeyboardInterrupt, so that no handler for errors eats it."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.signal_number = signal_number


class Decision(Enum):
    RETRY = "retry"
    RAISE = "raise"


def decide(error: Exception, failures: int, max_failures: int) -> Decision:
    """Whether a failed round is run again: only if an actor died, and not too often (as Ray's FailureConfig)."""
    if not isinstance(error, ActorLostError):
        return Decision.RAISE
    within = max_failures < 0 or failures <= max_failures
    return Decision.RETRY if within else Decision.RAISE
