"""A script without a main guard trains once, though what it names is imported from it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.ray_head import environment
from tests.conftest import HANG_SECONDS, ROOT, RayHead
from tests.tiers import thorough

SCRIPT = """
import numpy as np
import ray_split as rs
from torch import nn

print("imported")


def net(num_classes):
    return nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, num_classes))


def points():
    draw = np.random.default_rng(0)
    x = draw.normal(size=(90, 2)).astype(np.float32)
    return x, (x.sum(1) > 0).astype(np.int64)


try:
    result = rs.fit(rs.Config(model={"name": "one_file:net", "cuts": ["1", "3"]}, data={"name": "one_file:points"},
                              cluster={"backend": "BACKEND", "client_actors": 1}, phones={"count": 3},
                              run={"rounds": 1, "name": "r", "storage_path": "."}))
except Exception as error:
    print("caught", error)
print("ended with", result.metrics["test_accuracy"])
"""
FLAGS = ["--model.name", "one_file:net", "--model.cuts", "1,3", "--data.name", "one_file:points", "--phones.count", "3"]
FLAGS += ["--run.rounds", "1", "--run.storage_path", ".", "--cluster.backend", "inprocess"]


def run(folder: Path, *command: str, backend: str = "inprocess", **variables: str) -> subprocess.CompletedProcess[str]:
    (folder / "one_file.py").write_text(SCRIPT.replace("BACKEND", backend))
    env = environment(PYTHONPATH=str(ROOT), **variables)
    done = [sys.executable, *command]
    return subprocess.run(done, cwd=folder, env=env, capture_output=True, text=True, timeout=HANG_SECONDS)


def trained(folder: Path) -> int:
    return len(list(folder.glob("*/model.safetensors")))


@pytest.mark.thorough
@pytest.mark.parametrize("command", [["one_file.py"], *thorough(["-m", "one_file"])], ids=["file", "module"])
def test_in_one_process_the_running_script_is_not_imported_again(tmp_path: Path, command: list[str]) -> None:
    done = run(tmp_path, *command)
    assert done.returncode == 0, done.stderr
    assert (done.stdout.count("imported"), done.stdout.count("ended with 0."), trained(tmp_path)) == (1, 1, 1)
    assert "caught" not in done.stdout


@pytest.mark.thorough
def test_on_ray_actors_import_it_and_only_the_script_trains(tmp_path: Path, ray_head: RayHead) -> None:
    done = run(tmp_path, "one_file.py", backend="ray", RAY_ADDRESS=ray_head.address)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (done.stdout.count("ended with 0."), trained(tmp_path)) == (1, 1)
    assert "one_file trains when it is imported: put it under `if __name__ == '__main__':`" in done.stdout + done.stderr


@pytest.mark.thorough
@pytest.mark.few(thorough=1)
@pytest.mark.parametrize("names", [["__main__:net", "__main__:points"], [None, None]], ids=["named", "given"])
def test_on_ray_what_a_session_without_a_file_has_goes_there_by_value(
    tmp_path: Path, ray_head: RayHead, names: list[str | None]
) -> None:
    text = SCRIPT.replace("BACKEND", "ray")
    for was, name, given in (("one_file:net", names[0], "net"), ("one_file:points", names[1], "points")):
        text = text.replace(f'"{was}"', repr(name) if name else given)
    env = environment(PYTHONPATH=str(ROOT), RAY_ADDRESS=ray_head.address)
    command = [sys.executable, "-"]  # no file, as in a notebook
    done = subprocess.run(
        command, cwd=tmp_path, env=env, input=text, capture_output=True, text=True, timeout=HANG_SECONDS
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (done.stdout.count("imported"), done.stdout.count("ended with 0."), trained(tmp_path)) == (1, 1, 1)
    assert re.search("name: by value [0-9a-f]{12}:net\n", (tmp_path / "r" / "config.yaml").read_text())


@pytest.mark.thorough
def test_the_command_uses_what_stands_above_and_says_so(tmp_path: Path) -> None:
    done = run(tmp_path, "-m", "ray_split.cli", "train", *FLAGS, "--run.name", "by_command")
    assert done.returncode == 0, done.stderr
    assert "imported" in done.stdout and "ended with" not in done.stdout
    assert "one_file trains when it is imported: put it under `if __name__ == '__main__':`" in done.stderr
    assert [path.parent.name for path in tmp_path.glob("*/model.safetensors")] == ["by_command"]


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("text", "told"),
    [
        *thorough(
            ("import third", "third trains when it is imported: put it under"),
            ("import argparse\nargparse.ArgumentParser().parse_args()", "it ends the process when it is imported"),
            ("open('/nowhere')", "FileNotFoundError: [Errno 2] No such file or directory: '/nowhere' (other.py:1)"),
        ),
        ("import sys\nsys.exit(0)", "it ends the process when it is imported, SystemExit: 0 ("),
    ],
)
def test_a_module_that_cannot_be_imported_so_is_refused_in_a_line(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "other.py").write_text(text)
    (tmp_path / "third.py").write_text("import ray_split as rs\nrs.fit()\n")
    done = run(tmp_path, "-m", "ray_split.cli", "train", *FLAGS, "--model.name", "other:net", "--data.name", "digits")
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 2 and last.startswith("error: model.name: importing 'other' failed") and told in last
    assert "Traceback" not in done.stderr
