"""What `run.stop` may hold: limits on columns of a run's rows, and how long to wait for a better validation."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator

from ray_split.config import fields
from ray_split.errors import SettingsError, shown

PATIENCE = "patience"
LIMIT = re.compile(r"(<=|>=)\s*(\S+)")
LOWER_IS_BETTER = re.compile(r".*loss|(val_)?(mse|mae|perplexity)")


class Condition(NamedTuple):
    """A column of the rows, and the value at which a run has come far enough."""

    column: str
    sign: str  # >= or <=
    limit: float

    def is_met(self, row: Mapping[str, Any]) -> bool:
        """Whether a round's row meets it; one without a number there doesn't."""
        value = row.get(self.column)
        if value is None or math.isnan(value):
            return False
        return bool(value >= self.limit if self.sign == ">=" else value <= self.limit)

    def __str__(self) -> str:
        return f"{self.column} {self.sign} {self.limit:g}"


def conditions(stop: Mapping[str, Any]) -> list[Condition]:
    """The limits that are set. A number is one to come up to; for a loss, mse, mae and perplexity to come down to.

    Raises ValueError for what is no limit.
    """
    return [_condition(column, value) for column, value in stop.items() if column != PATIENCE]


def _condition(column: str, value: Any) -> Condition:
    match = LIMIT.fullmatch(value.strip()) if isinstance(value, str) else None
    sign = match[1] if match else "<=" if LOWER_IS_BETTER.fullmatch(column) else ">="
    try:
        if isinstance(value, bool):
            raise ValueError
        limit = float(match[2] if match else value)
    except (TypeError, ValueError):
        limit = math.nan
    if math.isnan(limit):
        wrong = f"{column} must be a number, or one with its direction, such as '>=0.9' or '<=0.1', not {shown(value)}"
        raise SettingsError("", value, "", wrong)
    return Condition(column, sign, limit)


def _checked(stop: dict[str, Any]) -> dict[str, Any]:
    patience = stop.get(PATIENCE, 1)
    if type(patience) is not int or patience < 1:
        wrong = f"patience must be a whole number of evaluated rounds, at least 1, not {shown(patience)}"
        raise SettingsError("", patience, "", wrong)
    conditions(stop)
    return stop


Stop = Annotated[fields.Mapping, AfterValidator(_checked)]
