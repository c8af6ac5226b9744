import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_split import seeds

NUMBERS = [0, 1, 7, 2**31, 2**32 - 1, 2**32, 2**32 + 5, 2**40 + 3, 2**63, 2**64 - 1, 2**64, 2**96 + 2**40 + 1]
WORD = st.integers(0, 2**32 - 1)


def numpys(entropy, count):
    """The words that numpy's own SeedSequence makes."""
    return np.random.SeedSequence([int(number) for number in entropy]).generate_state(count, np.uint64)


@pytest.mark.parametrize("seed", NUMBERS)
@pytest.mark.parametrize("rest", [[], [4], [4, 0], [4, 2**33, 9], [4, 3, 5, 6, 7, 8]], ids=str)
def test_words_are_those_of_numpys_seed_sequence(seed, rest):
    own = seeds.words([seed, *rest], np.arange(9))
    assert own.dtype == np.uint64
    assert own.tolist() == [numpys([seed, *rest], 9).tolist()]


@given(
    before=st.lists(st.integers(0, 2**80), max_size=4), column=st.lists(WORD, min_size=1, max_size=6), data=st.data()
)
def test_words_of_a_column_are_those_of_each_of_its_numbers(before, column, data):
    after = data.draw(st.lists(st.integers(0, 2**40), max_size=3))
    places = np.array(data.draw(st.lists(st.integers(0, 300), min_size=1, max_size=5)))
    own = seeds.words([*before, np.array(column), *after], places)
    assert own.shape == (len(column), len(places))
    for number, row in zip(column, own, strict=True):
        assert row.tolist() == numpys([*before, number, *after], 301)[places].tolist()


def test_words_of_two_columns_are_those_of_their_pairs():
    first, second = np.array([3, 2**32 - 1]), np.array([0, 8])
    own = seeds.words([2**33, first, second], np.arange(4))
    for i in range(2):
        assert own[i].tolist() == numpys([2**33, first[i], second[i]], 4).tolist()


@pytest.mark.parametrize("seed", NUMBERS)
@pytest.mark.parametrize("step", [0, 1, 63, 64, 65, 127, 128, 10_000])
def test_forward_seeds_are_forward_seed_of_each_phone(seed, step):
    phones = np.array([0, 1, 5, 99_999])
    for segment in "abc":
        alone = [seeds.forward_seed(seed, 3, int(phone), step, segment) for phone in phones]
        assert seeds.forward_seeds(seed, 3, phones, step, segment) == alone
        assert len(set(alone)) == 4


def test_a_forward_seed_is_a_word_of_its_block_of_64_steps():
    for step, segment, block, place in ((0, "a", 0, 0), (1, "b", 0, 4), (63, "c", 0, 191), (64, "a", 1, 0)):
        expected = numpys([7, seeds.PURPOSES["forward"], 2, 5, block], 192)[place]
        assert seeds.forward_seed(7, 2, 5, step, segment) == expected


def test_forward_seeds_are_all_different():
    phones = np.arange(50)
    every = [
        seed
        for round in range(3)
        for step in (0, 1, 63, 64, 65)
        for segment in "abc"
        for seed in seeds.forward_seeds(0, round, phones, step, segment)
    ]
    assert len(set(every)) == len(every) == 3 * 5 * 3 * 50


def test_the_numbers_of_the_purposes_stay_what_they_were():
    assert list(seeds.PURPOSES.items())[:9] == [
        ("model", 1), ("partition", 2), ("phones", 3), ("batches", 4), ("forward", 5), ("test_part", 6),
        ("val_part", 7), ("order", 8), ("synthetic", 9),
    ]  # fmt: skip
    assert len(set(seeds.PURPOSES.values())) == len(seeds.PURPOSES)


def test_a_generator_and_a_torch_seed_follow_from_the_same_sequence():
    assert seeds.torch_seed(5, "model") == numpys([5, 1], 1)[0]
    expected = np.random.default_rng(np.random.SeedSequence([5, 3, 8])).permutation(20)
    assert seeds.generator(5, "phones", 8).permutation(20).tolist() == expected.tolist()


def test_draws_are_of_the_half_open_interval() -> None:
    drawn = seeds.uniform(0, "messages", 1, np.arange(1000), count=8)
    assert drawn.shape == (1000, 8)
    assert drawn.min() >= 0
    assert drawn.max() < 1
