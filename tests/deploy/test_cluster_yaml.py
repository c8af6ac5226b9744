"""cluster.yaml by Ray's own schema and code, and what it promises. Nothing here asks a cloud."""

from __future__ import annotations

import copy
import json
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version
from ray._private.label_utils import validate_node_label_syntax, validate_node_labels
from ray.autoscaler._private.util import hash_runtime_conf, prepare_config, validate_config
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.scripts.scripts import start

from tests.conftest import ROOT

CLOUDS = ("aws", "gcp")
WORKERS = ("server", "client")


def text() -> str:
    return (ROOT / "cluster.yaml").read_text()


def gcp() -> dict[str, Any]:
    """cluster.yaml with the block for GCP in place of what is AWS's."""
    lines = text().splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("# --- GCP"))
    block = yaml.safe_load("\n".join(line[2:] for line in lines[first + 1 : lines.index("# --- end")]))
    found = yaml.safe_load(text())
    for name, node_type in block.pop("available_node_types").items():
        found["available_node_types"][name].update(node_type)
    return {**found, **block}


@pytest.fixture(params=CLOUDS)
def cluster(request: pytest.FixtureRequest) -> dict[str, Any]:
    """As `ray up` has it before it asks the cloud anything: with the provider's defaults, validated."""
    found = yaml.safe_load(text()) if request.param == "aws" else gcp()
    assert found["provider"]["type"] == request.param
    prepared = prepare_config(copy.deepcopy(found))
    validate_config(prepared)
    return dict(prepared)


def test_a_misspelt_field_would_be_found() -> None:
    found = prepare_config(yaml.safe_load(text()))
    found["available_node_types"]["head"]["label"] = {}
    with pytest.raises(Exception, match="Additional properties are not allowed"):
        validate_config(found)


def test_the_head_takes_no_actor_that_asks_for_a_cpu(cluster: dict[str, Any]) -> None:
    head = cluster["available_node_types"][cluster["head_node_type"]]
    assert head["resources"] == {"CPU": 0}
    assert head["max_workers"] == 0


def test_workers_come_when_asked_for_and_go_when_idle(cluster: dict[str, Any]) -> None:
    types = cluster["available_node_types"]
    assert [types[name]["min_workers"] for name in WORKERS] == [0, 0]
    assert cluster["max_workers"] == sum(types[name]["max_workers"] for name in WORKERS)
    assert 0 < cluster["idle_timeout_minutes"] <= 15
    assert cluster["provider"]["cache_stopped_nodes"] is False


def test_the_server_has_a_gpu_and_leaves_clients_no_room(cluster: dict[str, Any]) -> None:
    types = cluster["available_node_types"]
    assert types["server"]["resources"] == {"CPU": 1, "GPU": 1}
    assert types["client"]["resources"].keys() == {"CPU"}


def test_labels_tell_the_roles_under_a_prefix_of_our_own(cluster: dict[str, Any]) -> None:
    for name, node_type in cluster["available_node_types"].items():
        assert node_type["labels"] == {"ray-split/role": name}
        validate_node_labels(node_type["labels"])
        validate_node_label_syntax(node_type["labels"])


def test_all_machines_have_one_image(cluster: dict[str, Any]) -> None:
    configs = [each["node_config"] for each in cluster["available_node_types"].values()]
    assert len({json.dumps(each.get("ImageId") or each["disks"]) for each in configs}) == 1


def test_the_token_goes_to_every_node_and_stays_its_owners(cluster: dict[str, Any]) -> None:
    assert cluster["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    for commands in setups(cluster).values():
        assert any("chmod 600 ~/.ray/auth_token" in command for command in commands)
    for commands in (cluster["head_start_ray_commands"], cluster["worker_start_ray_commands"]):
        assert "RAY_AUTH_MODE=token" in commands[-1]
    assert "PYTHONDONTWRITEBYTECODE" not in text()


def setups(cluster: dict[str, Any]) -> dict[str, list[str]]:
    """What each kind of node is set up with, by Ray's own rules. Ray repeats some; running them twice does no harm."""
    ray = AutoscalingConfig(cluster, skip_content_hash=True)
    found = {name: ray.get_worker_setup_commands(name) for name in WORKERS} | {"head": ray.get_head_setup_commands()}
    return {name: list(dict.fromkeys(commands)) for name, commands in found.items()}


def test_set_up_installs_this_project_with_fixed_versions(cluster: dict[str, Any]) -> None:
    made = {name: [c for c in commands if "make install" in c] for name, commands in setups(cluster).items()}
    assert {len(commands) for commands in made.values()} == {1}
    for (command,) in made.values():
        assert "UV_CONSTRAINT=deploy/constraints.txt make install" in command
    assert "TORCH" not in made["server"][0] and "TORCH=cpu" in made["client"][0]


def test_setup_commands_are_in_the_repository(cluster: dict[str, Any], tmp_path: Path) -> None:
    """The folder that is mounted is enough for the make target, and every line is shell."""
    for remote, local in cluster["file_mounts"].items():
        if local.startswith("~"):
            continue
        assert remote == f"~/ray-split/{local}"
        place = tmp_path / local
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(ROOT / local)
    for commands in setups(cluster).values():
        for command in commands:
            subprocess.run(["bash", "-n", "-c", command], check=True)
            if " make install" in command:
                target = command.rpartition("make ")[2].split()
                plan = subprocess.run(["make", "-n", *target], cwd=tmp_path, check=True, capture_output=True, text=True)
                assert "--editable ." in plan.stdout


def test_what_is_mounted_exists_and_can_be_hashed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").touch()
    assert all(hash_runtime_conf(yaml.safe_load(text())["file_mounts"], None, {}))


def start_options(command: str) -> dict[str, Any]:
    """The options of a `ray start`, read by Ray's own command line."""
    words = shlex.split(command)
    context = start.make_context("start", words[words.index("start") + 1 :])
    return dict(context.params)


def test_ray_starts_with_options_that_it_has(cluster: dict[str, Any]) -> None:
    head = start_options(cluster["head_start_ray_commands"][-1])
    assert (head["head"], head["port"], head["dashboard_host"]) == (True, 6379, "127.0.0.1")
    assert head["autoscaling_config"] == "~/ray_bootstrap_config.yaml"
    assert "RAY_JOB_STOP_WAIT_TIME_S=20" in cluster["head_start_ray_commands"][-1]
    worker = start_options(cluster["worker_start_ray_commands"][-1])
    assert worker["address"] == "$RAY_HEAD_IP:6379"
    assert worker["object_manager_port"] == head["object_manager_port"]


def test_the_commands_for_machines_of_ones_own_have_options_that_there_are() -> None:
    lines = (ROOT / "docs" / "cluster.md").read_text().splitlines()
    head, server, client = (start_options(line) for line in lines if "ray start --" in line and line.startswith("    "))
    assert (head["num_cpus"], head["num_gpus"], head["dashboard_host"]) == (0, 0, "127.0.0.1")
    assert (server["num_cpus"], server["num_gpus"], client["num_gpus"]) == (1, 1, 0)
    assert [each["labels"].partition("=")[2] for each in (head, server, client)] == ["head", "server", "client"]


def test_fixed_versions_are_versions_that_this_project_takes() -> None:
    lines = (ROOT / "deploy" / "constraints.txt").read_text().splitlines()
    fixed = {r.name: r.specifier for r in (Requirement(line) for line in lines if line[0] != "#")}
    project = (ROOT / "pyproject.toml").read_text().partition("dependencies = [")[2].partition("\n]")[0]
    words = [line.strip(' ",') for line in project.splitlines()]
    wanted = {r.name: r.specifier for r in (Requirement(word) for word in words if word)}
    assert {"ray", "torch"} <= fixed.keys() <= wanted.keys()
    for name, specifier in fixed.items():
        (one,) = specifier
        assert one.operator == "==" and wanted[name].contains(Version(one.version)), name
