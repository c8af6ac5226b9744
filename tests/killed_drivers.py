"""Runs whose driver is killed and which are resumed: prints what they left as JSON.

`python -m tests.killed_drivers FOLDER ROUNDS PLAN`; the plan is JSON, a list of "write N" (in the midst of writing the
Nth file of checkpoints that the process writes) or "call N" (at its Nth call of an actor, in a round, an evaluation or
a commit). How fast the machine is decides nothing. A process that has imported torch forks each driver, whose actors
are in-process: what is killed is the driver, the fed server and all.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from actors.inprocess import LocalHandle
from ray_split import api, cli, filesystem  # noqa: F401  before the fork
from ray_split.driver import training_loop  # noqa: F401
from ray_split.results import checkpoint


def arguments(path: Path, name: str, rounds: int) -> list[str]:
    flags = {
        "model.name": "mlp", "schedule.name": "splitfed_v3", "phones.count": 4, "phones.local_steps": 2,
        "phones.cohort": 2, "cluster.backend": "inprocess", "run.storage_path": path, "run.name": name,
        "run.rounds": rounds,
    }  # fmt: skip
    return ["train", *[part for flag, value in flags.items() for part in (f"--{flag}", str(value))], "--run.resume"]


def kill_in_write(number: int) -> None:
    """From now on the process dies in the midst of writing its Nth file of a checkpoint."""
    sync, count = filesystem.sync, [0]

    def dying(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        count[0] += path.is_file() and checkpoint.FOLDER in path.parts
        if count[0] == number:
            os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        sync(descriptor)

    filesystem.sync = dying


def kill_at_call(number: int) -> None:
    """The process dies at its Nth call of an actor."""
    call, count = LocalHandle.call, [0]

    def dying(handle: LocalHandle, name: str, arguments: list[Any]) -> Any:
        count[0] += 1
        if count[0] == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(handle, name, arguments)

    LocalHandle.call = dying  # type: ignore[method-assign]


KILLS = {"write": kill_in_write, "call": kill_at_call}


def driver(command: list[str], kill: str | None) -> int:
    """Run the command in a process of its own, killed as said: its exit status, or minus the signal."""
    process = os.fork()
    if not process:
        log = os.open(os.devnull, os.O_WRONLY)
        os.dup2(log, 1)
        if kill is not None:
            when, _, number = kill.partition(" ")
            KILLS[when](int(number))
        os._exit(cli.main(command))
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def left(folder: Path) -> dict[str, Any]:
    """What a run leaves that depends on its settings alone: checksums, and the rounds' figures."""
    files = [folder / "model.safetensors", *sorted((folder / "personal").rglob("*"))]
    found = {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files if f.is_file()}
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {"files": found, "rows": [{k: v for k, v in row.items() if not k.endswith("seconds")} for row in lines]}


def main(path: Path, rounds: int, plan: list[str]) -> None:
    whole = driver(arguments(path, "whole", rounds), None)
    command = arguments(path, "killed", rounds)
    statuses = [driver(command, kill) for kill in plan]
    last = driver(command, None)
    found = {"statuses": statuses, "whole": left(path / "whole"), "killed": left(path / "killed")}
    print(json.dumps(found | {"ends": [whole, last]}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3]))
