"""`make gpu-check`: without a GPU each row says so; what it does with one is tried on rows of the test's own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

from jobs.bench.gpu_check import __main__ as check
from jobs.bench.gpu_check import training
from jobs.bench.gpu_check.rows import Measured, MissingError, Row, Run, Sections, trained
from tests.tiers import slow

ROOT = Path(__file__).parent.parent.parent


def raised(error: Exception) -> Callable[[], Measured]:
    def measure() -> Measured:
        raise error

    return measure


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU that is only said to be there."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a card")


@pytest.mark.thorough
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_every_row_says_why_it_is_skipped() -> None:
    done = subprocess.run([sys.executable, "-m", "jobs.bench.gpu_check"], cwd=ROOT, capture_output=True, text=True)
    _, *lines, device = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert [line.rstrip().endswith("skipped  torch sees no GPU here") for line in lines] == [True] * len(check.ROWS)
    assert all(line.startswith(row.name) for line, row in zip(lines, check.ROWS, strict=True))
    assert device.startswith("on no GPU, torch ")


def test_all_rows_that_take_as_long_as_they_say_are_through_in_eight_minutes() -> None:
    assert sum(row.seconds for row in check.ROWS) <= check.SECONDS == 480


@pytest.mark.parametrize(
    ("measure", "said", "status"),
    [
        (lambda: Measured("0.9", True), "reached  0.9", 0),
        (lambda: Measured("0.1", False), "MISSED   0.1", 1),
        (raised(MissingError("cats are not installed here")), "skipped  cats are not installed here", 0),
        (raised(ValueError("no\nluck")), "FAILED   ValueError: no luck", 1),
    ],
    ids=["reached", "missed", "missing", "failed"],
)
def test_a_row_says_how_it_went_and_the_next_goes_on(
    card: None, capsys: pytest.CaptureFixture[str], measure: Callable[[], Measured], said: str, status: int
) -> None:
    rows = [Row("gpu one", "much", 1, measure), Row("gpu two", "more", 1, lambda: Measured("2", True))]
    assert check.main(rows=rows) == status
    out = capsys.readouterr().out
    assert " ".join(said.split()) in " ".join(out.split())
    assert "gpu two  more" in out and out.splitlines()[-1].startswith("on a card, torch ")


def test_a_row_for_which_no_time_is_left_is_skipped(card: None, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [Row("gpu long", "much", 100, raised(ValueError("not called")))]
    assert check.main(rows=rows, seconds=50) == 0
    assert "skipped  takes about 100 s, and 50 are left" in capsys.readouterr().out


def test_a_row_that_is_not_there_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main(["gpu cats"]) == 2
    assert capsys.readouterr().out.startswith("error: there is no row 'gpu cats'; the rows are gpu copies there, ")


@pytest.mark.thorough
@pytest.mark.parametrize("measure", [training._parallel, *slow(training._as_on_cpu, training._stacked)])
def test_what_rows_train_trains_on_a_cpu_too(monkeypatch: pytest.MonkeyPatch, measure: Callable[[], Measured]) -> None:
    def without(sections: Sections, gpus: float = 0, **told: float) -> Run:
        return partial(trained, gpus=0)(sections)

    monkeypatch.setattr(training, "trained", without)
    measured = measure()
    if measure is training._as_on_cpu:
        assert measured == Measured("off by 0.0e+00 at most", True)
    assert measured.figure
