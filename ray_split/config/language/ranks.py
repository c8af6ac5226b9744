"""The ranks of phones' adapters, as people type them: by device, or a mix by weights."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, ValidationError

from ray_split.config.fields import Count, Positive, Section, typed
from ray_split.config.validation import one_line
from ray_split.errors import SettingsError, shown

EXAMPLE = "[{of: 4, weight: 3}, {of: 16, weight: 1}]"


class RankShare(Section):
    """A part of a mix: so many of the phones, by weight, have this rank."""

    of: Count
    weight: Positive = 1.0


def _parsed(value: Any) -> Any:
    """On a command line mappings and lists are YAML."""
    if isinstance(value, str):
        value = typed(value, f"a mix such as {EXAMPLE}")
    if isinstance(value, list) and value:
        return [_share(part) for part in value]
    if isinstance(value, dict) and value:
        return {str(name): _share({"of": rank}).of for name, rank in value.items()}
    if value is not None:
        do = f"a rank for each device, such as {{low_end: 4, mid_range: 16}}, or a mix such as {EXAMPLE}"
        raise SettingsError("", value, do)
    return value


def _share(part: Any) -> RankShare:
    if isinstance(part, RankShare):
        return part
    do = f"Write a mix such as {EXAMPLE}"
    if not isinstance(part, dict) or not part.keys() <= RankShare.model_fields.keys() or "of" not in part:
        raise SettingsError("", part, do, f"{shown(part)} is no part of a mix, which has of and weight")
    try:
        return RankShare.model_validate(part)
    except ValidationError as error:
        told = one_line(error, RankShare)
        raise SettingsError("", part, do, f"in {shown(part)} {told.field} {told.fault}") from None


Ranks = Annotated[dict[str, Count] | list[RankShare] | None, BeforeValidator(_parsed)]
"""By device, or a mix; none: all phones have the same."""
