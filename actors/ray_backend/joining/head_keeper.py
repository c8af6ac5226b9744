"""The folder of a Ray that is started here, and a small process beside it that ends this Ray with its maker.

However the maker ends, SIGKILL too: the small process reads from a pipe that only the maker holds. Run by itself this
file is that process, `python head_keeper.py FOLDER`; so it imports the standard library alone.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

# A socket's path has at most 103 bytes on macOS, 107 on Linux, and Ray puts some 70 below the folder that it is given.
MOST_BYTES = 24
END_SECONDS = 30.0


class Keeper:
    """While it is there, so may be a Ray whose files lie in `folder`; after `end` there is neither."""

    def __init__(self) -> None:
        self._own = Path(tempfile.mkdtemp(prefix="rs", dir=_short()))  # for this user alone
        self.folder = self._own / "r"  # Ray gives its folder to everybody; nobody else comes this far
        self.log = self._own / "start.log"
        command = [sys.executable, "-I", "-S", __file__, str(self._own)]
        # A session of its own: what a terminal sends to the maker is not for it.
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)

    def end(self) -> None:
        """End what is left of that Ray, also a process that is stopped, and remove its folder."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def _short() -> str:
    """Where Ray's folder may lie: where Ray itself would put it, if paths of sockets there are not too long."""
    places = [os.environ.get("RAY_TMPDIR", ""), tempfile.gettempdir()]
    return next((p for p in places if p and len(os.fsencode(p)) <= MOST_BYTES and Path(p).is_dir()), "/tmp")


def _keep(folder: Path) -> None:
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()  # until the maker closes it, or is gone
    deadline, quiet = time.monotonic() + END_SECONDS, 0
    while quiet < 2 and time.monotonic() < deadline:  # twice: one may have been about to start another
        found = list(_processes(folder))
        for process in found:
            with suppress(OSError):  # it ended meanwhile
                os.kill(process, signal.SIGKILL)
        quiet = 0 if found else quiet + 1
        time.sleep(0.1)
    shutil.rmtree(folder, ignore_errors=True)


def _processes(folder: Path) -> Iterator[int]:
    """The processes of the Ray in the folder. Their titles tell nothing, and who started them may be gone."""
    if sys.platform == "linux":
        numbers = (int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())
        yield from (number for number in numbers if number != os.getpid() and _is_rays(number, folder))
    else:  # workers end by themselves when these are gone
        listed = subprocess.run(["ps", "-axo", "pid=,command="], capture_output=True, text=True, check=True).stdout
        found = (line.split(None, 1) for line in listed.splitlines() if f"{folder}/" in line)
        yield from (int(number) for number, _ in found)


def _is_rays(process: int, folder: Path) -> bool:
    """Whether a process belongs to the Ray in the folder: it writes a log there. Who only reads one doesn't count.

    Nor does a driver that is connected to it, as the maker is, and what a driver forked; but a job's driver does.
    """
    written = dict(_written(process, folder))
    driver = any(name.startswith("python-core-driver-") for name in written.values())
    return bool(written.keys() & {"1", "2"} if driver else written)


def _written(process: int, folder: Path) -> Iterator[tuple[str, str]]:
    """The files there that a process has open for writing: their names, by number."""
    own = Path(f"/proc/{process}")
    for number in _listed(own / "fd"):
        try:
            path = (own / "fd" / number).readlink()
            flags = (own / "fdinfo" / number).read_text().partition("flags:")[2].split()[0]
        except OSError:  # closed meanwhile
            continue
        if folder in path.parents and int(flags, 8) & os.O_ACCMODE:
            yield number, path.name


def _listed(folder: Path) -> list[str]:
    try:
        return [path.name for path in folder.iterdir()]
    except OSError:  # it has ended, or is another user's
        return []


if __name__ == "__main__":
    _keep(Path(sys.argv[1]))
