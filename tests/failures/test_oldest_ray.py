"""The oldest Ray that pyproject.toml takes, installed for the test: a run there survives its server's death."""

from __future__ import annotations

import re
import site
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from jobs.ray_head import environment
from tests.conftest import ROOT
from tests.programs import printed

pytestmark = pytest.mark.usefixtures("own_ray")


def oldest() -> str:
    (version,) = re.findall(r'"ray\[default\]>=([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    return f"{version}.0"


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """A Python that has that Ray, and else what this one has."""
    venv.create(tmp_path / "env", with_pip=False)
    python, uv = tmp_path / "env" / "bin" / "python", Path(sys.executable).parent / "uv"
    if not uv.exists():
        pytest.skip("uv is not installed beside this Python")
    command = [str(uv), "pip", "install", "--quiet", "--compile-bytecode", "--no-deps", "--python", str(python)]
    done = subprocess.run([*command, f"ray=={oldest()}"], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no package index has ray {oldest()} for this Python: {done.stderr.strip()[-200:]}")
    packages = next((tmp_path / "env" / "lib").glob("python*/site-packages"))
    (packages / "shared.pth").write_text("\n".join(site.getsitepackages()))  # looked in after its own
    return python


def test_the_readme_names_the_oldest_ray() -> None:
    assert f"Ray {oldest().removesuffix('.0')} or later" in (ROOT / "README.md").read_text()


@pytest.mark.slow
def test_on_the_oldest_ray_a_run_survives_its_servers_death_to_the_same_bytes(python: Path, tmp_path: Path) -> None:
    env = environment(str(python), HOME=str(tmp_path), RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="of-this-test-alone-" * 2)
    env.pop("RAY_ADDRESS", None)
    found = printed([str(python), "-m", "tests.oldest_ray", str(tmp_path)], env)
    assert found == {"ray": oldest(), "placed": True, "tokens": True, "lost": ["server"], "same": True}
