"""Flags that there are not, whose last word is an argument of the data's or the model's function."""

from __future__ import annotations

import pytest

from ray_split.command_line.kwargs_hint import arguments_of, kwargs_for

TAKE = {"data": {"path", "max_length", "seed"}, "model": {"num_classes", "width", "seed"}}
FLAGS = {"--data.path", "--data.group_by_length", "--model.num_classes"}

INSTEAD = [
    ("--data.max_length", "32", "Write --data.kwargs '{max_length: 32}'"),
    ("--data.max-length", "32", "Write --data.kwargs '{max_length: 32}'"),
    ("--max_length", "32", "Write --data.kwargs '{max_length: 32}'"),
    ("--data.max_length", "", "Write --data.kwargs '{max_length: ...}'"),
    ("--data.max_length", "it's", "Write --data.kwargs '{max_length: ...}'"),
    ("--model.width", "1e2", "Write --model.kwargs '{width: 1e2}'"),
    ("--model.seed", "3", "Write --model.kwargs '{seed: 3}'"),
    ("--model.max_length", "32", ""),  # of the other section
    ("--phones.width", "3", ""),
    ("--num_classes", "3", ""),  # which has a flag
    ("--data.max_lenght", "32", ""),
]


@pytest.mark.parametrize(("flag", "value", "said"), INSTEAD)
def test_an_argument_of_a_function_is_set_by_kwargs(flag: str, value: str, said: str) -> None:
    assert kwargs_for(flag, value, TAKE, FLAGS) == said


def test_arguments_are_those_of_the_function_that_is_named() -> None:
    found = arguments_of({"data.name": "digits", "model.name": "tests.ray_split.command_line.test_kwargs_hint:net"})
    assert (found["data"], found["model"]) == ({"size", "channels"}, {"num_classes", "depth"})


def test_where_none_is_named_or_it_is_not_found_they_are_those_of_all_of_ours() -> None:
    found = arguments_of({"model.name": "resnet18"})
    assert {"max_length", "size"} <= set(found["data"]) and {"width", "hidden"} <= set(found["model"])


def net(num_classes: int, depth: int) -> None:
    """A model's function."""
