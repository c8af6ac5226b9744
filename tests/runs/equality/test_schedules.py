"""Every schedule against a plain reference, on phones with uneven numbers of samples (semantics: what equals what)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ray_split as rs
from ray_split.messages.state import weights
from ray_split.results.personal_state import Personal
from tests import reference
from tests.reference import assert_close_weights, assert_same_training, assert_same_weights, within
from tests.rounding import assert_close
from tests.tiers import mostly_thorough, thorough

SGD = {"name": "sgd", "lr": 0.05}
MOMENTUM = {"name": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3}
ADAM = {"name": "adam", "lr": 0.002}
OPTIMIZERS = ["sgd", "momentum", "adam"]
ALL = ("sequential", "splitfed_v1", "splitfed_v2", "splitfed_v3", "parallel", "fedavg", "unsplit")
COHORTS = ("splitfed_v1", "splitfed_v3", "parallel", "fedavg")


def fit(path: Path, name: str, optimizer: dict[str, Any] = SGD, **sections: Any) -> tuple[rs.Config, rs.Result]:
    """Two rounds on seven phones with 1 to some 200 samples each."""
    run = {"storage_path": str(path), "name": f"{name}_{len(list(path.iterdir()))}", "rounds": 2}
    settings = rs.Config(
        data={"batch_size": 24, "partition": {"name": "dirichlet", "alpha": 1.0}, **sections.pop("data", {})},
        schedule={"name": name, **sections.pop("schedule", {})},
        optimizer=optimizer,
        cluster={"backend": "inprocess", "client_actors": 2, **sections.pop("cluster", {})},
        phones={"count": 7, **sections.pop("phones", {})},
        run={**run, **sections.pop("run", {})},
        **sections,
    )
    return settings, rs.fit(settings, callbacks=[])


def personal_weights(result: rs.Result, phone: int) -> dict[str, np.ndarray]:
    """A phone's own A and C."""
    own = Personal.open(Path(result.path) / "personal").own(phone)
    return {key: array for state in own.values() for key, array in weights(state).items()}


@pytest.mark.few(thorough=3)
@pytest.mark.parametrize("cohort", mostly_thorough([1, 3, 7], 3))
@pytest.mark.parametrize("optimizer", mostly_thorough([SGD, MOMENTUM], MOMENTUM), ids=["sgd", "momentum"])
@pytest.mark.parametrize("schedule", ["splitfed_v1", *thorough("fedavg")])
def test_v1_is_federated_averaging_of_the_unsplit_model(
    tmp_path: Path, schedule: str, optimizer: dict[str, Any], cohort: int
) -> None:
    settings, result = fit(tmp_path, schedule, optimizer, phones={"cohort": cohort})
    assert_close_weights(lambda: reference.fedavg(settings), result.path)


@pytest.mark.parametrize("optimizer", mostly_thorough([SGD, MOMENTUM, ADAM], MOMENTUM), ids=OPTIMIZERS)
def test_v2_takes_the_phones_in_the_drawn_order_bit_for_bit(tmp_path: Path, optimizer: dict[str, Any]) -> None:
    settings, result = fit(tmp_path, "splitfed_v2", optimizer, phones={"count": 3})
    assert_same_middle(reference.splitfed_v2(settings), result)
    assert_close_weights(lambda: reference.splitfed_v2(settings), result.path)


def assert_same_middle(model: torch.nn.Module, result: rs.Result) -> None:
    """B bit for bit: it depends on every A and C of the last round, and through those on all before."""
    trained = rs.load_model(result.path, trust=True).state_dict()
    for key, expected in model.state_dict().items():
        if within(key, reference.MIDDLE):
            assert torch.equal(trained[key], expected), key


@pytest.mark.parametrize("cohort", mostly_thorough([1, 3, 7], 3))
@pytest.mark.parametrize("optimizer", mostly_thorough([SGD, MOMENTUM], MOMENTUM), ids=["sgd", "momentum"])
def test_v3_keeps_a_and_c_with_their_phone(tmp_path: Path, optimizer: dict[str, Any], cohort: int) -> None:
    settings, result = fit(tmp_path, "splitfed_v3", optimizer, phones={"cohort": cohort, "held_out": 0.2})
    assert_close_weights(lambda: reference.trained(settings), result.path)
    assert_close_personal_weights(settings, result)
    shared = rs.load_model(result.path, trust=True).state_dict()
    for phone in range(7):
        own = rs.load_model(result.path, phone=phone, trust=True).state_dict()
        assert np.array_equal(own["head.weight"], personal_weights(result, phone)["head.weight"])
        assert torch.equal(own["hidden.1.weight"], shared["hidden.1.weight"])


def assert_close_personal_weights(settings: rs.Config, result: rs.Result, **told: Any) -> None:
    """What is each phone's own, after splitfed_v3: of all phones that finished a round."""
    own = Personal.open(Path(result.path) / "personal")
    phones = {draw.phone for draw in rs.stream(settings) if draw.finishes}
    assert set(np.flatnonzero(own.trained)) == phones
    found = {f"{p} {key}": array for p in phones for key, array in personal_weights(result, p).items()}

    def train() -> dict[str, Any]:
        _, personal = reference.splitfed_v3(settings, **told)
        states = {f"{p} {key}": value for p in phones for key, value in reference.tensors(personal[p]).items()}
        return {name: states[name] for name in found}

    assert_close(train, found)


@pytest.mark.parametrize("cohort", mostly_thorough([1, 3, 7], 3))
@pytest.mark.parametrize("optimizer", mostly_thorough([SGD, MOMENTUM], MOMENTUM), ids=["sgd", "momentum"])
def test_parallel_is_a_joint_step_weighted_by_batch_size(
    tmp_path: Path, optimizer: dict[str, Any], cohort: int
) -> None:
    settings, result = fit(tmp_path, "parallel", optimizer, phones={"cohort": cohort})
    assert_close_weights(lambda: reference.parallel(settings), result.path)


def test_parallel_with_a_joint_batch_is_the_same_where_no_layer_mixes_samples(tmp_path: Path) -> None:
    settings, result = fit(tmp_path, "parallel", schedule={"kwargs": {"batch": "joint"}}, phones={"cohort": 3})
    assert_close_weights(lambda: reference.parallel(settings), result.path)


@pytest.mark.parametrize("cohort", mostly_thorough([1, 4], 4))
def test_parallel_with_one_local_step_is_one_large_batch_step_of_b(tmp_path: Path, cohort: int) -> None:
    settings, result = fit(tmp_path, "parallel", phones={"local_steps": 1, "cohort": cohort}, run={"rounds": 1})
    assert_close_weights(lambda: reference.one_large_batch(settings), result.path, only=reference.MIDDLE)


@pytest.mark.few(thorough=4)
@pytest.mark.parametrize("optimizer", mostly_thorough([SGD, MOMENTUM, ADAM], SGD), ids=OPTIMIZERS)
@pytest.mark.parametrize("schedule", mostly_thorough(ALL, "sequential", "splitfed_v2", "parallel"))
def test_one_phone_is_unsplit_bit_for_bit(tmp_path: Path, schedule: str, optimizer: dict[str, Any]) -> None:
    rounds = 2 if optimizer is SGD else 1
    settings, result = fit(
        tmp_path, schedule, optimizer, phones={"count": 1, "held_out": 0.2, "local_steps": 9}, run={"rounds": rounds}
    )
    assert_same_weights(reference.unsplit(settings), result.path)


@pytest.mark.parametrize("schedule", ALL)
def test_one_phone_with_batchnorm_is_unsplit_bit_for_bit(tmp_path: Path, schedule: str) -> None:
    model = {"name": "tests.nets:with_batchnorm", "cuts": "2,8"}
    settings, result = fit(tmp_path, schedule, phones={"count": 1, "held_out": 0.2, "local_steps": 5}, model=model)
    assert_same_weights(reference.unsplit(settings), result.path)


@pytest.mark.parametrize("schedule", mostly_thorough(ALL, "sequential", "splitfed_v1"))
def test_one_phone_with_dropout_is_unsplit_bit_for_bit(tmp_path: Path, schedule: str) -> None:
    model = {"name": "tests.nets:with_dropout", "cuts": "2,6"}
    settings, result = fit(tmp_path, schedule, phones={"count": 1, "held_out": 0.2, "local_steps": 5}, model=model)
    assert_same_weights(reference.unsplit(settings), result.path)


def test_unsplit_over_many_phones_is_sequential_bit_for_bit(tmp_path: Path) -> None:
    settings, result = fit(tmp_path, "unsplit", ADAM)
    assert_same_weights(reference.unsplit(settings), result.path)
    _, split = fit(tmp_path, "sequential", ADAM)
    assert model_bytes(result) == model_bytes(split)


def model_bytes(result: rs.Result) -> bytes:
    return (Path(result.path) / "model.safetensors").read_bytes()


@pytest.mark.thorough
@pytest.mark.parametrize("schedule", mostly_thorough(ALL, "splitfed_v3"))
def test_any_number_of_client_actors_gives_the_same_bytes(tmp_path: Path, schedule: str) -> None:
    phones = {"cohort": 2} if schedule in COHORTS else {}
    runs = [fit(tmp_path, schedule, MOMENTUM, cluster={"client_actors": n}, phones=phones)[1] for n in (1, 2, 3)]
    assert len({model_bytes(result) for result in runs}) == 1
    assert len({result.metrics["train_loss"] for result in runs}) == 1
    if schedule == "splitfed_v3":
        for phone in range(7):
            one, *others = (personal_weights(result, phone) for result in runs)
            assert all(np.array_equal(one[key], other[key]) for other in others for key in one)


@pytest.mark.parametrize("schedule", mostly_thorough(COHORTS, "splitfed_v1"))
def test_stacked_is_looped_within_rounding(tmp_path: Path, schedule: str) -> None:
    looped = fit(tmp_path, schedule, phones={"cohort": 1})[1]
    stacked = fit(tmp_path, schedule, phones={"cohort": 7, "stacked": ["a", "b", "c"]})[1]
    mixed = fit(tmp_path, schedule, phones={"cohort": 7, "stacked": ["c"]})[1]
    for result in (stacked, mixed):
        assert_same_training(looped, result)
        for name in ("bytes_up", "bytes_down", "samples"):
            assert result.metrics[name] == looped.metrics[name]
        assert result.metrics["train_loss"] == pytest.approx(looped.metrics["train_loss"], rel=1e-5)


@pytest.mark.few(2)
@pytest.mark.parametrize("schedule", COHORTS)
def test_stacked_is_looped_with_batchnorm_and_dropout(tmp_path: Path, schedule: str) -> None:
    model = {"name": "tests.nets:with_batchnorm_and_dropout", "cuts": "3,9"}
    data = {"batch_size": 24, "partition": {"name": "shards"}}  # of equal size: no batch of one for BatchNorm
    looped = fit_equal(tmp_path, schedule, model, data, {"cohort": 1})
    stacked = fit_equal(tmp_path, schedule, model, data, {"cohort": 4, "stacked": "a,b,c"})
    assert_same_training(looped, stacked, b=("4", "5", "6", "7", "8", "9"))


def fit_equal(path: Path, schedule: str, model: dict, data: dict, phones: dict) -> rs.Result:
    name = f"{schedule}_{len(list(path.iterdir()))}"
    settings = rs.Config(
        model=model, data=data, optimizer=SGD, schedule={"name": schedule}, phones={"count": 4, **phones},
        cluster={"backend": "inprocess"}, run={"storage_path": str(path), "name": name, "rounds": 1},
    )  # fmt: skip
    return rs.fit(settings, callbacks=[])


@pytest.mark.few(1)
@pytest.mark.parametrize("schedule", mostly_thorough(ALL, "sequential", "splitfed_v3"))
def test_no_sample_is_dropped_or_counted_twice(tmp_path: Path, schedule: str) -> None:
    import pandas

    phones = {"cohort": 3, "local_epochs": 2} if schedule in COHORTS else {"local_epochs": 2}
    settings, result = fit(tmp_path, schedule, phones={**phones, "held_out": 0.0 if schedule != "splitfed_v3" else 0.2})
    table = pandas.read_parquet(Path(result.path) / "phones.parquet")
    drawn = {(r, p): 0 for r in range(2) for p in range(7)}
    for draw in rs.stream(settings.with_values(phones={"held_out": settings.phones.held_out})):
        drawn[draw.round, draw.phone] += len(draw.indices)
    assert {(r.round, r.phone): r.samples for r in table.itertuples()} == drawn
    assert result.metrics["samples"] == sum(n for (r, _), n in drawn.items() if r == 1)


@pytest.mark.thorough
@pytest.mark.parametrize("schedule", ["splitfed_v1", "splitfed_v2", "splitfed_v3", "parallel"])
def test_both_backends_give_the_same_bytes(tmp_path: Path, ray_session: object, schedule: str) -> None:
    phones = {"cohort": 3} if schedule in COHORTS else {}
    local = fit(tmp_path, schedule, MOMENTUM, phones=phones)[1]
    remote = fit(tmp_path, schedule, MOMENTUM, phones=phones, cluster={"backend": "ray"}, server={"num_gpus": 0})[1]
    assert model_bytes(local) == model_bytes(remote)
    for name in ("train_loss", "test_accuracy", "bytes_up", "bytes_down", "bytes_weights"):
        assert local.metrics[name] == remote.metrics[name]


@pytest.mark.thorough
def test_statistics_stay_with_their_phone_if_asked_and_their_average_is_made_all_the_same(tmp_path: Path) -> None:
    model = {"name": "tests.nets:with_batchnorm", "cuts": "2,8"}
    for schedule in ("splitfed_v1", "splitfed_v2", "parallel"):
        phones = {"count": 3, "cohort": 3 if schedule in COHORTS else 1, "local_steps": 2}
        _, average = fit(tmp_path, schedule, model=model, phones=phones)
        local = fit(tmp_path, schedule, model=model, phones=phones, schedule={"kwargs": {"statistics": "local"}})[1]
        own = [personal_weights(local, phone) for phone in range(3)]
        assert {key for keys in own for key in keys} == {
            "1.running_mean", "1.running_var", "1.num_batches_tracked",
        }  # fmt: skip
        # Two rounds of two steps: kept, they go on from the phone's own; averaged, from the average.
        assert [int(keys["1.num_batches_tracked"]) for keys in own] == [4, 4, 4]
        assert not np.allclose(own[0]["1.running_mean"], own[1]["1.running_mean"])
        one, other = (rs.load_model(result.path, trust=True).state_dict() for result in (average, local))
        for key in one:  # what is trained does not depend on the statistics, which train mode does not read
            torch.testing.assert_close(one[key], other[key], rtol=1e-4, atol=1e-5)


def test_a_model_without_batchnorm_has_no_statistics_to_keep(tmp_path: Path) -> None:
    _, result = fit(tmp_path, "splitfed_v1", schedule={"kwargs": {"statistics": "local"}}, run={"rounds": 1})
    with pytest.raises(rs.SettingsError, match=r"phone: phones have no weights of their own in the run"):
        rs.load_model(result.path, phone=1, trust=True)


def test_personal_states_survive_an_interruption(tmp_path: Path) -> None:
    class Stop(rs.Callback):
        def on_round_end(self, row: dict[str, Any]) -> None:
            if row["round"] == 1:
                raise KeyboardInterrupt

    def settings(name: str, resume: str) -> rs.Config:
        return rs.Config(
            schedule={"name": "splitfed_v3"}, optimizer=MOMENTUM, cluster={"backend": "inprocess"},
            phones={"count": 12, "per_round": 5}, data={"batch_size": 24},
            run={"storage_path": str(tmp_path), "name": name, "rounds": 4, "resume": resume},
        )  # fmt: skip

    whole = rs.fit(settings("whole", "never"), callbacks=[])
    with pytest.raises(KeyboardInterrupt):
        rs.fit(settings("parts", "never"), callbacks=[Stop()])
    resumed = rs.fit(settings("parts", "auto"), callbacks=[])
    assert model_bytes(whole) == model_bytes(resumed)
    for phone in np.flatnonzero(Personal.open(Path(whole.path) / "personal").trained):
        one, other = personal_weights(whole, int(phone)), personal_weights(resumed, int(phone))
        assert all(np.array_equal(one[key], other[key]) for key in one)


def test_the_summary_has_mean_tenth_percentile_and_worst_phone(tmp_path: Path) -> None:
    import pandas

    for schedule in ("splitfed_v3", "splitfed_v1"):
        _, result = fit(tmp_path, schedule, phones={"held_out": 0.3})
        table = pandas.read_parquet(Path(result.path) / "phones.parquet")
        accuracy = table[table["round"] == 1]["test_accuracy"].dropna()
        assert len(accuracy) >= 5
        assert result.metrics["phone_accuracy_mean"] == pytest.approx(accuracy.mean())
        assert result.metrics["phone_accuracy_p10"] == pytest.approx(np.percentile(accuracy, 10))
        assert result.metrics["phone_accuracy_worst"] == accuracy.min()
    assert result.metrics["test_accuracy"] != pytest.approx(accuracy.mean())


def test_phones_of_a_round_are_drawn_and_the_others_do_nothing(tmp_path: Path) -> None:
    import pandas

    settings, result = fit(tmp_path, "splitfed_v1", phones={"per_round": 3})
    table = pandas.read_parquet(Path(result.path) / "phones.parquet")
    drawn = {(draw.round, draw.phone) for draw in rs.stream(settings)}
    assert {(row.round, row.phone) for row in table.itertuples()} == drawn
    assert len(drawn) == 6
    assert_close_weights(lambda: reference.fedavg(settings), result.path)


@pytest.mark.parametrize("cuts", [*thorough("mix"), "embed,mix"])
def test_what_crosses_need_not_begin_with_the_batch(tmp_path: Path, cuts: str) -> None:
    model = {"name": "tests.nets:SequenceFirst", "cuts": cuts}
    for schedule in ALL:
        phones = {"count": 1, "held_out": 0.2, "local_steps": 5}
        settings, result = fit(tmp_path, schedule, phones=phones, model=model)
        assert_same_weights(reference.unsplit(settings), result.path)


def test_a_joint_batch_of_what_does_not_begin_with_the_batch_is_refused(tmp_path: Path) -> None:
    model, schedule = {"name": "tests.nets:SequenceFirst", "cuts": "embed,mix"}, {"kwargs": {"batch": "joint"}}
    with pytest.raises(rs.SettingsError, match="gets tensors that don't begin with the batch"):
        fit(tmp_path, "parallel", model=model, schedule=schedule)


@pytest.mark.parametrize("stacked", [False, True])
@pytest.mark.parametrize("schedule", mostly_thorough(ALL, "sequential", "splitfed_v1", "parallel"))
@pytest.mark.few(3)
def test_weights_that_a_model_does_not_train_stay_to_the_last_bit(tmp_path: Path, schedule: str, stacked: bool) -> None:
    model = {"name": "tests.nets:partly_fixed", "cuts": "1,4"}
    phones = {"count": 3, "held_out": 0.2, **({"cohort": 3 if stacked else 1} if schedule in COHORTS else {})}
    optimizer = {**MOMENTUM, "weight_decay": 0.01}
    settings, result = fit(tmp_path, schedule, optimizer, phones=phones, model=model)
    first = reference.Training(settings).model.state_dict()
    trained = rs.load_model(result.path, trust=True).state_dict()
    same = {key for key in first if torch.equal(first[key], trained[key])}
    assert same == {"2.weight", "2.bias", "4.weight"}
    if schedule in ("sequential", "unsplit"):
        assert_same_weights(reference.unsplit(settings), result.path)


def test_held_out_samples_are_evaluated_a_batch_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from actors.client import Client

    seen: list[int] = []
    original = Client.evaluate_own_forward

    def watched(self: Client, *arguments: Any) -> Any:
        activation = original(self, *arguments)
        seen.append(sum(group[0].shape[0] * group[0].shape[1] for group in activation.groups))
        return activation

    whole = fit(tmp_path, "splitfed_v3", run={"rounds": 1})[1]
    monkeypatch.setattr(Client, "evaluate_own_forward", watched)
    data = {"batch_size": 24, "eval_batch_size": 14, "partition": {"name": "dirichlet", "alpha": 1.0}}
    settings = rs.Config.from_yaml(Path(whole.path) / "config.yaml").with_values(data=data, run={"name": "small"})
    small = rs.fit(settings, callbacks=[])
    assert max(seen) <= 14 < sum(seen)
    for name in ("test_accuracy", "phone_accuracy_worst", "val_accuracy"):
        assert small.metrics[name] == whole.metrics[name]
    assert small.metrics["test_loss"] == pytest.approx(whole.metrics["test_loss"], rel=1e-6)


def test_a_run_that_diverges_ends_and_says_so(tmp_path: Path) -> None:
    with pytest.raises(rs.RunFailedError, match=r"phone \d+: its activation (is not finite|has the norm)"):
        fit(tmp_path, "sequential", {"lr": 1e15}, run={"rounds": 1})
