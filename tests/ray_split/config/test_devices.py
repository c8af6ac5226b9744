from __future__ import annotations

import numpy as np
import pytest

import ray_split as rs
from ray_split.config.devices import DEVICES, LINKS, Device, device_of, link_of
from ray_split.errors import SettingsError
from ray_split.seeds import uniform

MIX = [{"of": "mid_range", "weight": 3}, {"of": {"gflops": 1, "memory_mb": 100}, "weight": 1}]


def test_a_message_takes_its_bytes_over_the_rate_and_the_latency() -> None:
    link = link_of({"up_mbps": 8, "down_mbps": 16, "latency_ms": 100})
    assert link.seconds(2e6, up=True) == pytest.approx(2.1)
    assert link.seconds(2e6, up=False) == pytest.approx(1.1)


def test_jitter_is_exponential_with_its_mean() -> None:
    link = link_of({"up_mbps": 8, "down_mbps": 8, "latency_ms": 100, "jitter_ms": 20})
    draws = (np.arange(10_000) + 0.5) / 10_000
    took = link.seconds(1000.0, True, (draws, draws * 0))
    assert took.min() >= 0.101
    assert took.mean() == pytest.approx(0.121, abs=1e-4)


def test_what_is_lost_is_sent_again_a_round_trip_later() -> None:
    link = link_of({"up_mbps": 8, "down_mbps": 8, "latency_ms": 100, "loss": 0.1})
    sent = 1448 / 0.9 / 1e6  # one packet
    took = [link.seconds(1448.0, True, (0.0, draw)) for draw in (0.0, 0.89, 0.91, 0.98, 0.991)]
    assert took == pytest.approx([sent + late for late in (0.1, 0.1, 0.3, 0.3, 0.5)])


def test_of_many_packets_the_unluckiest_counts() -> None:
    link = link_of({"up_mbps": 8, "down_mbps": 8, "latency_ms": 100, "loss": 0.1})
    draws, size = uniform(0, "messages", np.arange(4000))[:, 0], 1448.0 * 50
    again = (link.seconds(size, True, (draws * 0, draws)) - size / 0.9e6 - 0.1) / 0.2
    expected = sum(1 - (1 - 0.1**n) ** 50 for n in range(1, 20))
    assert np.mean(again) == pytest.approx(expected, rel=0.03)


def test_every_profile_says_where_it_comes_from() -> None:
    assert all(profile.source and profile.name == name for table in (DEVICES, LINKS) for name, profile in table.items())


def test_better_classes_of_phones_are_faster_and_have_more_memory() -> None:
    low, mid, high = (DEVICES[name] for name in ("low_end", "mid_range", "high_end"))
    assert low.gflops < mid.gflops < high.gflops
    assert low.memory_mb < mid.memory_mb < high.memory_mb


def test_the_papers_links_are_in_the_papers_order() -> None:
    took = [LINKS[name].seconds(1e6, True) for name in ("same_network", "cloud_tcp", "tunnel")]
    assert took == sorted(took)


def test_numbers_of_ones_own_are_a_profile() -> None:
    assert device_of({"gflops": 5, "memory_mb": 300}) == Device("own", 5.0, 300.0, "own")
    assert device_of({"gflops": 5}).memory_mb == float("inf")


@pytest.mark.parametrize(
    ("section", "field", "value", "said"),
    [
        ("phones", "device", "midrange", "Did you mean mid_range"),
        ("phones", "device", {"gflops": -1}, "in the mapping, gflops must be greater than 0, not -1"),
        ("phones", "device", {"memory_mb": 5}, "the mapping lacks gflops. Add 'gflops: NUMBER'"),
        ("phones", "device", [], "a mix of one part or more"),
        ("phones", "device", [{"of": "x", "weight": 1}], "low_end, mid_range"),
        ("phones", "device", [{"of": "low_end", "weight": 0}], "in the mapping, weight must be greater than 0, not 0"),
        ("phones", "link", {"up_mbps": 1}, "the mapping lacks down_mbps. Add 'down_mbps: NUMBER'"),
        ("phones", "link", {"up_mbps": 1, "down_mbps": 1, "loss": 1}, "in the mapping, loss must be less than "
        "1, not 1"),
        ("phones", "link", "6g", "Choose same_network, cloud_tcp, tunnel, wifi, 5g, 4g or 3g, or give numbers"),
        ("server", "device", MIX, "k80, rtx_2080, a100"),
        ("phones", "device", "{gflops: ", "YAML"),
        ("phones", "on_misfit", "stop", "must be refuse or skip, not 'stop'"),
    ],
)  # fmt: skip
def test_a_setting_that_is_no_profile_is_said_in_a_line(section: str, field: str, value: object, said: str) -> None:
    with pytest.raises(SettingsError, match=rf"^{section}\.{field}: ") as raised:
        rs.Config(**{section: {field: value}})
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_settings_as_typed_on_a_command_line_are_yaml() -> None:
    phones = rs.Config(phones={"device": "[{of: mid_range, weight: 3}]", "link": "{up_mbps: 1, down_mbps: 2}"}).phones
    assert phones.device == [{"of": "mid_range", "weight": 3}]
    assert phones.link == {"up_mbps": 1, "down_mbps": 2}
    assert rs.Config.model_validate(rs.Config(phones=phones.model_dump()).model_dump()).phones == phones
