"""A table as samples: numbers standardised, categories as numbers, text labels, and who each row is from.

`data.name table` reads a file; a data function returns `rs.Table(frame, target, ...)`, or (frame, "target").
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ray_split.arrays import Array
from ray_split.data.sources.conversion import is_of, shown
from ray_split.errors import SettingsError, told
from ray_split.memory_limit import check_fits

ONE_HOT = "one_hot"
MOST_UNASKED = 100  # different values that a column may have to become as many columns without being named
READERS = {".csv": "read_csv", ".gz": "read_csv", ".tsv": "read_table", ".parquet": "read_parquet"}


@dataclass(frozen=True)
class Table:
    """A pandas DataFrame, and which of its columns are what.

    `target`: the labels: text or whole numbers are classes, numbers with a fraction values. `numeric`: columns of
    numbers, standardised by the training samples; none: all that are numbers, and not named elsewhere. `categories`:
    columns that become a column for each value, or by name what they become, 'one_hot' or the values in their order,
    which become one column of numbers, standardised too; none: all text. `group`: a column, or several, whose ids say
    who a row is from, for `data.partition.name natural`.
    """

    frame: Any
    target: str
    numeric: Sequence[str] | None = None
    categories: Mapping[str, str | Sequence[Any]] | Sequence[str] | None = None
    group: str | Sequence[str] = ()

    def __post_init__(self) -> None:
        if not is_of(self.frame, "pandas", "DataFrame"):
            raise TypeError(f"the frame of a Table is a pandas DataFrame, not {shown(self.frame)}")


class Arrays(NamedTuple):
    """A table's inputs (N, columns), labels (N,), and ids (N,) by kind."""

    inputs: Array
    labels: Array
    groups: dict[str, Array]


def table(
    target: str,
    path: str | Path | None = None,
    numeric: Sequence[str] | None = None,
    categories: Mapping[str, str | Sequence[Any]] | Sequence[str] | None = None,
    group: str | Sequence[str] = (),
) -> Table:
    """The rows of a file: CSV (.csv, .csv.gz, .tsv) or .parquet; `path` may be `data.path`. Raises SettingsError."""
    if path is None:
        raise SettingsError(
            "data.path", None, "Add --data.path FILE, where FILE is a .csv, .csv.gz, .tsv or .parquet", "is not set"
        )
    return Table(_read(Path(path).expanduser()), target, numeric, categories, group)


def _read(path: Path) -> Any:
    import pandas

    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise SettingsError("data.path", str(path), "a file whose name ends in .csv, .csv.gz, .tsv or .parquet")
    try:
        return getattr(pandas, reader)(path)
    except (OSError, ValueError) as error:
        raise SettingsError(
            "data.path",
            str(path),
            "Give another file, or repair this one",
            f"{str(path)!r} can't be read: {told(error)}",
        ) from error


def as_table(found: Any) -> Table | None:
    """What a data function returned, if it is a table with a column of labels."""
    if isinstance(found, Table):
        return found
    if isinstance(found, (tuple, list)) and len(found) == 2 and isinstance(found[1], str):
        return Table(*found) if is_of(found[0], "pandas", "DataFrame") else None
    return None


NO_COLUMN = "the table has no columns left to learn from, beside the target and the groups"


def arrays(name: str, given: Table, training: Array) -> Arrays:
    """A table as arrays, by the means and deviations of the rows `training`. Raises SettingsError."""
    columns = _Columns(name, given)
    inputs = [each for column in columns.numeric for each in columns.number(column, training)]
    for column, kind in columns.categories.items():
        inputs += columns.one_hot(column) if kind == ONE_HOT else columns.in_order(column, kind, training)
    if not inputs:
        raise columns.refused("numeric", "Name some in numeric or categories", NO_COLUMN)
    groups = {column: columns.text(column) for column in columns.groups}
    return Arrays(np.column_stack(inputs), columns.labels(), groups)


class _Columns:
    """A table's columns, and what each is."""

    def __init__(self, name: str, given: Table) -> None:
        self._name, self._frame = name, given.frame.set_axis([str(column) for column in given.frame.columns], axis=1)
        self._given = given
        self.groups = [given.group] if isinstance(given.group, str) else list(given.group)
        if self._frame.columns.has_duplicates:
            twice = self._frame.columns[self._frame.columns.duplicated()][0]
            raise self.refused("target", "Give the columns different names", f"the column {twice!r} is there twice")
        self._check_there()
        self._taken = {given.target, *self.groups}
        self.categories = dict(self._kinds())
        self.numeric = self._numbers()

    def refused(self, argument: str, allowed: str, wrong: str) -> SettingsError:
        """The line about what was told of the columns, or of what they hold."""
        if self._name == "table":
            return SettingsError("data.kwargs", {argument: getattr(self._given, argument)}, allowed, wrong)
        return SettingsError("data.name", self._name, allowed, wrong)

    def _check_there(self) -> None:
        named = {"target": [self._given.target], "group": self.groups, "numeric": self._given.numeric or (),
                 "categories": self._given.categories or ()}  # fmt: skip
        for argument, columns in named.items():
            if unknown := [column for column in columns if column not in self._frame.columns]:
                known = ", ".join(self._frame.columns[:20])
                wrong = f"{argument} names the column {unknown[0]!r}, which is not there"
                raise self.refused(argument, f"The columns are {known}", wrong)

    def _kinds(self) -> Iterator[tuple[str, Any]]:
        """What each column of categories becomes."""
        named = self._given.categories
        if named is not None:
            yield from named.items() if isinstance(named, Mapping) else ((column, ONE_HOT) for column in named)
            return
        for column in self._left(self._given.numeric or ()):
            if not _is_number(self._frame[column]):
                self._check_kind(column)
                if (count := self._frame[column].nunique()) > MOST_UNASKED:
                    wrong = f"the column {column!r} has {count} different values, which is too many for categories"
                    raise self.refused("categories", "Name the columns to use in categories (or in numeric)", wrong)
                yield column, ONE_HOT

    def _check_kind(self, column: str) -> None:
        """See that a column's values are such that a category can be one: no times, and no lists."""
        import pandas

        values = self._frame[column]
        leave = f"leave it out, frame.drop(columns=[{column!r}])"
        if pandas.api.types.is_datetime64_any_dtype(values) or pandas.api.types.is_timedelta64_dtype(values):
            part = "dt.dayofyear" if pandas.api.types.is_datetime64_any_dtype(values) else "dt.total_seconds()"
            do = f"Make a number of it, as frame[{column!r}].{part}, {leave}, or name it in categories"
            raise self.refused("categories", do, f"the column {column!r} has times")
        if (unhashable := next((each for each in values if not isinstance(each, Hashable)), None)) is not None:
            wrong = f"the column {column!r} has a {type(unhashable).__name__} in a row"
            raise self.refused("categories", f"Make columns of numbers or words of it, or {leave}", wrong)

    def _numbers(self) -> list[str]:
        if self._given.numeric is not None:
            return list(self._given.numeric)
        return [column for column in self._left(self.categories) if _is_number(self._frame[column])]

    def _left(self, others: Sequence[str] | Mapping[str, Any]) -> list[str]:
        return [column for column in self._frame.columns if column not in self._taken and column not in others]

    def _whole(self, column: str) -> Any:
        """A column that has a value in each row. Raises SettingsError."""
        values = self._frame[column]
        gaps = values.isna().to_numpy()
        if gaps.any():
            wrong = (
                f"the column {column!r} has no value in row {int(gaps.argmax())} ({int(gaps.sum())} such rows in all)"
            )
            allowed = "Fill in missing values (frame.fillna), or drop those rows or the column"
            raise SettingsError("data.name", self._name, allowed, wrong)
        return values

    def number(self, column: str, training: Array) -> list[Array]:
        """A column of numbers, standardised. Raises SettingsError."""
        values = self._whole(column)
        if not _is_number(values):
            wrong = f"numeric names the column {column!r}, but its row 0 has {values.iloc[0]!r}"
            raise self.refused("numeric", "Name only columns of numbers in numeric", wrong)
        numbers = values.to_numpy(np.float64)
        if not np.isfinite(numbers).all():
            row = int((~np.isfinite(numbers)).argmax())
            wrong = f"the column {column!r} has {numbers[row]} in row {row}"
            raise SettingsError("data.name", self._name, "Replace such values, or drop those rows", wrong)
        return [_standardised(numbers, training)]

    def one_hot(self, column: str) -> list[Array]:
        """A column for each value, in sorted order."""
        found, codes = np.unique(self.text(column), return_inverse=True)
        check_fits("data.kwargs", {"categories": column}, 4 * len(codes) * len(found))
        return list((codes == np.arange(len(found))[:, None]).astype(np.float32))

    def in_order(self, column: str, values: Any, training: Array) -> list[Array]:
        """Where each value stands among those told, standardised. Raises SettingsError."""
        if isinstance(values, str) or not isinstance(values, Sequence):
            wrong = f"categories says {values!r} for the column {column!r}"
            raise self.refused("categories", f"Say {ONE_HOT}, or all its values in their order", wrong)
        places = {str(value): place for place, value in enumerate(values)}
        found = self.text(column)
        unknown = np.flatnonzero([str(value) not in places for value in found.tolist()])
        if len(unknown):
            wrong = f"categories lacks {str(found[unknown[0]])!r}, which the column {column!r} has in row {unknown[0]}"
            raise self.refused("categories", "Say all its values in their order", wrong)
        return [_standardised(np.array([places[str(value)] for value in found.tolist()], np.float64), training)]

    def text(self, column: str) -> Array:
        """Ids or categories as numbers, if they are whole, or text."""
        values = self._whole(column).to_numpy()
        return values if values.dtype.kind in "iu" else np.array([str(value) for value in values.tolist()])

    def labels(self) -> Array:
        """The target: whole numbers, numbers with a fraction, truth values, or text."""
        import pandas

        values = self._whole(self._given.target)
        whole, truth = pandas.api.types.is_integer_dtype(values), pandas.api.types.is_bool_dtype(values)
        if _is_number(values):
            return np.asarray(values, np.int64 if whole else bool if truth else np.float64)
        return np.array([str(value) for value in values.tolist()])


def _is_number(values: Any) -> bool:
    import pandas

    return bool(pandas.api.types.is_numeric_dtype(values))


def _standardised(values: Array, training: Array) -> Array:
    """With mean 0 and deviation 1 over the training rows; a column of one value as zeros."""
    mean, deviation = values[training].mean(), values[training].std()
    standard: Array = ((values - mean) / (deviation if deviation > 0 else 1.0)).astype(np.float32)
    return standard
