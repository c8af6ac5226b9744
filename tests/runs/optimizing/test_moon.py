"""MOON with federated averaging, in whole runs, against a plain reference in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ray_split as rs
from ray_split.algorithms.moon import contrast
from tests import algorithms_reference as papers
from tests.runs.equality.test_schedules import fit as fit_digits
from tests.runs.optimizing import test_algorithms as algorithms
from tests.runs.optimizing.test_algorithms import SOME_DROP_OUT, fit, left, model_bytes, settings_of
from tests.tiers import thorough

KWARGS = {"mu": 2.0, "temperature": 0.4}
MOON: dict[str, Any] = {"algorithm": {"name": "moon", "kwargs": KWARGS}}
STACKED = {"cohort": 3, "stacked": ["a", "b", "c"]}
WITH_STATISTICS = {"name": "tests.nets:with_batchnorm", "cuts": ["2", "8"]}


def assert_same(result: rs.Result) -> None:
    expected = papers.trained(settings_of(result), papers.Moon(**KWARGS))
    found = rs.load_model(result.path, trust=True).state_dict()
    for key, weight in expected.items():
        assert torch.allclose(found[key], weight, rtol=1e-10, atol=1e-10), (key, found[key] - weight)


@pytest.mark.parametrize("phones", [STACKED, *thorough({"cohort": 3, "stacked": []})], ids=["stacked", "looped"])
@pytest.mark.parametrize("accumulate", [1, *thorough(2)])
def test_it_is_what_its_paper_writes_where_some_take_no_part_and_some_drop_out(
    tmp_path: Path, phones: dict[str, Any], accumulate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(algorithms, "DATA", {**algorithms.DATA, "accumulate": accumulate})
    assert_same(fit(tmp_path, "fedavg", phones={**SOME_DROP_OUT, **phones}, **MOON))


@pytest.mark.thorough
def test_without_mu_it_is_the_bytes_of_fedavg_and_in_a_first_round_nothing_draws(tmp_path: Path) -> None:
    plain = fit(tmp_path, "fedavg", phones=STACKED)
    none = fit(tmp_path, "fedavg", phones=STACKED, algorithm={"name": "moon", "kwargs": {"mu": 0}})
    assert left(none).items() >= left(plain).items()
    once = [fit(tmp_path, "fedavg", phones=STACKED, run={"rounds": 1}, **more) for more in ({}, MOON)]
    states = [rs.load_model(result.path, trust=True).state_dict() for result in once]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert model_bytes(fit(tmp_path, "fedavg", phones=STACKED, **MOON)) != model_bytes(plain)


@pytest.mark.thorough
def test_with_batchnorm_a_phones_model_before_has_its_own_statistics(tmp_path: Path) -> None:
    """What phones remember is their whole model but its last segment, as each left it."""
    told: dict[str, Any] = {"model": WITH_STATISTICS, "phones": {"count": 1, "local_steps": 4}}
    _, result = fit_digits(tmp_path, "fedavg", **told, **MOON)
    kept = {file.stem for file in (Path(result.path) / "remembered").glob("*.npy")}
    assert any("running_mean" in name for name in kept)
    state = rs.load_model(result.path, trust=True).state_dict()
    (file,) = [file for file in (Path(result.path) / "remembered").glob("*.npy") if "1.running_mean" in file.name]
    assert np.array_equal(np.load(file)[0], state["1.running_mean"].numpy())  # of one phone the average is it


@pytest.mark.thorough
def test_resumed_and_with_other_clients_it_is_the_same_bytes(tmp_path: Path) -> None:
    told: dict[str, Any] = {"phones": {**SOME_DROP_OUT, **STACKED}, **MOON}
    single = {"name": "tests.nets:three_linear", "cuts": None}
    whole = fit(tmp_path, "fedavg", model=single, **told)
    fit(tmp_path, "fedavg", model=single, **told, run={"name": "part", "rounds": 2})
    again = {"name": "part", "resume": "auto"}
    part = fit(tmp_path, "fedavg", model=single, **told, run=again, cluster={"client_actors": 1})
    assert left(part) == left(whole)


@pytest.mark.slow
def test_on_ray_it_leaves_the_same_bytes(tmp_path: Path, ray_session: object) -> None:
    single = {"name": "tests.nets:three_linear", "cuts": None}
    told: dict[str, Any] = {"phones": {**SOME_DROP_OUT, **STACKED}, "model": single, **MOON}
    here, there = (fit(tmp_path, "fedavg", **told, cluster={"backend": backend}) for backend in ("inprocess", "ray"))
    assert left(there) == left(here)


@pytest.mark.thorough
def test_virtual_time_counts_the_forwards_of_the_two_models_beside(tmp_path: Path) -> None:
    phones = {"cohort": 2, "device": "low_end", "link": "wifi"}
    plain, moon = (
        fit_digits(tmp_path, "fedavg", phones=phones, **more)[1].metrics_dataframe["virtual_phone_seconds"]
        for more in ({}, MOON)
    )
    # 3 forwards and a backward, which is about two of them, for one of each.
    assert (moon / plain).tolist() == pytest.approx([5 / 3] * 2, rel=0.05)


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "split": (
        "splitfed_v1",
        {},
        (
            r"moon can't be used with schedule\.name splitfed_v1, .* "
            r"three times in each exchange\. Set schedule\.name to fedavg"
        ),
    ),
    "nothing averaged": ("sequential", {}, r"algorithm\.name: moon can't be used .* nothing is averaged"),
    "kwargs": (
        "fedavg",
        {"algorithm": {"name": "moon", "kwargs": {"tau": 1}}},
        r"algorithm\.kwargs: moon takes no argument 'tau'\. moon takes mu and temper",
    ),
    "temperature": (
        "fedavg",
        {"algorithm": {"name": "moon", "kwargs": {"temperature": 0}}},
        ("temperature must be greater than 0, not 0"),
    ),
    "frozen": (
        "fedavg",
        {"model": {"name": "mlp", "freeze": ["a", "b"]}},
        (r"moon can't be used, because model\.freeze " r"freezes all segments .* before the last"),
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_where_it_can_not_be_it_is_refused(tmp_path: Path, case: str) -> None:
    schedule, sections, line = REFUSED[case]
    with pytest.raises(rs.SettingsError, match=line):
        fit(tmp_path, schedule, **{**MOON, **sections})


def test_of_similarities_that_are_far_apart_it_has_a_gradient() -> None:
    z = torch.tensor([[[1.0, 0.0]]], requires_grad=True)
    value = contrast(z, -z.detach(), z.detach(), temperature=0.001)
    assert value.item() == pytest.approx(2000.0)
    assert not torch.isnan(torch.autograd.grad(value.sum(), z)[0]).any()
