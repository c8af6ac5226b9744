"""By whose calls an exchange's messages go: cluster.channel."""

from __future__ import annotations

from typing import Any

import pytest

import ray_split as rs
from actors.channel import check, is_direct

TURNS = [
    ("sequential", {}),
    ("splitfed_v1", {}),
    ("splitfed_v3", {}),
    ("splitfed_v2", {}),
    ("sequential", {"optimizer": {"clip_norm": 1.0, "clip": "segment"}}),
]
OTHERS = [
    ("fedavg", {}, "in fedavg an exchange is not one client's with one server"),
    ("parallel", {}, "in parallel an exchange is not one client's with one server"),
    ("unsplit", {}, "in unsplit an exchange is not one client's with one server"),
    ("splitfed_v2", {"server": {"replicas": 2}}, "there are several replicas of the server"),
    ("sequential", {"optimizer": {"clip_norm": 1.0}}, "B steps once the norm of all gradients is known"),
    ("sequential", {"cluster": {"backend": "inprocess"}}, "all actors are in one process"),
]


def channel(schedule: str, asked: str, sections: dict[str, Any]) -> str:
    settings = rs.Config(schedule={"name": schedule}, **sections).with_values(cluster={"channel": asked})
    check(settings)
    return "direct" if is_direct(settings) else "calls"


@pytest.mark.parametrize(("schedule", "sections"), TURNS, ids=str)
def test_auto_is_direct_where_an_exchange_is_one_clients_with_one_server(
    schedule: str, sections: dict[str, Any]
) -> None:
    assert [channel(schedule, asked, sections) for asked in ("auto", "direct", "calls")] == [
        "direct",
        "direct",
        "calls",
    ]


@pytest.mark.parametrize(("schedule", "sections", "why"), OTHERS, ids=str)
def test_else_it_is_calls_and_direct_is_refused_with_the_reason(
    schedule: str, sections: dict[str, Any], why: str
) -> None:
    assert [channel(schedule, asked, sections) for asked in ("auto", "calls")] == ["calls", "calls"]
    with pytest.raises(rs.SettingsError, match=f"cluster.channel: can't be direct, because .*{why}.* Set auto"):
        channel(schedule, "direct", sections)
