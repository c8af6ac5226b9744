import numpy as np
import pytest
import torch
from torch import nn

import ray_split as rs
from ray_split.cutting.cut import cut
from ray_split.preparation.cohorts import mixes, settle
from ray_split.preparation.prepare import prepare
from tests.nets import model_of
from tests.tiers import mostly_thorough, thorough

BATCHNORM = {"name": "tests.nets:with_batchnorm", "cuts": "2,7"}
IMAGES = {"name": "synthetic", "kwargs": {"samples": 200, "shape": [3, 24, 24]}}
COHORTS = ["splitfed_v1", "splitfed_v3", "parallel", "fedavg"]
ONE_BY_ONE = ["sequential", "splitfed_v2", "unsplit"]


def settled(schedule="splitfed_v1", **sections):
    kwargs = sections.pop("kwargs", {})
    return prepare(rs.Config(schedule={"name": schedule, "kwargs": kwargs}, run={"name": "x"}, **sections)).settings


def refusal(*arguments, **sections):
    with pytest.raises(rs.SettingsError) as caught:
        settled(*arguments, **sections)
    assert len(str(caught.value).splitlines()) == 1
    return caught.value


def settled_of(model, schedule="splitfed_v1", **sections):
    """Settled with a model as it is, cut after 'a' and 'b'."""
    example = torch.randn((8, 4), generator=torch.Generator().manual_seed(0))
    settings = rs.Config(schedule={"name": schedule}, **sections)
    return settle(settings, cut(model, ["a", "b"], example), [example], per_round=10)


@pytest.mark.parametrize("schedule", COHORTS)
@pytest.mark.parametrize("model", ["digits_cnn", *thorough("tiny_cnn", "mlp")])
def test_a_small_model_is_stacked_with_all_phones_of_a_round(schedule, model):
    phones = settled(schedule, model={"name": model}).phones
    assert (phones.cohort, phones.stacked) == (20, ["a", "b", "c"])
    phones = settled(schedule, model={"name": model}, phones={"per_round": 0.5}).phones
    assert (phones.cohort, phones.stacked) == (10, ["a", "b", "c"])


@pytest.mark.thorough
def test_large_layers_are_looped():
    phones = settled(model={"name": "resnet18"}, data=IMAGES).phones
    assert (phones.cohort, phones.stacked) == (1, [])
    phones = settled(model={"name": "resnet18"}, data=IMAGES, phones={"cohort": 4}).phones
    assert phones.cohort == 4 and "b" not in phones.stacked and "c" in phones.stacked
    phones = settled(model={"name": "resnet18"}, data=IMAGES, phones={"stacked": "a,c", "cohort": 4}).phones
    assert (phones.cohort, phones.stacked) == (4, ["a", "c"])


def test_one_phone_is_always_looped():
    for sections in ({"phones": {"count": 1}}, {"phones": {"per_round": 1}}, {"phones": {"cohort": 1}}):
        phones = settled(**sections).phones
        assert (phones.cohort, phones.stacked) == (1, [])


@pytest.mark.parametrize(
    ("phones", "cohort", "stacked"),
    [
        ({"cohort": 3}, 3, ["a", "b", "c"]), ({"stacked": "b"}, 20, ["b"]), ({"stacked": ""}, 1, []),
        ({"stacked": "c,a", "cohort": 4}, 4, ["a", "c"]), ({"stacked": "b", "cohort": 1}, 1, []),
        ({"stacked": "", "cohort": 5}, 5, []),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_asked_for_is_kept(phones, cohort, stacked):
    found = settled(phones=phones).phones
    assert (found.cohort, found.stacked) == (cohort, stacked)


@pytest.mark.parametrize("schedule", ONE_BY_ONE)
def test_schedules_in_which_phones_take_turns_have_no_cohorts(schedule):
    phones = settled(schedule).phones
    assert (phones.cohort, phones.stacked) == (1, [])
    error = refusal(schedule, phones={"cohort": 2})
    assert (error.field, error.value) == ("phones.cohort", 2)
    wrong = f"phones.cohort: can't be used with schedule.name {schedule}, which trains one phone at a time. "
    assert str(error) == f"{wrong}Remove phones.cohort, or choose another schedule, such as parallel."
    assert refusal(schedule, phones={"stacked": "a"}).field == "phones.stacked"


@pytest.mark.parametrize("schedule", mostly_thorough(COHORTS + ONE_BY_ONE, "splitfed_v1", "sequential"))
@pytest.mark.parametrize("model", [{"name": "digits_cnn"}, BATCHNORM], ids=["digits_cnn", "batchnorm"])
def test_what_is_settled_stays_settled(schedule, model):
    first = settled(schedule, model=model)
    assert prepare(first).settings == first


def test_a_segment_that_torch_can_not_stack_is_looped_or_refused_if_it_was_asked_for():
    model = model_of(dropping, b=nn.Linear(4, 4))
    phones = settled_of(model).phones
    assert (phones.cohort, phones.stacked) == (10, ["a", "c"])
    with pytest.raises(
        rs.SettingsError, match=r"phones\.stacked: can't contain b, because Runtime.* Remove b from phones\.stacked"
    ):
        settled_of(model, phones={"stacked": "b"})
    assert settled_of(model, phones={"stacked": "b", "cohort": 1}).phones.stacked == []


def dropping(self, x):
    return self.c(self.b(nn.functional.dropout(self.a(x), 0.5, self.training)))


class Counting(nn.Module):
    """Computes something else at each call."""

    calls = 0

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))

    def forward(self, x):
        Counting.calls += 1
        return x * self.weight * Counting.calls


def test_a_segment_that_would_compute_something_else_stacked_is_not_stacked():
    example = torch.randn((8, 4), generator=torch.Generator().manual_seed(0))
    plain = cut(nn.Sequential(nn.Linear(4, 4), nn.Identity(), nn.Linear(4, 4)), ["0", "1"], example)
    segments = plain._replace(b=Counting())
    settings = rs.Config(schedule={"name": "splitfed_v1"})
    assert settle(settings, segments, [example], 10).phones.stacked == ["a", "c"]
    with pytest.raises(rs.SettingsError, match="stacked it computes something else"):
        settle(settings.with_values(phones={"stacked": "b"}), segments, [example], 10)


def test_settling_leaves_the_segments_and_torchs_random_numbers_as_they_were():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 4))
    example = torch.randn(8, 4)
    segments = cut(model, ["0", "2"], example)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    settle(rs.Config(schedule={"name": "parallel"}), segments, [example], 10)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_parallel_makes_one_batch_where_b_mixes_samples_and_adds_up_where_not():
    assert settled("parallel").schedule.kwargs == {"batch": "accumulated"}
    assert settled("parallel", model=BATCHNORM).schedule.kwargs == {"batch": "joint"}
    kept = settled("parallel", model=BATCHNORM, kwargs={"statistics": "local"}).schedule.kwargs
    assert kept == {"statistics": "local", "batch": "joint"}
    assert settled("parallel", kwargs={"batch": "joint"}).schedule.kwargs == {"batch": "joint"}


def test_parallel_refuses_to_add_up_where_b_mixes_samples():
    error = refusal("parallel", model=BATCHNORM, kwargs={"batch": "accumulated"})
    assert (error.field, error.value) == ("schedule.kwargs", {"batch": "accumulated"})
    assert "the server's part mixes the samples of a batch (as BatchNorm does)" in str(error) and str(error).endswith(
        "Set schedule.kwargs {batch: joint}."
    )


def test_a_batchnorm_outside_b_needs_no_joint_batch():
    first = {"name": "tests.nets:with_batchnorm", "cuts": "5,7"}
    assert settled("parallel", model=first).schedule.kwargs == {"batch": "accumulated"}


class Centred(nn.Module):
    def forward(self, x):
        return x - x.mean(0)


class Cumulated(nn.Module):
    """The first sample is its own."""

    def forward(self, x):
        return x.cumsum(0)


class Seen(nn.Module):
    """What it keeps of the batch is not in its output."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(4))

    def forward(self, x):
        self.seen = self.seen + 1e-4 * x.mean(0)
        return x


def test_a_batch_of_one_is_mixed_with_those_of_other_phones():
    assert mixes(Centred(), torch.ones(1, 4), 1)
    assert not mixes(nn.Linear(4, 3), torch.ones(1, 4), 1)


@pytest.mark.parametrize(
    ("module", "mixed"),
    [
        (nn.Linear(4, 3), False), (nn.LayerNorm(4), False), (nn.Dropout(0.5), False), (nn.BatchNorm1d(4), True),
        (nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)), True), (Centred(), True), (nn.Softmax(dim=0), True),
        (nn.Softmax(dim=1), False), (nn.GroupNorm(2, 4), False), (Cumulated(), True), (Seen(), True),
        (nn.RReLU(), True),
    ],
    ids=str,
)  # fmt: skip
def test_a_module_mixes_if_a_samples_output_depends_on_the_others(module, mixed):
    inputs = torch.from_numpy(np.random.default_rng(0).standard_normal((8, 4), np.float32))
    assert mixes(module, inputs, len(inputs)) is mixed
    assert mixes(module, (inputs,), len(inputs)) is mixed


def test_a_size_that_crosses_the_first_cut_of_a_b_that_mixes_is_refused():
    def sized(self, x):
        return self.c(self.b(self.a(x)) * x.size(1))

    model = model_of(sized, b=nn.BatchNorm1d(4))
    assert settled_of(model).phones.cohort == 10
    with pytest.raises(
        rs.SettingsError, match=r"model\.cuts.*mixes samples, and gets tensors that don't begin with the batch"
    ):
        settled_of(model, "parallel")
