"""The shells' completion: real bash, and zsh and fish where they are installed, with the script that is printed."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Callable

import pytest

from ray_split import cli
from ray_split.cli import COMMANDS
from ray_split.command_line.shells import SHELLS
from ray_split.config.optimizer import NAMES
from ray_split.models.registry import MODELS
from ray_split.schedules import SCHEDULES

Complete = Callable[..., list[str]]

BASH = """
COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMPREPLY=()
$(complete -p ray-split | sed -E 's/.*-F ([^ ]+) .*/\\1/')
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture(scope="module")
def printed() -> Callable[[str], str]:
    """The script of a shell, as the command prints it."""
    scripts: dict[str, str] = {}

    def script(shell: str) -> str:
        if shell not in scripts:
            with pytest.MonkeyPatch.context() as patched:
                lines: list[str] = []
                patched.setattr("builtins.print", lambda text="", **_: lines.append(text))
                assert cli.main(["--completion", shell]) == 0
            scripts[shell] = "".join(lines)
        return scripts[shell]

    return script


def ran(shell: str, script: str) -> list[str]:
    done = subprocess.run([shell, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.fixture(scope="module")
def complete(printed: Callable[[str], str]) -> Complete:
    """What bash offers after some words, the last of them begun."""

    def offered(*words: str) -> list[str]:
        typed = " ".join(shlex.quote(word) for word in ("ray-split", *words))
        return ran("bash", printed("bash") + BASH.format(words=typed))

    return offered


def test_bash_completes_commands_flags_and_values(complete: Complete) -> None:
    assert complete("") == [*COMMANDS, "--help", "--version", "--completion"]
    assert complete("tr") == ["train", "trace"]
    assert complete("train", "--model.n") == ["--model.name", "--model.num_classes"]
    assert complete("train", "--model.name", "") == list(MODELS)
    assert complete("train", "--optimizer.b.name", "ada") == [name for name in NAMES if name.startswith("ada")]
    assert complete("train", "--run.log_format", "") == ["text", "json"]
    assert complete("train", "--run.private", "") == ["true", "false"]


def test_bash_takes_a_flag_with_its_value_for_three_words(complete: Complete) -> None:
    assert complete("train", "--model.name", "=") == list(MODELS)
    assert complete("train", "--model.name", "=", "ml") == ["mlp"]


def test_each_command_has_its_own_flags_and_the_settings_where_it_takes_them(complete: Complete) -> None:
    assert complete("compare", "--see") == complete("sweep", "--see") == ["--seeds"]
    assert complete("compare", "--schedules", "split") == [name for name in SCHEDULES if name.startswith("split")]
    assert complete("sweep", "--mode", "") == ["max", "min"]
    assert complete("sweep", "--phones.c") == ["--phones.count", "--phones.cohort"]
    assert complete("export", "--format", "") == ["csv", "md", "latex"]
    assert complete("show", "--") == ["--help", "--all", "--storage"]
    assert complete("train", "--see") == []


def test_what_can_be_anything_is_left_to_the_files(complete: Complete, printed: Callable[[str], str]) -> None:
    assert complete("train", "--config", "") == complete("train", "--phones.count", "") == complete("show", "") == []
    assert "complete -o default " in printed("bash")
    assert "--config" in complete("train", "--phones.count", "3", "")


@pytest.mark.skipif(shutil.which("zsh") is None, reason="no zsh here")
def test_zsh_completes_the_same(printed: Callable[[str], str]) -> None:
    asked = "\nwords=(ray-split train --model.name ml); CURRENT=4; _ray-split"
    stubs = "compdef() { :; }; compadd() { shift; print -l -- $@ }; compset() { :; }; _files() { :; }\n"
    assert ran("zsh", stubs + printed("zsh") + asked) == list(MODELS)


@pytest.mark.skipif(shutil.which("fish") is None, reason="no fish here")
def test_fish_completes_the_same(printed: Callable[[str], str]) -> None:
    asked = "complete -C 'ray-split train --model.name ml' | string split -f 1 \\t"
    assert ran("fish", printed("fish") + asked) == ["mlp"]


def test_scripts_of_all_shells_have_every_flag_of_training(printed: Callable[[str], str]) -> None:
    for shell in SHELLS:
        flags = {"bash": "--server.num_gpus ", "zsh": "--server.num_gpus ", "fish": " -l server.num_gpus "}
        assert flags[shell] in printed(shell) and f"Completion of ray-split for {shell}" in printed(shell)
    assert "-l model.backprop -x -a 'autograd auxiliary_labels'" in printed("fish")


def test_a_shell_that_is_none_of_these_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for shell, wrong in (
        ([], "needs the name of a shell"),
        (["tcsh"], "there is no completion script for 'tcsh'"),
        (["bash", "zsh"], "there is no completion script for 'bash zsh'. Did you mean bash"),
    ):
        assert cli.main(["--completion", *shell]) == 2
        end = "?" if "Did" in wrong else "."
        assert capsys.readouterr().err == f"error: --completion: {wrong}{end} Choose bash, zsh or fish.\n"
