"""deploy/kuberay.yaml: by Ray's own code for KubeRay, by the fields that a RayJob has, and by our own command line."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.autoscaler._private.kuberay.utils import parse_quantity
from ray.scripts.scripts import start

from actors.resources.placement import whole
from actors.resources.resolve import resolve
from ray_split import config
from ray_split.command_line.training import settings_of
from tests.conftest import ROOT

# The fields of KubeRay's types, as far as they are for people to set; required ones first.
SPEC = "entrypoint rayClusterSpec activeDeadlineSeconds backoffLimit clusterSelector deletionStrategy entrypointNumCpus"
SPEC += " entrypointNumGpus entrypointResources jobId managedBy metadata runtimeEnvYAML shutdownAfterJobFinishes"
SPEC += " submissionMode submitterConfig submitterPodTemplate suspend ttlSecondsAfterFinished"
CLUSTER = "headGroupSpec workerGroupSpecs rayVersion authOptions autoscalerOptions enableInTreeAutoscaling"
CLUSTER += " gcsFaultToleranceOptions headServiceAnnotations managedBy suspend"
SCALING = (
    "version idleTimeoutSeconds upscalingMode resources image imagePullPolicy env envFrom securityContext volumeMounts"
)
HEAD = "rayStartParams template labels resources headService enableIngress serviceType"
GROUP = (
    "groupName minReplicas maxReplicas rayStartParams template replicas labels resources idleTimeoutSeconds numOfHosts"
)
GROUP += " scaleStrategy suspend"


@pytest.fixture
def documents() -> dict[str, Any]:
    text = (ROOT / "deploy" / "kuberay.yaml").read_text()
    return {each["kind"]: each for each in yaml.safe_load_all(text)}


@pytest.fixture
def job(documents: dict[str, Any]) -> dict[str, Any]:
    return dict(documents["RayJob"])


@pytest.fixture
def groups(job: dict[str, Any]) -> dict[str, Any]:
    cluster = job["spec"]["rayClusterSpec"]
    return {"head": cluster["headGroupSpec"], **{group["groupName"]: group for group in cluster["workerGroupSpecs"]}}


def container(group: dict[str, Any]) -> dict[str, Any]:
    (only,) = group["template"]["spec"]["containers"]
    return dict(only)


def check(found: dict[str, Any], fields: str, required: int) -> None:
    names = fields.split()
    assert set(names[:required]) <= found.keys() <= set(names)


def test_it_is_a_ray_job_with_fields_that_there_are(job: dict[str, Any], groups: dict[str, Any]) -> None:
    assert (job["apiVersion"], job["kind"], job["metadata"]["name"]) == ("ray.io/v1", "RayJob", "ray-split")
    check(job["spec"], SPEC, 2)
    cluster = job["spec"]["rayClusterSpec"]
    check(cluster, CLUSTER, 2)
    check(cluster["autoscalerOptions"], SCALING, 1)
    check(groups.pop("head"), HEAD, 2)
    for group in groups.values():
        check(group, GROUP, 5)


def test_ray_takes_it_as_a_cluster_that_scales_from_nothing(job: dict[str, Any]) -> None:
    """By what Ray's autoscaler does with a RayCluster, which ends with Ray's own validation."""
    cluster = {"metadata": {"name": "ray-split", "namespace": "default"}, "spec": job["spec"]["rayClusterSpec"]}
    found = _derive_autoscaling_config_from_ray_cr(cluster)
    types = found["available_node_types"]
    assert found["idle_timeout_minutes"] == 10
    assert {name: each["min_workers"] for name, each in types.items()} == {"headgroup": 0, "server": 0, "client": 0}
    processors = {name: (each["resources"]["CPU"], each["resources"].get("GPU")) for name, each in types.items()}
    assert processors == {"headgroup": (0, None), "server": (1, 1), "client": (8, None)}
    assert {name: each["labels"]["ray-split/role"] for name, each in types.items()} == {
        "headgroup": "head",
        "server": "server",
        "client": "client",
    }
    assert job["spec"]["rayClusterSpec"]["enableInTreeAutoscaling"] is True


def test_pods_have_what_ray_offers(groups: dict[str, Any]) -> None:
    for group in groups.values():
        resources, offered = container(group)["resources"], group["rayStartParams"]
        assert resources["limits"] == resources["requests"]
        assert int(offered["num-cpus"]) <= parse_quantity(resources["limits"]["cpu"])
        assert offered.get("num-gpus") == resources["limits"].get("nvidia.com/gpu")
        assert "memory" in resources["limits"]
    client = groups["client"]
    assert client["rayStartParams"]["num-cpus"] == container(client)["resources"]["limits"]["cpu"]


def test_ray_starts_with_options_that_it_has(groups: dict[str, Any]) -> None:
    for group in groups.values():
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        start.make_context("start", [f"--{name}={value}" for name, value in group["rayStartParams"].items()])


def settings(job: dict[str, Any]) -> config.Config:
    program, command, *arguments = shlex.split(job["spec"]["entrypoint"])
    assert (program, command) == ("ray-split", "train")
    found, wanted = settings_of(arguments)
    assert wanted == "train"
    return found


def test_the_entrypoint_is_a_run_that_starts_before_there_are_workers(job: dict[str, Any]) -> None:
    found = settings(job)
    assert resolve(found, [whole("x", 0, 0)]).cluster.client_actors == found.cluster.client_actors
    assert found.run.resume == "auto"  # what backoffLimit is for


def test_the_cluster_grows_to_what_the_entrypoint_asks_for(job: dict[str, Any], groups: dict[str, Any]) -> None:
    found = resolve(settings(job), [whole("x", 0, 0)])
    client, server = groups["client"], groups["server"]
    fit = int(client["rayStartParams"]["num-cpus"]) // int(found.cluster.cpus_per_client) * client["maxReplicas"]
    assert int(found.cluster.client_actors) <= fit
    assert (server["rayStartParams"]["num-cpus"], server["maxReplicas"]) == (str(found.server.num_cpus), 1)
    assert float(server["rayStartParams"]["num-gpus"]) == found.server.num_gpus


def test_results_lie_on_the_volume_that_outlives_the_cluster(documents: dict[str, Any], groups: dict[str, Any]) -> None:
    pod = groups["head"]["template"]["spec"]
    ((mount,), (volume,)) = container(groups["head"])["volumeMounts"], pod["volumes"]
    assert settings(documents["RayJob"]).run.storage_path == mount["mountPath"]
    assert mount["name"] == volume["name"]
    claim = documents["PersistentVolumeClaim"]["metadata"]["name"]
    assert volume["persistentVolumeClaim"]["claimName"] == claim


def test_the_token_is_asked_for_and_a_stopped_run_has_time(job: dict[str, Any], groups: dict[str, Any]) -> None:
    assert job["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    assert {"name": "RAY_JOB_STOP_WAIT_TIME_S", "value": "20"} in container(groups["head"])["env"]


def test_when_the_run_is_over_nothing_stays(job: dict[str, Any]) -> None:
    assert job["spec"]["shutdownAfterJobFinishes"] is True
    assert 0 < job["spec"]["ttlSecondsAfterFinished"] <= 3600


def test_all_pods_have_one_image_with_the_ray_that_is_named_and_no_root(
    job: dict[str, Any], groups: dict[str, Any]
) -> None:
    assert {container(group)["image"] for group in groups.values()} == {"ray-split:0.1.0"}
    for group in groups.values():
        user = group["template"]["spec"]["securityContext"]
        assert user == {"runAsNonRoot": True, "runAsUser": 1000, "fsGroup": 1000}
    constraints = (ROOT / "deploy" / "constraints.txt").read_text().split()
    assert f"ray=={job['spec']['rayClusterSpec']['rayVersion']}" in constraints
