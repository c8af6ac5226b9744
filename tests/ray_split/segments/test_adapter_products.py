"""The average of adapters' products against dense matrices, and what phones of smaller ranks have of it."""

from __future__ import annotations

import numpy as np
import pytest

from ray_split import config
from ray_split.messages.state import Rows
from ray_split.segments.adapters.pairs import pairs
from ray_split.segments.adapters.products import averaged_factors
from ray_split.segments.adapters.ranks import lacking, of_ranks
from ray_split.segments.aggregators import combined

A, B = "weights/q.lora_A.default.weight", "weights/q.lora_B.default.weight"
SHAPES = {"through small matrices": (3, 40, 30), "dense": (30, 40, 30), "of few features": (3, 2, 3)}


def phones(count: int, out: int, features: int, rank: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    shares = draw.random(count)
    a, b = draw.normal(size=(count, rank, features)), draw.normal(size=(count, out, rank))
    return a.astype(np.float32), b.astype(np.float32), shares / shares.sum()


def best(matrix: np.ndarray, rank: int) -> np.ndarray:
    """The best approximation of a rank: of singular values the largest."""
    u, values, v = np.linalg.svd(matrix)
    return (u[:, :rank] * values[:rank]) @ v[:rank]


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_first_parts_of_the_average_are_the_best_approximations_of_every_rank(shape: tuple[int, int, int]) -> None:
    a, b, shares = phones(*shape)
    average = sum(share * up.astype(float) @ down for share, up, down in zip(shares, b, a, strict=True))
    found_a, found_b = averaged_factors(a, b, shares)
    assert (found_a.shape, found_b.shape) == (a.shape[1:], b.shape[1:])
    for rank in (1, 2, 4):
        kept = min(rank, *average.shape)
        assert found_b[:, :rank] @ found_a[:rank] == pytest.approx(best(average, kept), abs=1e-12)


def test_the_average_of_one_adapter_is_its_product_and_a_phone_without_a_share_has_no_part_in_it() -> None:
    a, b, _ = phones(2, 9, 7)
    a[1], b[1] = np.nan, np.nan
    found_a, found_b = averaged_factors(a, b, np.array([1.0, 0.0]))
    assert found_b @ found_a == pytest.approx(b[0].astype(float) @ a[0], abs=1e-12)
    again_a, again_b = averaged_factors(a[:1], b[:1], np.ones(1))
    assert (again_a == found_a).all() and (again_b == found_b).all()


def test_what_is_averaged_of_smaller_ranks_is_exact_as_far_as_their_sum_goes() -> None:
    a, b, shares = phones(2, 9, 7)
    a[:, 2:], b[:, :, 2:] = 0, 0  # two phones of rank 2, in a run of rank 4
    average = sum(share * up.astype(float) @ down for share, up, down in zip(shares, b, a, strict=True))
    found_a, found_b = averaged_factors(a, b, shares)
    assert found_b @ found_a == pytest.approx(average, abs=1e-12)
    zeros = sum(share * up for share, up in zip(shares, b, strict=True)) @ np.tensordot(shares, a, 1)
    assert np.abs(zeros - average).max() > 0.1  # which the average of factors is not


def test_parts_that_the_average_does_not_need_can_still_be_trained() -> None:
    a, b, shares = phones(2, 40, 30)
    a[1], b[:, :, 1:] = a[0], 0
    found_a, found_b = averaged_factors(a, b, shares)
    assert np.abs(found_b[:, 1:]).max() < 1e-12
    assert np.linalg.norm(found_a, axis=1) == pytest.approx(np.ones(4))
    nothing_a, nothing_b = averaged_factors(a, np.zeros_like(b), shares)
    assert not nothing_b.any() and np.linalg.norm(nothing_a, axis=1) == pytest.approx(np.ones(4))


def test_adapters_of_convolutions_and_embeddings_are_matrices_too() -> None:
    a, b, shares = phones(2, 6, 18)
    flat = averaged_factors(a, b, shares)
    folded = averaged_factors(a.reshape(2, 4, 2, 3, 3), b.reshape(2, 6, 4, 1, 1), shares)
    assert folded[0].shape == (4, 2, 3, 3) and folded[1].shape == (6, 4, 1, 1)
    assert (folded[0].reshape(4, 18) == flat[0]).all() and (folded[1].reshape(6, 4) == flat[1]).all()
    keys = ["weights/e.lora_embedding_A.default", "weights/e.lora_embedding_B.default", A, B, f"optimizer/{A[8:]}/step"]
    assert list(pairs(keys)) == [(keys[0], keys[1]), (A, B)]


def test_the_aggregator_averages_adapters_by_products_and_the_rest_as_the_mean() -> None:
    a, b, shares = phones(3, 9, 7)
    head, start = np.arange(6, dtype=np.float32).reshape(3, 2), {A: a[0], B: b[0], "weights/head": np.zeros(2, "f4")}
    rows = [Rows({"a": {A: a, B: b, "weights/head": head}}, shares)]
    found = combined(config.Aggregator(name="adapter_products"), rows, {"a": start})["a"]
    average = sum(share * up.astype(float) @ down for share, up, down in zip(shares, b, a, strict=True))
    assert found[B] @ found[A] == pytest.approx(best(average, 4), abs=1e-5)
    assert found["weights/head"] == pytest.approx(shares @ head)
    assert {array.dtype for array in found.values()} == {np.dtype(np.float32)}


def test_a_phone_has_the_first_parts_of_the_adapters_and_zeros_for_the_rest() -> None:
    a, b, _ = phones(1, 5, 3)
    state, ranks = {A: a[0], B: b[0], "weights/other": np.ones(2)}, np.array([1, 4, 2])
    found = of_ranks(ranks, state, {})
    assert found.keys() == {A, B}
    for phone, rank in enumerate(ranks):
        assert (found[A][phone, :rank] == a[0, :rank]).all() and not found[A][phone, rank:].any()
        assert (found[B][phone, :, :rank] == b[0][:, :rank]).all() and not found[B][phone, :, rank:].any()
    own = {A: np.stack([2 * a[0]] * 3), "weights/other": np.zeros((3, 2))}
    assert (of_ranks(ranks, state, own)[A] == 2 * found[A]).all()
    assert (of_ranks(ranks, state, own)["weights/other"] == 0).all()


def test_what_a_smaller_rank_lacks_is_counted_in_bytes() -> None:
    a, b, _ = phones(1, 5, 3)
    assert lacking(np.array([1, 4, 2]), {A: a[0], B: b[0], "weights/other": np.ones(2)}).tolist() == [96, 0, 64]
    assert lacking(np.array([1, 4]), {"weights/other": np.ones(2)}).tolist() == [0, 0]
