"""What is submitted as `python -m jobs.NAME` is what `ray-split NAME` is."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ray_split.cli import COMMANDS
from tests.conftest import ROOT
from tests.tiers import mostly_thorough


def said(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, cwd=ROOT, check=False)


@pytest.mark.parametrize("name", mostly_thorough(COMMANDS, "train"))
def test_a_job_is_the_command(name: str) -> None:
    job, command = (said(*words, "--help") for words in ([f"jobs.{name}"], ["ray_split.cli", name]))
    assert (job.returncode, job.stdout) == (0, command.stdout)
    assert job.stdout.startswith(f"usage: ray-split {name} ")
    bad = said(f"jobs.{name}", "--nonsense")
    assert (bad.returncode, bad.stdout, bad.stderr.count("\n")) == (2, "", 1)
