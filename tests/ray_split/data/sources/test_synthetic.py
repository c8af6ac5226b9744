import pickle

import numpy as np
import pytest

from ray_split import config
from ray_split.data import load as data
from ray_split.data.sources import synthetic as made
from ray_split.errors import SettingsError
from ray_split.messages.labels import IGNORED


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
    one, same, other = (made.synthetic(200, seed=seed) for seed in (3, 3, 4))
    for name in ("train", "test"):
        assert (getattr(one, name).inputs == getattr(same, name).inputs).all()
        assert (getattr(one, name).labels == getattr(same, name).labels).all()
        assert (getattr(one, name).inputs != getattr(other, name).inputs).any()
    np.random.seed(99)
    assert rows(made.synthetic(200, seed=3).test) == rows(one.test)


def test_synthetic_data_can_be_learned():
    found = made.synthetic(2000, noise=1.0)
    means = np.stack([found.train.inputs[found.train.labels == label].mean(0) for label in range(10)])
    distances = ((found.test.inputs[:, None] - means) ** 2).sum((2, 3, 4))
    assert (distances.argmin(1) == found.test.labels).mean() > 0.8
    assert not rows(found.train) & rows(found.test)


def test_synthetic_datas_noise_is_around_patterns_of_variance_one():
    found = made.synthetic(400, shape=(40, 40), noise=0.0, num_classes=4)
    patterns = [found.train.inputs[found.train.labels == label] for label in range(4)]
    assert all((pattern == pattern[0]).all() for pattern in patterns)
    assert 0.9 < np.mean([pattern[0].var() for pattern in patterns]) < 1.1
    loud = made.synthetic(5000, shape=(2,), noise=3.0, num_classes=1)
    assert np.allclose(loud.train.inputs.std(0), 3.0, rtol=0.05)


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
    assert error.field == "data.kwargs" and f"{next(iter(kwargs))} must be a" in str(error)


def test_synthetic_data_refuses_what_it_does_not_know():
    error = refusal(classes=3)
    assert (error.field, error.value) == ("data.kwargs", "classes")
    assert "takes no argument 'classes'. Did you mean num_classes?" in str(error)


def test_users_have_equally_many_samples_and_a_shift_of_their_own():
    plain, shared = made.synthetic(600, noise=0.0, seed=2), made.synthetic(600, noise=0.0, seed=2, users=6)
    user = shared.groups["user"]
    assert np.bincount(user).tolist() == [100] * 6
    shifts = shared.train.inputs - plain.train.inputs
    for one in range(6):
        own = shifts[user == one]
        assert np.allclose(own, own[0], atol=1e-6)
        assert 0.3 < own[0].std() < 0.7
    assert (shared.train.labels == plain.train.labels).all()
    assert (shared.test.inputs != plain.test.inputs).any()
    assert plain.groups == {}


@pytest.mark.parametrize("users", [0, 11, 2.5, True, "many"])
def test_users_without_a_sample_are_refused(users):
    error = refusal(samples=10, users=users)
    assert (error.field, error.value) == ("data.kwargs", {"users": users})
    assert "users must be from 1 to 10 (as many as samples), not " in str(error)


def fake(**kwargs):
    return data.load(config.Config(data={"name": "fake_images", "kwargs": kwargs}).data)


def test_fake_images_are_bytes_of_the_size_that_is_asked_for():
    parts = fake(samples=600, shape=[3, 20, 30], num_classes=7)
    assert [len(p.inputs) for p in (parts.train, parts.val, parts.test)] == [540, 60, 100]
    assert parts.train.inputs.shape == (540, 3, 20, 30)
    assert (parts.train.inputs.dtype, parts.num_classes) == (np.uint8, 7)
    assert set(parts.train.labels.tolist()) == set(range(7))
    inputs, labels = parts.batch("train", np.array([[0, 5], [7, 0]]))
    assert (inputs.shape, inputs.dtype, labels.shape) == ((2, 2, 3, 20, 30), np.float32, (2, 2))
    assert (inputs[0, 0] == inputs[1, 1]).all() and (inputs[0, 0] != inputs[0, 1]).any()
    assert -1 <= inputs.min() < -0.7 and 0.7 < inputs.max() <= 1


def test_a_fake_image_follows_from_the_seed_and_its_index_alone():
    few, many, other = made.fake_images(60), made.fake_images(600), made.fake_images(60, seed=1)
    assert (few.train.labels == many.train.labels[:60]).all()
    assert (few.train.inputs[9] == many.train.inputs[np.array([4, 9])][1]).all()
    assert (few.train.inputs[9] != other.train.inputs[9]).any()
    assert (few.train.inputs[0] != few.test.inputs[0]).any()


def test_fake_images_can_be_learned():
    found = made.fake_images(600, shape=(1, 16, 16), num_classes=5)
    images, labels = found.train.inputs[:].astype(float), found.train.labels
    means = np.stack([images[labels == label].mean(0) for label in range(5)])
    distances = ((found.test.inputs[:][:, None] - means) ** 2).sum((2, 3, 4))
    assert (distances.argmin(1) == found.test.labels).mean() > 0.9


def test_a_million_fake_images_of_imagenets_size_take_16_bytes_each_and_a_label():
    parts = fake(samples=1_000_000, num_classes=1000)
    assert parts.train.inputs.shape == (900_000, 3, 224, 224)
    assert len(pickle.dumps(parts)) < 30e6
    assert parts.batch("val", slice(99_998, None))[0].shape == (2, 3, 224, 224)


@pytest.mark.parametrize("kwargs", [{"shape": [3, 8]}, {"shape": [3, 8, 0]}, {"samples": 0}, {"seed": -1}], ids=str)
def test_fake_images_of_no_size_are_refused(kwargs):
    with pytest.raises(SettingsError) as caught:
        fake(**kwargs)
    assert caught.value.field == "data.kwargs"


MAKERS = (made.regression, made.segmentation, made.tokens)


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_the_same_seed_gives_the_same_data_and_another_seed_another(make) -> None:
    for one, same, other in zip(make(samples=20), make(samples=20), make(samples=20, seed=1), strict=True):
        assert np.array_equal(one, same) and not np.array_equal(one, other)


def test_values_have_about_mean_0_and_variance_1() -> None:
    inputs, labels = made.regression(samples=4000, inputs=8)
    assert (inputs.shape, inputs.dtype, labels.shape, labels.dtype) == ((4000, 8), np.float32, (4000,), np.float32)
    assert abs(labels.mean()) < 0.1 and 0.5 < labels.std() < 1.5


def test_a_pixel_is_as_bright_as_its_label_says() -> None:
    images, labels = made.segmentation(samples=40, size=12, noise=0)
    assert (images.shape, labels.shape) == ((40, 1, 12, 12), (40, 12, 12))
    assert [np.unique(images[:, 0][labels == label]).tolist() for label in range(3)] == [[0], [1], [-1]]


def test_a_tokens_class_is_by_itself_and_by_whether_token_1_came_before() -> None:
    tokens, labels = made.tokens(samples=300, length=10, vocabulary=8)
    assert (tokens.dtype, labels.dtype, labels.max()) == (np.int64, np.int64, 3)
    assert np.array_equal(tokens == 0, labels == IGNORED)
    before = np.cumsum(tokens == 1, 1) - (tokens == 1) > 0
    for token in range(1, 8):
        for came in (False, True):
            found = labels[(tokens == token) & (before == came)]
            assert token == 1 or len(np.unique(found)) == 1
            assert (found // 2 == came).all()
    lengths = (tokens > 0).sum(1)
    assert lengths.min() >= 5 and lengths.max() == 10


@pytest.mark.parametrize(
    ("make", "kwargs"),
    [
        (made.regression, {"samples": 0}), (made.regression, {"noise": -1}),
        (made.segmentation, {"size": 1.5}), (made.tokens, {"vocabulary": 3}),
        (made.tokens, {"seed": True}),
    ],
    ids=lambda x: getattr(x, "__name__", str(x)),
)  # fmt: skip
def test_sizes_that_are_none_are_refused(make, kwargs: dict) -> None:
    with pytest.raises(SettingsError, match=rf"data\.kwargs: .*{next(iter(kwargs))}"):
        make(**kwargs)
