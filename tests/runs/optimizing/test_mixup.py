"""mixup on the phone: the untouched model on batches that are mixed as the paper has it, and labels as much."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn, optim
from torch.nn import functional

import ray_split as rs
from ray_split import seeds
from tests import reference
from tests.reference import assert_same_training, assert_same_weights
from tests.runs.equality.test_schedules import fit, model_bytes
from tests.runs.optimizing.test_optimizers import MODELS
from tests.tiers import mostly_thorough, thorough

ALPHA = 0.4
MIXED = {"mixup": ALPHA}


def paper(inputs: torch.Tensor, labels: torch.Tensor, draw: rs.Draw) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Algorithm of figure 1: the mixed inputs, the other labels, and lambda."""
    drawn = np.random.default_rng(
        np.random.SeedSequence([0, seeds.PURPOSES["mixup"], draw.round, draw.phone, draw.step])
    )
    share = drawn.beta(ALPHA, ALPHA)
    order = torch.from_numpy(drawn.permutation(len(inputs)))
    return share * inputs + (1 - share) * inputs[order], labels[order], share


def trained(settings: rs.Config) -> nn.Module:
    """The untouched model, on plain batches that are mixed here, with torch's loss of shares of classes."""
    run = reference.Training(settings, b=MODELS[settings.model.name][1])
    run.batches = rs.Batches(settings.with_values(data={"mixup": None}), run.data)
    optimizer = optim.SGD(run.model.parameters(), lr=0.05)
    for draw in rs.stream(settings):
        inputs, labels = map(torch.from_numpy, run.batches.of(draw))
        mixed, others, share = paper(inputs, labels, draw)
        ours, theirs = functional.one_hot(labels, 10).float(), functional.one_hot(others, 10).float()
        optimizer.zero_grad()
        run.begin(draw, "a")
        outputs = run.model.train()(mixed)
        loss = functional.cross_entropy(outputs, share * ours + (1 - share) * theirs)
        criterion = share * functional.cross_entropy(outputs, labels) + (1 - share) * functional.cross_entropy(
            outputs, others
        )
        assert loss.item() == pytest.approx(criterion.item(), rel=1e-5)
        loss.backward()
        optimizer.step()
    return run.model


@pytest.mark.parametrize("schedule", ["sequential", *thorough("splitfed_v1", "splitfed_v2", "parallel", "fedavg")])
@pytest.mark.parametrize("model", mostly_thorough(MODELS, "digits_cnn"))
def test_one_phone_is_the_untouched_model_on_mixed_batches_bit_for_bit(
    tmp_path: Path, model: str, schedule: str
) -> None:
    kind = {"name": model, "cuts": "2,8" if "batchnorm" in model else None}
    phones = {"count": 3 if schedule == "sequential" else 1}
    settings, result = fit(tmp_path, schedule, data=MIXED, model=kind, phones=phones)
    assert_same_weights(trained(settings), result.path)


def test_in_single_split_mixed_labels_go_to_the_server_and_in_double_split_none(tmp_path: Path) -> None:
    run = {"rounds": 1}
    settings, single = fit(tmp_path, "sequential", data=MIXED, model={"cuts": "block1"}, phones={"count": 1}, run=run)
    assert_same_weights(trained(settings), single.path)
    _, plain = fit(tmp_path, "sequential", model={"cuts": "block1"}, phones={"count": 1}, run=run)
    samples = int(plain.metrics_dataframe["samples"].sum())
    more = single.metrics_dataframe["bytes_up"].sum() - plain.metrics_dataframe["bytes_up"].sum()
    assert more == samples * (10 * 4 - 8)  # a share of each class, for a number


@pytest.mark.thorough
def test_stacked_it_is_as_looped_and_on_any_clients_the_same_bytes(tmp_path: Path) -> None:
    looped, stacked, others = (
        fit(tmp_path, "splitfed_v1", data=MIXED, phones={"cohort": 4, "stacked": names}, cluster={"client_actors": n})[
            1
        ]
        for names, n in (("", 2), ("a,b,c", 2), ("a,b,c", 1))
    )
    assert_same_training(looped, stacked)
    assert model_bytes(others) == model_bytes(stacked)


@pytest.mark.slow
def test_on_ray_it_is_the_same_bytes(tmp_path: Path, ray_session: object) -> None:
    here, there = (
        fit(tmp_path, "splitfed_v1", data=MIXED, phones={"cohort": 4}, cluster={"backend": backend})[1]
        for backend in ("inprocess", "ray")
    )
    assert model_bytes(there) == model_bytes(here)


def several() -> tuple[np.ndarray, np.ndarray]:
    """Of whose two things any may be true."""
    draw = np.random.default_rng(0)
    return draw.standard_normal((40, 6)).astype(np.float32), draw.integers(0, 2, (40, 2)).astype(np.float32)


def test_labels_that_are_values_are_mixed_as_they_are() -> None:
    settings = rs.Config(data={"name": "tests.runs.optimizing.test_mixup:several", "batch_size": 8, **MIXED})
    parts = rs.load_data(settings.data)
    batches, plain = rs.Batches(settings, parts), rs.Batches(settings.with_values(data={"mixup": None}), parts)
    draw = next(rs.stream(settings))
    inputs, labels = batches.of(draw)
    x, y = map(torch.from_numpy, plain.of(draw))
    mixed, others, share = paper(x, y, draw)
    assert np.array_equal(inputs, mixed.numpy()) and inputs.dtype == np.float32
    assert np.array_equal(labels, (share * y + (1 - share) * others).numpy())


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "tokens": (
        {"data": {"name": "synthetic_tokens", **MIXED}},
        (r"data\.mixup: can't be used with " r"synthetic_tokens, whose inputs are int64"),
    ),
    "maps": (
        {"data": {"name": "synthetic_segmentation", **MIXED}},
        (r"data\.mixup: .* whose labels " r"are not one class each"),
    ),
    "own loss": (
        {"data": MIXED, "task": {"loss": "tests.runs.optimizing.test_mixup:of_classes"}},
        r"task\.loss: .*of_classes",
    ),
    "alpha": ({"data": {"mixup": 0}}, r"data\.mixup: must be greater than 0, not 0\."),
    "smoothing": (
        {"task": {"label_smoothing": 0.1, "loss": "l1"}},
        r"task\.label_smoothing: can't be used with task\.loss l1\.",
    ),
}


def of_classes(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """A loss of somebody's, of labels that are classes."""
    return nn.functional.nll_loss(outputs.log_softmax(1), labels)


@pytest.mark.parametrize("case", REFUSED)
def test_what_can_not_be_mixed_is_refused(tmp_path: Path, case: str) -> None:
    sections, line = REFUSED[case]
    models = {"tokens": {"name": "transformer"}, "maps": {"name": "unet"}}
    settings = {"model": models.get(case, {"name": "mlp"}), **sections}
    with pytest.raises(rs.SettingsError, match=line):
        rs.fit(rs.Config(**settings, cluster={"backend": "inprocess"}, run={"storage_path": str(tmp_path)}), [])
