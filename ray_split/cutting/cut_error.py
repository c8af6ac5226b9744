"""What is said of a model that can't be cut as asked."""

from __future__ import annotations

from typing import Any

from ray_split.errors import SettingsError

ADVICE = "put these lines into a layer of their own, which stays whole, or give your own Segments(a, b, c)"


class CutError(SettingsError):
    """This model can't be cut there; the message says what can."""

    def __init__(self, value: Any, allowed: str) -> None:
        super().__init__("model.cuts", value, allowed)

    def __reduce__(self) -> tuple[type[CutError], tuple[Any, str]]:
        return CutError, (self.value, self.allowed)  # it crosses processes, in a sweep
