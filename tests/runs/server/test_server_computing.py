"""server.compile, channels_last and tf32: what they change is rounding, and what can't be done is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import ray_split as rs
from ray_split.preparation.prepare import prepare
from ray_split.segments.device.computing import compiled
from tests.tiers import slow, thorough


def fit(path: Path, schedule: str, server: dict[str, Any], **sections: Any) -> rs.Result:
    settings = rs.Config(
        schedule={"name": schedule},
        cluster={"backend": "inprocess", "client_actors": 1, "cpus_per_client": 1},
        server={"num_cpus": 1, **server},
        phones={"count": 4, "cohort": 4 if schedule in ("splitfed_v1", "parallel") else "auto"},
        run={"storage_path": str(path), "name": f"{schedule}_{len(list(path.iterdir()))}", "rounds": 2},
        **sections,
    )
    return rs.fit(settings, callbacks=[])


def weights_of(result: rs.Result) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in rs.load_model(result.path).state_dict().items()}


def assert_within_rounding(one: rs.Result, other: rs.Result) -> None:
    """Of float32: two rounds of a small model lie within 1e-4 of each other, and not training at all some 1e-2."""
    for name, own in weights_of(one).items():
        np.testing.assert_allclose(own, weights_of(other)[name], rtol=1e-3, atol=1e-4, err_msg=name)


@pytest.mark.thorough
@pytest.mark.parametrize("schedule", ["sequential", *thorough("splitfed_v1", "parallel")])
def test_channels_last_is_the_same_training(tmp_path: Path, schedule: str) -> None:
    assert_within_rounding(fit(tmp_path, schedule, {}), fit(tmp_path, schedule, {"channels_last": True}))


@pytest.mark.thorough
@pytest.mark.parametrize("schedule", ["sequential", "splitfed_v1", "parallel"])
def test_a_compiled_b_is_the_same_training(tmp_path: Path, schedule: str) -> None:
    model = {"name": "mlp", "kwargs": {"width": 16}}
    plain, faster = (fit(tmp_path, schedule, {"compile": each}, model=model) for each in (False, True))
    assert_within_rounding(plain, faster)


def drops(num_classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 16), nn.Linear(16, 16), nn.Dropout(0.5), nn.Linear(16, num_classes)
    )


def test_a_stacked_b_with_dropout_is_not_compiled_and_a_looped_one_may_be(tmp_path: Path) -> None:
    model = {"name": drops, "cuts": ["1", "3"]}
    phones = {"count": 4, "cohort": 4}
    asked = rs.Config(
        model=model, schedule={"name": "splitfed_v1"}, server={"compile": True}, run={"name": "x"}, phones=phones
    )
    stacked = asked.with_values(phones={"stacked": ["a", "b", "c"]})
    with pytest.raises(rs.SettingsError, match=r"^server.compile: can't be true, because .*Set phones.stacked to a,c"):
        prepare(stacked)
    assert prepare(asked.with_values(phones={"stacked": ["a", "c"]})).settings.server.compile


@pytest.mark.parametrize("backend", ["aot_eager", *slow("inductor")])
def test_masks_of_a_compiled_dropout_follow_from_the_seed_of_phone_and_step(backend: str) -> None:
    run, module, masks = compiled(backend), nn.Dropout(0.5).train(), []
    for seed in (1, 2, 3, 1):
        torch.manual_seed(seed)
        masks.append(run(module, torch.ones(200)) == 0)
    assert torch.equal(masks[0], masks[3])
    assert not any(torch.equal(masks[one], masks[other]) for one, other in ((0, 1), (0, 2), (1, 2)))
    torch.manual_seed(1)
    assert torch.equal(masks[0], module(torch.ones(200)) == 0) or backend != "aot_eager"


def test_a_b_that_breaks_the_graph_is_refused_before_an_actor_starts(tmp_path: Path) -> None:
    class Reading(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * (2.0 if float(x.detach().abs().max()) > 1e9 else 1.0)

    def made(num_classes: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), Reading(64, 16), Reading(16, 16), nn.Linear(16, num_classes))

    with pytest.raises(rs.SettingsError, match=r"^server.compile: the server's part can't be compiled: .*false\.$"):
        fit(tmp_path, "sequential", {"compile": True}, model={"name": made, "cuts": ["1", "2"]})
    assert not (tmp_path / "sequential_0").exists()
