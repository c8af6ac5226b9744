"""With weights that A and C of a phone share: what can't be said of one of the two alone."""

from __future__ import annotations

from ray_split import config
from ray_split.cutting.cut import Segments
from ray_split.errors import SettingsError, listed
from ray_split.segments.tied_weight import tied_names


def check_tied(settings: config.Config, segments: Segments) -> None:
    """See that a shared weight isn't frozen at one of its ends. Raises SettingsError."""
    if segments.c is None or not (tied := tied_names(segments.c)):
        return
    frozen = [name for name in ("a", "c") if name in settings.model.freeze]
    if len(frozen) == 1:
        both = told(tied)
        wrong = f"can't contain {frozen[0]} alone, because a weight is in both A and C ({both})"
        raise SettingsError("model.freeze", settings.model.freeze, "Freeze a and c, or neither", wrong)


def told(tied: dict[str, str]) -> str:
    """A weight by the names that it has in A and in C."""
    name, owner = next(iter(tied.items()))
    return listed(dict.fromkeys([owner, name]))
