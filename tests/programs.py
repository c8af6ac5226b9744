"""The tests' own programs, each in a process of its own: a process is in one Ray only."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from jobs.ray_head import environment
from tests.conftest import HANG_SECONDS, ROOT


def printed_by(program: str, *arguments: str) -> dict[str, Any]:
    """What a program prints that starts a Ray of its own: a module of the tests."""
    env = environment()
    env.pop("RAY_ADDRESS", None)
    answer: dict[str, Any] = printed([sys.executable, "-m", program, *arguments], env)
    return answer


def printed(command: Sequence[str], env: dict[str, str]) -> Any:
    """The JSON in the last line that a command prints; Ray prints, too."""
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=HANG_SECONDS)
    assert done.returncode == 0, done.stderr[-5000:]
    return json.loads(done.stdout.splitlines()[-1])
