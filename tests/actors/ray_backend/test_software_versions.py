"""Software that is not the driver's is named, a line a node."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from actors.ray_backend import software_versions
from actors.ray_backend.software_versions import Found
from jobs.ray_head import environment
from ray_split.errors import RunFailedError
from tests.conftest import ROOT
from tests.programs import printed_by

DRIVER = {"ray": "2.60.0", "python": "3.11.7", "torch": "2.15.0", "numpy": "2.4.6", "cpu": "AVX512"}


def lines(**found: Found) -> list[str]:
    names = {name.replace("_", " "): what for name, what in found.items()}
    return [each.told for each in software_versions.compared(names, DRIVER)]


def test_nodes_like_the_drivers_are_not_named() -> None:
    fed_server = {name: DRIVER[name] for name in ("ray", "python", "torch", "numpy")}  # no torch in its process
    assert lines(client_0=Found("a", "10.0.0.1", DRIVER), fed_server=Found("b", "10.0.0.2", fed_server)) == []


def test_another_torch_or_cpu_is_named_with_the_actors_that_it_is_about() -> None:
    other = {**DRIVER, "torch": "2.13.0"}
    found = lines(
        client_0=Found("a", "10.0.0.1", DRIVER), client_2=Found("b", "10.0.0.3", other),
        server=Found("b", "10.0.0.3", other), client_1=Found("c", "10.0.0.4", {**DRIVER, "cpu": "AVX2"}),
    )  # fmt: skip
    assert found == [
        "node 10.0.0.3 (client 2, server): torch 2.13.0, the driver has 2.15.0: other bits",
        "node 10.0.0.4 (client 1): cpu AVX2, the driver has AVX512: other bits",
    ]


def test_another_patch_of_python_is_named_and_stops_nothing() -> None:
    patched = {**DRIVER, "python": "3.11.9"}
    told = "node 10.0.0.1 (server): python 3.11.9, the driver has 3.11.7: it may matter"
    assert lines(server=Found("a", "10.0.0.1", patched)) == [told]


def test_another_checkout_of_ours_is_named_with_its_place() -> None:
    ours = {**DRIVER, "ray_split": "aaaaaaaa"}
    theirs = {**DRIVER, "ray_split": "bbbbbbbb", "ray_split lies in": "/old/ray_split"}
    found = software_versions.compared({"client 0": Found("a", "10.0.0.1", theirs)}, ours)
    assert [each.told for each in found] == [
        "node 10.0.0.1 (client 0): ray_split bbbbbbbb, the driver has aaaaaaaa: another checkout or version of it, "
        "in /old/ray_split, with other code"
    ]
    assert (
        software_versions.compared({"client 0": Found("a", "10.0.0.1", {**theirs, "ray_split": "aaaaaaaa"})}, ours)
        == []
    )


def test_a_copy_of_our_code_is_the_same_and_one_that_differs_in_a_line_is_not(tmp_path: Path) -> None:
    for name in ("same", "other"):
        for package in ("ray_split", "actors"):
            shutil.copytree(ROOT / package, tmp_path / name / package, ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "other" / "actors" / "client.py").open("a") as file:
        file.write("# another line\n")
    show = "from actors.ray_backend.own_code import fingerprint, place; print(fingerprint(), place())"
    found = {}
    for name in ("same", "other"):
        env = environment(PYTHONPATH=str(tmp_path / name))
        done = subprocess.run([sys.executable, "-c", show], cwd=tmp_path, env=env, capture_output=True, text=True)
        found[name] = done.stdout.split()
        assert found[name][1:] == [str(tmp_path / name / "ray_split")], done.stderr
    assert found["same"][0] == software_versions.here()["ray_split"] != found["other"][0]


@pytest.mark.parametrize(("name", "version"), [("ray", "2.59.0"), ("python", "3.12.7")])
def test_another_ray_or_python_stops_the_run(name: str, version: str) -> None:
    with pytest.raises(RunFailedError) as error:
        lines(server=Found("a", "10.0.0.1", {**DRIVER, name: version}))
    told = f"{name} {version}, the driver has {DRIVER[name]}: a run needs the same Ray and Python everywhere"
    assert str(error.value) == f"node 10.0.0.1 (server): {told}"


def test_what_ray_refuses_is_one_line() -> None:
    from ray._private.utils import check_version_info

    with pytest.raises(RuntimeError) as refused:
        check_version_info({"ray_version": "2.51.0", "python_version": "3.9.1"}, "node 10.0.0.1:6379")
    told = software_versions.mismatch(str(refused.value))
    here = software_versions.here()
    ours = f"Ray {here['ray']} and Python {here['python']}"
    assert told == f"the cluster has Ray 2.51.0 and Python 3.9.1, this process {ours}: they must be the same"
    assert software_versions.mismatch("something else") is None


def test_builds_of_one_release_are_the_same() -> None:
    assert "+" not in software_versions.here()["torch"]
    assert set(software_versions.here()) == {
        "ray",
        "torch",
        "numpy",
        "python",
        "ray_split",
        "cpu",
    }  # torch is loaded here


@pytest.mark.slow
@pytest.mark.usefixtures("own_ray")
def test_a_node_with_another_torch_and_cpu_is_named_at_the_start_and_in_the_summary(
    tmp_path: Path,
) -> None:
    found = printed_by("tests.actors.other_node", str(tmp_path))
    (line,) = found["warnings"]
    assert " (client 0): torch 2.1.0, the driver has " in line and "cpu DEFAULT, the driver has " in line
    assert line.endswith(": other bits")
    (node,) = found["versions"]["nodes"]
    assert (node["torch"], node["cpu"]) == ("2.1.0", "DEFAULT")
    assert set(node) == {"address", "torch", "cpu"}
