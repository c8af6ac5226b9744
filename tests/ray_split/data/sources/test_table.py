"""Tables as samples: files and DataFrames, standardised, encoded, with names and groups kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest

import ray_split as rs
from ray_split.data.types import TEST_FRACTION, split_off

ROWS = 50
DRAW = np.random.default_rng(0)
FRAME = pandas.DataFrame({
    "age": DRAW.integers(18, 90, ROWS), "city": DRAW.choice(["Rome", "Bern", "Oslo"], ROWS),
    "year": 2_000_000_000 + DRAW.integers(0, 3, ROWS), "size": DRAW.choice(["small", "large", "huge"], ROWS),
    "member": DRAW.random(ROWS) < 0.5, "person": [f"p{i % 7}" for i in range(ROWS)],
    "income": np.where(np.arange(ROWS) % 3, "low", "high"), "score": DRAW.random(ROWS),
})  # fmt: skip


def whole() -> tuple[pandas.DataFrame, str]:
    return FRAME.drop(columns=["person", "score"]), "income"


def told() -> rs.Table:
    sizes = {"size": ["small", "large", "huge"], "city": "one_hot"}
    return rs.Table(FRAME, "score", numeric=["year"], categories=sizes, group=["person", "city"])


def twice() -> rs.Table:
    return rs.Table(pandas.concat([FRAME, FRAME[["age"]]], axis=1), "income")


def dated() -> tuple[pandas.DataFrame, str]:
    return FRAME.assign(when=pandas.Timestamp("2024-01-01")), "income"


def by_date() -> rs.Table:
    return rs.Table(dated()[0], "income", categories=["when"])


def tagged() -> tuple[pandas.DataFrame, str]:
    return FRAME.assign(tags=[["a"]] * ROWS), "income"


def alone() -> pandas.DataFrame:
    return FRAME


def load(name: str, **settings: Any) -> Any:
    return rs.load_data(rs.Config(data={"name": name, **settings}).data)


def from_file(path: Path, frame: pandas.DataFrame = FRAME, **kwargs: Any) -> Any:
    frame.to_csv(path / "rows.csv", index=False)
    return load("table", path=path / "rows.csv", kwargs={"target": "income", **kwargs})


def refusal(path: Path, frame: pandas.DataFrame = FRAME, **kwargs: Any) -> str:
    with pytest.raises(rs.SettingsError) as caught:
        from_file(path, frame, **kwargs)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def rows_of(val_fraction: float = 0.1) -> dict[str, Any]:
    rest, test = split_off(ROWS, TEST_FRACTION, "test_part")
    train, val = split_off(len(rest), val_fraction, "val_part")
    return {"train": rest[train], "val": rest[val], "test": test}


def standard(values: Any, rows: Any) -> Any:
    numbers = np.asarray(values, np.float64)
    return (numbers - numbers[rows].mean()) / numbers[rows].std()


def test_numbers_are_standardised_by_what_is_trained_on_and_text_is_one_hot() -> None:
    parts, rows = load(f"{__name__}:whole"), rows_of()
    numbers = [standard(FRAME[column], rows["train"]) for column in ("age", "year", "member")]
    cities = [FRAME["city"] == name for name in ("Bern", "Oslo", "Rome")]
    sizes = [FRAME["size"] == name for name in ("huge", "large", "small")]
    expected = np.column_stack([*numbers, *cities, *sizes])
    for name, part in (("train", parts.train), ("val", parts.val), ("test", parts.test)):
        assert part.inputs.dtype == np.float32 and np.allclose(part.inputs, expected[rows[name]], atol=1e-6)
        assert [parts.classes[label] for label in part.labels] == FRAME["income"].iloc[rows[name]].tolist()
    assert parts.classes == ("high", "low") and parts.num_classes == 2


def test_what_is_told_is_taken_and_nothing_else() -> None:
    parts, rows = load(f"{__name__}:told", val_fraction=0.2), rows_of(0.2)
    places = FRAME["size"].map({"small": 0, "large": 1, "huge": 2})
    cities = [FRAME["city"] == name for name in ("Bern", "Oslo", "Rome")]
    expected = np.column_stack([standard(FRAME["year"], rows["train"]), standard(places, rows["train"]), *cities])
    assert np.allclose(parts.train.inputs, expected[rows["train"]], atol=1e-6)
    assert np.allclose(parts.test.inputs, expected[rows["test"]], atol=1e-6)
    assert parts.train.labels.tolist() == np.float32(FRAME["score"].to_numpy()[rows["train"]]).tolist()
    assert {kind: ids.tolist() for kind, ids in parts.groups.items()} == {
        kind: FRAME[kind].to_numpy()[rows["train"]].tolist() for kind in ("person", "city")
    }


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".tsv", ".parquet"])
def test_a_file_is_read_as_the_frame_it_was(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rows{suffix}"
    if suffix == ".parquet":
        FRAME.to_parquet(path)
    else:
        FRAME.to_csv(path, index=False, sep="\t" if suffix == ".tsv" else ",")
    own = {"target": "income", "numeric": ["age"], "categories": [], "group": "person"}
    for parts in (load("table", path=path, kwargs=own), load("table", kwargs={**own, "path": str(path)})):
        expected = standard(FRAME["age"], rows_of()["train"])[rows_of()["train"]]
        assert np.allclose(parts.train.inputs[:, 0], expected, atol=1e-6) and parts.train.inputs.shape[1] == 1
        assert parts.groups["person"].tolist() == FRAME["person"].to_numpy()[rows_of()["train"]].tolist()


def test_labels_are_what_the_column_is(tmp_path: Path) -> None:
    nullable = FRAME.assign(age=FRAME["age"].astype("Int64"))
    nullable.to_parquet(tmp_path / "rows.parquet")
    kwargs = {"target": "age", "numeric": ["year"]}
    assert load("table", path=tmp_path / "rows.parquet", kwargs=kwargs).train.labels.dtype == np.int64
    assert from_file(tmp_path, target="member").classes == ("False", "True")
    assert from_file(tmp_path, target="score").train.labels.dtype == np.float32


def hole(column: str, row: int, value: Any = None) -> pandas.DataFrame:
    frame = FRAME.astype({"age": float})
    frame.loc[row, column] = value
    return frame


@pytest.mark.parametrize("column", ["age", "city", "income", "person"])
def test_a_gap_is_refused_with_its_column_and_row(tmp_path: Path, column: str) -> None:
    line = refusal(tmp_path, hole(column, 17), group="person")
    assert f"column {column!r} has no value in row 17 (1 such rows in all). Fill in missing values" in line


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (
            {"target": "salary"},
            "the column 'salary', which is not there. The columns are age, city, year, size, member, person, income",
        ),
        ({"numeric": ["age", "hight"]}, "numeric names the column 'hight', which is not there"),
        ({"group": "who"}, "group names the column 'who', which is not there. The columns are"),
        ({"numeric": ["city"]}, "numeric names the column 'city', but its row 0 has 'Oslo'"),
        ({"categories": {"size": ["small", "large"]}}, "categories lacks 'huge', which the column 'size' has in row"),
        (
            {"categories": {"size": "ordinal"}},
            "categories says 'ordinal' for the column 'size'. Say one_hot, or all its values in their order",
        ),
        (
            {"numeric": [], "categories": []},
            "the table has no columns left to learn from, beside the target and the groups",
        ),
    ],
)
def test_columns_that_are_not_there_or_not_so_are_refused(tmp_path: Path, kwargs: dict[str, Any], message: str) -> None:
    line = refusal(tmp_path, **kwargs)
    assert line.startswith("data.kwargs: ") and message in line


def test_many_values_are_no_categories_unless_told(tmp_path: Path) -> None:
    frame = pandas.concat([FRAME] * 3, ignore_index=True)
    frame["day"] = [f"day {i}" for i in range(len(frame))]
    assert "column 'day' has 150 different values" in refusal(tmp_path, frame)
    assert from_file(tmp_path, frame, categories=["day"], numeric=[]).train.inputs.shape[1] == 150


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.txt").write_text("a,b")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "header.csv").write_text("a,income\n")
    (tmp_path / "rows.parquet").write_text("a,b")
    for name, message in {
        "rows.txt": "a file whose name ends in .csv", "empty.csv": "empty.csv' can't be read",
        "header.csv": "has no rows",
        "rows.parquet": "rows.parquet' can't be read",
    }.items():  # fmt: skip
        with pytest.raises(rs.SettingsError, match=message):
            load("table", path=tmp_path / name, kwargs={"target": "income"})
    assert "column 'age' has inf in row 3" in refusal(tmp_path, hole("age", 3, np.inf))
    with pytest.raises(rs.SettingsError, match="'age' is there twice"):
        load(f"{__name__}:twice")
    with pytest.raises(TypeError, match="the frame of a Table is a pandas DataFrame, not a dict"):
        rs.Table({"a": [1]}, "a")


def test_a_phone_has_the_rows_of_a_person(tmp_path: Path) -> None:
    FRAME.to_csv(tmp_path / "rows.csv", index=False)
    settings = rs.Config(
        data={"name": "table", "path": tmp_path / "rows.csv", "kwargs": {"target": "income", "group": "person"},
              "partition": {"name": "natural"}, "batch_size": 4},
        phones={"count": 7}, cluster={"backend": "inprocess"},
        run={"rounds": 1, "storage_path": str(tmp_path), "name": "run"},
    )  # fmt: skip
    result = rs.fit(settings, callbacks=[])
    assert result.classes == ["high", "low"]
    people = rs.load_data(settings.data).groups["person"]
    assert all(set(people[draw.indices]) == {f"p{draw.phone}"} for draw in rs.stream(settings))


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("dated", r"column 'when' has times\. Make a number of it, as frame\['when'\]\.dt\.dayofyear, leave it out"),
        ("tagged", r"column 'tags' has a list in a row\. Make columns of numbers or words of it, or leave it out"),
        ("alone", r'which column has the labels\? Return \(frame, "COLUMN"\), with one of age, city, year'),
    ],
)
def test_what_is_no_column_of_numbers_or_words_is_told_what_to_do(name: str, line: str) -> None:
    with pytest.raises(rs.SettingsError, match=line):
        load(f"{__name__}:{name}")


def test_a_date_that_is_named_a_category_is_one() -> None:
    assert load(f"{__name__}:by_date").train.inputs.shape[1:] == (5,)  # age, year, member, score, and the one date
