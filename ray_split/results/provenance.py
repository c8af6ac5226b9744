"""Where a run comes from: when it was started, on which machine, by which command, with which state of the code."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ray_split.errors import masked
from ray_split.filesystem import Place
from ray_split.results.left_behind import known_summary

GIT_SECONDS = 10.0


def now() -> str:
    """The time as it is written down: ISO 8601, UTC, whole seconds."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def provenance(folder: Place, resumed: bool) -> dict[str, Any]:
    """What summary.json tells of it. Of a run that is resumed the time is of the first start, the rest of the last."""
    before = (known_summary(folder) or {}) if resumed else {}
    commit = git("rev-parse", "HEAD")
    return {
        "started": before.get("started") or now(),
        "host": platform.node(),
        "command": command(),
        "git_commit": commit,
        "git_changes": None if commit is None else bool(git("status", "--porcelain", "--untracked-files=no")),
    }


def command() -> str:
    """The command line of this process, as it may be typed again; without passwords."""
    program, *arguments = sys.argv or [""]
    name = Path(program).name
    if name in ("", "-c"):
        name = f"python {name}".strip()
    if name == "__main__.py":  # python -m package
        name = f"python -m {Path(program).parent.name}"
    return masked(" ".join(filter(None, (name, shlex.join(arguments)))))


def git(*arguments: str) -> str | None:
    """What git says of the folder that this process works in; None where there is no git, or no repository."""
    try:
        done = subprocess.run(
            ["git", *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=GIT_SECONDS,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
