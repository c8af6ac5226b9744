"""Sequences of different lengths: padded batch by batch, with a mask that the model is given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

import ray_split as rs
from ray_split.data.load import load
from ray_split.models import registry
from tests import reference
from tests.reference import BY_SCHEDULE, assert_close_weights, assert_same_weights
from tests.sequence_nets import LENGTHS, series
from tests.tiers import thorough

NETS = "tests.sequence_nets"
B = {
    "cnn1d": ("block2", "mean", "hidden"), "lstm": ("recurrent",), f"{NETS}:Tagger": ("middle",),
    f"{NETS}:ByKeyword": ("norm", "second"), f"{NETS}:in_segments": ("b",),
}  # fmt: skip
CUTS = {f"{NETS}:Tagger": "words,dropout", f"{NETS}:ByKeyword": "first,second"}
DATA = {f"{NETS}:Tagger": "words", "lstm": "turned"}


def config(path: Path, model: str, schedule: str, **sections: Any) -> rs.Config:
    run = {"storage_path": str(path), "name": f"run_{len(list(path.iterdir()))}", "rounds": 2}
    told = {"name": model, "cuts": CUTS.get(model), **({"mask": "real"} if "ByKeyword" in model else {})}
    data = {"name": f"{NETS}:{DATA.get(model, 'series')}", "batch_size": 7}
    merged = {"phones": {"count": 3}, "optimizer": {"lr": 0.05, "momentum": 0.9}, "cluster": {"backend": "inprocess"}}
    return rs.Config(model=told, data=data, schedule={"name": schedule}, **{**merged, **sections}, run=run)


@pytest.mark.parametrize(
    "model", ["cnn1d", f"{NETS}:Tagger", *thorough("lstm", f"{NETS}:ByKeyword", f"{NETS}:in_segments")]
)
def test_in_turn_it_is_the_untouched_model_on_the_same_padded_batches_bit_for_bit(tmp_path: Path, model: str) -> None:
    settings = config(tmp_path, model, "sequential")
    result = rs.fit(settings, callbacks=[])
    assert_same_weights(reference.sequential(settings, b=B[model]), result.path)


@pytest.mark.parametrize("model", [f"{NETS}:Tagger", *thorough("cnn1d", "lstm")])
@pytest.mark.parametrize("schedule", ["splitfed_v1", *thorough("splitfed_v2", "parallel", "fedavg")])
def test_abreast_it_is_the_untouched_models(tmp_path: Path, model: str, schedule: str) -> None:
    settings = config(tmp_path, model, schedule)
    result = rs.fit(settings, callbacks=[])
    assert_close_weights(lambda: BY_SCHEDULE[schedule](settings, b=B[model]), result.path)


@pytest.mark.parametrize("schedule", ["splitfed_v1", *thorough("splitfed_v3", "parallel")])
def test_in_cohorts_it_is_the_same(tmp_path: Path, schedule: str) -> None:
    runs = [rs.fit(config(tmp_path, "cnn1d", schedule, phones={"count": 4, "cohort": n}), callbacks=[]) for n in (1, 4)]
    told = [(one.metrics["bytes_up_total"], one.metrics["test_accuracy"]) for one in runs]
    assert told[0] == told[1]
    if schedule == "splitfed_v1":
        assert_close_weights(lambda: rs.load_model(runs[0].path, trust=True), runs[1].path)


@pytest.mark.thorough
def test_with_one_cut_labels_go_with_each_batch(tmp_path: Path) -> None:
    middle = ("block2", "mean", "hidden", "head")
    for schedule in ("sequential", "splitfed_v1"):
        settings = config(tmp_path, "cnn1d", schedule).with_values(model={"cuts": ["block1"]})
        result = rs.fit(settings, callbacks=[])
        assert_close_weights(lambda s=settings, n=schedule: BY_SCHEDULE[n](s, b=middle), result.path)  # type: ignore[misc]


def test_bytes_are_those_of_each_batch_as_long_as_it_is(tmp_path: Path) -> None:
    settings = config(tmp_path, f"{NETS}:in_segments", "splitfed_v1", phones={"count": 3, "cohort": 3})
    result = rs.fit(settings, callbacks=[])
    batches, up, down = rs.Batches(settings, rs.load_data(settings.data)), 0, 0
    widths = set()
    for draw in rs.stream(settings):
        (values, mask), _ = batches.of(draw)
        n, length = mask.shape
        assert length == max(mask.sum(1)) and values.shape == (n, length, 3)
        widths.add(length)
        up += n * length * 6 * 4 + mask.nbytes + n * 6 * 4  # the activation, its mask, the gradient of hidden
        down += n * 6 * 4 + n * length * 6 * 4
    assert len(widths) > 2
    assert (result.metrics["bytes_up_total"], result.metrics["bytes_down_total"]) == (up, down)


@pytest.mark.parametrize("name", ["cnn1d", "lstm"])
@pytest.mark.parametrize("shape", [(None, 3), (3, None)])
def test_our_models_dont_see_how_far_a_series_is_padded(name: str, shape: tuple[int | None, ...]) -> None:
    settings = rs.Config(model={"name": name, "num_classes": 3, "input_shape": list(shape)})
    model = registry.build(settings.model, 0).double().eval()
    for sample in series(12)[0]:
        values = torch.from_numpy(sample if shape[0] is None else sample.T)
        alone = model(values[None], torch.ones(1, len(sample), dtype=torch.bool))
        for length in (len(sample) + 1, 12):
            wide = torch.full((1, *(length if size is None else size for size in shape)), 7.0, dtype=torch.float64)
            wide[:, : values.shape[0], : values.shape[1]] = values  # what is not its own is looked at nowhere
            assert torch.allclose(model(wide, torch.arange(length)[None] < len(sample)), alone, rtol=0, atol=1e-12)


def test_an_lstm_of_no_mask_means_all_steps() -> None:
    settings = rs.Config(model={"name": "lstm", "num_classes": 3, "input_shape": [3, 5]})
    masked = settings.with_values(model={"input_shape": [3, None]})
    whole, own = (registry.build(each.model, 0) for each in (settings, masked))
    x = torch.randn(4, 3, 5)
    assert torch.equal(whole(x), own(x)) and torch.allclose(whole(x), own(x, torch.ones(4, 5, dtype=torch.bool)))


def test_it_is_evaluated_on_batches_padded_to_their_own_longest(tmp_path: Path) -> None:
    settings = config(tmp_path, f"{NETS}:ByKeyword", "sequential").with_values(data={"eval_batch_size": 5})
    result = rs.fit(settings, callbacks=[])
    model, parts = rs.load_model(result.path, trust=True).eval(), load(settings.data)
    right, losses = 0.0, 0.0
    for start in range(0, len(parts.test.labels), 5):
        (values, mask), labels = parts.batch("test", slice(start, start + 5))
        with torch.no_grad():
            outputs = model(torch.from_numpy(values), real=torch.from_numpy(mask))
        targets = torch.from_numpy(labels)
        losses += float(functional.cross_entropy(outputs, targets, reduction="sum"))
        right += float((outputs.argmax(1) == targets).sum())
    assert result.metrics["test_accuracy"] == right / len(parts.test.labels)
    assert result.metrics["test_loss"] == pytest.approx(losses / len(parts.test.labels), rel=1e-6)


@pytest.mark.thorough
def test_the_settings_say_how_the_mask_is_called(tmp_path: Path) -> None:
    path = rs.fit(config(tmp_path, f"{NETS}:Tagger", "sequential"), callbacks=[]).path
    found = rs.Config.from_yaml(Path(path) / "config.yaml").model
    assert (found.mask, found.input_shape) == ("attention_mask", None)
    assert json.loads((Path(path) / "summary.json").read_text())["status"] == "finished"


REFUSED = {
    "no mask": (
        {"model": {"name": f"{NETS}:NoMask", "cuts": "first,second"}},
        r"model\.name: .*NoMask takes no mask\. Give it forward\(values, mask\)",
    ),
    "one that it has not": ({"model": {"mask": "real"}}, r"has no argument 'real' .* Set mask"),
    "a model for one length": ({"model": {"name": "mlp", "cuts": None}}, "mlp takes samples of one length"),
    "stacked": ({"phones": {"count": 3, "cohort": 3, "stacked": ["a"]}}, r"phones\.stacked: .*different lengths"),
    "virtual time": ({"phones": {"count": 3, "device": "mid_range"}}, r"phones\.device: .*different lengths"),
    "mixup": ({"data": {"mixup": 0.2}}, r"data\.mixup: .*different lengths can't be mixed"),
    "flip": ({"data": {"augment": "flip"}}, r"data\.augment: .*aren't images"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cant_be_done_with_them_is_refused(tmp_path: Path, case: str) -> None:
    told, line = REFUSED[case]
    with pytest.raises(rs.SettingsError, match=line):
        rs.fit(config(tmp_path, "cnn1d", "splitfed_v1").with_values(**told), callbacks=[])


def test_a_joint_batch_of_different_lengths_is_refused(tmp_path: Path) -> None:
    with pytest.raises(rs.SettingsError, match=r"schedule\.name: .*BatchNorm.*differ in length"):
        rs.fit(config(tmp_path, f"{NETS}:ByKeyword", "parallel"), callbacks=[])


def test_a_mask_for_samples_of_one_length_is_refused(tmp_path: Path) -> None:
    settings = rs.Config(model={"mask": "mask"}, cluster={"backend": "inprocess"}, run={"storage_path": str(tmp_path)})
    with pytest.raises(rs.SettingsError, match=r"model\.mask: all samples of digits are of one length"):
        rs.fit(settings, callbacks=[])


@pytest.mark.slow
def test_on_ray_they_are_the_same_bytes(tmp_path: Path, ray_session: object) -> None:
    here, there = (
        rs.fit(config(tmp_path, f"{NETS}:Tagger", "splitfed_v1", cluster={"backend": backend}), callbacks=[])
        for backend in ("inprocess", "ray")
    )
    bytes_of = [(Path(each.path) / "model.safetensors").read_bytes() for each in (here, there)]
    assert bytes_of[0] == bytes_of[1]


@pytest.mark.thorough
def test_utterances_as_long_as_they_are_are_learned(tmp_path: Path) -> None:
    pytest.importorskip("importlib.metadata").distribution("aeon")
    run = {"storage_path": str(tmp_path), "name": "run", "rounds": 12, "eval_every": 12}
    told = {"data": {"name": "japanese_vowels"}, "model": {"name": "lstm"}, "phones": {"count": 3}}
    learned = {"optimizer": {"lr": 0.1, "momentum": 0.9}, "cluster": {"backend": "inprocess"}}
    assert rs.fit(rs.Config(**told, **learned, run=run), callbacks=[]).metrics["test_accuracy"] > 0.7


def test_samples_have_the_lengths_that_they_had() -> None:
    inputs, _ = series()
    found = rs.Sequences.of(inputs)
    assert found.shape == (60, None, 3) and found.lengths.tolist() == [len(each) for each in inputs]
    assert all((found.sample(i) == each).all() for i, each in enumerate(inputs))
    part = found.subset(np.array([1, 0]))
    values, mask = part[np.array([[0, 1]])]
    assert values.shape == (1, 2, LENGTHS[1], 3) and mask.sum(2).tolist() == [[LENGTHS[1], LENGTHS[0]]]
    assert (values[0, 1, : LENGTHS[0]] == inputs[0]).all() and not values[0, 1, LENGTHS[0] :].any()


def test_a_step_that_is_no_number_is_told_with_its_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, labels = series()
    inputs[7][1, 2] = np.nan
    settings = config(tmp_path, "cnn1d", "sequential").with_values(data={"name": (inputs, labels)})
    with pytest.raises(rs.SettingsError, match=r"returned nan in the .* inputs, at row 7, position 1, 2"):
        rs.fit(settings, callbacks=[])
