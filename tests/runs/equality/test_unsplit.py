"""Rule 1: split training is unsplit training, bit for bit, through both backends."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import ray_split as rs
from tests.reference import assert_same_weights, unsplit
from tests.tiers import slow, thorough

PLAIN = {"name": "digits_cnn"}
BATCHNORM = {"name": "tests.nets:with_batchnorm", "cuts": "2,7"}
DROPOUT = {"name": "tests.nets:with_dropout", "cuts": "2,6"}
RESIDUAL = {"name": "tests.nets:Residual", "cuts": "blocks.0.first,blocks.1.first"}
SGD = {"name": "sgd", "lr": 0.05}
MOMENTUM = {"name": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3}
ADAM = {"name": "adam", "lr": 1e-3}


def config(path: Path, model: dict, optimizer: dict, **sections: dict) -> rs.Config:
    sections = {"phones": {"count": 1, "local_steps": 20}, **sections}
    run = {"storage_path": str(path), "name": "split", "rounds": 1, "eval_every": 5}
    return rs.Config(model=model, optimizer=optimizer, run=run, **sections)


@pytest.mark.parametrize("model", [PLAIN, BATCHNORM, DROPOUT, RESIDUAL], ids=lambda m: m["name"])
@pytest.mark.parametrize("optimizer", [*thorough(SGD), MOMENTUM, *thorough(ADAM)], ids=["sgd", "momentum", "adam"])
def test_one_phone_in_process_is_unsplit(tmp_path: Path, model: dict, optimizer: dict) -> None:
    settings = config(tmp_path, model, optimizer, cluster={"backend": "inprocess"})
    result = rs.fit(settings, callbacks=[])
    assert_same_weights(unsplit(settings), result.path)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("model", "optimizer"),
    [*slow((PLAIN, SGD)), (BATCHNORM, MOMENTUM), *thorough((DROPOUT, ADAM))],
    ids=["sgd", "momentum", "adam"],
)
def test_one_phone_through_ray_is_unsplit(tmp_path: Path, ray_session: object, model: dict, optimizer: dict) -> None:
    settings = config(tmp_path, model, optimizer, cluster={"client_actors": 1})
    result = rs.fit(settings, callbacks=[])
    assert_same_weights(unsplit(settings), result.path)


@pytest.mark.parametrize("optimizer", [*thorough(SGD, MOMENTUM), ADAM], ids=["sgd", "momentum", "adam"])
def test_five_phones_in_sequence_are_unsplit_over_rounds(tmp_path: Path, optimizer: dict) -> None:
    settings = config(
        tmp_path, BATCHNORM, optimizer, phones={"count": 5, "local_epochs": 1}, cluster={"backend": "inprocess"}
    ).with_values(run={"rounds": 2}, data={"batch_size": 50})
    result = rs.fit(settings, callbacks=[])
    assert_same_weights(unsplit(settings), result.path)


@pytest.mark.thorough
def test_five_phones_on_three_client_actors_are_unsplit(tmp_path: Path, ray_session: object) -> None:
    settings = config(
        tmp_path, PLAIN, MOMENTUM, phones={"count": 5, "local_steps": 3}, cluster={"client_actors": 3}
    ).with_values(run={"rounds": 2})
    result = rs.fit(settings, callbacks=[])
    assert_same_weights(unsplit(settings), result.path)


def test_a_fresh_optimizer_for_each_phone_is_another_training(tmp_path: Path) -> None:
    settings = config(
        tmp_path, PLAIN, MOMENTUM, phones={"count": 3, "local_steps": 4}, cluster={"backend": "inprocess"},
        schedule={"kwargs": {"optimizer": "fresh"}},
    )  # fmt: skip
    trained = rs.load_model(rs.fit(settings, callbacks=[]).path, trust=True).state_dict()
    expected = unsplit(settings).state_dict()
    assert not torch.equal(trained["block1.0.weight"], expected["block1.0.weight"])


def test_a_fresh_optimizer_of_plain_sgd_is_still_unsplit(tmp_path: Path) -> None:
    settings = config(
        tmp_path, PLAIN, SGD, phones={"count": 3, "local_steps": 4}, cluster={"backend": "inprocess"},
        schedule={"kwargs": {"optimizer": "fresh"}},
    )  # fmt: skip
    assert_same_weights(unsplit(settings), rs.fit(settings, callbacks=[]).path)
