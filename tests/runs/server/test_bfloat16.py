"""B, or A and C, under autocast: what the uncut model is under the same, and what crosses in two bytes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import ray_split as rs
from ray_split.models import registry
from tests.tiers import thorough

Context = Callable[[], AbstractContextManager[Any]]
DTYPES = ("float32", "bfloat16")


def half() -> AbstractContextManager[Any]:
    return torch.autocast("cpu", torch.bfloat16)


def fit(path: Path, server: str, phones: str, schedule: str = "sequential", **sections: Any) -> rs.Result:
    settings = settings_of(path, server, phones, schedule, **sections)
    return rs.fit(settings, callbacks=[])


def settings_of(path: Path, server: str, phones: str, schedule: str = "sequential", **sections: Any) -> rs.Config:
    name = f"{schedule}_{server}_{phones}_{len(list(path.iterdir()))}"
    return rs.Config(
        data={"batch_size": 24},
        schedule={"name": schedule},
        optimizer={"lr": 0.05, "momentum": 0.9},
        cluster={"backend": "inprocess", "client_actors": 1, "cpus_per_client": 1},
        server={"dtype": server, "num_cpus": 1, **sections.pop("server", {})},
        phones={"count": 3, "dtype": phones, **sections.pop("of_phones", {})},
        run={"storage_path": str(path), "name": name, "rounds": 2},
        **sections,
    )


def uncut(settings: rs.Config, ends: Context, middle: Context) -> nn.Module:
    """The plain loop of anybody who leaves an autocast region where the model is cut."""
    torch.set_num_threads(1)
    model: Any = registry.build(settings.model.model_copy(update={"num_classes": 10}), settings.run.seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    batches = rs.Batches(settings, rs.load_data(settings.data))
    mixed = ends is not middle
    for draw in rs.stream(settings):
        inputs, labels = (torch.from_numpy(each) for each in batches.of(draw))
        optimizer.zero_grad()
        with ends():
            activation = model.block1(inputs)
        with middle():
            activation = activation.float() if mixed and middle is nullcontext else activation
            hidden = model.hidden(model.block2(activation))
        with ends():
            hidden = hidden.float() if mixed and ends is nullcontext else hidden
            loss = functional.cross_entropy(model.head(hidden), labels)
        loss.backward()
        optimizer.step()
    return model


def weights_of(result: rs.Result) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in rs.load_model(result.path).state_dict().items()}


@pytest.mark.parametrize(("server", "phones"), [("bfloat16", "float32"), ("float32", "bfloat16"), ("bfloat16",) * 2])
@pytest.mark.thorough
def test_one_phone_after_the_other_is_the_uncut_model_under_the_same_autocast(
    tmp_path: Path, server: str, phones: str
) -> None:
    result = fit(tmp_path, server, phones)
    contexts: dict[str, Context] = {"float32": nullcontext, "bfloat16": half}
    model = uncut(settings_of(tmp_path, server, phones), contexts[phones], contexts[server])
    found = weights_of(result)
    assert {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()} == {
        name: array.tobytes() for name, array in found.items()
    }
    assert {array.dtype.name for array in found.values()} == {"float32"}


@pytest.mark.thorough
def test_what_autocast_makes_crosses_in_half_the_bytes(tmp_path: Path) -> None:
    each = {
        (server, phones): fit(tmp_path, server, phones).metrics_dataframe.iloc[-1]
        for server in DTYPES
        for phones in DTYPES
    }
    bytes_of = {key: (int(row["bytes_up"]), int(row["bytes_down"])) for key, row in each.items()}
    up, down = bytes_of["float32", "float32"]
    assert bytes_of["bfloat16", "bfloat16"] == (up // 2, down // 2)
    # Hidden and its gradient are the server's, the activation and its gradient the phones'.
    for (server, phones), (own_up, own_down) in bytes_of.items():
        assert (own_up < up, own_down < down) == ((server, phones) != ("float32", "float32"),) * 2


@pytest.mark.few(1)
@pytest.mark.parametrize("schedule", ["splitfed_v1", "parallel", *thorough("splitfed_v2", "splitfed_v3", "fedavg")])
@pytest.mark.parametrize(("server", "phones"), [("bfloat16", "float32"), *thorough(("float32", "bfloat16"))])
def test_other_schedules_are_no_further_from_float32_than_bfloat16_is(
    tmp_path: Path, schedule: str, server: str, phones: str
) -> None:
    model = {"name": "mlp", "kwargs": {"width": 32}}
    exact, rounded = (fit(tmp_path, *each, schedule, model=model) for each in (DTYPES[:1] * 2, (server, phones)))
    if schedule == "fedavg" and server == "bfloat16":  # B is the phones'
        assert weights_of(exact).keys() == weights_of(rounded).keys()
        assert all((weights_of(exact)[name] == own).all() for name, own in weights_of(rounded).items())
        return
    off = [abs(weights_of(exact)[name] - own).max() for name, own in weights_of(rounded).items()]
    assert 0 < max(off) < 0.05
    assert abs(exact.metrics["train_loss"] - rounded.metrics["train_loss"]) < 0.02 * exact.metrics["train_loss"]


def test_what_is_under_autocast_is_looped_and_the_rest_stacked(tmp_path: Path) -> None:
    model = {"name": "mlp", "kwargs": {"width": 32}}
    result = fit(tmp_path, "bfloat16", "float32", "splitfed_v1", model=model, of_phones={"cohort": 3})
    assert rs.Config.from_yaml(f"{result.path}/config.yaml").phones.stacked == ["a", "c"]


def test_a_stack_under_autocast_is_refused(tmp_path: Path) -> None:
    with pytest.raises(rs.SettingsError, match=r"^phones.stacked: can't contain b, because stacked it would not"):
        fit(tmp_path, "bfloat16", "float32", "splitfed_v1", of_phones={"cohort": 3, "stacked": ["b"]})


def test_of_a_model_in_half_precision_both_are_autocast_or_none(tmp_path: Path) -> None:
    class Halved(nn.Flatten):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x).bfloat16()

    def made(num_classes: int) -> nn.Module:
        return nn.Sequential(Halved(), nn.Linear(64, 8), nn.Linear(8, 8), nn.Linear(8, num_classes)).bfloat16()

    settings = settings_of(tmp_path, "bfloat16", "float32").with_values(model={"name": made, "cuts": ["1", "2"]})
    with pytest.raises(rs.SettingsError, match=r"^server.dtype: can't be bfloat16 alone, because .* half precision"):
        rs.fit(settings, callbacks=[])


def test_fedavg_says_that_the_servers_type_has_no_use(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fit(tmp_path, "bfloat16", "float32", "fedavg")
    assert "server.dtype is bfloat16, and has no use with fedavg, where B is the phones'" in caplog.text
