from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from torch import nn

import ray_split as rs
from ray_split.preparation.prepare import prepare


def prepared(**sections: dict) -> rs.Config:
    return prepare(rs.Config(run={"name": "x", **sections.pop("run", {})}, **sections)).settings


def refusal(**sections: dict) -> rs.SettingsError:
    with pytest.raises(rs.SettingsError) as caught:
        prepared(**sections)
    assert len(str(caught.value).splitlines()) == 1
    return caught.value


def test_where_all_phones_drop_out_in_every_round_nothing_starts() -> None:
    assert refusal(phones={"dropout": 1.0}, run={"rounds": 10**9}).field == "phones.dropout"


def warnings_of(caplog: pytest.LogCaptureFixture, **sections: dict) -> list[str]:
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        prepared(**sections)
    return [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize(
    ("phones", "rounds", "told"),
    [
        ({"availability": 1e-3}, 10, "of 200, each does by a chance of 0.001"),
        ({"availability": 0.5, "dropout": 0.999}, 10, "of 200, each does by a chance of 0.0005"),
        ({"availability": 0.04, "per_round": 1}, 15, "of 15, each does by a chance of 0.04"),
    ],
)  # fmt: skip
def test_rounds_that_hardly_anybody_finishes_are_told_of(
    caplog: pytest.LogCaptureFixture, phones: dict, rounds: int, told: str
) -> None:
    assert warnings_of(caplog, phones=phones, run={"rounds": rounds}) == [
        f"hardly any phone will finish a round: {told}"
    ]
    assert warnings_of(caplog, phones={"availability": 0.01, "dropout": 0.5}) == []


@pytest.mark.parametrize(("cuts", "freeze"), [("block1,hidden", "a,b,c"), ("block1", "a,b"), ("block1", "b,a")])
def test_a_model_of_which_all_is_frozen_is_refused(cuts: str, freeze: str) -> None:
    error = refusal(model={"cuts": cuts, "freeze": freeze})
    assert (error.field, error.value) == ("model.freeze", freeze.split(","))
    assert "leaves nothing to train" in str(error)


def ends_bare(num_classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, num_classes), nn.Softplus())


def drops_all(num_classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Dropout(1.0), nn.Linear(8, num_classes))


def test_a_model_whose_last_segment_has_no_weights_is_refused_if_the_others_are_frozen() -> None:
    error = refusal(model={"name": f"{__name__}:ends_bare", "cuts": "1,3", "freeze": "a,b"})
    assert error.field == "model.freeze"
    assert "a and b have weights" in str(error)


def test_a_layer_that_drops_all_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        prepared(model={"name": f"{__name__}:drops_all", "cuts": "1,2"})
    assert [r.getMessage() for r in caplog.records if "drops all" in r.getMessage()] == [
        "2 in segment b drops all that it is given (p is 1): what is before it learns nothing of it"
    ]


@pytest.mark.parametrize("field", ["local_steps", "local_epochs"])
def test_steps_of_a_round_that_can_not_be_drawn_are_refused_with_how_many_can(field: str) -> None:
    error = refusal(phones={"count": 3, field: 10**9})
    assert error.field == f"phones.{field}"
    most = int(error.allowed.split()[1])
    assert getattr(prepared(phones={"count": 3, field: most}).phones, field) == most
    assert refusal(phones={"count": 3, field: 2 * most}).field == f"phones.{field}"


def test_a_deadline_that_nobody_meets_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    described = {"count": 3, "device": "low_end"}
    told = "in the first rounds nobody is in time: phones.deadline is 1e-09 virtual seconds, and nothing is trained"
    assert told in warnings_of(caplog, phones={**described, "deadline": 1e-9})
    assert told not in warnings_of(caplog, phones={**described, "deadline": 1e9})


class Own:
    """Nothing that a file can hold."""


@pytest.mark.parametrize(
    "value", [Own(), Own, "\udcff", {"x": [Own()]}], ids=["object", "class", "surrogate", "nested"]
)
def test_kwargs_that_config_yaml_can_not_hold_are_refused(value: object) -> None:
    error = refusal(model={"kwargs": {"width": 3, "hidden": value}})
    assert error.field == "model.kwargs"
    assert "config.yaml can't hold" in str(error)


def test_a_path_that_gets_too_long_with_the_name_is_refused() -> None:
    folder = "/" + "/".join(["x" * 200] * 18)
    assert refusal(run={"storage_path": folder, "name": "y" * 255}).field == "run.storage_path"
    assert prepared(run={"storage_path": folder, "name": "y"}).run.storage_path == folder


def test_an_automatic_name_is_short_enough_whatever_the_model_is_called() -> None:
    with pytest.raises(rs.SettingsError, match=r"model\.name: there is no Python module 'a'"):
        prepare(rs.Config(model={"name": f"a:{'x' * 300}"}))


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        ({"data": {"partition": {"alpha": 0.1}}}, "data.partition.alpha is 0.1, and has no use with iid"),
        ({"phones": {"hostile_scale": 5.0}}, "phones.hostile_scale is 5.0, and has no use where no phone is hostile"),
        ({"phones": {"on_misfit": "skip"}}, "phones.on_misfit is skip, and has no use without phones.device"),
        ({"data": {"partition": {"name": "dirichlet", "alpha": 0.9}}}, None),
    ],
)
def test_what_is_set_and_has_no_use_is_told_of(
    caplog: pytest.LogCaptureFixture, sections: dict, told: str | None
) -> None:
    assert warnings_of(caplog, **sections) == ([told] if told else [])


def without_gradient(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(outputs, labels).detach()


def test_a_loss_without_a_gradient_is_refused() -> None:
    found = refusal(task={"loss": f"{__name__}:without_gradient"})
    assert found.field == "task.loss" and "has no gradient" in str(found)


def test_a_path_to_resume_that_is_no_run_is_told_of_as_such(tmp_path: Path) -> None:
    (tmp_path / "never_run").mkdir()
    (tmp_path / "never_run" / "notes.txt").write_text("mine")
    with pytest.raises(
        rs.SettingsError,
        match=r"run\.resume: .*never_run' is not a run's folder: it has no config\.yaml\. Give the folder of a run",
    ):
        rs.fit(rs.Config(run={"resume": str(tmp_path / "never_run")}, cluster={"backend": "inprocess"}), callbacks=[])


def test_fewer_rounds_than_are_there_are_refused_and_nothing_is_written_anew(tmp_path: Path) -> None:
    run = {"name": "r", "storage_path": str(tmp_path), "rounds": 2}
    settings = rs.Config(model={"name": "mlp"}, phones={"count": 2}, cluster={"backend": "inprocess"}, run=run)
    rs.fit(settings, callbacks=[])
    before = (tmp_path / "r" / "config.yaml").read_bytes()
    with pytest.raises(rs.SettingsError, match=r"run\.rounds: is 1, but the run already has 2 rounds\. Set 2 or more"):
        rs.fit(settings.with_values(run={"rounds": 1, "resume": "auto"}), callbacks=[])
    assert (tmp_path / "r" / "config.yaml").read_bytes() == before
