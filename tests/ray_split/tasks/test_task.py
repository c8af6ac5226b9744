"""What a task makes of what a model returns: one head or several, one phone or a cohort."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

import ray_split as rs
from ray_split import config
from ray_split.messages.report import added
from ray_split.tasks.task import Task, heads
from tests.nets import Heads

DRAW = torch.Generator().manual_seed(0)
MAIN, AUX, SECOND = (torch.randn(3, 5, 4, generator=DRAW) for _ in range(3))
LABELS = torch.randint(0, 4, (3, 5), generator=DRAW)
RETURNED = {
    "a tensor": (MAIN, []),
    "a tuple": ((MAIN, AUX, SECOND), [AUX, SECOND]),
    "a named tuple": (Heads(MAIN, AUX), [AUX]),
    "a head that is not there": (Heads(MAIN, None), []),
    "a dict": (OrderedDict(aux=AUX, out=MAIN), [AUX]),
    "a dict of logits": ({"loss": None, "logits": MAIN, "hidden_states": (AUX, SECOND)}, []),
    "a dict of both": ({"logits": AUX, "out": MAIN}, [AUX]),
}


def task(**settings: Any) -> Task:
    return Task(config.Task(**settings))


@pytest.mark.parametrize("name", RETURNED)
def test_auxiliary_heads_add_their_loss_times_its_weight(name: str) -> None:
    outputs, auxiliary = RETURNED[name]
    ours, each = task(auxiliary_weight=0.3), []
    for i, labels in enumerate(LABELS):
        expected = functional.cross_entropy(MAIN[i], labels)
        expected = expected + 0.3 * sum(functional.cross_entropy(head[i], labels) for head in auxiliary)
        each.append(expected.item())
    assert ours.losses(outputs, LABELS).tolist() == pytest.approx(each, rel=1e-6)


@pytest.mark.parametrize("name", RETURNED)
def test_what_is_right_is_told_by_the_main_head(name: str) -> None:
    expected = (MAIN.argmax(2) == LABELS).sum(1).tolist()
    assert task().corrects(RETURNED[name][0], LABELS).tolist() == expected
    assert task(metrics=["macro_f1"]).tallies(MAIN[0], LABELS[0])["classes"][0].sum() == expected[0]


@pytest.mark.parametrize("outputs", [{"scores": MAIN}, {"logits": None}, (), (None, MAIN), "scores"], ids=str)
def test_outputs_without_a_main_head_are_refused(outputs: Any) -> None:
    with pytest.raises(TypeError, match="main one first, or a dict with 'out' or 'logits'"):
        heads(outputs)


def test_a_count_of_what_is_right_is_a_whole_number_where_a_sample_has_one_label() -> None:
    assert task().corrects(MAIN, LABELS).dtype == np.int64
    assert isinstance(task().correct(MAIN[0], LABELS[0]), int)


def test_a_regression_has_nothing_that_is_right() -> None:
    ours = task(loss="mse")
    assert math.isnan(ours.correct(torch.zeros(5, 1), torch.zeros(5)))
    assert np.isnan(ours.corrects(torch.zeros(3, 5, 1), torch.zeros(3, 5))).all()


def test_an_own_loss_gets_what_the_model_returned_and_one_phones_batch_at_a_time() -> None:
    ours = task(loss="tests.ray_split.tasks.test_task:distance_of_heads")
    assert ours.losses({"first": MAIN, "second": AUX}, LABELS).tolist() == pytest.approx(
        [(MAIN[i] - AUX[i]).abs().mean().item() for i in range(3)]
    )
    assert np.isnan(ours.corrects({"first": MAIN, "second": AUX}, LABELS)).all()


def distance_of_heads(outputs: dict[str, torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
    assert labels.shape == (5,)
    return (outputs["first"] - outputs["second"]).abs().mean()


@pytest.mark.parametrize("shape", [(3, 5, 2), (3, 5, 1)])
def test_an_own_loss_whose_outputs_are_no_scores_has_no_accuracy(shape: tuple[int, ...]) -> None:
    ours = task(loss="tests.nets:squared_error")
    assert np.isnan(ours.corrects(torch.zeros(shape), torch.zeros(3, 5))).all()
    maps = torch.zeros(3, 5, 7, dtype=torch.int64)
    assert np.isnan(ours.corrects(torch.zeros(3, 5, 4), maps)).all()


def test_an_own_score_is_the_mean_over_the_samples_of_all_batches() -> None:
    ours = task(metrics=["tests.nets:top2", "macro_f1"])
    batches = [(MAIN[0], LABELS[0]), (MAIN[1:].flatten(0, 1), LABELS[1:].flatten())]
    figures = ours.figures(added(ours.tallies(*batch) for batch in batches))
    top = MAIN.flatten(0, 1).topk(2, dim=1).indices == LABELS.flatten()[:, None]
    assert figures["top2"] == pytest.approx(top.any(1).float().mean().item())


def test_a_score_of_no_samples_is_none() -> None:
    assert task(metrics=["macro_f1", "tests.nets:top2"]).figures({}) == {"macro_f1": None, "top2": None}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"metrics": ["accuracy"]},
            r"task\.metrics: can't contain accuracy, which is always computed\. Remove accuracy from the list\.",
        ),
        (
            {"metrics": ["macro_f2"]},
            (
                r"task\.metrics: there is no metric 'macro_f2'\. Did you mean macro_f1\? The metrics are "
                r"balanced_accuracy, macro_f1, mae, mean_iou, mse, perplexity and r2\. You can also name your own as "
                r"package\.module:function\."
            ),
        ),
        ({"metrics": ["r2", "tests.nets:r2"]}, r"must be a list of different names, not \['r2', 'tests\.nets:r2'\]"),
        (
            {"loss": "mse", "class_weights": [1, 2]},
            (
                r"task\.class_weights: can't be used with task\.loss mse\. Remove task\.class_weights, or set "
                r"task\.loss to cross_entropy or token_cross_entropy\."
            ),
        ),
        (
            {"loss": "tests.nets:squared_error", "class_weights": "balanced"},
            (
                "task.class_weights: can't be used with task.loss tests.nets:squared_error. Remove "
                "task.class_weights, or set task.loss to cross_entropy or token_cross_entropy."
            ),
        ),
    ],
)
def test_settings_that_do_not_go_together_are_refused_in_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(rs.SettingsError, match=message):
        task(**settings)
