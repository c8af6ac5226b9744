from __future__ import annotations

import numpy as np
import pytest

import ray_split as rs
from ray_split.data import task_sets
from ray_split.messages.labels import IGNORED

MAKERS = (task_sets.regression, task_sets.segmentation, task_sets.tokens)


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_the_same_seed_gives_the_same_data_and_another_seed_another(make) -> None:
    for one, same, other in zip(make(samples=20), make(samples=20), make(samples=20, seed=1), strict=True):
        assert np.array_equal(one, same) and not np.array_equal(one, other)


def test_values_have_about_mean_0_and_variance_1() -> None:
    inputs, labels = task_sets.regression(samples=4000, inputs=8)
    assert (inputs.shape, inputs.dtype, labels.shape, labels.dtype) == ((4000, 8), np.float32, (4000,), np.float32)
    assert abs(labels.mean()) < 0.1 and 0.5 < labels.std() < 1.5


def test_a_pixel_is_as_bright_as_its_label_says() -> None:
    images, labels = task_sets.segmentation(samples=40, size=12, noise=0)
    assert (images.shape, labels.shape) == ((40, 1, 12, 12), (40, 12, 12))
    assert [np.unique(images[:, 0][labels == label]).tolist() for label in range(3)] == [[0], [1], [-1]]


def test_a_tokens_class_is_by_itself_and_by_whether_token_1_came_before() -> None:
    tokens, labels = task_sets.tokens(samples=300, length=10, vocabulary=8)
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
        (task_sets.regression, {"samples": 0}), (task_sets.regression, {"noise": -1}),
        (task_sets.segmentation, {"size": 1.5}), (task_sets.tokens, {"vocabulary": 3}),
        (task_sets.tokens, {"seed": True}),
    ],
    ids=lambda x: getattr(x, "__name__", str(x)),
)  # fmt: skip
def test_sizes_that_are_none_are_refused(make, kwargs: dict) -> None:
    with pytest.raises(rs.SettingsError, match=rf"data\.kwargs: \{{'{next(iter(kwargs))}'"):
        make(**kwargs)
