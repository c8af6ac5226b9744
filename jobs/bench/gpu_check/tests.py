"""The row of the tests that are marked `gpu`: of those that no other row measures."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

from jobs.bench.gpu_check.rows import Measured, MissingError, Row

ROOT = Path(__file__).parent.parent.parent.parent
SECONDS = 100.0


def _tests() -> Measured:
    for name in ("pytest", "hypothesis", "xdist"):
        if importlib.util.find_spec(name) is None:
            raise MissingError(f"{name} is not installed here")
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-m", "gpu", "-k", "not rows", "tests/gpu"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return Measured(f"not through in {SECONDS:.0f} s", False)
    if done.returncode:
        print(done.stdout[-4000:], done.stderr[-2000:], file=sys.stderr)
    return Measured((done.stdout.splitlines() or ["nothing said"])[-1].strip("= "), done.returncode == 0)


TEST_ROWS = [Row("gpu tests", "all pass", SECONDS, _tests)]
