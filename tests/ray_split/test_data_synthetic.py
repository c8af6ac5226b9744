import numpy as np
import pytest

from ray_split import config, data
from ray_split.failure import SettingsError


def synthetic(**kwargs):
    return data.load(config.Config(data={"name": "synthetic", "kwargs": kwargs}).data)


def refusal(**kwargs):
    with pytest.raises(SettingsError) as caught:
        synthetic(**kwargs)
    assert len(str(caught.value).splitlines()) == 1
    return caught.value


def rows(part):
    return {row.tobytes() for row in part.inputs}


def test_synthetic_data_has_the_shape_that_is_asked_for():
    parts = synthetic(samples=600, shape=[3, 4, 5], num_classes=7)
    assert [len(p.inputs) for p in (parts.train, parts.val, parts.test)] == [540, 60, 100]
    assert parts.train.inputs.shape[1:] == (3, 4, 5)
    assert (parts.train.inputs.dtype, parts.train.labels.dtype) == (np.float32, np.int64)
    assert set(parts.train.labels) == set(range(7))
    assert parts.num_classes == 7
    default = data.load(config.Config(data={"name": "synthetic", "val_fraction": 0}).data)
    assert (default.train.inputs.shape, default.test.inputs.shape) == ((60_000, 1, 8, 8), (10_000, 1, 8, 8))
    assert default.num_classes == 10


def test_synthetic_data_has_all_its_classes_even_where_no_sample_is_of_the_last():
    assert synthetic(samples=3, num_classes=50).num_classes == 50


def test_synthetic_data_follows_from_its_own_seed():
    one, same, other = (data.synthetic(200, seed=seed) for seed in (3, 3, 4))
    for name in ("train", "test"):
        assert (getattr(one, name).inputs == getattr(same, name).inputs).all()
        assert (getattr(one, name).labels == getattr(same, name).labels).all()
        assert (getattr(one, name).inputs != getattr(other, name).inputs).any()
    np.random.seed(99)
    assert rows(data.synthetic(200, seed=3).test) == rows(one.test)


def test_synthetic_data_can_be_learned():
    found = data.synthetic(2000, noise=1.0)
    means = np.stack([found.train.inputs[found.train.labels == label].mean(0) for label in range(10)])
    distances = ((found.test.inputs[:, None] - means) ** 2).sum((2, 3, 4))
    assert (distances.argmin(1) == found.test.labels).mean() > 0.8
    assert not rows(found.train) & rows(found.test)


def test_synthetic_datas_noise_is_around_patterns_of_variance_one():
    found = data.synthetic(400, shape=(40, 40), noise=0.0, num_classes=4)
    patterns = [found.train.inputs[found.train.labels == label] for label in range(4)]
    assert all((pattern == pattern[0]).all() for pattern in patterns)
    assert 0.9 < np.mean([pattern[0].var() for pattern in patterns]) < 1.1
    loud = data.synthetic(5000, shape=(2,), noise=3.0, num_classes=1)
    assert np.allclose(loud.train.inputs.std(0), 3.0, rtol=0.05)


NUMBERS = "positive whole numbers (shape a list of them), and noise and seed not below 0"


@pytest.mark.parametrize(
    "kwargs",
    [
        {"samples": 0},
        {"num_classes": 0},
        {"noise": -0.1},
        {"shape": [3, 0]},
        {"shape": [-1]},
        {"samples": -5},
        {"samples": "many"},
        {"samples": 2.5},
        {"shape": 5},
        {"shape": [1.5]},
        {"noise": "x"},
        {"seed": 1.5},
        {"seed": -1},
        {"samples": True},
    ],
    ids=str,
)
def test_synthetic_data_of_no_size_is_refused(kwargs):
    error = refusal(**kwargs)
    assert (error.field, error.allowed) == ("data.kwargs", NUMBERS)


def test_synthetic_data_refuses_what_it_does_not_know():
    error = refusal(classes=3)
    assert (error.field, error.value) == ("data.kwargs", "classes")
    assert "of samples, shape, num_classes, noise, seed" in error.allowed
