from __future__ import annotations

import math

import pytest
import yaml

from ray_split.config import yaml12


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("010", 10), ("-007", -7), ("0o17", 15), ("0x1F", 31), ("+5", 5), ("1e-1", 0.1), ("1e3", 1000.0), (".5", 0.5),
        ("1.", 1.0), ("1.0e-05", 1e-5), (".inf", math.inf), ("-.INF", -math.inf), ("!!int 010", 10), ("!!float 3", 3.0),
        ("true", True), ("FALSE", False), ("~", None), ("", None), ("null", None), ("# nothing", None),
        ("yes", "yes"), ("No", "No"), ("on", "on"), ("1:30", "1:30"), ("2020-01-01", "2020-01-01"), ("1_000", "1_000"),
        ("0b11", "0b11"), ("0o9", "0o9"), ("1e", "1e"), ("'010'", "010"), ('"1e-1"', "1e-1"), ("!!str 3", "3"),
        ("{<<: {a: 1, b: 1}, b: 2}", {"a": 1, "b": 2}), ("{<<: [{a: 1}, {a: 2, c: 3}]}", {"a": 1, "c": 3}),
        ("[&a {x: 1}, *a]", [{"x": 1}, {"x": 1}]), ('{"a": 1, "b": [1, {c: 2}]}', {"a": 1, "b": [1, {"c": 2}]}),
    ],
)  # fmt: skip
def test_what_is_written_means_what_version_1_2_says(text: str, means: object) -> None:
    found = yaml12.read(text)
    assert (found, type(found)) == (means, type(means))


BOMB = "a: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"b{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 30)
)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\nb: 2\na: 3", "has 'a' twice, on lines 1 and 3"),
        ("x:\n  y: [{p: 1, q: 2,\n    p: 3}]", "has 'p' twice, on lines 2 and 3"),
        ('{"a": 1, "a": 2}', "has 'a' twice, on line 1"), ("{1: a, 1.0: b}", "has '1.0' twice"),
        ("{1: a, true: b}", "has 'true' twice"), ("{<<: {a: 1}, <<: {b: 2}}", "has '<<' twice"),
        ("x: &a {p: 1, p: 2}\ny: {<<: *a}", "has 'p' twice, on line 1"), ("{? [a] : 1}", "a key that is a list"),
        (BOMB, "more than 200000 keys and values"), ("[" * 60 + "]" * 60, "deeper than 50 levels"),
        ("[" * 10**5, "line 1 is not valid YAML"), ("- " * 200 + "a", "deeper than 50"), ("&a [*a]", "uses *a, which"),
        ("x" * (yaml12.MOST_BYTES + 1), "longer than 8 MB"), (b"\xff\xfea\x00", "UTF-8"), ("9" * 5000, "400 digits"),
        ("1e999", "larger than a number can be"), ("!!int x", "not a whole number"), ("!!set {a}", "of the kind"),
        ("!!python/object/apply:os.system ['true']", "of the kind"), ("a\n---\nb", "another document"),
        ("[1,\n2", 'line 2 is not valid YAML: "2"'), ("\x00", "unacceptable character"), ("a: *b", "uses *b, which"),
    ],
    ids=lambda text: repr(text)[:30],
)  # fmt: skip
def test_what_settings_are_not_made_of_is_refused_in_one_line_that_says_where(text: str | bytes, problem: str) -> None:
    with pytest.raises(ValueError) as caught:
        yaml12.read(text)
    assert problem in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 300


def test_a_word_that_was_a_boolean_is_asked_for_where_nothing_says_which_it_is() -> None:
    assert yaml12.read("run: {name: no}") == {"run": {"name": "no"}}
    assert yaml12.read("data: {kwargs: {download: 'no', x: false}}")["data"]["kwargs"] == {"download": "no", "x": False}
    for text, free in (("data: {kwargs: {download: no}}", False), ("{download: [Yes]}", True), ("off", True)):
        with pytest.raises(ValueError, match=r"line 1 has '.*', which could be a word or a boolean"):
            yaml12.read(text, free=free)


WORDS = [
    "010", "1e-1", "1e5", "0o7", "0x1F", "1_000", "yes", "no", "1:30", "2020-01-01", "null", "~", "", "+.5", "5.", "<<",
    "=", ".inf", ".NaN", "true", "- a", "a: b", "x\ny", " a ", "é", "\U0001f600", "\x1b", "!a", "&a", "*a", "# a",
]  # fmt: skip
NUMBERS = [1e-5, 1e300, 5e-324, 0.1, 1.0, -0.0, 1e16, 1e22, 123456789.123, math.inf, 0, -5, 10**30, True, None]


def test_what_is_written_reads_back_as_it_was_by_either_version() -> None:
    values = {"words": WORDS, "numbers": NUMBERS, "deep": {word: {} for word in WORDS}, "none": []}
    written = yaml12.write(values)
    assert yaml12.read(written) == yaml.safe_load(written) == values
    assert [type(each) for each in yaml12.read(written)["numbers"]] == [type(each) for each in NUMBERS]


def test_what_pyyaml_has_written_is_read_as_it_was() -> None:
    """The config.yaml of older runs: words that looked like numbers to version 1.1 are quoted there."""
    values = {"words": [word for word in WORDS if word not in ("1e-1", "1e5", "0o7", "+.5")], "numbers": NUMBERS}
    assert yaml12.read(yaml.safe_dump(values)) == values
