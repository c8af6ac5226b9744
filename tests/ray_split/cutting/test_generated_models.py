"""Generated models, cut and trained: each equal to the untouched model, or refused with a line.

RAY_SPLIT_SEED=n tries others than the usual ones.
"""

from __future__ import annotations

import os
import random
import re
from pathlib import Path
from typing import Any

import pytest

import ray_split as rs
from tests import reference
from tests.generated import models as generated_models
from tests.generated.features import EITHER, EQUAL, FEATURES
from tests.generated.models import Generated
from tests.reference import assert_close_weights, assert_same_weights
from tests.tiers import mostly_thorough, thorough

BASE = 100_000 * int(os.environ.get("RAY_SPLIT_SEED", "0"))
SGD = {"name": "sgd", "lr": 0.05}
MOMENTUM = {"name": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3}
ADAM = {"name": "adam", "lr": 0.002}
ACCUMULATED = {"batch": "accumulated"}  # as the reference, phone after phone; refused where B mixes samples
MIXES = "mixes the samples of a batch (as BatchNorm does)"
WAYS: dict[str, dict[str, Any]] = {
    "sequential": {"schedule": "sequential"},
    "unsplit": {"schedule": "unsplit"},
    "fedavg": {"schedule": "fedavg", "phones": {"cohort": 1}},
    "v1 looped": {"schedule": "splitfed_v1", "phones": {"cohort": 1}},
    "v1": {"schedule": "splitfed_v1", "phones": {"cohort": 3}},
    "v2": {"schedule": "splitfed_v2"},
    "v3": {"schedule": "splitfed_v3", "phones": {"cohort": 3, "held_out": 0.2}},
    "parallel": {"schedule": "parallel", "kwargs": ACCUMULATED, "phones": {"cohort": 3}},
    "parallel looped": {"schedule": "parallel", "kwargs": ACCUMULATED, "phones": {"cohort": 1}},
}
EXACT = ("sequential", "unsplit")


def settings_of(path: Path, seed: int, way: str, optimizer: dict[str, Any], **kwargs: Any) -> rs.Config:
    """Two local steps of three phones."""
    how = WAYS[way]
    made = generated_models.generated(seed, **kwargs)
    data = {"name": "synthetic", "kwargs": {"samples": 90, "shape": [1, 4, 4], "num_classes": 4}, "batch_size": 6}
    model = {"name": "tests.generated.models:model", "cuts": made.cuts, "kwargs": {"seed": seed, **kwargs}}
    return rs.Config(
        model=model, data=data, optimizer=optimizer,
        schedule={"name": how["schedule"], "kwargs": how.get("kwargs", {})},
        phones={"count": 3, "local_steps": 2, **how.get("phones", {})},
        cluster={"backend": "inprocess", "client_actors": 2},
        run={"storage_path": str(path), "name": f"run_{len(list(path.iterdir()))}", "rounds": 1, "seed": seed % 997},
    )  # fmt: skip


def outcome(path: Path, seed: int, way: str, optimizer: dict[str, Any] = MOMENTUM, **kwargs: Any) -> str:
    """Train a model: EQUAL, or the line that refuses it. Anything else is raised."""
    made = generated_models.generated(seed, **kwargs)
    settings = settings_of(path, seed, way, optimizer, **kwargs)
    try:
        result = rs.fit(settings, callbacks=[])
    except rs.SettingsError as error:
        return str(error)
    if way in EXACT:
        assert_same_weights(reference.trained(settings, b=made.b), result.path)
    else:
        assert_close_weights(lambda: reference.trained(settings, b=made.b), result.path)
    return EQUAL


def check(made: Generated, found: str, way: str) -> None:
    """What became of a model is what its features say."""
    if way.startswith("parallel") and MIXES in found:
        return
    if made.right == EITHER or made.right == EQUAL:
        assert found == EQUAL or (made.right == EITHER and "\n" not in found), found
    else:
        assert any(re.search(right, found, re.IGNORECASE) for right in made.right), found


def seed_of(feature: str) -> int:
    return BASE + list(FEATURES).index(feature)


def another_way(feature: str) -> str:
    return list(WAYS)[seed_of(feature) % len(WAYS)]


IN_TURN = [(feature, "sequential") for feature in FEATURES]
OTHERWISE = [(feature, another_way(feature)) for feature in FEATURES if another_way(feature) != "sequential"]


@pytest.mark.parametrize(("feature", "way"), [*IN_TURN, *thorough(*OTHERWISE)])
@pytest.mark.few(16, thorough=8)
def test_each_feature_is_right_or_refused(tmp_path: Path, feature: str, way: str) -> None:
    seed = seed_of(feature)
    found = outcome(tmp_path, seed, way, SGD, features=[feature])
    check(generated_models.generated(seed, [feature]), found, way)


@pytest.mark.parametrize("way", ["v1", "v3", "parallel"])
def test_masks_are_those_of_the_loop_where_what_crosses_is_laid_out_otherwise(tmp_path: Path, way: str) -> None:
    made = generated_models.generated(2089, ["dropout"])
    assert "flatten(2).transpose(1, 2)\n        h = self.a_drop(h)" in made.source
    assert outcome(tmp_path, 2089, way, SGD, features=["dropout"]) == EQUAL


HOOKED = ["parameter hook", "parameter hook in b"]


@pytest.mark.parametrize("way", [way for way in WAYS if not way.startswith("parallel")])
@pytest.mark.few(5)
def test_hooks_on_parameters_are_called_with_each_phones_gradient(tmp_path: Path, way: str) -> None:
    assert outcome(tmp_path, 5, way, features=HOOKED) == EQUAL


def test_hooks_in_b_are_refused_where_gradients_are_added_up(tmp_path: Path) -> None:
    assert outcome(tmp_path, 5, "parallel", features=["parameter hook"]) == EQUAL
    assert "the hook on b_hooked.weight would get the scaled gradients of several phones" in outcome(
        tmp_path, 5, "parallel", features=HOOKED
    )


ALL_KINDS = ["functional dropout", "statistics in a", "buffer counts", "unsaved buffer", "complex weights", "frozen"]


@pytest.mark.parametrize("single", [False, *thorough(True)], ids=["double", "single"])
@pytest.mark.parametrize("optimizer", [MOMENTUM, *thorough(ADAM)], ids=["momentum", "adam"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.few(4, thorough=3)
def test_every_schedule_is_its_reference(tmp_path: Path, way: str, optimizer: dict[str, Any], single: bool) -> None:
    kwargs = {"single": True} if single else {}
    assert outcome(tmp_path, BASE + 1, way, optimizer, features=ALL_KINDS, **kwargs) == EQUAL


def any_model(path: Path, seed: int) -> None:
    draw = random.Random(seed)
    way, kwargs = draw.choice(list(WAYS)), {"single": True} if draw.random() < 0.2 else {}
    optimizer = draw.choice([SGD, MOMENTUM, ADAM] if way in EXACT else [SGD, MOMENTUM])
    check(generated_models.generated(seed, **kwargs), outcome(path, seed, way, optimizer, **kwargs), way)


@pytest.mark.few(3, thorough=3)
@pytest.mark.parametrize("seed", mostly_thorough(range(BASE + 1000, BASE + 1020), *range(BASE + 1000, BASE + 1005)))
def test_any_model_is_right_or_refused(tmp_path: Path, seed: int) -> None:
    any_model(tmp_path, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(BASE + 2000, BASE + 2300))
def test_three_hundred_models_are_right_or_refused(tmp_path: Path, seed: int) -> None:
    any_model(tmp_path, seed)
