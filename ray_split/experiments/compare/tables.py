"""A comparison's table as text: CSV for programs, Markdown and LaTeX for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ray_split.experiments import tables
from ray_split.experiments.compare.results import COLUMNS, Line, is_personal, label

PERSONAL, FAILED = "†", "‡"  # tables.LATEX has them too


def to_csv(table: Sequence[Line], target: float | None) -> str:
    """The table as plain numbers: bytes, seconds, a column for each mean and each standard deviation."""
    return tables.to_csv([_csv_row(line, target) for line in table])


def _csv_row(line: Line, target: float | None) -> dict[str, Any]:
    counts = {"finished": line.finished, "failed": len(line.failed), "personal": int(is_personal(line.schedule))}
    reached = {"target": target, "reached": line.cells["rounds_to_target"].runs}
    numbers = {f"{name}_{kind}": getattr(c, kind) for name, c in line.cells.items() for kind in ("mean", "std")}
    return {"schedule": line.schedule, **counts, **reached, **numbers}


def to_markdown(table: Sequence[Line], target: float | None) -> str:
    """The table for people, its columns aligned, with its footnotes."""
    lines = tables.aligned([[text.replace("|", "\\|") for text in line] for line in _texts(table, target)])
    first, *others = map(len, lines[0])
    rule = ["-" * first, *("-" * (width - 1) + ":" for width in others)]
    return tables.to_markdown(lines, rule) + "".join(f"\n{note}\n" for note in notes(table))


def to_latex(table: Sequence[Line], target: float | None) -> str:
    r"""The table as a tabular with booktabs' rules, for \input."""
    return tables.to_latex(_texts(table, target), notes(table))


def notes(table: Sequence[Line]) -> list[str]:
    """What has to be said below the table."""
    found = ["up, down and weights: bytes for one phone in one round; to the target: bytes of all phones and kinds"]
    if any(is_personal(line.schedule) for line in table):
        found.append(f"{PERSONAL} accuracies are means over the phones' own models, each on samples of its phone")
    for line in table:
        found += [f"{FAILED} {label(line.schedule)} seed {seed} failed: {why}" for seed, why in line.failed.items()]
    return found


def _texts(table: Sequence[Line], target: float | None) -> list[list[str]]:
    """Head and body of the table for people."""
    goal = "target" if target is None else f"{target:.4g}"
    units = {name: _unit([line.cells[name].mean for line in table]) for name in COLUMNS if name.startswith("bytes")}
    up, down, weights = (f"{kind} ({units[f'bytes_{kind}_per_phone_round'][1]})" for kind in ("up", "down", "weights"))
    spent = ["rounds", units["bytes_to_target"][1], "training s"]
    head = ["schedule", "test accuracy", *(f"{what} to {goal}" for what in spent), up, down, weights, "phone-rounds/s"]
    return [head, *([_name(line), *_cells(line, units)] for line in table)]


def _name(line: Line) -> str:
    marks = PERSONAL * is_personal(line.schedule) + FAILED * bool(line.failed)
    return label(line.schedule) + marks


def _cells(line: Line, units: dict[str, tuple[float, str]]) -> list[str]:
    if not line.finished:
        return ["failed", *("-" for _ in list(COLUMNS)[1:])]
    texts = []
    for name, (mean, std, runs) in line.cells.items():
        if name == "accuracy":
            texts.append(tables.with_spread(mean, std))
            continue
        partly = f" ({runs} of {line.finished})" if "target" in name and 0 < runs < line.finished else ""
        scaled = None if mean is None else mean / units.get(name, (1.0, ""))[0]
        texts.append(tables.figures(scaled) + partly)
    return texts


def _unit(values: Sequence[float | None]) -> tuple[float, str]:
    """What a column of bytes is divided by for its largest to be readable, and what it then is in."""
    largest = max((value for value in values if value is not None), default=0.0)
    return next(((size, unit) for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")) if largest >= size), (1.0, "B"))
