"""Models that pass and return transformers' ModelOutput: a dataclass that is an OrderedDict too."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import ray_split as rs
from tests.reference import BY_SCHEDULE, assert_close_weights, assert_same_weights
from tests.tiers import thorough


@dataclass
class Output(OrderedDict[str, Any]):
    """Of the form of theirs: what is not None is a key, and an attribute."""

    last_hidden_state: Any = None
    hidden_states: Any = None
    logits: Any = None

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) is not None:
                self[field.name] = getattr(self, field.name)

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        super().__setattr__(key, value)


class Encoder(nn.Module):
    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.kind, self.words, self.linear = kind, nn.Embedding(32, 8), nn.Linear(8, 8)

    def forward(self, words: torch.Tensor) -> Any:
        embedded = self.words(words)
        return self.kind(last_hidden_state=self.linear(embedded), hidden_states=(embedded,))


class Middle(nn.Module):
    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.kind, self.linear = kind, nn.Linear(8, 8)

    def forward(self, found: Any) -> Any:
        assert type(found) is self.kind and list(found) == ["last_hidden_state", "hidden_states"]
        steps = torch.relu(self.linear(found.last_hidden_state)) + found["hidden_states"][0]
        return self.kind(last_hidden_state=steps, hidden_states=found.hidden_states)


class Classifier(nn.Module):
    """Cut after encoder and middle; the output is made in the forward that is cut."""

    def __init__(self, kind: Any, last: Any, num_classes: int) -> None:
        super().__init__()
        self.encoder, self.middle = Encoder(kind), Middle(kind)
        self.last, self.head = last, nn.Linear(8, num_classes)

    def forward(self, words: torch.Tensor) -> Any:
        found = self.middle(self.encoder(words))
        return self.last(logits=self.head(found.last_hidden_state.mean(1)))


def ours(num_classes: int = 3) -> nn.Module:
    return Classifier(Output, Output, num_classes)


def theirs(num_classes: int = 3) -> nn.Module:
    outputs = pytest.importorskip("transformers.modeling_outputs")
    return Classifier(outputs.BaseModelOutput, outputs.SequenceClassifierOutput, num_classes)


def words() -> tuple[np.ndarray, np.ndarray]:
    labels = np.arange(60) % 3
    return np.random.default_rng(0).integers(0, 10, (60, 5)) + 5 * labels[:, None], labels


def of_logits(outputs: Any, labels: torch.Tensor) -> torch.Tensor:
    assert type(outputs).__name__ in ("Output", "SequenceClassifierOutput")
    return functional.cross_entropy(outputs.logits, labels)


@pytest.mark.parametrize("model", ["ours", "theirs"])
@pytest.mark.parametrize("schedule", ["sequential", *thorough("splitfed_v1", "parallel")])
def test_they_keep_their_type_and_train_as_unsplit(tmp_path: Path, model: str, schedule: str) -> None:
    if model == "theirs":
        pytest.importorskip("transformers", reason="transformers isn't installed")
    settings = rs.Config(
        model={"name": f"{__name__}:{model}", "cuts": "encoder,middle"},
        data={"name": f"{__name__}:words", "batch_size": 7},
        task={"loss": f"{__name__}:of_logits"},
        schedule={"name": schedule},
        phones={"count": 3},
        optimizer={"lr": 0.1, "momentum": 0.9},
        cluster={"backend": "inprocess"},
        run={"storage_path": str(tmp_path), "name": "run", "rounds": 2},
    )
    result = rs.fit(settings, callbacks=[])
    told: dict[str, Any] = {"b": ("middle",), "loss": of_logits}
    if schedule == "sequential":
        assert_same_weights(BY_SCHEDULE[schedule](settings, **told), result.path)
    assert_close_weights(lambda: BY_SCHEDULE[schedule](settings, **told), result.path)
