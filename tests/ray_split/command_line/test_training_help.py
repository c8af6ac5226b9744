"""The help of `ray-split train`: one screen, a section, or all."""

from __future__ import annotations

import pytest

from ray_split import cli
from ray_split.command_line.flags import fields_of
from ray_split.command_line.training import settings_of
from ray_split.command_line.training_help import MOST_USED, SECTIONS
from ray_split.config import Config


@pytest.fixture(autouse=True)
def hundred_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")


def shown(capsys: pytest.CaptureFixture[str], *flags: str) -> list[str]:
    """The lines of a help that is asked for."""
    with pytest.raises(SystemExit) as ended:
        cli.main(["train", *flags])
    assert ended.value.code == 0
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("flags", [["--help"], ["-h"], ["--phones.count", "3", "--help"]], ids=" ".join)
def test_help_is_one_screen_with_the_settings_most_used_by_section(
    capsys: pytest.CaptureFixture[str], flags: list[str]
) -> None:
    lines = shown(capsys, *flags)
    assert 24 <= len(lines) <= 45
    assert max(map(len, lines)) <= 100
    assert [
        line.split()[0].removeprefix("--") for line in lines if line.startswith("  --") and "." in line.split()[0]
    ] == [*MOST_USED]
    headings = [line.partition(":")[0] for line in lines if line.partition(":")[0] in SECTIONS]
    assert headings == list(dict.fromkeys(name.partition(".")[0] for name in MOST_USED))
    assert any("--help SECTION" in line for line in lines) and any("--help-all" in line for line in lines)
    assert all(name in " ".join(lines[-2:]) for name in SECTIONS)


def test_what_is_most_used_is_a_setting() -> None:
    assert set(MOST_USED) <= {name for name, _ in fields_of(Config)}


@pytest.mark.parametrize(
    ("topic", "first", "last", "count"),
    [
        ("optimizer", "optimizer.name", "optimizer.c.schedule.warmup", 42),
        ("data.partition", "data.partition.name", "data.partition.min_samples", 5),
        ("phones.count", "phones.count", "phones.count", 1),
    ],
)
def test_help_with_a_section_has_its_fields(
    capsys: pytest.CaptureFixture[str], topic: str, first: str, last: str, count: int
) -> None:
    for flags in (["--help", topic], [f"--help={topic}"]):
        fields = [line.split()[0] for line in shown(capsys, *flags) if line.startswith("  --")]
        assert (fields[0], fields[-1], len(fields)) == (f"--{first}", f"--{last}", count)


def test_every_section_has_a_help(capsys: pytest.CaptureFixture[str]) -> None:
    for section, kind in SECTIONS.items():
        assert f"  {kind.__doc__}" in shown(capsys, "--help", section)


@pytest.mark.parametrize("topic", ["optimiser", "opt", "phones.", "--phones", "none"])
def test_help_about_no_section_is_one_line_and_status_two(capsys: pytest.CaptureFixture[str], topic: str) -> None:
    assert cli.main(["train", f"--help={topic}"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith(f"error: --help: there is no section {topic!r}. ")
    assert " The sections are model, data, " in captured.err


def test_a_section_that_is_nearly_right_is_guessed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "--help", "optimiser"]) == 2
    wrong = "error: --help: there is no section 'optimiser'. Did you mean optimizer? The sections are model, "
    assert capsys.readouterr().err.startswith(wrong)


def test_a_negative_number_with_an_exponent_is_a_value() -> None:
    settings, _ = settings_of(["--phones.hostile_scale", "-1e3"])
    assert settings.phones.hostile_scale == -1000
