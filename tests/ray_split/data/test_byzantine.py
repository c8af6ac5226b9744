import numpy as np
import pytest

from ray_split.config import Config
from ray_split.data.byzantine import hostile, scales


def settings(hostile, seed=0, **phones):
    return Config(phones={"count": 20, "hostile": hostile, **phones}, run={"seed": seed})


@pytest.mark.parametrize(("given", "count"), [(0, 0), (0.0, 0), (1, 1), (0.1, 2), ("0.1", 2), ("1.0", 20), (20, 20)])
def test_as_many_are_hostile_as_the_settings_say(given, count):
    found = hostile(settings(given))
    assert len(set(found)) == len(found) == count
    assert all(0 <= phone < 20 for phone in found)


def test_the_seed_draws_them_and_more_are_the_same_ones_and_others():
    assert hostile(settings(3)) == hostile(settings(3))
    assert hostile(settings(3)) != hostile(settings(3, seed=1))
    assert set(hostile(settings(3))) < set(hostile(settings(7)))


def test_their_gradients_have_a_scale_and_the_others_one():
    found = scales(settings(2, hostile_scale=-3.0))
    assert found[list(hostile(settings(2)))].tolist() == [-3, -3]
    assert np.sort(found).tolist() == [-3, -3] + [1] * 18
    assert scales(settings(0)) is None
