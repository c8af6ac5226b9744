from __future__ import annotations

from pathlib import Path

import pytest

from ray_split.config import Config
from ray_split.errors import SettingsError
from ray_split.filesystem import Uri, place


def refused(section: str, field: str, value: object) -> str:
    with pytest.raises(SettingsError) as caught:
        Config(**{section: {field: value}})
    assert caught.value.field == f"{section}.{field}"
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("x" * 256, "has 256 bytes, but may have at most 255"), ("é" * 128, "has 256 bytes, but may have at most 255"),
        ("x" * 5000, "may have at most 4096"), ("a\nb", "of one line"), ("a\tb", "control character"),
        ("a\x00", "control"),
        ("a\u2028b", "of one line"), ("\udcff", "as UTF-8"), (" a", "begins or ends with a space"),
        ("a ", "begins or ends with a space"),
        ("a\u202eb", "U+202E"), ("\ufeffa", "zero width no-break space"), ("a\u200bb", "zero width space"),
        ("a\u200db", "U+200D"), ("a\u200f", "right-to-left mark"), ("a\u3164", "U+3164"), ("a\u2066b", "U+2066"),
        (".partial_a", ".partial_"), ("a/b", "folder"), ("..", "folder"), (".", "folder"), ("", "folder"),
    ],
    ids=lambda text: repr(text)[:20],
)  # fmt: skip
def test_a_name_that_no_folder_can_have_is_refused(name: str, allowed: str) -> None:
    assert allowed in refused("run", "name", name)


@pytest.mark.parametrize(
    "name",
    [
        "x" * 255,
        "é" * 127,
        "日本語",
        "a b",
        "a:b",
        "-1",
        ".hidden",
        "null",
        "10%",
        "👩‍👧",
        "\u0645\u06cc\u200c\u062e\u0648",
    ],
)
def test_any_other_name_is_taken(name: str) -> None:
    assert Config(run={"name": name}).run.name == name


@pytest.mark.parametrize("field", ["storage_path", "resume"])
@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("~nobody_here/x", "~nobody_here is nobody's home"),
        ("a/" + "x" * 256, "has a part of 256 bytes, but each may have at most 255"),
        ("/".join(["x" * 200] * 19), "may have at most 3800"), ("a\nb", "of one line"), ("\udcff", "as UTF-8"),
        ("s3:/bucket/runs", "s3://bucket/runs, or ./s3:/bucket/runs"), ("s3:bucket", "s3://bucket"),
        ("S3:/bucket", "S3://bucket"), ("file:/tmp/x", "file:///tmp/x"), ("file:x", "file:///x"), ("s3://", "a bucket"),
        ("gs:bucket/x", "gs://bucket/x"), ("what:/ever", "./what:/ever"), ("S3://?region=x", "a bucket"),
    ],
)  # fmt: skip
def test_a_path_that_can_not_be_is_refused(field: str, path: str, allowed: str) -> None:
    assert allowed in refused("run", field, path)


def test_what_looks_like_a_uri_may_still_be_a_folder_and_a_scheme_may_be_in_capitals() -> None:
    for path in ("./s3:bucket", "./s3:/bucket", "runs/s3:x", "a b/ü", "2024:05", "~/runs", "/"):
        assert isinstance(place(Config(run={"storage_path": path}).run.storage_path), Path)
    assert place("S3://Bucket/Runs") == place("s3://Bucket/Runs") == Uri("s3://Bucket", "Runs")


@pytest.mark.parametrize(
    ("section", "field", "value", "allowed"),
    [
        ("data", "path", "", "a path"), ("data", "path", "~nobody_here", "nobody's"),
        ("data", "path", "x" * 300, "255"),
        ("model", "weights", "", "a path"), ("model", "weights", "~nobody_here/w.pt", "nobody's home"),
        ("model", "weights", "x" * 300, "at most 255"), ("model", "name", "a\nb", "of one line"),
        ("cluster", "address", "", "host:port"), ("cluster", "address", "somewhere", "host:port"),
        ("cluster", "address", "http://x:80", "host:port"), ("cluster", "address", "x:0", "host:port"),
        ("cluster", "address", "x:65536", "host:port"), ("cluster", "address", "a b:1", "host:port"),
    ],
)  # fmt: skip
def test_other_words_that_can_not_be_are_refused(section: str, field: str, value: str, allowed: str) -> None:
    assert allowed in refused(section, field, value)


@pytest.mark.parametrize("address", ["auto", "local", "head:6379", "127.0.0.1:6379", "ray://head:10001", "[::1]:6379"])
def test_an_address_is_as_ray_takes_it(address: str) -> None:
    assert Config(cluster={"address": address}).cluster.address == address
