"""Several labels a sample: what is right, the metrics of scikit-learn, and what is no such label."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics

import ray_split as rs
from ray_split import config
from ray_split.data.sources.datasets import DATA_SETS
from ray_split.tasks.task import Task

DRAW = torch.Generator().manual_seed(0)
SCORES = torch.randn(40, 5, generator=DRAW)
LABELS = (torch.rand(40, 5, generator=DRAW) < 0.4).float()
SCORED = {
    "macro_f1": lambda wanted, said: metrics.f1_score(wanted, said, average="macro"),
    "mean_iou": lambda wanted, said: metrics.jaccard_score(wanted, said, average="macro"),
    "balanced_accuracy": lambda wanted, said: metrics.recall_score(wanted, said, average="macro"),
}


def task(*names: str) -> Task:
    return Task(config.Task(loss="binary_cross_entropy", metrics=list(names)))


def test_metrics_are_scikit_learns_in_batches_of_any_size() -> None:
    several = task(*SCORED)
    tallies = [several.tallies(SCORES[rows], LABELS[rows]) for rows in (slice(0, 7), slice(7, 40))]
    figures = several.figures({key: tallies[0][key] + tallies[1][key] for key in tallies[0]})
    wanted, said = LABELS.numpy() > 0, SCORES.numpy() > 0
    assert figures == pytest.approx({name: of(wanted, said) for name, of in SCORED.items()})


def test_a_sample_is_right_by_the_share_of_its_classes() -> None:
    wanted = 40 * (1 - metrics.hamming_loss(LABELS.numpy() > 0, SCORES.numpy() > 0))
    assert task().correct(SCORES, LABELS) == pytest.approx(wanted)
    broken = SCORES.clone()
    broken[:, 0] = torch.nan
    assert task().correct(broken, LABELS) <= 40 * 4 / 5 and task().tallies(broken, LABELS)["nonfinite"][0] == 40


def test_each_phones_loss_is_that_of_its_batch() -> None:
    several, scores, labels = task(), SCORES.reshape(4, 10, 5), LABELS.reshape(4, 10, 5)
    one = torch.nn.functional.binary_cross_entropy_with_logits
    expected = torch.stack([one(own, wanted) for own, wanted in zip(scores, labels, strict=True)])
    assert torch.allclose(several.losses(scores, labels), expected)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            np.eye(3, dtype=np.int64)[np.arange(20) % 3],
            (
                "data.name: theirs returned labels (16, 3) of int64, but binary_cross_entropy needs floats (N, "
                "classes), 0 or 1. Return labels.astype(float), with a column for each class."
            ),
        ),
        (
            np.zeros(20, np.float32),
            "theirs returned labels (16,) of float32, but binary_cross_entropy needs floats (N, classes), 0 or 1",
        ),
        (
            np.full((20, 3), 2, np.float32),
            "Or set run.on_bad_phone to skip, to train without the phones that have such rows",
        ),
    ],
)
def test_what_are_no_such_labels_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, labels: Any, message: str
) -> None:
    monkeypatch.setitem(DATA_SETS, "theirs", lambda: (np.ones((20, 4), np.float32), labels))
    settings = rs.Config(
        model={"name": "mlp"}, data={"name": "theirs", "val_fraction": 0}, task={"loss": "binary_cross_entropy"},
        phones={"count": 2}, cluster={"backend": "inprocess"}, run={"storage_path": str(tmp_path)},
    )  # fmt: skip
    with pytest.raises(rs.SettingsError) as caught:
        rs.fit(settings, callbacks=[])
    assert message in str(caught.value)
