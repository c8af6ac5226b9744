from typing import Any

import pytest
import torch
from torch import nn

import ray_split as rs
from ray_split.preparation.prepare import prepare


class Keeping(nn.Module):
    """A layer that does something with its buffer or parameter."""

    def __init__(self, do: Any, **buffers: Any) -> None:
        super().__init__()
        self.weight, self.do = nn.Parameter(torch.ones(16)), do
        for name, buffer in buffers.items():
            self.register_buffer(name, buffer, persistent=name != "cache")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.do(self, x)
        return x * self.weight


def appears(layer: Any, x: torch.Tensor) -> None:
    layer.cache = torch.ones(16)


def registered(layer: Any, x: torch.Tensor) -> None:
    layer.register_buffer("late", torch.ones(3))


def grows(layer: Any, x: torch.Tensor) -> None:
    layer.queue = torch.cat([layer.queue, x.detach()])


def whole(layer: Any, x: torch.Tensor) -> None:
    layer.rate = layer.rate * 0.9


def anew(layer: Any, x: torch.Tensor) -> None:
    layer.weight = nn.Parameter(layer.weight.detach() * 0.9)


def written(layer: Any, x: torch.Tensor) -> None:
    with torch.no_grad():
        layer.weight.clamp_(-1, 1)
    layer.seen = layer.seen + 1


def teaches(layer: Any, x: torch.Tensor) -> None:
    layer.teacher.data.lerp_(layer.weight.data, 0.1)


def with_teacher() -> Keeping:
    """An average of its own weights that it keeps in a parameter, as mean teachers do."""
    layer = Keeping(teaches)
    layer.teacher = nn.Parameter(torch.zeros(16), requires_grad=False)
    return layer


DOES = {
    "teaches": with_teacher,
    "appears": lambda: Keeping(appears, cache=None),
    "registered": lambda: Keeping(registered),
    "grows": lambda: Keeping(grows, queue=torch.zeros(2, 16)),
    "whole": lambda: Keeping(whole, rate=torch.tensor(1)),
    "anew": lambda: Keeping(anew),
    "written": lambda: Keeping(written, seen=torch.tensor(0.0)),
}


def model(does: str, num_classes: int = 10) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), DOES[does](), nn.Linear(16, num_classes))


def prepared(does: str, schedule: str = "sequential") -> rs.Config:
    kwargs = {
        "name": "tests.ray_split.preparation.trials.test_state_kept:model",
        "kwargs": {"does": does},
        "cuts": "2,3",
    }
    return prepare(rs.Config(model=kwargs, schedule={"name": schedule}, run={"name": "x"})).settings


@pytest.mark.parametrize(
    ("does", "told"),
    [
        ("appears", "the buffer 3.cache changes: nothing at first and (16,) of float32 after a forward"),
        ("registered", "the buffer 3.late changes: nothing at first and (3,) of float32 after a forward"),
        ("grows", ("model.name: the buffer 3.queue changes: (2, 16) of float32 at first and (3, 16) of float32 after a "
"forward. Register the buffer with its final shape and type.")),
        ("whole", "the buffer 3.rate changes: () of int64 at first and () of float32 after a forward"),
        ("anew", "forward replaces the parameter 3.weight, so no optimizer trains the new one"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("schedule", ["sequential", "splitfed_v1"])
def test_what_no_state_can_hold_is_refused_and_the_layer_named(does: str, told: str, schedule: str) -> None:
    with pytest.raises(rs.SettingsError) as caught:
        prepared(does, schedule)
    assert caught.value.field == "model.name"
    assert told in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_what_is_written_to_a_parameter_that_is_not_trained_is_refused_where_it_would_be_lost() -> None:
    assert prepared("teaches").model.cuts == ["2", "3"]
    with pytest.raises(
        rs.SettingsError, match=r"forward writes to 3\.teacher, which is a parameter that isn't trained"
    ):
        prepared("teaches", "splitfed_v1")


def test_values_may_change() -> None:
    assert prepared("written").model.cuts == ["2", "3"]
