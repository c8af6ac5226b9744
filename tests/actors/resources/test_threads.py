"""Who has how many CPUs where settings say auto: a rule over what each side computes, and the nodes' CPUs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import ray_split as rs
from actors.resources import threads
from actors.resources.placement import Node, needs, table, whole
from actors.resources.resolve import resolve
from ray_split.cutting.cut import cut
from ray_split.preparation.run_folder import inherit
from ray_split.segments.segment_work import SegmentWork, segment_work

TINY, HEAVY, EVEN = SegmentWork(1e6, 2e6), SegmentWork(1e9, 2e10), SegmentWork(5e9, 5e9)
"""FLOPs of an exchange of the client and of the server: digits, a large B, as much on each side."""


def settled(schedule: str, work: SegmentWork | None, nodes: int | list[Node], **sections: Any) -> rs.Config:
    there = nodes if isinstance(nodes, list) else [whole("x", nodes, 0)]
    sections["phones"] = {"count": 20, "cohort": 1, **sections.get("phones", {})}
    return resolve(rs.Config(schedule={"name": schedule}, **sections), there, work)


def shares(schedule: str, work: SegmentWork, nodes: int | list[Node], **sections: Any) -> str:
    """CPUs of the server + clients x CPUs of each, and a * where they are the same CPUs."""
    found = settled(schedule, work, nodes, **sections)
    cluster, same = found.cluster, "*" if found.cluster.share_cpus == "always" else ""
    return f"{found.server.num_cpus}+{cluster.client_actors}x{cluster.cpus_per_client}{same}"


RULE = {
    ("sequential", TINY): ("1+1x1", "1+1x1", "1+1x1", "1+1x1"),  # threads' meeting would take more than they save
    ("splitfed_v1", TINY): ("1+2x1", "1+2x1", "1+2x1", "1+2x1"),  # a third client would wait for the server
    ("fedavg", SegmentWork(3e6, 0)): ("1+4x1*", "1+8x1*", "1+16x1*", "1+20x1"),  # the server has nothing to do
    ("sequential", HEAVY): ("4+1x4*", "8+1x8*", "16+1x16*", "32+1x32"),  # in turn: each has all
    ("splitfed_v1", HEAVY): ("3+1x1", "7+1x1", "15+1x1", "32+1x1"),
    ("splitfed_v2", HEAVY): ("3+1x1", "7+1x1", "15+1x1", "32+1x1"),
    ("parallel", HEAVY): ("4+4x1*", "8+8x1*", "16+16x1*", "32+20x1"),  # all phones, then B, then all phones
    ("splitfed_v1", EVEN): ("2+2x1", "4+4x1", "8+6x1", "8+6x1"),
    ("fedavg", SegmentWork(2.1e10, 0)): ("1+4x1*", "1+8x1*", "1+16x1*", "1+20x3"),
}


@pytest.mark.parametrize(("which", "decided"), RULE.items(), ids=lambda value: str(value)[:40])
def test_the_rule_for_4_8_16_and_64_cpus(which: tuple[str, SegmentWork], decided: tuple[str, ...]) -> None:
    assert tuple(shares(*which, cpus) for cpus in (4, 8, 16, 64)) == decided


@pytest.mark.parametrize(
    ("schedule", "work", "decided"),
    [
        ("sequential", HEAVY, "2+1x2*"),
        ("splitfed_v1", HEAVY, "2+1x1*"),
        ("splitfed_v1", EVEN, "1+1x1"),
        ("splitfed_v1", TINY, "1+1x1"),
        ("sequential", TINY, "1+1x1"),
    ],
)
def test_the_rule_for_2_cpus(schedule: str, work: SegmentWork, decided: str) -> None:
    assert shares(schedule, work, 2) == decided


def test_sequential_and_unsplit_have_as_many_threads_in_every_role_so_that_their_bits_are_the_same() -> None:
    for cpus in (2, 4, 8, 16, 64):
        for work in (TINY, HEAVY, EVEN):
            split = settled("sequential", work, cpus)
            unsplit = settled("unsplit", SegmentWork(work.client + work.server, 0), cpus)
            assert split.server.num_cpus == split.cluster.cpus_per_client == unsplit.cluster.cpus_per_client


def test_numbers_are_kept_and_the_rest_follows() -> None:
    assert shares("splitfed_v1", HEAVY, 8, server={"num_cpus": 2}) == "2+1x1"
    assert shares("splitfed_v1", EVEN, 8, cluster={"client_actors": 1}) == "4+1x4"
    assert shares("sequential", HEAVY, 8, cluster={"cpus_per_client": 1, "share_cpus": "never"}) == "7+1x1"
    assert shares("parallel", HEAVY, 8, cluster={"share_cpus": "never"}) == "6+2x1"


def test_several_nodes_have_their_own_cpus() -> None:
    nodes = [whole("large", 8, 0), whole("small", 4, 0)]
    assert shares("splitfed_v1", HEAVY, nodes) == "8+1x1"
    with pytest.raises(rs.SettingsError) as caught:
        settled("splitfed_v1", HEAVY, nodes, cluster={"share_cpus": "always"})
    assert str(caught.value) == "cluster.share_cpus: can't be always, because there are 2 nodes. Set auto or never."


def test_more_than_there_is_room_for_is_refused_with_what_there_is() -> None:
    said = {
        "sharing": "cluster.client_actors: is 9, but beside the server there is room for only 8 (the cluster has 8)"
    }
    said["apart"] = said["sharing"].replace("only 8", "only 7")
    for which, share in (("sharing", "auto"), ("apart", "never")):
        with pytest.raises(rs.SettingsError) as caught:
            settled("splitfed_v1", TINY, 8, cluster={"client_actors": 9, "share_cpus": share})
        assert str(caught.value).startswith(said[which])


def test_on_a_gpu_the_server_needs_one_cpu_and_there_are_clients_to_keep_it_busy() -> None:
    assert shares("splitfed_v1", HEAVY, [whole("x", 8, 1)]) == "1+5x1"


def test_without_a_models_work_each_role_has_one_thread() -> None:
    found = settled("sequential", None, 8)
    assert (found.server.num_cpus, found.cluster.cpus_per_client, found.cluster.share_cpus) == (1, 1, "never")


def test_shared_cpus_are_asked_for_once() -> None:
    found = settled("fedavg", SegmentWork(1e6, 0), 4)
    (need,) = needs(found, [whole("x", 4, 0)])
    assert (need.names, need.cpus) == (("server", "client 0", "client 1", "client 2", "client 3"), 4)
    assert table([need], {"client 0": whole("x", 4, 0)}) == ["client 0  4 CPUs and 0 GPUs, shared  x"]
    assert threads.told(found) == "CPUs: 1 for the server, 1 for each of 4 client(s), on the same CPUs"


def test_work_is_what_layers_with_weights_compute_three_times() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Flatten(), nn.Linear(512, 4), nn.Linear(4, 2))
    example = torch.zeros(5, 3, 8, 8)
    segments = cut(model, ["1", "2"], example).modules()
    convolution, middle, last = 2 * 5 * 64 * 8 * 27, 2 * 5 * 512 * 4, 2 * 5 * 4 * 2
    assert segment_work(segments, example, True) == (3.0 * (convolution + last), 3.0 * middle)
    assert segment_work(segments, example, False) == (3.0 * (convolution + middle + last), 0.0)


def test_who_resumes_a_run_gets_its_threads_unless_others_are_asked_for(tmp_path: Path) -> None:
    told = {"name": "x", "storage_path": str(tmp_path)}
    begun = settled("sequential", HEAVY, 4, run=told)
    begun.run.folder.mkdir()
    (begun.run.folder / "config.yaml").write_text(begun.to_yaml())

    def resumed(**sections: Any) -> tuple[Any, Any]:
        found = inherit(rs.Config(run={**told, "resume": "auto"}, schedule={"name": "sequential"}, **sections))
        return found.server.num_cpus, found.cluster.cpus_per_client

    assert resumed() == (4, 4)
    assert resumed(server={"num_cpus": 1}) == (1, 4)
    assert resumed(server={"num_cpus": 1, "num_gpus": 0}, cluster={"cpus_per_client": 2}) == (1, 2)
