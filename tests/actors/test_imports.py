"""Imports go jobs -> actors -> ray_split, never back; ray in its backend alone; no actor loads what it doesn't use."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
RAY = {
    "backend.py",
    "connection.py",
    "errors.py",
    "placement_group.py",
    "actor_software.py",
    "heartbeat.py",
    "leading_client.py",
    "waiting.py",
    "sent_by_value.py",
}
LAZY = {"ray_split/api.py"}
SWEEP = "ray_split/experiments/sweep/"
"""Ray Tune's: of ray_split only this imports ray, and the backend of actors for it."""
ORDER: list[set[str]] = [
    {"jobs"},
    {"ray_split", "ray_split.cli"},
    {"ray_split.train", "ray_split.experiments"},
    {"ray_split.command_line"},
    {"ray_split.api"},
    {"ray_split.driver", "actors.ray_backend"},
    {"actors"},
    {"ray_split.preparation"},
    {"ray_split.costs"},
    {"ray_split.algorithms"},
    {"ray_split.schedules"},
    {"ray_split.models"},
    {"ray_split.devices"},
    {"ray_split.cutting"},
    {"ray_split.segments"},
    {"ray_split.tasks"},
    {"ray_split.tracking"},
    {"ray_split.data", "ray_split.results"},
    {"ray_split.messages"},
    {"ray_split.callbacks"},
    {"ray_split.config"},
    {"ray_split.seeds", "ray_split.filesystem", "ray_split.memory_limit", "ray_split.name_clashes"},
    {"ray_split.logs", "ray_split.errors"},
    {"ray_split.arrays", "ray_split.version", "ray_split.notebook_line"},
]
"""Folders, and the modules that are in none: each imports what stands below it, and of its own folder."""
LEVEL = {place: level for level, places in enumerate(ORDER) for place in places}


def imported(path: Path) -> set[str]:
    """The top-level packages that a file imports anywhere, and string arguments that name actors' modules."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("actors."):
            found.add("actors")
    return found


def files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def test_ray_split_imports_neither_ray_nor_actors_nor_jobs() -> None:
    found = {}
    for path in files("ray_split"):
        name = str(path.relative_to(ROOT))
        allowed = {"ray", "actors"} if name.startswith(SWEEP) else {"actors"} if name in LAZY else set()
        found[name] = imported(path) & ({"ray", "actors", "jobs"} - allowed)
    assert not {name: others for name, others in found.items() if others}


def test_actors_import_no_jobs_and_only_the_backend_of_ray_imports_ray() -> None:
    forbidden = {path: {"jobs"} | (set() if path.name in RAY else {"ray"}) for path in files("actors")}
    assert not {path: imported(path) & others for path, others in forbidden.items() if imported(path) & others}


def place_of(module: str) -> str:
    """The folder of a module, or itself if it is in none that has a place."""
    while module not in LEVEL:
        module = module.rpartition(".")[0]
    return module


def modules() -> dict[str, Path]:
    found = {}
    for path in [*files("ray_split"), *files("actors"), *files("jobs")]:
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = path
    return found


def imported_modules(path: Path, known: dict[str, Path]) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in known else node.module for name in names}
    return found & known.keys()


def test_imports_go_down() -> None:
    known, up = modules(), {}
    for module, path in known.items():
        own = place_of(module)
        others = {other: place_of(other) for other in imported_modules(path, known)}
        up[module] = {other for other, place in others.items() if place != own and LEVEL[place] <= LEVEL[own]}
    assert not {module: found for module, found in up.items() if found}


def test_actors_know_nothing_of_the_driver_and_of_what_it_prepares() -> None:
    known, apart = modules(), {"ray_split.driver", "ray_split.preparation", "ray_split.costs"}
    actors = {module: path for module, path in known.items() if module.startswith("actors.")}
    found = {module: {place_of(other) for other in imported_modules(path, known)} for module, path in actors.items()}
    assert not {module: places & apart for module, places in found.items() if places & apart}


def modules_after(code: str) -> set[str]:
    script = f"{code}\nimport sys; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.splitlines()[-1].split())


def test_the_fed_server_imports_neither_torch_nor_ray_and_file_systems_only_for_a_uri() -> None:
    code = "from actors.fed_server import FedServer, place; FedServer(place('/nowhere'), 2, 3, None)"
    assert not modules_after(code) & {"torch", "ray", "pandas", "sklearn", "pyarrow", "fsspec"}


def test_what_the_backend_asks_of_every_actor_brings_no_torch_with_it() -> None:
    assert not modules_after(
        "import actors.ray_backend.actor_software, actors.process_memory, actors.ray_backend.heartbeat"
    ) & {
        "torch",
        "pandas",
        "sklearn",
        "pydantic",
    }


@pytest.mark.thorough
@pytest.mark.parametrize(("schedule", "cohort"), [("sequential", 1), ("splitfed_v1", 4)])
@pytest.mark.few(1)
def test_a_client_that_trains_loads_no_compiler_and_no_image_library(schedule: str, cohort: int) -> None:
    code = """
import numpy as np
import ray_split as rs
from actors.client import Client
from ray_split.messages.turn import Turn
from ray_split.messages.message import Message
from ray_split.preparation.prepare import prepare
settings = rs.Config(schedule={"name": "%s"}, phones={"cohort": %d}, run={"name": "x"})
prepared = prepare(settings)
client = Client(*prepared[:4])
phones = prepared.stream.cohorts(0)[0]
assert (len(phones) > 1) == bool(prepared.settings.phones.stacked)
turn = Turn(0, 0, phones, 0)
client.load(turn, client.initial_state())
activation = client.forward(turn)
gradient = client.loss(turn, Message([(np.zeros((len(phones), 16, 64), np.float32),)], 0.0))
assert gradient.groups[0][0].shape == (len(phones), 16, 64)
report = client.backward(turn, Message([(np.zeros_like(activation.groups[0][0]),)], 0.0))
assert report.samples.tolist() == [16] * len(phones)
"""
    heavy = {"torch._dynamo", "sympy", "torchvision", "sklearn", "pandas", "scipy", "tensorboard", "ray"}
    assert not modules_after(code % (schedule, cohort)) & heavy


@pytest.mark.parametrize("path", files("ray_split") + files("actors") + files("jobs"), ids=lambda p: p.name)
def test_no_file_is_read_in_a_way_that_runs_what_is_in_it(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        called, given = ast.unparse(node.func), {keyword.arg: keyword.value for keyword in node.keywords}
        assert called not in ("pickle.load", "joblib.load", "yaml.load", "yaml.unsafe_load")
        assert "allow_pickle" not in given
        assert called != "torch.load" or ast.unparse(given["weights_only"]) == "True"
