"""Rule 1 for every task: split training is unsplit training bit for bit, and stacked training is looped training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

import ray_split as rs
from ray_split.cutting.cut import cut
from ray_split.models.unet import UNet
from tests.reference import Loss, assert_same_training, assert_same_weights, unsplit
from tests.tiers import mostly_thorough, slow

WEIGHTS = [0.5, 1.0, 1.5, 2.0, 0.25, 1.0, 1.0, 3.0, 1.0, 0.75]
MAPS = {"name": "synthetic_segmentation", "kwargs": {"samples": 60, "size": 8}}
TOKENS = {"name": "synthetic_tokens", "kwargs": {"samples": 80, "length": 8}}
VALUES = {"name": "synthetic_regression", "kwargs": {"samples": 300}}
TRANSFORMER = {"name": "transformer", "kwargs": {"width": 16, "heads": 2}}


def weighted(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(outputs, labels, torch.tensor(WEIGHTS))


def smoothed(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(outputs, labels, torch.tensor(WEIGHTS), label_smoothing=0.1)


def squeezed(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return functional.mse_loss(outputs.squeeze(1), labels)


def huber(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return functional.huber_loss(outputs.squeeze(1), labels)


def by_token(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(outputs.reshape(-1, outputs.shape[-1]), labels.reshape(-1), ignore_index=-100)


def two_heads(outputs: Any, labels: torch.Tensor) -> torch.Tensor:
    main, aux = outputs.values() if isinstance(outputs, dict) else outputs
    return functional.cross_entropy(main, labels) + 0.3 * functional.cross_entropy(aux, labels)


def main_head(outputs: Any, labels: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(outputs[0], labels)


def task(model: dict, data: dict, reference: Loss, **settings: Any) -> tuple[dict[str, Any], Loss]:
    return {"model": model, "data": {"batch_size": 8, **data}, "task": settings}, reference


def tagged() -> tuple[np.ndarray, np.ndarray]:
    """Samples (N, 10) of which any of three things may be true."""
    draw = np.random.default_rng(0)
    inputs = draw.standard_normal((120, 10)).astype(np.float32)
    return inputs, (inputs @ draw.standard_normal((10, 3)) > 0).astype(np.float32)


AUXILIARY = {"name": "tests.nets:Auxiliary", "cuts": "stem,body"}
BY_NAME = {
    "class weights": task({"name": "digits_cnn"}, {}, weighted, class_weights=WEIGHTS),
    "label smoothing": task(
        {"name": "digits_cnn"},
        {},
        smoothed,
        label_smoothing=0.1,
        class_weights=WEIGHTS,
    ),
    "regression": task({"name": "mlp", "num_classes": 1}, VALUES, squeezed, loss="mse"),
    "huber": task({"name": "mlp", "num_classes": 1}, VALUES, huber, loss="huber"),
    "several labels": task(
        {"name": "mlp", "num_classes": 3},
        {"name": f"{__name__}:tagged"},
        functional.binary_cross_entropy_with_logits,
        loss="binary_cross_entropy",
        metrics=["macro_f1"],
    ),
    "own loss": task({"name": "mlp", "num_classes": 1}, VALUES, squeezed, loss="tests.nets:squared_error"),
    "skips inside B": task({"name": "unet"}, MAPS, functional.cross_entropy),
    "skips across": task({"name": "unet", "cuts": "down1,down2"}, MAPS, functional.cross_entropy),
    "tokens": task({**TRANSFORMER, "num_classes": 4}, TOKENS, by_token, loss="token_cross_entropy"),
    "two heads": task(AUXILIARY, {}, two_heads, auxiliary_weight=0.3),
    "a head that is not there": task({**AUXILIARY, "kwargs": {"with_aux": False}}, {}, main_head),
    "heads in a dict": task({**AUXILIARY, "kwargs": {"as_dict": True}}, {}, two_heads, auxiliary_weight=0.3),
}


def config(path: Path, sections: dict[str, Any], schedule: str = "sequential", **more: Any) -> rs.Config:
    run = {"storage_path": str(path), "name": f"run_{len(list(path.iterdir()))}", "rounds": 1, **more.pop("run", {})}
    merged = {"optimizer": {"lr": 0.05}, "phones": {"count": 2, "local_steps": 4}, **sections, **more}
    return rs.Config(schedule={"name": schedule}, cluster={"backend": "inprocess"}, run=run, **merged)


@pytest.mark.parametrize("name", BY_NAME)
@pytest.mark.few(5)
def test_split_is_unsplit(tmp_path: Path, name: str) -> None:
    sections, loss = BY_NAME[name]
    settings = config(tmp_path, sections)
    assert_same_weights(unsplit(settings, loss=loss), rs.fit(settings, callbacks=[]).path)


ONE_CUT = {"regression": "layers.0", "skips across": "down1", "tokens": "blocks.0", "two heads": "stem"}


@pytest.mark.parametrize("name", mostly_thorough(ONE_CUT, "tokens", "two heads"))
def test_single_split_is_unsplit_and_tells_the_same_scores(tmp_path: Path, name: str) -> None:
    sections, loss = BY_NAME[name]
    found = []
    for cuts in (ONE_CUT[name], sections["model"].get("cuts")):
        metrics = [] if name == "two heads" else ["r2" if name == "regression" else "macro_f1"]
        model, task = {**sections["model"], "cuts": cuts}, {**sections["task"], "metrics": metrics}
        settings = config(tmp_path, {**sections, "model": model, "task": task})
        result = rs.fit(settings, callbacks=[])
        assert_same_weights(unsplit(settings, loss=loss), result.path)
        found.append({name: value for name, value in result.metrics.items() if name.startswith(("val_", "test_"))})
    assert found[0] == found[1]


@pytest.mark.parametrize("name", mostly_thorough(BY_NAME, "class weights", "skips across", "tokens"))
@pytest.mark.few(2)
def test_stacked_is_looped(tmp_path: Path, name: str) -> None:
    sections, loss = BY_NAME[name]
    paths = []
    for stacked in ([], ["a", "b", "c"]):
        # With more steps the class weights' run comes to a kink, at which rounding decides (3e-4 on AVX2).
        steps = {"local_steps": 10} if name == "class weights" else {"local_epochs": 1}
        phones = {"count": 5, "cohort": 3, "stacked": stacked, **steps}
        result = rs.fit(config(tmp_path, sections, "splitfed_v1", phones=phones), callbacks=[])
        assert rs.Config.from_yaml(Path(result.path) / "config.yaml").phones.stacked == stacked
        paths.append(result)
    looped, joint = paths
    assert_same_training(looped, joint, loss=loss)
    for figure in ("train_loss", "val_loss", "test_loss"):
        assert joint.metrics[figure] == pytest.approx(looped.metrics[figure], rel=1e-4)


def test_what_crosses_of_a_unets_skips_depends_on_the_cuts() -> None:
    images = torch.zeros(2, 1, 8, 8)
    for cuts, up, down in ((("stem", "up1"), 1, 1), (("down1", "down2"), 2, 3)):
        segments = cut(UNet(), cuts, images)
        activation = segments.a(images)
        assert (len(activation), len(segments.b(*activation))) == (up, down)


def test_a_unet_whose_raw_input_would_cross_is_refused_and_the_input_named(tmp_path: Path) -> None:
    settings = config(tmp_path, {"model": {"name": "tests.nets:RawSkip", "cuts": "stem,up1"}, "data": MAPS})
    with pytest.raises(
        rs.SettingsError,
        match=(
            r"model\.cuts: layers after 'stem' use the raw input "
            r"images, so the phone's data would be sent to the server"
        ),
    ):
        rs.fit(settings, callbacks=[])


def test_a_head_tied_to_the_embedding_is_the_phones_and_refused_on_the_server(tmp_path: Path) -> None:
    model: dict[str, Any] = {"name": "transformer", "num_classes": 32, "kwargs": {"tied": True}}
    sections = {"data": TOKENS, "task": {"loss": "token_cross_entropy"}}
    result = rs.fit(config(tmp_path, {**sections, "model": model}), callbacks=[])
    trained = rs.load_model(result.path)
    assert trained.head.weight is trained.embedding.tokens.weight
    with pytest.raises(rs.SettingsError, match=r"the tied weights embedding\.tokens\.weight and head\.weight"):
        rs.fit(config(tmp_path, {**sections, "model": {**model, "cuts": ["blocks.0"]}}), callbacks=[])


def test_a_regression_learns_and_its_best_round_has_the_lowest_validation_loss(tmp_path: Path) -> None:
    sections = {"model": {"name": "mlp"}, "data": {"name": "synthetic_regression"}, "task": {"loss": "mse"}}
    result = rs.fit(config(tmp_path, sections, phones={"count": 4}, run={"rounds": 4}), callbacks=[])
    rows, summary = result.metrics_dataframe, result.metrics
    assert summary["test_r2"] > 0.8
    assert rows["val_accuracy"].isna().all() and summary["best_val_accuracy"] is None
    best = rows.loc[rows["val_loss"].idxmin()]
    assert summary["best_val_loss"] == best["val_loss"]
    assert summary["test_loss_at_best_val"] == best["test_loss"]
    assert summary["test_r2_at_best_val"] == best["test_r2"]
    assert best["val_mae"] < rows["val_loss"].max() ** 0.5


def test_a_regressions_phones_have_a_loss_and_no_accuracy(tmp_path: Path) -> None:
    import pandas

    sections = {"model": {"name": "mlp"}, "data": VALUES, "task": {"loss": "mse"}}
    phones = {"count": 3, "local_epochs": 1, "held_out": 0.2}
    for schedule in ("sequential", "splitfed_v3"):
        result = rs.fit(config(tmp_path, sections, schedule, phones=phones), callbacks=[])
        table = pandas.read_parquet(Path(result.path) / "phones.parquet")
        assert table["loss"].notna().all() and table["test_loss"].notna().all()
        assert table["accuracy"].isna().all() and table["test_accuracy"].isna().all()
        assert result.metrics["phone_accuracy_mean"] is None
        assert np.isfinite(result.metrics["test_r2"])


def test_a_segmentation_learns(tmp_path: Path) -> None:
    data = {"name": "synthetic_segmentation", "kwargs": {"samples": 200}}
    sections = {"model": {"name": "unet"}, "data": data, "optimizer": {"name": "adam", "lr": 5e-3}}
    task = {"metrics": "mean_iou,macro_f1", "class_weights": "balanced"}
    settings = config(tmp_path, sections, task=task, phones={"count": 4}, run={"rounds": 5})
    result = rs.fit(settings, callbacks=[])
    assert result.metrics["test_mean_iou"] > 0.6 and result.metrics["test_accuracy"] > 0.8
    settled = rs.Config.from_yaml(Path(result.path) / "config.yaml").task.class_weights
    labels = rs.load_data(settings.data).train.labels
    assert settled == pytest.approx((labels.size / (3 * np.bincount(labels.ravel()))).tolist())


def test_tokens_are_learned_and_padding_counts_for_nothing(tmp_path: Path) -> None:
    sections = {"model": TRANSFORMER, "data": {"name": "synthetic_tokens", "kwargs": {"samples": 500}}}
    settings = config(
        tmp_path, sections, task={"loss": "token_cross_entropy", "metrics": ["macro_f1"]}, phones={"count": 4},
        optimizer={"name": "adam", "lr": 5e-3}, run={"rounds": 4},
    )  # fmt: skip
    result = rs.fit(settings, callbacks=[])
    assert result.metrics["test_accuracy"] > 0.95 and result.metrics["test_macro_f1"] > 0.95


def test_metrics_are_the_same_however_many_samples_are_evaluated_at_once(tmp_path: Path) -> None:
    found = []
    for size in (7, 1000):
        data = {"batch_size": 8, "eval_batch_size": size}
        metrics = ["macro_f1", "balanced_accuracy", "tests.nets:top2"]
        settings = config(tmp_path, {"data": data, "task": {"metrics": metrics}})
        found.append(rs.fit(settings, callbacks=[]).metrics)
    for name in ("macro_f1", "balanced_accuracy", "top2"):
        for key in (f"val_{name}", f"test_{name}", f"test_{name}_at_best_val"):
            assert found[0][key] == pytest.approx(found[1][key], rel=1e-6)
    assert found[0]["test_accuracy"] < found[0]["test_top2"] <= 1


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["tokens", *slow("regression")])
def test_through_ray_everything_is_the_same(tmp_path: Path, ray_session: object, name: str) -> None:
    sections, _ = BY_NAME[name]
    settings = config(tmp_path, sections, "splitfed_v1", phones={"count": 3, "cohort": 2})
    metrics = {"regression": ["r2"], "tokens": ["macro_f1"]}[name]
    settings = settings.with_values(task={"metrics": metrics})
    through_ray = settings.with_values(run={"name": "ray"}, cluster={"backend": "ray", "client_actors": 2})
    one, other = (rs.fit(each, callbacks=[]) for each in (settings, through_ray))
    assert_same_weights(rs.load_model(one.path, trust=True), other.path)
    for figure in ("val_loss", "val_accuracy", "test_loss", "test_accuracy", f"val_{metrics[0]}", f"test_{metrics[0]}"):
        assert one.metrics[figure] == other.metrics[figure]
