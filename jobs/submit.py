"""Submit a job through the real `ray job submit --working-dir .`, on a running Ray or on a local head of its own.

    python -m jobs.submit python -m jobs.train --config jobs/configs/digits.yaml

With RAY_ADDRESS set the job goes to that cluster. Otherwise a head is started on this machine, reachable from this
machine only and with Ray's token authentication on, and stopped when the job is over. Ctrl-C stops the job.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from jobs.ray_head import environment, head, ray_command
from ray_split.config.exposed_credentials import check_flags
from ray_split.driver.stopping import hangup
from ray_split.errors import SettingsError

RUNTIME_ENV = Path(__file__).parent.parent / "deploy" / "runtime_env.yaml"


def submit(entrypoint: Sequence[str], address: str, working_dir: str = ".") -> int:
    """Run a job to its end, its log on this process's output; SIGINT, SIGTERM and SIGHUP stop it.

    Returns its exit status.
    """
    job = f"ray_split_{uuid.uuid4().hex[:12]}"
    options = ["--submission-id", job, "--runtime-env", str(RUNTIME_ENV), "--working-dir", working_dir]
    command = ray_command(sys.executable, "job", "submit", *options, "--", *entrypoint)
    env = environment(RAY_ADDRESS=address)
    # A session of its own: Ctrl-C is for us to turn into `ray job stop`, not for the log to end.
    process = subprocess.Popen(command, env=env, start_new_session=True)

    def stop(number: int, _: object) -> None:
        _say("\nstopping the job ...")
        signal.signal(number, signal.default_int_handler)  # a second one gives up waiting
        stopped.append(number)
        stopping = ray_command(sys.executable, "job", "stop", job)
        subprocess.run(stopping, env=env, start_new_session=True, check=False, stdout=subprocess.DEVNULL)

    stopped: list[int] = []
    numbers = {signal.SIGINT, signal.SIGTERM, *hangup()}
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        status = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 128 + stopped[0] if stopped else status


def _say(line: str) -> None:
    with suppress(OSError):  # the terminal may be what is gone
        print(line, flush=True)


def main(entrypoint: Sequence[str]) -> int:
    """Submit to RAY_ADDRESS, or to a head of our own."""
    if not entrypoint or entrypoint[0] in ("-h", "--help"):
        print(__doc__, file=sys.stdout if entrypoint else sys.stderr)
        return 0 if entrypoint else 2
    try:
        check_flags(entrypoint)
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if address := os.environ.get("RAY_ADDRESS"):
        return submit(entrypoint, address)
    print("starting Ray on this machine ...", flush=True)
    with head() as (_, dashboard):
        return submit(entrypoint, dashboard)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
