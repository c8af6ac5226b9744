"""deploy/runtime_env.yaml and .rayignore: what a job runs in, and what is uploaded, by Ray's own code."""

from __future__ import annotations

import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT

FILE = ROOT / "deploy" / "runtime_env.yaml"
NOT_SHIPPED = (
    *("data/digits.npz", "results/run/summary.json", "ray_results/x/y", "a.parquet", "notes/deep/b.parquet"),
    *(".venv/bin/python", "venv/lib/x.py", ".git/config", "dist/a.whl", "build/x", "ray_split.egg-info/PKG-INFO"),
    *("ray_split/__pycache__/api.pyc", ".mypy_cache/x", ".ruff_cache/x", ".pytest_cache/x", ".hypothesis/x"),
    "events.out.tfevents.1.host",
)


@pytest.fixture(scope="module")
def runtime_env() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(FILE.read_text())
    return found


def test_ray_takes_it_as_a_runtime_environment(runtime_env: dict[str, Any]) -> None:
    from ray.runtime_env import RuntimeEnv

    assert set(RuntimeEnv(**runtime_env)) == {"env_vars", "config"}
    with pytest.raises(TypeError, match="env_vars"):  # it would be noticed
        RuntimeEnv(**{**runtime_env, "env_vars": {"PYTHONUNBUFFERED": 1}})


def test_it_has_no_field_that_ray_does_not_know(runtime_env: dict[str, Any]) -> None:
    from ray.runtime_env import RuntimeEnv, RuntimeEnvConfig

    assert set(runtime_env) <= RuntimeEnv.known_fields
    assert set(runtime_env["config"]) <= RuntimeEnvConfig.known_fields


def uploaded(folder: Path, zipped: Path) -> set[str]:
    """The files that Ray puts into a job's package."""
    from ray._private.runtime_env.packaging import create_package

    excludes = yaml.safe_load(FILE.read_text()).get("excludes")
    create_package(str(folder), zipped, include_gitignore=False, excludes=excludes)
    with zipfile.ZipFile(zipped) as archive:
        return {name for name in archive.namelist() if not name.endswith("/")}


def test_code_is_uploaded_and_data_results_environments_and_caches_are_not(tmp_path: Path) -> None:
    folder = tmp_path / "checkout"
    code = {"ray_split/data/load.py", "jobs/train.py", "jobs/configs/digits.yaml", "my_model.py", "weights.safetensors"}
    for name in (*NOT_SHIPPED, *code):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    shutil.copy(ROOT / ".rayignore", folder)
    assert uploaded(folder, tmp_path / "package.zip") == code | {".rayignore"}


def test_of_this_checkout_all_code_is_uploaded_and_little_else(tmp_path: Path) -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    found = uploaded(ROOT, tmp_path / "package.zip")
    built = {name for name in listed.stdout.splitlines() if name.startswith("web/")}  # shipped as it is built
    assert set(listed.stdout.splitlines()) - built <= found
    assert (tmp_path / "package.zip").stat().st_size < 6e6  # Ray takes a hundred; one is the page for browsers
