"""Table 1 as text for people, in Markdown; docs/paper.md holds the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ray_split.experiments.paper.tables import ALONE, Errors, constant
from ray_split.experiments.paper.tables import errors as errors_of
from ray_split.experiments.tables import Row, to_markdown

NOT = "no fit"


def table_1(rows: Sequence[Row]) -> str:
    """A line a network: predicted seconds, the paper's in parentheses, and what the phone needs for all of it."""
    columns = list(dict.fromkeys(row["column"] for row in rows))
    head = ["network", "first cut", *columns, "A and C, MB", "all, MB"]
    body = []
    for found in _by_network(rows):
        needed = [f"{found[column]['phone_mb']:.0f}" for column in (columns[0], ALONE)]
        body.append([found[ALONE]["network"], found[columns[0]]["cut"], *map(_cell, found.values()), *needed])
    return to_markdown([head, *body])


def near(rows: Sequence[Row]) -> str:
    """A line a network: from the lowest to the highest that is predicted with the cut a layer of the stem apart."""
    columns = [column for column in dict.fromkeys(row["column"] for row in rows) if column != ALONE]
    body = [[found[ALONE]["network"], *(_reach(found[column]) for column in columns)] for found in _by_network(rows)]
    return to_markdown([["neighbouring cuts", *columns], *body])


def _by_network(rows: Sequence[Row]) -> list[dict[str, Row]]:
    names = dict.fromkeys(row["network"] for row in rows)
    return [{row["column"]: row for row in rows if row["network"] == name} for name in names]


def _cell(row: Row) -> str:
    ours = f"{row['predicted']:.2f}" if row["fits"] else NOT
    return f"{ours} ({NOT if row['paper'] is None else format(row['paper'], '.2f')})"


def _reach(row: Row) -> str:
    return f"{row['lowest']:.2f} to {row['highest']:.2f}"


def errors(rows: Sequence[Row]) -> str:
    """Of our prediction and of the constant one."""
    said: dict[str, Errors] = {"predicted": errors_of(rows), "constant (ResNet50's row for all)": constant(rows)}
    body = [[name, *(f"{error:.1%}" for error in found)] for name, found in said.items()]
    return to_markdown([["absolute error over the predicted cells", *Errors._fields], *body])


def held(found: Mapping[str, bool]) -> list[str]:
    """What the paper reports in words, and whether it holds here."""
    return [f"{'holds' if holds else 'FAILS'}: {what}" for what, holds in found.items()]
