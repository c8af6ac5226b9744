"""A run on nodes with networks of their own: the same bits as in one process, and what crosses between the nodes.

Bytes are counted by the interfaces, and are compared with those of metrics.jsonl.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.clusters.network import why_not
from tests.clusters.ray_nodes import Nodes, nodes

pytestmark = pytest.mark.usefixtures("own_ray")

STEADY = slice(1, -1)  # the counts between which whole rounds lie, without the start, evaluation or the end
CALLS = {"channel": "calls"}  # each submitted by the driver, whose connections are counted
INLINED = "RAY_max_direct_call_object_size"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """A head, a server's node, and a client's."""
    if reason := why_not():
        pytest.skip(reason)
    with nodes(tmp_path_factory.mktemp("nodes")) as found:
        yield found


@pytest.fixture(scope="module")
def found(cluster: Nodes) -> dict[str, Any]:
    """A run of four phones whose messages are 0.5 MB."""
    run: dict[str, Any] = cluster.run("run")
    return run


def rounds(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of the rounds that lie between the steady counts: not the first, nor the last."""
    rows: list[dict[str, Any]] = found["rows"][1:-1]
    return rows


def counted(found: dict[str, Any], *columns: str) -> int:
    return sum(row[column] for row in rounds(found) for column in columns)


def moved(found: dict[str, Any], machine: str) -> tuple[int, int]:
    """Bytes that a machine received and sent in these rounds."""
    first, *_, last = found["counts"][STEADY]
    received, sent = (last["machines"][machine][way] - first["machines"][machine][way] for way in (0, 1))
    return received, sent


def by_driver(found: dict[str, Any]) -> float:
    """Bytes that the driver sent and received, a round."""
    first, *_, last = found["counts"][STEADY]
    return float(last["driver"] - first["driver"]) / len(rounds(found))


def wide(width: int) -> dict[str, Any]:
    return {"kwargs": {"width": width}}


@pytest.mark.thorough
def test_nodes_end_with_the_bits_of_one_process(found: dict[str, Any]) -> None:
    assert found["there"] == found["here"]
    assert found["lost"] == []


@pytest.mark.thorough
def test_interfaces_carry_the_bytes_that_are_counted(found: dict[str, Any]) -> None:
    total = counted(found, "bytes_up", "bytes_down", "bytes_weights")
    assert sum(moved(found, "client")) == pytest.approx(total, rel=0.1)
    assert sum(moved(found, "server")) == pytest.approx(total, rel=0.1)


@pytest.mark.thorough
def test_each_message_crosses_once(found: dict[str, Any]) -> None:
    up, down = counted(found, "bytes_up"), counted(found, "bytes_down")
    received, sent = moved(found, "server")
    assert up < received < up * 1.03
    assert down < sent < down * 1.03


@pytest.mark.thorough
def test_the_heads_interface_carries_weights_and_no_messages(found: dict[str, Any]) -> None:
    messages, weights = counted(found, "bytes_up", "bytes_down"), counted(found, "bytes_weights")
    assert sum(moved(found, "head")) < weights + 0.02 * messages


@pytest.mark.thorough
def test_the_driver_sees_no_message(found: dict[str, Any]) -> None:
    messages = counted(found, "bytes_up", "bytes_down") / len(rounds(found))
    assert by_driver(found) < 0.02 * messages
    first, *_, last = (count["memory"] for count in found["counts"][STEADY])
    assert last["store"] == first["store"]  # nothing of the object store was looked at
    # A heap moves by some MB whatever it holds (7.4 have been seen); who kept a round's messages would have them all.
    assert last["pss"] - first["pss"] < messages / 4


@pytest.mark.slow
def test_what_the_driver_moves_does_not_grow_with_the_model(cluster: Nodes) -> None:
    narrow, broad = (cluster.run(f"width {width}", model=wide(width), cluster=CALLS) for width in (512, 5120))
    direct = cluster.run("width 5120 direct", model=wide(5120))
    assert counted(direct, "bytes_up") == counted(broad, "bytes_up") > 9 * counted(narrow, "bytes_up")
    assert by_driver(broad) < 1.5 * by_driver(narrow)
    assert by_driver(direct) < 0.01 * counted(direct, "bytes_up") / len(rounds(direct))
    growths = [run["counts"][-2]["memory"]["pss"] - run["counts"][0]["memory"]["pss"] for run in (narrow, broad)]
    assert growths[1] - growths[0] < 10e6


@pytest.mark.slow
def test_what_the_driver_moves_grows_by_a_few_numbers_a_phone(cluster: Nodes) -> None:
    few, many = (
        cluster.run(
            f"phones {count}",
            model=wide(512),
            data={"kwargs": {"samples": 1280, "shape": [8, 8]}, "batch_size": 16},
            phones={"count": count, "local_steps": 2, "cohort": count},
            cluster=CALLS,
        )
        for count in (4, 40)
    )
    assert counted(many, "bytes_up") == 10 * counted(few, "bytes_up")
    assert by_driver(many) < 1.3 * by_driver(few)
    assert by_driver(many) - by_driver(few) < 36 * 1000


@pytest.mark.slow
def test_small_messages_pass_through_the_driver_unless_ray_is_told_otherwise(cluster: Nodes) -> None:
    passed = cluster.run("small", model=wide(64), cluster=CALLS)
    kept = cluster.run("small kept", env={INLINED: "2000"}, model=wide(64), cluster=CALLS)
    messages = counted(passed, "bytes_up", "bytes_down") / len(rounds(passed))
    assert by_driver(passed) - by_driver(kept) > 1.9 * messages  # in, and out again
    assert sum(moved(kept, "head")) < 0.5 * sum(moved(passed, "head"))
    assert passed["there"] == kept["there"] == passed["here"]


@pytest.mark.slow
def test_a_data_set_reaches_a_node_once_whoever_many_clients_are_there(cluster: Nodes) -> None:
    samples = 100_000
    data = {"kwargs": {"samples": samples, "shape": [8, 8]}}
    one, three = (
        cluster.run(
            f"clients {count}",
            data=data,
            phones={"count": 4, "local_steps": 1, "cohort": 1},
            cluster={"client_actors": count},
            run={"rounds": 1},
        )
        for count in (1, 3)
    )
    received = [run["counts"][0]["machines"]["client"][0] for run in (one, three)]
    size = (samples + samples // 6) * (64 * 4 + 8)
    assert received == pytest.approx([size, size], rel=0.1)
    assert received[1] < 1.05 * received[0]
    assert one["there"] == three["there"] == one["here"]


@pytest.fixture(scope="module")
def with_spare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """A second node for clients."""
    if reason := why_not():
        pytest.skip(reason)
    with nodes(tmp_path_factory.mktemp("spare"), ("head", "server", "client", "client spare")) as found:
        yield found


@pytest.mark.slow
def test_a_link_that_comes_back_soon_costs_time_and_no_actor(with_spare: Nodes) -> None:
    found = with_spare.run("brief", do="cut_servers_briefly")
    assert found["there"] == found["here"]
    assert found["lost"] == []


@pytest.mark.slow
def test_a_node_whose_link_is_cut_is_given_up_and_another_takes_over(with_spare: Nodes) -> None:
    found = with_spare.run("cut", do="cut_clients")
    assert found["there"] == found["here"]
    assert found["lost"] == ["client 0"]
