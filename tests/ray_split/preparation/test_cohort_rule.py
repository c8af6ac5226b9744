import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ray_split import config
from ray_split.preparation import cohort_rule
from ray_split.preparation.cohort_rule import Sizes
from ray_split.segments.base_weight import hold_base, train

SMALL = Sizes(largest=100, weights=100, outputs=200)
LARGE = Sizes(largest=cohort_rule.LARGEST + 1, weights=10**6, outputs=10**6)
ALL = {"a", "b", "c"}


def settled(sizes, per_round, stackable=ALL, **phones):
    found = cohort_rule.cohort(config.Config(phones={"count": 10**6, **phones}).phones, sizes, per_round, stackable)
    return found.cohort, found.stacked


def same(size):
    return {name: size for name in "abc"}


def test_sizes_count_the_elements_of_weights_and_of_every_layers_output():
    module = nn.Sequential(nn.Linear(4, 8), nn.Sequential(nn.ReLU(), nn.Linear(8, 2, bias=False)))
    size, outputs = cohort_rule.sizes(module, torch.zeros(5, 4))
    assert outputs.shape == (5, 2)
    assert size == Sizes(largest=40, weights=32 + 8 + 16, outputs=5 * 8 + 5 * 8 + 5 * 2)
    wide, _ = cohort_rule.sizes(nn.Linear(100, 1), torch.zeros(1, 100))
    assert wide == Sizes(largest=100, weights=101, outputs=1)


def test_sizes_of_a_convolution_are_those_of_its_output():
    size, _ = cohort_rule.sizes(nn.Conv2d(3, 4, 3, padding=1), torch.zeros(2, 3, 8, 8))
    assert size == Sizes(largest=2 * 4 * 8 * 8, weights=4 * 3 * 9 + 4, outputs=2 * 4 * 8 * 8)


def test_a_base_is_no_phones_own_and_what_is_merely_frozen_is():
    module = nn.Sequential(nn.Linear(400, 8).requires_grad_(False), nn.Linear(8, 2))
    frozen, _ = cohort_rule.sizes(module, torch.zeros(1, 400))
    assert frozen == Sizes(largest=3200, weights=3200 + 8 + 16 + 2, outputs=8 + 2)
    hold_base(module)
    train(module[1])
    adapted, _ = cohort_rule.sizes(module, torch.zeros(1, 400))
    assert adapted == Sizes(largest=16, weights=16 + 2, outputs=8 + 2)


def test_beside_a_base_an_optimizers_slots_count_as_they_are_and_what_is_passed_on_as_nothing():
    module = nn.Sequential(nn.Linear(4, 8), nn.Identity(), nn.Linear(8, 2))
    assert cohort_rule.sizes(module, torch.zeros(1, 4), slots=0)[0] == Sizes(32, 32 + 8 + 16 + 2, 8 + 8 + 2, 2)
    hold_base(module[0].requires_grad_(False))
    found, _ = cohort_rule.sizes(module, torch.zeros(1, 4), slots=0)
    assert found == Sizes(largest=16, weights=16 + 2, outputs=8 + 2, slots=0)
    large = {name: Sizes(100, 10**5, 10**5, slots) for name, slots in (("a", 0), ("b", 1), ("c", 0))}
    assert settled(large, 10**6)[0] == cohort_rule.MEMORY // (2 * 4 * (2 + 2) * 10**5)


def test_sizes_leave_no_trace():
    module = nn.Sequential(nn.Linear(4, 8))
    _, outputs = cohort_rule.sizes(module, (torch.zeros(5, 4),))
    assert not outputs.requires_grad
    assert not module[0]._forward_hooks
    with pytest.raises(RuntimeError):
        cohort_rule.sizes(module, torch.zeros(5, 3))
    assert not module[0]._forward_hooks


def test_a_segment_suits_stacking_up_to_the_largest_tensor():
    assert cohort_rule.suits(SMALL)
    assert cohort_rule.suits(Sizes(cohort_rule.LARGEST, 10**9, 10**9))
    assert not cohort_rule.suits(LARGE)


def test_where_nothing_can_be_stacked_phones_train_one_by_one():
    assert settled(same(SMALL), 100, stackable=set()) == (1, [])


def test_a_number_is_kept_and_what_can_be_is_stacked():
    assert settled(same(LARGE), 10, stackable={"c", "a"}, cohort=7) == (7, ["a", "c"])
    assert settled(same(LARGE), 10, stackable=set(), cohort=7) == (7, [])
    assert settled(same(SMALL), 10, cohort=1) == (1, [])


def test_few_phones_are_one_cohort():
    for per_round in (2, 5, cohort_rule.SMALLEST, 2 * cohort_rule.SMALLEST - 1):
        assert settled(same(SMALL), per_round) == (per_round, ["a", "b", "c"])


def test_one_phone_is_never_stacked():
    assert settled(same(SMALL), 1) == (1, [])


def test_many_phones_are_a_few_cohorts_that_are_large():
    for lanes in range(2, cohort_rule.LANES + 1):
        assert settled(same(SMALL), lanes * cohort_rule.SMALLEST)[0] == cohort_rule.SMALLEST
    assert settled(same(SMALL), 100 * cohort_rule.LANES)[0] == 100
    assert settled(same(SMALL), 100 * cohort_rule.LANES + 1)[0] == 101


def test_a_cohorts_largest_tensor_fits_the_cache():
    size = Sizes(largest=cohort_rule.LARGEST, weights=100, outputs=100)
    assert settled({**same(SMALL), "b": size}, 10**6)[0] == cohort_rule.CACHED // cohort_rule.LARGEST


def test_a_cohorts_copies_fit_the_memory_of_each_process():
    each = 4 * (4 * 10_000 + 2 * 100_000)  # bytes
    size = Sizes(largest=100, weights=10_000, outputs=100_000)
    none = Sizes(0, 0, 0)
    assert settled({"a": none, "b": size, "c": none}, 10**6)[0] == cohort_rule.MEMORY // each
    assert settled({"a": size, "b": size, "c": none}, 10**6)[0] == cohort_rule.MEMORY // each
    assert settled({"a": size, "b": none, "c": size}, 10**6)[0] == cohort_rule.MEMORY // (2 * each)


def test_a_model_of_any_size_makes_a_cohort_of_one_at_least():
    huge = Sizes(largest=10**10, weights=10**10, outputs=10**10)
    assert settled(same(huge), 10, stackable={"c"}) == (1, [])


@given(
    largest=st.integers(1, 10**7), weights=st.integers(0, 10**8), outputs=st.integers(0, 10**8),
    per_round=st.integers(1, 10**5),
)  # fmt: skip
def test_a_cohort_never_exceeds_its_bounds(largest, weights, outputs, per_round):
    number, stacked = settled(same(Sizes(largest, weights, outputs)), per_round)
    assert 1 <= number <= per_round
    assert number == 1 or number * largest <= cohort_rule.CACHED
    assert number == 1 or number * 2 * 4 * (4 * weights + 2 * outputs) <= cohort_rule.MEMORY
    assert bool(stacked) == (number > 1)
