import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_split import config, seeds
from ray_split.data import partitions
from ray_split.errors import SettingsError

CLASSES = np.random.default_rng(0).integers(0, 10, 6000)
NAMES = ["iid", "dirichlet", "shards"]


def deal(labels, count, seed=0, held_out=0.0, groups=None, **partition):
    settings = config.Config(
        phones={"count": count, "held_out": held_out}, data={"partition": partition}, run={"seed": seed}
    )
    return partitions.deal(settings, labels, groups)


def sizes(dealt):
    return np.diff(dealt.offsets)


def classes_of(dealt, labels):
    """How many samples of each class every phone has: (phones, classes)."""
    owner = np.repeat(np.arange(len(dealt)), sizes(dealt))
    table = np.zeros((len(dealt), labels.max() + 1), int)
    np.add.at(table, (owner, labels[dealt.indices]), 1)
    return table


@given(name=st.sampled_from(NAMES), count=st.integers(1, 30), extra=st.integers(0, 200), seed=st.integers(0, 2**40))
def test_every_sample_is_dealt_exactly_once(name, count, extra, seed):
    labels = np.arange(8 * count + extra) % 4
    try:
        dealt = deal(labels, count, seed, name=name, alpha=5.0)
    except SettingsError as error:
        assert (name, error.field) == ("dirichlet", "data.partition")
        return
    assert len(dealt) == count
    assert sorted(dealt.indices) == list(range(len(labels)))
    assert (dealt.offsets[0], dealt.offsets[-1]) == (0, len(labels))
    assert sorted(np.concatenate([dealt.of(phone) for phone in range(count)])) == list(range(len(labels)))
    assert dealt.training().tolist() == [len(dealt.of(phone)) for phone in range(count)]
    assert min(dealt.training()) >= 1


@pytest.mark.parametrize(("samples", "count"), [(10, 3), (9, 3), (5, 5), (7, 1), (1294, 100)])
def test_iid_deals_every_sample_once_in_equal_shares(samples, count):
    dealt = deal(np.zeros(samples), count, seed=1)
    lengths = [len(dealt.of(phone)) for phone in range(len(dealt))]
    assert len(lengths) == count
    assert max(lengths) - min(lengths) <= 1
    assert sorted(np.concatenate([dealt.of(phone) for phone in range(count)])) == list(range(samples))


@pytest.mark.parametrize("name", NAMES)
def test_a_partition_follows_from_the_seed_alone(name):
    one, same, other = (deal(CLASSES, 7, seed, name=name) for seed in (1, 1, 2))
    assert (one.indices == same.indices).all() and (one.offsets == same.offsets).all()
    assert (one.indices != other.indices).any()


@pytest.mark.parametrize("name", NAMES)
def test_a_phones_samples_are_in_a_random_order(name):
    dealt = deal(np.sort(CLASSES), 5, name=name, alpha=1.0, shards_per_phone=4)
    for phone in range(5):
        own = dealt.of(phone)
        assert abs(np.corrcoef(np.arange(len(own)), own)[0, 1]) < 0.2


def test_a_small_alpha_gives_a_phone_few_classes_and_a_large_one_all_alike():
    few = classes_of(deal(CLASSES, 20, name="dirichlet", alpha=0.05), CLASSES)
    largest_two = np.sort(few, axis=1)[:, -2:].sum(1) / few.sum(1)
    assert np.median(largest_two) > 0.9
    alike = classes_of(deal(CLASSES, 20, name="dirichlet", alpha=1e5), CLASSES)
    expected = np.bincount(CLASSES) / 20
    assert np.abs(alike - expected).max() < 0.1 * expected.min()


def test_dirichlet_shares_out_every_class_by_itself():
    dealt = deal(CLASSES, 20, name="dirichlet", alpha=0.5)
    table = classes_of(dealt, CLASSES)
    assert table.sum(0).tolist() == np.bincount(CLASSES).tolist()
    shares = table / table.sum(0)
    # Of Dirichlet(a, ..., a) over K phones, a share's variance is (1/K)(1 - 1/K) / (K a + 1).
    assert 0.5 < shares.var() / ((1 / 20) * (19 / 20) / (20 * 0.5 + 1)) < 2


def test_dirichlet_is_drawn_again_until_every_phone_has_enough():
    labels, settings = CLASSES[:300], config.Partition(name="dirichlet", alpha=0.5, min_samples=6)

    def first_try(seed):
        once = settings.model_copy(update={"min_samples": 0})
        owner = partitions.dirichlet(labels, once, 12, seeds.generator(seed, "partition"))
        return np.bincount(owner, minlength=12).min()

    assert min(first_try(seed) for seed in range(15)) < 6
    dealt = [sizes(deal(labels, 12, seed, name="dirichlet", alpha=0.5, min_samples=6)).min() for seed in range(15)]
    assert min(dealt) >= 6


@pytest.mark.parametrize("shards_per_phone", [1, 2, 5])
def test_shards_give_a_phone_few_classes_and_equally_many_samples(shards_per_phone):
    labels = np.random.default_rng(1).permutation(np.arange(6000) % 10)
    dealt = deal(labels, 30, name="shards", shards_per_phone=shards_per_phone)
    assert set(sizes(dealt)) == {200}
    table = classes_of(dealt, labels) > 0
    # A shard is no larger than a class here, so it lies in two classes at most.
    assert table.sum(1).max() <= 2 * shards_per_phone
    assert table.sum(1).mean() <= shards_per_phone + 0.5


def test_shards_that_fit_the_classes_hold_one_class_each():
    labels = np.random.default_rng(1).permutation(np.arange(6000) % 10)
    table = classes_of(deal(labels, 30, name="shards", shards_per_phone=2), labels)
    assert (table > 0).sum(1).max() == 2
    assert set(table.flatten()) == {0, 100, 200}


@pytest.mark.parametrize("name", NAMES)
def test_a_hundred_thousand_phones_are_dealt_to(name):
    labels = np.random.default_rng(0).integers(0, 10, 2_000_000)
    dealt = deal(labels, 100_000, held_out=0.5, name=name, alpha=1e4)
    assert len(dealt) == 100_000
    assert np.array_equal(np.sort(dealt.indices), np.arange(2_000_000))
    assert sizes(dealt).min() >= 1
    assert sizes(dealt).sum() == 2_000_000
    last = dealt.of(99_999), dealt.held_out_of(99_999, "val"), dealt.held_out_of(99_999, "test")
    assert np.concatenate(last).tolist() == dealt.indices[-sizes(dealt)[-1] :].tolist()


@pytest.mark.parametrize("held_out", [0.0, 0.2, 0.5, 0.99])
@pytest.mark.parametrize("name", NAMES)
def test_what_a_phone_holds_out_is_its_own_and_not_trained_on(name, held_out):
    dealt, whole = deal(CLASSES, 37, held_out=held_out, name=name), deal(CLASSES, 37, name=name)
    for phone in range(37):
        train, val, test = dealt.of(phone), dealt.held_out_of(phone, "val"), dealt.held_out_of(phone, "test")
        assert [*train, *val, *test] == whole.of(phone).tolist()
        assert len(val) + len(test) == min(int(len(whole.of(phone)) * held_out), len(whole.of(phone)) - 1)
        assert len(test) - len(val) in (0, 1)
        assert len(train) == dealt.training(np.array([phone]))[0] >= 1
    assert dealt.held_out_sizes("val").tolist() == [len(dealt.held_out_of(p, "val")) for p in range(37)]
    assert dealt.held_out_sizes("test").tolist() == [len(dealt.held_out_of(p, "test")) for p in range(37)]
    parts = dealt.training() + dealt.held_out_sizes("val") + dealt.held_out_sizes("test")
    assert parts.tolist() == sizes(whole).tolist()


def test_a_phone_with_one_sample_holds_out_nothing():
    dealt = deal(np.zeros(3), 3, held_out=0.9)
    assert dealt.training().tolist() == [1, 1, 1]
    assert [len(dealt.held_out_of(0, part)) for part in ("val", "test")] == [0, 0]


def test_of_many_is_of_one_by_one():
    dealt = deal(np.zeros(70), 10, held_out=0.3)
    phones = np.array([7, 0, 3])
    assert dealt.of_many(phones).tolist() == [dealt.of(phone).tolist() for phone in (7, 0, 3)]


WRITERS = np.random.default_rng(1).integers(100, 140, 6000)


def natural(count, seed=0, groups=None, **partition):
    return deal(CLASSES, count, seed, groups=groups or {"writer": WRITERS}, name="natural", **partition)


@pytest.mark.parametrize("kind", ["numbers", "names"])
def test_with_as_many_phones_as_ids_a_phone_is_an_id(kind):
    ids = WRITERS if kind == "numbers" else np.array([f"w{writer}" for writer in WRITERS])
    dealt = natural(40, groups={"writer": ids})
    for phone, writer in enumerate(np.unique(ids)):
        assert sorted(dealt.of(phone)) == np.flatnonzero(ids == writer).tolist()
    assert np.bincount(dealt.indices).tolist() == [1] * 6000


@pytest.mark.parametrize("count", [1, 7, 13, 39])
def test_with_fewer_phones_ids_are_dealt_whole_and_evenly(count):
    dealt = natural(count)
    own = [set(WRITERS[dealt.of(phone)].tolist()) for phone in range(count)]
    assert sorted(writer for writers in own for writer in writers) == list(range(100, 140))
    assert max(map(len, own)) - min(map(len, own)) <= 1
    assert sorted(dealt.indices) == list(range(6000))


def test_which_phone_gets_which_ids_follows_from_the_seed():
    one, same, other = (natural(7, seed).of(3).tolist() for seed in (1, 1, 2))
    assert one == same
    assert set(WRITERS[one]) != set(WRITERS[other])


def test_by_names_the_ids_where_there_are_several():
    groups = {"writer": WRITERS, "school": np.arange(6000) % 3}
    dealt = natural(3, groups=groups, by="school")
    assert [set((dealt.of(phone) % 3).tolist()) for phone in range(3)] == [{0}, {1}, {2}]


def test_phones_are_called_by_their_ids_where_these_are_text():
    ids, labels = np.array(["bo", "anna", "bo", "cy", "anna", "cy"]), np.zeros(6, int)
    found = deal(labels, 3, groups={"speaker": ids}, name="natural").groups
    assert (found.kind, found.names) == ("speaker", ("anna", "bo", "cy"))
    assert found.whose([0, 2]) == "speaker anna, cy"
    two = deal(labels, 2, groups={"speaker": ids.astype("S")}, name="natural")
    for phone, names in enumerate(two.groups.names):
        assert sorted(set(ids[two.indices[two.offsets[phone] : two.offsets[phone + 1]]])) == names.split(", ")
    assert deal(labels, 3, groups={"speaker": np.array([2, 1, 2, 3, 1, 3])}, name="natural").groups is None
    assert deal(labels, 3, groups={"speaker": ids}, name="iid").groups is None


@pytest.mark.parametrize("name", ["dirichlet", "shards"])
def test_text_is_dealt_by_its_length_as_others_by_class(name):
    lengths = np.random.default_rng(0).integers(1, 101, 2000)
    labels = np.where(np.arange(100) < lengths[:, None], 7, -100)
    dealt = deal(labels, 20, name=name, by="length", alpha=0.05)
    assert sorted(dealt.indices) == list(range(2000))
    spreads = [np.ptp(lengths[dealt.of(phone)]) for phone in range(20)]
    assert np.median(spreads) < 60 and np.ptp(lengths) == 99


def test_ten_bins_of_length_have_as_many_texts_each():
    lengths = np.arange(1, 101).repeat(3)
    labels = np.where(np.arange(100) < lengths[:, None], 7, -100)
    bins = partitions._length_bins(labels, config.Partition(name="dirichlet", by="length"))
    assert np.bincount(bins).tolist() == [30] * 10
    assert (np.diff(bins) >= 0).all()


def test_labels_that_are_no_tokens_have_no_length():
    with pytest.raises(SettingsError, match=r"data\.partition\.by: can't be length, because the labels aren't tokens"):
        deal(CLASSES, 20, name="dirichlet", by="length")
