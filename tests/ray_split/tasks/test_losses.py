"""Losses against torch's own, and what they make of a cohort's outputs."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from ray_split.messages.labels import IGNORED
from ray_split.tasks.losses import LOSSES, CrossEntropy

WEIGHTS = (0.2, 1.0, 3.0)


def scores(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).requires_grad_()


def classes(*shape: int) -> torch.Tensor:
    return torch.randint(0, 3, shape, generator=torch.Generator().manual_seed(1))


def padded(*shape: int) -> torch.Tensor:
    labels = classes(*shape)
    labels.view(-1)[::3] = IGNORED
    return labels


LAYOUTS = {
    "samples": (1, (4, 6, 3), classes(4, 6)),
    "samples of which some are ignored": (1, (4, 6, 3), padded(4, 6)),
    "label maps": (1, (4, 2, 3, 5, 5), padded(4, 2, 5, 5)),
    "tokens": (-1, (4, 2, 7, 3), padded(4, 2, 7)),
}


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_phones_mean_is_what_torch_gives_its_batch_alone(
    layout: str, weights: tuple[float, ...] | None, smoothing: float
) -> None:
    dimension, shape, labels = LAYOUTS[layout]
    loss, outputs = CrossEntropy(dimension, weights, smoothing), scores(*shape)
    means = loss.means(outputs, labels)
    weight = None if weights is None else torch.tensor(weights)
    for mean, own, wanted in zip(means, outputs, labels, strict=True):
        expected = functional.cross_entropy(own.movedim(dimension, 1), wanted, weight, label_smoothing=smoothing)
        assert mean.item() == pytest.approx(expected.item(), rel=1e-6)
        assert loss.mean(own, wanted).item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["unweighted", "weighted"])
def test_of_mixed_labels_it_is_torchs_too_and_a_sample_is_right_by_the_share_of_what_it_says(
    weights: tuple[float, ...] | None,
) -> None:
    loss, outputs = CrossEntropy(1, weights, 0.1, mixed=True), scores(4, 6, 3)
    shares = torch.rand(4, 6, 3, generator=torch.Generator().manual_seed(2)).softmax(2)
    weight = None if weights is None else torch.tensor(weights)
    for mean, own, wanted in zip(loss.means(outputs, shares), outputs, shares, strict=True):
        expected = functional.cross_entropy(own, wanted, weight, label_smoothing=0.1)
        assert torch.equal(loss.mean(own, wanted), expected)
        assert mean.item() == pytest.approx(expected.item(), rel=1e-6)
        assert loss.right(own, wanted).tolist() == [float(s[i]) for s, i in zip(wanted, own.argmax(1), strict=True)]


def test_plain_cross_entropy_is_torchs_to_the_last_bit() -> None:
    outputs, labels = scores(6, 3), classes(6)
    assert torch.equal(LOSSES["cross_entropy"].mean(outputs, labels), functional.cross_entropy(outputs, labels))


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["unweighted", "weighted"])
def test_a_batch_of_ignored_labels_alone_has_a_loss_and_a_gradient_of_zero(weights: tuple[float, ...] | None) -> None:
    loss, labels = CrossEntropy(1, weights), torch.full((2, 4), IGNORED)
    labels[1] = classes(4)
    outputs = scores(2, 4, 3)
    means = loss.means(outputs, labels)
    assert means[0] == 0 and means[1] > 0
    means.sum().backward()
    assert (outputs.grad[0] == 0).all() and outputs.grad[1].isfinite().all() and outputs.grad[1].any()
    alone = scores(4, 3)
    value = loss.mean(alone, labels[0])
    value.backward()
    assert value == 0 and (alone.grad == 0).all()


def test_a_sample_with_several_labels_is_right_by_the_share_of_those_that_count() -> None:
    outputs = functional.one_hot(torch.tensor([[0, 1, 2, 1], [0, 0, 0, 0]]), 3).float()
    labels = torch.tensor([[0, 1, 1, IGNORED], [IGNORED] * 4])
    assert LOSSES["token_cross_entropy"].right(outputs, labels).tolist() == [pytest.approx(2 / 3), 0]
    assert LOSSES["cross_entropy"].right(outputs.movedim(-1, 1), labels).tolist() == [pytest.approx(2 / 3), 0]


def test_a_sample_with_one_label_is_right_or_wrong() -> None:
    right = LOSSES["cross_entropy"].right(torch.eye(3), torch.tensor([0, 2, 2]))
    assert right.tolist() == [True, False, True]
    assert right.sum().item() == 2


@pytest.mark.parametrize("name", ["mse", "l1", "huber"])
def test_a_distance_takes_one_output_for_labels_without_that_dimension(name: str) -> None:
    outputs, labels = scores(4, 6, 1), scores(4, 6).detach() * 2
    function = {"mse": functional.mse_loss, "l1": functional.l1_loss, "huber": functional.huber_loss}[name]
    for mean, own, wanted in zip(LOSSES[name].means(outputs, labels), outputs, labels, strict=True):
        assert mean.item() == pytest.approx(function(own[:, 0], wanted).item(), rel=1e-6)
        assert torch.equal(LOSSES[name].mean(own, wanted), function(own[:, 0], wanted))


def test_a_distance_has_nothing_that_is_right() -> None:
    assert LOSSES["mse"].right(scores(5, 1), scores(5)).isnan().all()


@pytest.mark.parametrize(
    ("name", "outputs", "labels", "message"),
    [
        ("mse", (4, 3), torch.zeros(4), "same shape"),
        ("mse", (1, 3), torch.zeros(1), "same shape"),
        ("mse", (4,), torch.zeros(4, 1), "same shape"),
        ("mse", (4, 1), torch.zeros(4, dtype=torch.int64), "values, floats"),
        ("cross_entropy", (4, 3), torch.zeros(4, 3), "classes, whole numbers"),
        ("token_cross_entropy", (4, 7, 3), torch.zeros(4, 3, dtype=torch.int64), "labels' dimensions"),
    ],
)
def test_labels_that_a_loss_is_not_made_for_are_refused(
    name: str, outputs: tuple[int, ...], labels: torch.Tensor, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        LOSSES[name].mean(scores(*outputs), labels)
