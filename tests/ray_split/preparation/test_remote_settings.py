"""What devices can't do is refused in one line, before any of them joins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import ray_split as rs
from ray_split.preparation.prepare import prepare

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "fedavg": ({"schedule": {"name": "fedavg"}}, "schedule.name: .* Choose one in which B is on the server"),
    "single split": ({"model": {"cuts": ["block1"]}}, "model.cuts: can't be used with phones.remote"),
    "frozen A": ({"model": {"freeze": ["a"]}}, "model.freeze: "),
    "a layer": (
        {"model": {"name": "tests.nets:Hardy", "cuts": ["first", "middle"]}, "data": {"name": "digits"}},
        r"model.cuts: layer first.1 is a Hardswish, which devices can't compute \(phones.remote\)",
    ),
    "augmentation": ({"data": {"augment": "shift"}}, "data.augment: "),
    "accumulation": ({"data": {"accumulate": 2}}, "data.accumulate: "),
    "a loss": ({"task": {"loss": "mse"}}, "task.loss: "),
    "hostile": ({"phones": {"hostile": 1}}, "phones.hostile: "),
    "a simulated device": ({"phones": {"device": "laptop"}}, "phones.device: .* real devices have their own"),
    "an optimizer": ({"optimizer": {"name": "rmsprop"}}, "optimizer.name: .* Set sgd, adam or adamw"),
    "clipping": ({"optimizer": {"clip_norm": 1.0}}, "optimizer.clip_norm: "),
    "a cycle": (
        {"optimizer": {"momentum": 0.5, "schedule": {"name": "CyclicLR", "kwargs": {"base_lr": 0.1, "max_lr": 0.2}}}},
        "optimizer.schedule.name: .* Choose one that sets the lr alone",
    ),
    "an algorithm": ({"schedule": {"name": "splitfed_v1"}, "algorithm": {"name": "fedprox"}}, "algorithm.name: "),
    "a key alone": ({"gateway": {"key": "key.pem"}}, "gateway.certificate: is not set"),
    "a node": ({"gateway": {"node": "edge"}}, "gateway.node: can't be used with cluster.backend inprocess, where all"),
    "too many wanted": ({"run": {"min_phones": 9}}, "run.min_phones: is 9, but there are only 5 phones"),
}


def config(path: Path, given: dict[str, Any]) -> rs.Config:
    sections: dict[str, Any] = {
        "phones": {"count": 5, "remote": 2},
        "cluster": {"backend": "inprocess"},
        "run": {"storage_path": str(path), "name": "r"},
    }
    return rs.Config(**sections | {name: {**sections.get(name, {}), **own} for name, own in given.items()})


@pytest.mark.parametrize("case", REFUSED)
def test_it_is_refused(tmp_path: Path, case: str) -> None:
    given, told = REFUSED[case]
    with pytest.raises(rs.SettingsError, match=told):
        prepare(config(tmp_path, given))
    assert not list(tmp_path.iterdir())


def test_samples_of_remote_phones_are_of_no_use_without_any(tmp_path: Path) -> None:
    with pytest.raises(rs.SettingsError, match=r"phones\.remote_samples: is of no use without phones\.remote"):
        prepare(config(tmp_path, {"phones": {"remote": 0, "remote_samples": 7}}))


@pytest.mark.parametrize(("said", "phones"), [
    ("2", (3, 4)), (2, (3, 4)), ("[2]", (2,)), ("0,4", (0, 4)), ([4, 0], (0, 4)), (0, ()),
])  # fmt: skip
def test_remote_phones_are_a_number_or_a_list(said: Any, phones: tuple[int, ...]) -> None:
    assert rs.Config(phones={"count": 5, "remote": said}).phones.remote_phones == phones


@pytest.mark.parametrize("said", [6, -1, [5], "[1,1]", "some", 1.5, True])
def test_others_are_refused(said: Any) -> None:
    with pytest.raises(rs.SettingsError, match=r"phones\.remote: must be a "):
        rs.Config(phones={"count": 5, "remote": said})


def test_each_remote_phone_is_a_cohort_of_its_own_with_as_many_samples_as_it_is_told(tmp_path: Path) -> None:
    phones = {"count": 6, "remote": [1, 4], "remote_samples": 500, "cohort": 3}
    stream = prepare(config(tmp_path, {"phones": phones, "schedule": {"name": "splitfed_v1"}})).stream
    cohorts = stream.cohorts(0)
    assert {each for each in cohorts if set(each) & {1, 4}} == {(1,), (4,)}
    assert sorted(phone for each in cohorts for phone in each) == list(range(6))
    assert stream.samples([1, 4]).tolist() == [500, 500]
    steps = [int(stream.taken(0, each[:1])[0]) for each in cohorts]
    assert steps == sorted(steps, reverse=True)
