"""What a forward keeps outside of its model is named, with its line: it is not the cut that is wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from ray_split.cutting.cut import cut
from ray_split.errors import SettingsError
from tests import global_state

X = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
SEEN: list[int] = []
MEANS: list[torch.Tensor] = []
COUNT = 0
TALLY: Counter[str] = Counter()
PLACE = SimpleNamespace(calls=0)
SETTINGS = SimpleNamespace(scale=2.0)


class Record:
    """An object of somebody's class."""

    calls = 0


RECORD = Record()


def counted() -> int:
    global COUNT
    COUNT += 1
    return COUNT


def listed(x: torch.Tensor) -> torch.Tensor:
    SEEN.append(1)
    return x * (1 + len(SEEN) / 8)


def numbered(x: torch.Tensor) -> torch.Tensor:
    return x * (1 + counted() / 8)


def tallied(x: torch.Tensor) -> torch.Tensor:
    TALLY["calls"] += 1
    return x * (1 + TALLY["calls"] / 8)


def placed(x: torch.Tensor) -> torch.Tensor:
    PLACE.calls += 1
    return x * (1 + PLACE.calls / 8)


def recorded(x: torch.Tensor) -> torch.Tensor:
    RECORD.calls += 1
    return x * (1 + RECORD.calls / 8)


def elsewhere(x: torch.Tensor) -> torch.Tensor:
    global_state.COUNT += 1
    return x * (1 + global_state.COUNT / 8)


def by_another(x: torch.Tensor) -> torch.Tensor:
    return global_state.scaled(x)


def means(x: torch.Tensor) -> torch.Tensor:
    MEANS.append(x.detach().mean())
    return x + sum(MEANS)


def unchanged(x: torch.Tensor) -> torch.Tensor:
    return x * SETTINGS.scale


def whole(keep: Callable[[torch.Tensor], torch.Tensor]) -> nn.Module:
    """In a layer that stays whole."""

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> Any:
            return self.linear(keep(x))

    return nn.Sequential(nn.Linear(8, 8), Layer(), nn.Linear(8, 3))


def opened(keep: Callable[[torch.Tensor], torch.Tensor]) -> nn.Module:
    """In the forward that is cut."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> Any:
            return self.c(self.b(keep(self.a(x))))

    return Model()


KEPT: dict[Callable[[torch.Tensor], torch.Tensor], str] = {
    listed: "SEEN", numbered: "COUNT", tallied: "TALLY", placed: "PLACE", recorded: "RECORD",
    elsewhere: "global_state.COUNT", by_another: "CALLS", means: "MEANS",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _as_at_first() -> None:
    SEEN.clear()
    MEANS.clear()


@pytest.mark.parametrize("keep", KEPT, ids=lambda keep: keep.__name__)
def test_a_global_that_outputs_depend_on_is_named_with_its_line(keep: Callable[[Any], Any]) -> None:
    file = "global_state" if keep is by_another else "test_globals"
    line = rf"the variable {KEPT[keep]} that 1 \(Layer\) uses \({file}\.py:\d+\), which is not in its state dict"
    with pytest.raises(SettingsError, match=rf"^model\.name: the model's output depends on {line}"):
        cut(whole(keep), ["0", "1"], X)


@pytest.mark.parametrize("keep", KEPT, ids=lambda keep: keep.__name__)
def test_in_a_forward_that_is_cut_too(keep: Callable[[Any], Any]) -> None:
    does = "what forward keeps in" if keep is means else "forward changes"
    line = rf"{does} the variable {KEPT[keep]} that the model \(Model\) uses \(\w+\.py:\d+\)"
    with pytest.raises(SettingsError, match=rf"^model\.cuts: can't cut there, because {line}"):
        cut(opened(keep), ["a", "b"], X)


def test_in_a_function_that_a_layer_is_given_too() -> None:
    class Given(nn.Module):
        def __init__(self, keep: Callable[[torch.Tensor], torch.Tensor]) -> None:
            super().__init__()
            self.linear, self.keep = nn.Linear(8, 8), keep

        def forward(self, x: torch.Tensor) -> Any:
            return self.linear(self.keep(x))

    with pytest.raises(SettingsError, match=r"depends on the variable SEEN that 1 \(Given\) uses, which"):
        cut(nn.Sequential(nn.Linear(8, 8), Given(listed), nn.Linear(8, 3)), ["0", "1"], X)


def test_a_global_that_stays_as_it_is_is_no_fault() -> None:
    for make, cuts in ((whole, ["0", "1"]), (opened, ["a", "b"])):
        torch.manual_seed(0)
        model = make(unchanged)
        a, b, c = cut(model, cuts, X)
        assert c is not None and torch.equal(c(*b(*a(X))), model(X))
