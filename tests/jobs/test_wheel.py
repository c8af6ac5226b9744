"""From an empty folder with nothing but the built wheel: a model and a data set of one's own, in three ways."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import site
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.ray_head import environment, head, ray_command
from tests.conftest import HANG_SECONDS, ROOT
from tests.test_docs import DOCS, blocks

MY_MODEL = Path(__file__).parent / "my_model.py"
FLAGS = ["--model.name", "my_model:net", "--model.cuts", "1,3", "--data.name", "my_model:rings"]
FLAGS += ["--phones.count", "4", "--run.rounds", "12", "--model.kwargs", "{width: 24}"]
SCRIPT = """
import ray_split as rs

settings = rs.Config(
    model={"name": "my_model:net", "cuts": ["1", "3"], "kwargs": {"width": 24}},
    data={"name": "my_model:rings"},
    phones={"count": 4},
    run={"rounds": 12, "storage_path": "results", "name": "script"},
)
result = rs.fit(settings, callbacks=[])
print(result.metrics["test_accuracy"], rs.load_model(result.path, trust=True), rs.__file__)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel in it, and this one's dependencies but not its checkout."""
    folder = tmp_path_factory.mktemp("env")
    venv.create(folder, with_pip=False)
    packages = next((folder / "lib").glob("python*/site-packages"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()))
    script = folder / "bin" / "ray-split"
    python = folder / "bin" / "python"
    script.write_text(f"#!{python}\nimport sys\nfrom ray_split.cli import main\nsys.exit(main())\n")
    script.chmod(0o755)
    return python


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    shutil.copy(MY_MODEL, tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def wheel_head(python: Path, own_ray: None) -> Iterator[tuple[str, str]]:
    with head(num_cpus=4, python=str(python)) as addresses:
        yield addresses


def run(command: list[str], folder: Path, python: Path, **variables: str) -> str:
    env = environment(str(python), **variables)
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=HANG_SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def accuracy(folder: Path) -> float:
    found: float = json.loads((folder / "summary.json").read_text())["test_accuracy"]
    return found


def test_the_wheel_holds_just_ray_split_and_actors(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {"ray_split", "actors"}
    assert any(name.endswith("entry_points.txt") for name in names)


def test_the_example_is_25_lines() -> None:
    assert len(MY_MODEL.read_text().splitlines()) <= 25


@pytest.mark.slow
def test_the_command_trains_it(empty: Path, python: Path, wheel_head: tuple[str, str]) -> None:
    command = [str(python.parent / "ray-split"), "train", *FLAGS, "--run.storage_path", "results", "--run.name", "r"]
    run(command, empty, python, RAY_ADDRESS=wheel_head[0])
    assert accuracy(empty / "results" / "r") > 0.8


@pytest.mark.slow
def test_a_script_trains_it(empty: Path, python: Path, wheel_head: tuple[str, str]) -> None:
    (empty / "script.py").write_text(SCRIPT)
    output = run([str(python), "script.py"], empty, python, RAY_ADDRESS=wheel_head[0])
    assert float(output.split()[0]) > 0.8
    assert str(python.parent.parent) in output and str(ROOT) + os.sep not in output


@pytest.mark.thorough
def test_all_that_the_command_does_is_in_it(empty: Path, python: Path) -> None:
    command = str(python.parent / "ray-split")
    overview = run([command, "--help"], empty, python)
    for name in ("train", "compare", "sweep", "plan", "trace", "paper"):
        assert f"\n  {name} " in overview
        assert run([command, name, "--help"], empty, python).startswith(f"usage: ray-split {name} ")
    assert 24 <= len(run([command, "train", "--help"], empty, python, COLUMNS="100").splitlines()) <= 45
    assert "--optimizer.lr LR" in run([command, "train", "--help", "optimizer"], empty, python)
    here = [*FLAGS, "--run.rounds", "2", "--phones.link", "4g", "--cluster.backend", "inprocess"]
    run(
        [command, "compare", *here, "--schedules", "unsplit,splitfed_v1", "--seeds", "0", "--out", "all"], empty, python
    )
    assert {path.name for path in (empty / "all").iterdir()} >= {"compare.csv", "compare.png", "splitfed_v1_seed0"}
    assert "trace_1.json" in run([command, "trace", "all/splitfed_v1_seed0", "--round", "1", "--trust"], empty, python)
    assert "recommended: --model.cuts" in run([command, "plan", "--out", "plan"], empty, python)


@pytest.mark.thorough
def test_an_algorithm_of_ones_own_trains_as_the_docs_tell(tmp_path: Path, python: Path) -> None:
    pages = {"my_algorithm": ("algorithm", 0), "my_pieces": ("algorithm", -1), "my_methods": ("algorithms", 0)}
    for name, (page, number) in {**pages, "my_callback": ("callbacks", 0)}.items():
        (tmp_path / f"{name}.py").write_text(blocks(DOCS / f"{page}.md")[number])
    (tmp_path / "mine.yaml").write_text(blocks(DOCS / "algorithm.md", "yaml")[0])
    told = shlex.split(
        next(line for line in (DOCS / "algorithm.md").read_text().splitlines() if "mine.yaml --" in line)
    )
    here = ["--cluster.backend", "inprocess", "--run.storage_path", "results", "--run.name", "own"]
    output = run([str(python.parent / told[0]), *told[1:], *here], tmp_path, python)
    assert "finished best in round" in output and str(ROOT) not in output
    rows = [json.loads(line) for line in (tmp_path / "results" / "own" / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 5 and rows[-1]["val_top_3"] > 0.8 and rows[-1]["train_loss"] < rows[0]["train_loss"] / 3
    written = (tmp_path / "results" / "own" / "config.yaml").read_text()
    named = ("low_and_high", "focal", "top_3", "SignSGD", "in_turn", "winsorized", "towards_start", "Watch")
    assert all(f":{name}\n" in written for name in named)


@pytest.mark.slow
@pytest.mark.slow
def test_a_submitted_job_trains_it(empty: Path, python: Path, wheel_head: tuple[str, str], tmp_path: Path) -> None:
    results = tmp_path / "results"
    entrypoint = ["ray-split", "train", *FLAGS, "--run.storage_path", str(results), "--run.name", "job"]
    command = ray_command(str(python), "job", "submit", "--working-dir", ".", "--", *entrypoint)
    output = run(command, empty, python, RAY_ADDRESS=wheel_head[1])
    assert "round 12/12" in output
    assert accuracy(results / "job") > 0.8
