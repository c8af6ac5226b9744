import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from ray_split.results import checkpoint
from ray_split.results.checkpoint import CheckpointError

ODD = np.frombuffer(bytes(range(67)), np.float32, 16, offset=3)
STATE = {
    "weights/plain": np.arange(6, dtype=np.float32).reshape(2, 3),
    "weights/fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "weights/view": np.arange(24, dtype=np.float32).reshape(4, 6)[::2, ::-2],
    "weights/odd_offset": ODD,
    "weights/num_batches_tracked": np.array(7),
    "weights/special": np.array([np.nan, -0.0, np.inf, 1e-45], np.float32),
    "weights/empty": np.zeros((0, 3), np.float32),
    "weights/half": np.ones(3, np.float16),
    "weights/flag": np.array([True, False]),
    "optimizer/plain/step": np.array(3, np.float32),
}
STATES = {"a": STATE, "b": {"weights/x": np.ones(5, np.float32)}, "c": {}}


def bits(states):
    return {
        name: {key: (array.dtype.str, array.shape, array.tobytes()) for key, array in state.items()}
        for name, state in states.items()
    }


def names(folder):
    return [path.name for path in checkpoint.complete(folder)]


def test_what_is_loaded_is_what_was_saved_bit_for_bit(tmp_path):
    path = checkpoint.save(tmp_path / "new" / "folder", 12, STATES.items())
    round, states = checkpoint.load(path)
    assert (round, path.name) == (12, "round_000012")
    assert bits(states) == bits(STATES)
    assert states["a"]["optimizer/plain/step"].shape == ()


@pytest.mark.parametrize(("num_to_keep", "kept"), [(None, 5), (1, 1), (2, 2), (9, 5)])
def test_the_last_ones_are_kept(tmp_path, num_to_keep, kept):
    for round in range(8, 13):
        checkpoint.save(tmp_path, round, STATES.items(), num_to_keep)
    assert names(tmp_path) == [f"round_{round:06d}" for round in range(8, 13)][-kept:]
    assert len(list(tmp_path.iterdir())) == kept
    assert checkpoint.load(checkpoint.complete(tmp_path)[-1])[0] == 12


def test_a_round_saved_again_is_replaced(tmp_path):
    checkpoint.save(tmp_path, 3, STATES.items())
    path = checkpoint.save(tmp_path, 3, {"b": {"weights/x": np.zeros(2)}}.items())
    assert bits(checkpoint.load(path)[1]) == bits({"b": {"weights/x": np.zeros(2)}})
    assert names(tmp_path) == ["round_000003"]


@pytest.mark.parametrize("name", ["a.safetensors", "b.safetensors", "c.safetensors"])
def test_a_damaged_byte_of_the_weights_is_found(tmp_path, name):
    path = checkpoint.save(tmp_path, 1, STATES.items())
    content = (path / name).read_bytes()
    for place in {0, 8, len(content) // 2, len(content) - 1}:
        damaged = bytearray(content)
        damaged[place] ^= 1
        (path / name).write_bytes(damaged)
        with pytest.raises(CheckpointError, match=f"{name} is damaged"):
            checkpoint.load(path)
    (path / name).write_bytes(content[:-1])
    with pytest.raises(CheckpointError, match=f"{name} is damaged"):
        checkpoint.load(path)


def test_a_damaged_byte_of_the_manifest_is_found_or_changes_nothing(tmp_path):
    path = checkpoint.save(tmp_path, 12, STATES.items())
    content, unharmed = (path / checkpoint.MANIFEST).read_bytes(), []
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1
        (path / checkpoint.MANIFEST).write_bytes(damaged)
        try:
            round, states = checkpoint.load(path)
        except CheckpointError:
            continue
        unharmed.append((place, round, bits(states) == bits(STATES)))
    assert [found for found in unharmed if found[1:] != (12, True)] == []


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "{}", '{"version": 1, "sha256": {}}'])
def test_a_manifest_of_something_else_is_found(tmp_path, content):
    path = checkpoint.save(tmp_path, 12, STATES.items())
    (path / checkpoint.MANIFEST).write_text(content)
    with pytest.raises(CheckpointError):
        checkpoint.load(path)


def test_another_version_is_named(tmp_path):
    path = checkpoint.save(tmp_path, 12, STATES.items())
    manifest = json.loads((path / checkpoint.MANIFEST).read_text())
    (path / checkpoint.MANIFEST).write_text(json.dumps({**manifest, "version": 99}))
    with pytest.raises(CheckpointError, match="version 99, this is version 1"):
        checkpoint.load(path)


@pytest.mark.parametrize("name", ["a.safetensors", "c.safetensors", checkpoint.MANIFEST])
def test_a_missing_file_is_found(tmp_path, name):
    path = checkpoint.save(tmp_path, 1, STATES.items())
    (path / name).unlink()
    with pytest.raises(CheckpointError, match="not a complete checkpoint"):
        checkpoint.load(path)
    with pytest.raises(CheckpointError, match="not a complete checkpoint"):
        checkpoint.load(tmp_path / "round_000099")


def test_states_may_come_one_by_one_and_one_that_fails_leaves_the_last_one_as_the_latest(tmp_path):
    def failing():
        yield "a", STATE
        raise KeyboardInterrupt

    path = checkpoint.save(tmp_path, 1, iter(STATES.items()))
    assert bits(checkpoint.load(path)[1]) == bits(STATES)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(tmp_path, 2, failing(), num_to_keep=1)
    assert names(tmp_path) == ["round_000001"]


def test_parts_are_read_one_by_one(tmp_path):
    path = checkpoint.save(tmp_path, 4, STATES.items())
    (path / "c.safetensors").write_bytes(b"damaged")
    round, states = checkpoint.parts(path)
    assert round == 4
    assert bits(dict([next(states), next(states)])) == bits({name: STATES[name] for name in "ab"})
    with pytest.raises(CheckpointError, match=r"c\.safetensors is damaged"):
        next(states)


def test_a_folder_without_checkpoints_has_none(tmp_path):
    assert checkpoint.complete(tmp_path / "nothing") == []
    (tmp_path / "round_000004").mkdir()
    assert checkpoint.complete(tmp_path) == []


def test_a_model_is_replaced_at_once(tmp_path):
    path = tmp_path / "model.safetensors"
    checkpoint.write_model(path, {"x": np.zeros(2)})
    checkpoint.write_model(path, STATE)
    assert bits({"": load_file(path)}) == bits({"": STATE})
    assert [each.name for each in tmp_path.iterdir()] == ["model.safetensors"]
