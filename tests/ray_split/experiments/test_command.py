"""How the commands of experiments read what they are asked, and how they end."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import pytest

from ray_split.config.validation import Root
from ray_split.errors import SettingsError
from ray_split.experiments.command import exit_status, parser_of, seeds_of, settings_of


class Asked(Root):
    """What a command is asked."""

    count: int = 3


def test_settings_are_read_by_their_flags() -> None:
    assert settings_of(Asked, ["--count", "4"], parser_of("x", "What.")).count == 4
    assert settings_of(Asked, [], parser_of("x", None)).count == 3


@pytest.mark.parametrize(
    ("flag", "said"),
    [("--count=many", "count: must be a whole number, not 'many'"), ("--cuont=1", "there is no flag '--cuont'")],
)
def test_a_bad_one_is_one_line(flag: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said) as caught:
        settings_of(Asked, [flag], parser_of("x", "What."))
    assert len(str(caught.value).splitlines()) == 1


def test_help_is_the_modules_docstring() -> None:
    text = parser_of("x", "What it does.\n\n    ray-split x --y\n").format_help()
    assert text.startswith("usage: ray-split x ")
    assert "What it does.\n" in text and "    ray-split x --y\n" in text


def test_seeds_are_whole_numbers_each_once() -> None:
    assert seeds_of("0, 7,12") == [0, 7, 12]
    for text in ("", "1,x", "-1", "1,01", "2,2"):
        with pytest.raises(SettingsError, match="--seeds"):
            seeds_of(text)


@pytest.mark.parametrize(
    ("raised", "status", "line"),
    [
        (SettingsError("a", 1, "b"), 2, "error: a: must be b, not 1.\n"),
        (OSError("disk full\nmore"), 1, "error: disk full\n"),
    ],
    ids=["a setting", "the system"],
)
def test_what_a_command_raises_is_a_line_and_a_status(
    capsys: pytest.CaptureFixture[str], raised: Exception, status: int, line: str
) -> None:
    @exit_status
    def main(arguments: Sequence[str]) -> int:
        raise raised

    assert main([]) == status
    assert capsys.readouterr().err == line


def test_its_own_status_is_kept_and_a_fault_of_ours_is_seen() -> None:
    assert exit_status(lambda arguments: len(arguments))(["a", "b", "c"]) == 3
    with pytest.raises(ZeroDivisionError):
        exit_status(lambda arguments: 1 // len(arguments))([])


def test_who_reads_no_more_of_the_output_is_told_nothing() -> None:
    command = "lambda _: print('row\\n' * 100_000)"
    script = f"import sys; from ray_split.experiments.command import exit_status; sys.exit(exit_status({command})([]))"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0
