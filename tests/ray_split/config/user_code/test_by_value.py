"""Functions, classes and data in the place of names: what the settings then are, and what they are written as."""

from __future__ import annotations

import copy
import pickle
from functools import partial
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from torch import nn

import ray_split as rs
from ray_split.config.user_code import by_value
from ray_split.config.user_code.by_value import ByValue
from tests.nets import three_linear


def loss(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(outputs, labels)


def own() -> Any:
    """A function of no module."""

    def mine(*arguments: Any, number: int = 3) -> Any:
        return arguments[0] * number

    return mine


def everywhere(value: Any) -> rs.Config:
    """The settings with a value wherever a function may be given."""
    schedule = {"schedule": {"name": value}}
    return rs.Config(
        model={"name": value}, data={"name": value, "augment": value, "partition": {"name": value}},
        task={"loss": value, "metrics": [value, "mae"]}, schedule={"name": value}, aggregator={"name": value},
        algorithm={"name": value}, server_optimizer={"name": value}, run={"callbacks": [value]},
        optimizer={"name": value, **schedule, "a": {"name": value}, "b": schedule, "c": {"name": value, **schedule}},
    )  # fmt: skip


def test_what_can_be_imported_is_its_name_wherever_it_is_given() -> None:
    assert everywhere(three_linear) == everywhere("tests.nets:three_linear")
    assert rs.Config(task={"loss": loss, "metrics": loss}).task.metrics == [f"{__name__}:loss"]
    assert rs.Config(optimizer={"name": torch.optim.Adam}).optimizer.name == "torch.optim.adam:Adam"


def test_anything_else_is_there_by_value_through_copies_and_dumps_and_is_written_as_a_record() -> None:
    mine = own()
    settings = everywhere(mine)
    there = [name for _, name in by_value.names(settings) if isinstance(name, ByValue)]
    assert len(there) == 17 and all(name.value is mine for name in there)
    for other in (settings.with_values(), rs.Config(**settings.model_dump()), copy.deepcopy(settings)):
        assert other == settings and isinstance(other.task.metrics, list)
        assert [name.value for _, name in by_value.names(other) if isinstance(name, ByValue)] == [mine] * 17
    record = settings.model.name
    assert record.startswith("by value ") and record.rpartition(":")[2] == "mine" and settings.data.name != record
    assert settings.task.metric_names == ["mine", "mae"]
    assert (
        f"\n  loss: {record}\n" in settings.to_yaml() and type(settings.model_dump(mode="json")["model"]["name"]) is str
    )


def test_it_is_pickled_along_but_for_what_no_actor_needs() -> None:
    settings = everywhere(nn.CrossEntropyLoss(label_smoothing=0.5))
    sent = pickle.loads(pickle.dumps(by_value.for_actors(settings)))
    assert sent == settings
    lacking = [path for path, name in by_value.names(sent) if by_value.is_record(name)]
    assert lacking == ["data.name", "data.partition.name", "run.callbacks"]
    assert isinstance(sent.task.loss, ByValue) and sent.task.loss.value.label_smoothing == 0.5
    plain = rs.Config()
    assert by_value.for_actors(plain) is plain


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (lambda: 0, "lambda"),
        (partial(partial(loss), 1), "loss"),
        (nn.MSELoss(), "MSELoss"),
        (rs.Schedule(own()), "mine"),
        (rs.Aggregator(own()), "mine"),
    ],
)
def test_it_is_called_by_its_function_or_its_class(given: Any, name: str) -> None:
    assert rs.Config(schedule={"name": given}).schedule.name.rpartition(":")[2] == name


@pytest.mark.parametrize("section", ["itself", "in its section"])
def test_data_may_be_given_itself_and_a_table_is_for_mlp(section: str) -> None:
    frame = pandas.DataFrame({"x": [0.5, 1.5], "y": ["a", "b"]})
    for data, name, model in (
        (frame, "DataFrame", "mlp"),
        ((frame, "y"), "tuple", "mlp"),
        (rs.Table(frame, "y"), "Table", "mlp"),
        ((np.zeros((2, 1)), np.zeros(2)), "tuple", "digits_cnn"),
        ([np.zeros((2, 1)), np.zeros(2)], "list", "digits_cnn"),
        (torch.utils.data.TensorDataset(torch.zeros(2)), "TensorDataset", "digits_cnn"),
    ):
        settings = rs.Config(data=data if section == "itself" else {"name": data})
        assert settings.data.name == f"by value:{name}" and settings.data.name.value is data  # type: ignore[attr-defined]
        assert settings.model.name == model


def test_a_record_that_is_read_again_leads_nowhere() -> None:
    again = rs.Config(**everywhere(own()).model_dump(mode="json"))
    assert not any(isinstance(name, ByValue) for _, name in by_value.names(again))
    with pytest.raises(
        rs.SettingsError, match=r"data\.name: mine was made in a notebook or a script.* give mine itself"
    ):
        rs.load_data(again.data)


@pytest.mark.parametrize(
    "values", [{"model": {"name": 3}}, {"task": {"loss": [loss]}}, {"task": {"metrics": {"a": loss}}}, {"data": 3}]
)
def test_what_is_no_name_and_nothing_given_is_refused(values: Any) -> None:
    with pytest.raises(rs.SettingsError):
        rs.Config(**values)


def test_the_source_is_there_for_people() -> None:
    task = {"loss": own(), "metrics": [partial(own()), nn.MSELoss(), loss]}
    told = by_value.text(rs.Config(task=task, model={"name": own()}))
    record = rs.Config(task=task).task.loss
    assert told.startswith(f"# model.name, task.loss: {record}\n    def mine(*arguments: Any, number: int = 3)")
    assert told.count("return arguments[0] * number") == 2
    assert told.endswith(":MSELoss\n# torch.nn.modules.loss:MSELoss\n") and told.count("# task.metrics: by value ") == 2
    assert by_value.text(rs.Config()) == ""
