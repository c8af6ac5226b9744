import numpy as np
import pytest

from ray_split.messages.state import Closed
from ray_split.results import personal_state
from ray_split.results.personal_state import Personal

START = {
    "a": {
        "weights/block.0.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
        "weights/num_batches_tracked": np.array(2),
    },
    "c": {"buffers/deep.left_out": np.full(2, 7, np.float32)},
}
COUNT = 10


def own_of(phones, salt=0.0):
    """States that tell whose they are."""
    factors = np.array(phones, np.float32) + np.float32(salt)
    return {
        "a": {
            "weights/block.0.weight": factors[:, None, None] * np.ones((2, 3), np.float32),
            "weights/num_batches_tracked": np.array(phones) * 10,
            "optimizer/block.0.weight/exp_avg": factors[:, None, None] * np.full((2, 3), 2, np.float32),
            "optimizer/block.0.weight/step": factors,
        },
        "c": {"buffers/deep.left_out": factors[:, None] * np.full(2, 3, np.float32)},
    }


def closed(*phones, salt=0.0):
    return Closed(phones, {}, own_of(phones, salt), 0)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run" / "personal"


@pytest.fixture
def rows(folder):
    made = Personal(folder, COUNT)
    made.write(closed(3, 5))
    made.write(closed(8))
    return made


def same(one, other):
    assert one.keys() == other.keys()
    for segment in one:
        assert one[segment].keys() == other[segment].keys()
        for key in one[segment]:
            assert one[segment][key].dtype == other[segment][key].dtype, key
            assert np.array_equal(one[segment][key], other[segment][key]), key


def test_before_any_phone_trained_nothing_is_anyones_own_and_no_file_is_there(folder):
    assert Personal(folder, COUNT).rows(np.array([0, 1]), START) == {}
    assert not folder.exists()


def test_what_was_written_is_read_in_the_order_asked_for(rows):
    same(rows.rows(np.array([8, 3, 5]), START), own_of((8, 3, 5)))
    same(rows.rows(np.array([5]), START), own_of((5,)))
    assert rows.trained.tolist() == [phone in (3, 5, 8) for phone in range(COUNT)]


def test_a_phone_that_never_trained_has_what_the_start_has_and_an_optimizer_of_zeros(rows):
    found = rows.rows(np.array([3, 0]), START)
    weights = found["a"]["weights/block.0.weight"]
    assert weights[0].tolist() == [[3] * 3] * 2
    assert weights[1].tolist() == START["a"]["weights/block.0.weight"].tolist()
    assert found["a"]["weights/num_batches_tracked"].tolist() == [30, 2]
    assert found["c"]["buffers/deep.left_out"].tolist() == [[9, 9], [7, 7]]
    assert found["a"]["optimizer/block.0.weight/exp_avg"][1].tolist() == [[0] * 3] * 2
    assert found["a"]["optimizer/block.0.weight/step"].tolist() == [3, 0]


def test_what_was_read_is_a_copy(rows):
    found = rows.rows(np.array([3]), START)
    found["a"]["weights/block.0.weight"][:] = -1
    same(rows.rows(np.array([3]), START), own_of((3,)))


def test_a_phone_that_trains_again_is_written_over_and_others_stay(rows):
    rows.write(closed(5, salt=0.5))
    same(rows.rows(np.array([5]), START), own_of((5,), salt=0.5))
    same(rows.rows(np.array([3, 8]), START), own_of((3, 8)))


def test_a_cohort_that_keeps_nothing_writes_nothing(folder):
    made = Personal(folder, COUNT)
    made.write(Closed((1, 2), {"a": {}}, {}, 8))
    assert not folder.exists()
    assert not made.trained.any()


@pytest.mark.parametrize("chunk", [1, 2, 1000])
def test_a_snapshot_restored_elsewhere_gives_the_same_rows(rows, tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(personal_state, "CHUNK", chunk)
    parts = list(rows.snapshot())
    assert [len(state["phones"]) for _, state in parts] == {1: [1, 1, 1], 2: [2, 1], 1000: [3]}[chunk]
    assert len({name for name, _ in parts}) == len(parts)
    assert all(name.startswith(personal_state.PREFIX) for name, _ in parts)
    other = Personal(tmp_path / "other", COUNT)
    for _, state in parts:
        other.restore(state)
    same(other.rows(np.arange(COUNT), START), rows.rows(np.arange(COUNT), START))
    assert other.trained.tolist() == rows.trained.tolist()


def test_a_snapshot_of_nothing_has_no_part(folder):
    assert list(Personal(folder, COUNT).snapshot()) == []


def test_clear_forgets_all_rows_and_their_files(rows, folder):
    rows.clear()
    assert not folder.exists()
    assert rows.rows(np.array([3]), START) == {}
    assert list(rows.snapshot()) == []
    rows.write(closed(4))
    found = rows.rows(np.array([4, 3]), START)
    assert found["c"]["buffers/deep.left_out"].tolist() == [[12, 12], [7, 7]]


def test_the_mean_is_over_all_phones_with_the_start_of_those_that_never_trained(rows):
    found = rows.mean({**START, "b": {"weights/z": np.ones(3, np.float32)}})
    start = START["a"]["weights/block.0.weight"]
    expected = (3 + 5 + 8 + 7 * start.astype(np.float64)) / 10
    assert np.allclose(found["a"]["weights/block.0.weight"], expected, rtol=1e-6)
    assert found["a"]["weights/block.0.weight"].dtype == np.float32
    assert np.allclose(found["c"]["buffers/deep.left_out"], (9 + 15 + 24 + 7 * 7) / 10)
    assert found["b"]["weights/z"].tolist() == [1, 1, 1]
    assert not any(key.startswith("optimizer/") for key in found["a"])


def test_the_mean_of_integers_is_the_largest(rows):
    assert rows.mean(START)["a"]["weights/num_batches_tracked"] == 80
    later = {**START, "a": {**START["a"], "weights/num_batches_tracked": np.array(99)}}
    assert rows.mean(later)["a"]["weights/num_batches_tracked"] == 99


def test_the_mean_leaves_the_start_as_it_was(rows):
    before = START["a"]["weights/block.0.weight"].copy()
    rows.mean(START)
    assert (START["a"]["weights/block.0.weight"] == before).all()


def test_open_reads_what_a_run_left(rows, folder):
    found = Personal.open(folder)
    assert found.trained.tolist() == rows.trained.tolist()
    same(found.rows(np.array([8, 0, 3]), START), rows.rows(np.array([8, 0, 3]), START))
    with pytest.raises(FileNotFoundError):
        Personal.open(folder / "nothing")


def test_a_row_can_be_read_with_numpy_alone(rows, folder):
    weights = np.load(folder / "a~weights~block.0.weight.npy", mmap_mode="r")
    assert weights.shape == (COUNT, 2, 3)
    assert weights[5].tolist() == [[5] * 3] * 2


def test_phones_that_never_trained_cost_no_disk(tmp_path):
    made = Personal(tmp_path / "personal", 100_000)
    wide = {"c": {"weights/x": np.ones((1, 1000), np.float32)}}
    made.write(Closed((99_999,), {}, wide, 0))
    path = tmp_path / "personal" / "c~weights~x.npy"
    assert path.stat().st_size > 400_000_000
    assert path.stat().st_blocks * 512 < 1_000_000
