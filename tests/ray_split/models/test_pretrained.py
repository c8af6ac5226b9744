"""Trained weights to begin with: from a file, or by a library's name for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import ray_split as rs
from ray_split import config
from ray_split.messages.state import weights as of_state
from ray_split.models import pretrained, registry
from tests.runs.equality.test_schedules import fit


@pytest.fixture
def trained() -> dict[str, torch.Tensor]:
    return registry.build(config.Model(num_classes=10), seed=99).state_dict()


def settings(path: Path | str, classes: int = 10, name: str = "digits_cnn") -> config.Model:
    return config.Model(name=name, num_classes=classes, weights=str(path))


def refusal(given: config.Model) -> str:
    with pytest.raises(rs.SettingsError) as caught:
        pretrained.load(registry.build(given, seed=0), given)
    assert str(caught.value).startswith("model.weights: ")
    return str(caught.value)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
def test_a_file_of_weights_is_loaded(tmp_path: Path, trained: dict[str, torch.Tensor], suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file(trained, path)
    else:
        torch.save({"state_dict": trained} if suffix == ".pth" else trained, path)
    model = registry.build(settings(path), seed=0)
    assert pretrained.load(model, settings(path)) == []
    assert all(torch.equal(model.state_dict()[key], trained[key]) for key in trained)


def test_a_head_of_other_classes_stays_as_it_was_and_is_told(tmp_path: Path, trained: dict[str, torch.Tensor]) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(trained, path)
    model = registry.build(settings(path, classes=7), seed=0)
    before = model.state_dict()["head.weight"].clone()
    assert pretrained.load(model, settings(path, classes=7)) == ["head.weight", "head.bias"]
    assert torch.equal(model.state_dict()["head.weight"], before)
    assert torch.equal(model.state_dict()["hidden.1.weight"], trained["hidden.1.weight"])


def test_weights_of_another_model_are_refused(tmp_path: Path, trained: dict[str, torch.Tensor]) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(trained, path)
    assert "doesn't fit mlp: only one of the two has block1.0.bias" in refusal(settings(path, name="mlp"))
    save_file({**trained, "hidden.1.weight": torch.zeros(64, 3)}, path)
    assert "hidden.1.weight has shape (64, 3) there but (64, 512) in the model" in refusal(settings(path))


def test_what_cannot_be_read_or_found_is_refused(tmp_path: Path) -> None:
    assert "nothing.pt. Give a file of weights" in refusal(settings(tmp_path / "nothing.pt"))
    (tmp_path / "broken.safetensors").write_bytes(b"no weights at all")
    assert "broken.safetensors is text. Give a file of weights" in refusal(settings(tmp_path / "broken.safetensors"))
    torch.save([1, 2], tmp_path / "list.pt")
    assert "Save the state dict of a model" in refusal(settings(tmp_path / "list.pt"))
    assert "is not a model of torchvision or timm" in refusal(settings("IMAGENET1K_V1"))
    assert "Did you mean IMAGENET1K_V1? Choose IMAGENET1K_V1 or DEFAULT, or give a file of your own." in refusal(
        settings("IMAGENET1K_V3", name="mobilenet_v3_small")
    )
    assert "tf_in1k" in refusal(settings("nothing", name="inception_resnet_v2"))


def test_a_file_is_never_executed(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return (tmp_path.joinpath("executed").touch, ())

    torch.save({"head.weight": Evil()}, tmp_path / "evil.pt")
    assert "Give a file of weights" in refusal(settings(tmp_path / "evil.pt"))
    assert not (tmp_path / "executed").exists()


def test_a_run_begins_with_them_and_a_frozen_segment_keeps_them(
    tmp_path: Path, trained: dict[str, torch.Tensor]
) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(trained, path)
    _, result = fit(
        tmp_path, "splitfed_v1", model={"weights": str(path), "freeze": "a"}, phones={"local_steps": 1},
        optimizer={"lr": 1e-6}, run={"rounds": 1},
    )  # fmt: skip
    model = rs.load_model(result.path).state_dict()
    assert torch.equal(model["block1.0.weight"], trained["block1.0.weight"])
    for key, expected in trained.items():
        torch.testing.assert_close(model[key], expected, rtol=0, atol=1e-4)
    assert of_state({f"weights/{key}": array for key, array in model.items()}).keys() == trained.keys()


class Versioned(torch.nn.Linear):
    """A layer whose weights were twice as large in its first version."""

    _version = 2

    def _load_from_state_dict(self, state: Any, prefix: str, metadata: dict[str, Any], *rest: Any) -> None:
        if metadata.get("version", 1) < 2:
            state[f"{prefix}weight"] = state[f"{prefix}weight"] / 2
        super()._load_from_state_dict(state, prefix, metadata, *rest)


def versioned(num_classes: int) -> torch.nn.Module:
    layers = [torch.nn.Flatten(), torch.nn.Linear(64, 8), torch.nn.BatchNorm1d(8), Versioned(8, num_classes)]
    return torch.nn.Sequential(*layers)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_weights_are_of_the_version_that_they_tell_or_of_today(tmp_path: Path, suffix: str) -> None:
    name, path = "tests.ray_split.models.test_pretrained:versioned", tmp_path / f"weights{suffix}"
    given = config.Model(name=name, num_classes=3, weights=str(path))
    trained = versioned(3).state_dict()
    if suffix == ".pt":
        torch.save(trained, path)
    else:
        save_file(trained, path)
    model = versioned(3)
    pretrained.load(model, given)
    assert all(torch.equal(model.state_dict()[key], trained[key]) for key in trained)
    if suffix == ".pt":
        trained._metadata["3"]["version"] = 1  # type: ignore[attr-defined]
        torch.save(trained, path)
        pretrained.load(model, given)
        assert torch.equal(model.state_dict()["3.weight"], trained["3.weight"] / 2)
        other = versioned(5)
        other_given = given.model_copy(update={"num_classes": 5})
        assert pretrained.load(other, other_given) == ["3.weight", "3.bias"]


def test_weights_from_before_batchnorm_counted_are_loaded_as_torch_does(tmp_path: Path) -> None:
    trained = versioned(3).state_dict()
    del trained["2.num_batches_tracked"]
    save_file(dict(trained), tmp_path / "old.safetensors")
    model, expected = versioned(3), versioned(3)
    pretrained.load(model, config.Model(name="x:y", num_classes=3, weights=str(tmp_path / "old.safetensors")))
    expected.load_state_dict(dict(trained))
    assert all(torch.equal(model.state_dict()[key], value) for key, value in expected.state_dict().items())


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["mnasnet0_5", "tests.ray_split.models.test_pretrained:versioned"])
def test_a_trained_model_is_loaded_as_it_was_written(tmp_path: Path, name: str) -> None:
    cuts, shape = (["layers.7", "layers.13"], [3, 32, 32]) if name == "mnasnet0_5" else (["1", "2"], [1, 8, 8])
    data = {"name": "synthetic", "kwargs": {"samples": 24, "shape": shape, "num_classes": 3}, "batch_size": 8}
    settings = rs.Config(
        model={"name": name, "cuts": cuts}, data=data, phones={"count": 1, "local_steps": 1},
        cluster={"backend": "inprocess"}, run={"storage_path": str(tmp_path), "name": "r", "rounds": 1},
    )  # fmt: skip
    result = rs.fit(settings, callbacks=[])
    written, loaded = load_file(f"{result.path}/model.safetensors"), rs.load_model(result.path, trust=":" in name)
    assert loaded.state_dict().keys() == written.keys()
    assert all(torch.equal(loaded.state_dict()[key], value) for key, value in written.items())
    again = settings.model.model_copy(update={"weights": f"{result.path}/model.safetensors", "num_classes": 3})
    model = registry.build(again, seed=1)
    assert pretrained.load(model, again) == []
    assert all(torch.equal(model.state_dict()[key], value) for key, value in written.items())


class Extra(torch.nn.Linear):
    def get_extra_state(self) -> dict[str, int]:
        return {"steps": 1}

    def set_extra_state(self, state: Any) -> None:
        pass


def with_extra(num_classes: int) -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 8), Extra(8, 8), torch.nn.Linear(8, num_classes))


def test_state_that_is_no_tensor_is_refused_by_its_layer() -> None:
    with pytest.raises(
        rs.SettingsError, match=r"model\.name.*2 \(Extra\) has get_extra_state, .*\. Keep that state in a buffer"
    ):
        registry.build(config.Model(name="tests.ray_split.models.test_pretrained:with_extra", num_classes=3), seed=0)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "an empty file"), (b"<!DOCTYPE html>", "a web page"), (b"hello", "text"), (b"\x89PNG\r\n", "a PNG image"),
        (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        (b"PK\x03\x04xx", "a zip archive that is cut off"),
        (bytes(range(200, 250)), "none that begins as torch's"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_is_no_file_of_weights_is_called_by_what_it_is(tmp_path: Path, content: bytes, said: str) -> None:
    for name in ("w.pt", "w.safetensors"):
        (tmp_path / name).write_bytes(content)
        assert said in refusal(settings(tmp_path / name))


def test_a_whole_model_is_not_unpickled_and_named(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "w.pt")
    assert "a pickle of torch.nn.modules.linear.Linear" in refusal(settings(tmp_path / "w.pt"))
