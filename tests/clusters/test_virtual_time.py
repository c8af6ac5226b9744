"""Virtual time against a real run: two clients on nodes whose links are limited."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.clusters.across_nodes import SLOW_MBPS
from tests.clusters.network import why_not
from tests.clusters.ray_nodes import Nodes, nodes
from tests.tiers import slow

pytestmark = pytest.mark.usefixtures("own_ray")

GOODPUT = SLOW_MBPS * 1448 / 1514  # what the headers of TCP, IP and Ethernet leave
LINK = {"up_mbps": GOODPUT, "down_mbps": GOODPUT}
FAST = {"gflops": 20.0}  # a layer of 64 x 2048 is nothing beside its messages of 0.5 MB
PHONES = {"count": 2, "local_steps": 3, "cohort": 1, "device": FAST, "link": LINK}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """A head, a server's node, and a node for each of two clients."""
    if reason := why_not():
        pytest.skip(reason)
    with nodes(tmp_path_factory.mktemp("nodes"), ("head", "server", "client a", "client b")) as found:
        yield found


@pytest.mark.parametrize("schedule", slow("splitfed_v1", "sequential"))
def test_a_rounds_virtual_seconds_are_those_of_a_real_run_behind_such_links(cluster: Nodes, schedule: str) -> None:
    settings: dict[str, dict[str, Any]] = {
        "phones": PHONES,
        "schedule": {"name": schedule},
        "server": {"device": FAST},
        "cluster": {"client_actors": 2},
        "run": {"rounds": 8},
    }
    found = cluster.run(f"slow {schedule}", do="limit_clients", **settings)
    rows = found["rows"][2:]  # the links are limited in the second round
    measured = min(row["round_seconds"] for row in rows)  # of the round that nobody else disturbed
    assert rows[0]["virtual_seconds"] == pytest.approx(measured, rel=0.15)
    messages = (rows[0]["bytes_up"] + rows[0]["bytes_down"]) * 8 / (GOODPUT * 1e6)
    assert measured > messages / 2 * 0.9  # the links were limited: two of them
