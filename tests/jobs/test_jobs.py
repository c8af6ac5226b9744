"""What is submitted as `python -m jobs.NAME` is what `ray-split NAME` is."""

from __future__ import annotations

import runpy
import subprocess
import sys
from collections.abc import Callable

import pytest

from ray_split.cli import COMMANDS, main
from tests.conftest import ROOT
from tests.tiers import mostly_thorough

SUBMITTED = [name for name in COMMANDS if (ROOT / "jobs" / f"{name}.py").exists()]
"""Those that train or compute; to look at runs, nobody submits a job."""


def test_what_computes_can_be_submitted() -> None:
    assert set(COMMANDS) - set(SUBMITTED) == {"runs", "show", "diff", "export", "device", "devices"}


@pytest.mark.few(thorough=1)
@pytest.mark.parametrize("name", mostly_thorough(SUBMITTED, "train"))
def test_a_job_is_the_command(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "100")  # else here it may be the terminal's, and 80 there
    command = [sys.executable, "-m", f"jobs.{name}", "--help"]
    job = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert status(lambda: main([name, "--help"])) == 0
    assert (job.returncode, job.stdout) == (0, capsys.readouterr().out)
    assert job.stdout.startswith(f"usage: ray-split {name} ")
    monkeypatch.setattr(sys, "argv", [f"jobs/{name}.py", "--nonsense"])
    assert status(lambda: runpy.run_module(f"jobs.{name}", run_name="__main__")) == 2
    bad = capsys.readouterr()
    assert (bad.out, bad.err.count("\n")) == ("", 1)


def status(run: Callable[[], object]) -> object:
    """What it returns, or ends the process with."""
    try:
        return run()
    except SystemExit as ended:
        return ended.code
