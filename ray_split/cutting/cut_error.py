"""What is said of a model that can't be cut as asked."""

from __future__ import annotations

from typing import Any

from ray_split.errors import SettingsError

DRAW_FROM_TORCH = "Use torch's random functions instead, such as torch.rand"
OTHER = "Cut after other layers"
ADVICE = "move these lines into a layer of their own, or return rs.Segments(a, b, c) from the model's function"


class CutError(SettingsError):
    """This model can't be cut there; the message says what can."""

    def __init__(self, value: Any, allowed: str, wrong: str = "") -> None:
        super().__init__("model.cuts", value, allowed, wrong)

    def __reduce__(self) -> tuple[type[CutError], tuple[Any, str, str]]:
        return CutError, (self.value, self.allowed, self.wrong)  # it crosses processes, in a sweep
