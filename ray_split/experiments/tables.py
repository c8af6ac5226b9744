"""Rows as text: CSV for programs, aligned columns and Markdown for people, and how numbers are written in them."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from ray_split.errors import SettingsError, first_line, shown
from ray_split.filesystem import Place, make_folder, write

Row = Mapping[str, Any]


def to_csv(rows: Sequence[Row]) -> str:
    """Rows as CSV, their numbers plain; the columns are those of the first."""
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def write_csv(tables: Mapping[str, Sequence[Row]], out: Place) -> None:
    """Write each table as a CSV file called after it into the folder, made if need be. Raises SettingsError."""
    try:
        make_folder(out)
        for name, rows in tables.items():
            write(out / f"{name}.csv", to_csv(rows).encode())
    except OSError as error:
        reason = error.strerror or first_line(error)
        raise SettingsError(
            "out", str(out), "Name another folder", f"{shown(str(out))} can't be written to: {reason}"
        ) from error


def aligned(lines: Sequence[Sequence[str]], left: int = 1) -> list[list[str]]:
    """Each column as wide as its widest text: the first `left` columns to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    columns = range(len(widths))
    return [[line[i].ljust(widths[i]) if i < left else line[i].rjust(widths[i]) for i in columns] for line in lines]


def to_lines(lines: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """As `aligned`, each line as one text."""
    return ["  ".join(line).rstrip() for line in aligned(lines, left)]


def to_markdown(lines: Sequence[Sequence[str]], rule: Sequence[str] | None = None) -> str:
    """The first line is the table's head; below it stands the rule, which is plain by default."""
    head, *body = lines
    return "".join(f"| {' | '.join(line)} |\n" for line in [head, rule or ["---"] * len(head), *body])


def to_latex(lines: Sequence[Sequence[str]], notes: Sequence[str] = ()) -> str:
    r"""A tabular with booktabs' rules, for \input: the first line is the table's head; notes stand below it."""
    head, *body = [[escaped(text) for text in line] for line in lines]
    count = len(head)
    below = [rf"\multicolumn{{{count}}}{{p{{0.9\linewidth}}}}{{\footnotesize {escaped(n)}}} \\" for n in notes]
    rows = [
        r"% needs \usepackage{booktabs}",
        rf"\begin{{tabular}}{{l{'r' * (count - 1)}}}",
        r"\toprule",
        " & ".join(head) + r" \\",
        r"\midrule",
        *(" & ".join(row) + r" \\" for row in body),
        r"\bottomrule",
        *below,
        r"\end{tabular}",
    ]
    return "\n".join(rows) + "\n"


LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    **{sign: f"\\{sign}" for sign in "_&%#${}"}, "<": r"\textless{}", ">": r"\textgreater{}",
    "±": r"$\pm$", "†": r"$^{\dagger}$", "‡": r"$^{\ddagger}$",
}  # fmt: skip


def escaped(text: str) -> str:
    """A text as LaTeX would have it."""
    return "".join(LATEX.get(sign, sign) for sign in text)


def with_spread(mean: float | None, std: float | None) -> str:
    """A mean, with its standard deviation if there is one."""
    if mean is None:
        return "-"
    return f"{mean:.4f}" if std is None else f"{mean:.4f} ± {std:.4f}"


def figures(value: float | None) -> str:
    """A number with three significant figures, or all that stand before the point; a dash for none."""
    if value is None:
        return "-"
    if not value or float(value).is_integer():
        return f"{value:.0f}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"
