from __future__ import annotations

import numpy as np
import pytest

from ray_split.data.phone_devices import devices_of, links_of

MIX = [{"of": "mid_range", "weight": 3}, {"of": {"gflops": 1, "memory_mb": 100}, "weight": 1}]


def test_a_mix_is_drawn_by_weight_from_the_seed() -> None:
    profiles, chosen = devices_of(MIX, 0, 10_000)
    assert [profile.name for profile in profiles] == ["mid_range", "own"]
    assert np.mean(chosen == 0) == pytest.approx(0.75, abs=0.02)
    assert (chosen == devices_of(MIX, 0, 10_000)[1]).all()
    assert (chosen != devices_of(MIX, 1, 10_000)[1]).any()


def test_a_phone_keeps_its_profile_if_there_are_more_phones() -> None:
    assert devices_of(MIX, 3, 50)[1].tolist() == devices_of(MIX, 3, 500)[1][:50].tolist()


def test_devices_and_links_are_drawn_apart() -> None:
    links = [{"of": "wifi", "weight": 1}, {"of": "3g", "weight": 1}]
    devices = [{"of": "low_end", "weight": 1}, {"of": "high_end", "weight": 1}]
    assert (links_of(links, 0, 100)[1] != devices_of(devices, 0, 100)[1]).any()
