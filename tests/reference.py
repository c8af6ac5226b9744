"""Plain training on the stream of a run, with nothing of the split: what each schedule must equal.

A model's A, B and C are named by the first parts of its parameters' names; a phone's copy of the model shares the
modules of B with the others where the schedule says so.
"""

from __future__ import annotations

import copy
import functools
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

import ray_split as rs
from ray_split import models, seeds
from ray_split.data import Parts
from ray_split.optimizers import OPTIMIZERS

Loss = Callable[[Any, torch.Tensor], torch.Tensor]
MIDDLE = ("block2", "hidden")  # the layers of B in digits_cnn, cut as usual
REST = (*MIDDLE, "head")  # and cut once, after block1


class Training:
    """The parts of a run that all references need."""

    def __init__(
        self, settings: rs.Config, loss: Loss = functional.cross_entropy, seeded_at: Sequence[str] = ()
    ) -> None:
        torch.set_num_threads(1)
        self._loss = loss
        self.settings = settings
        self.data: Parts = rs.load_data(settings.data)
        self.batches = rs.Batches(settings, self.data)
        model = settings.model.model_copy(update={"num_classes": settings.model.num_classes or self.data.num_classes})
        self.model = models.build(model, settings.run.seed)
        self.b = ("b",) if hasattr(self.model, "b") else REST if settings.model.cuts == ["block1"] else MIDDLE
        self.rounds: dict[int, list[rs.Draw]] = defaultdict(list)
        for draw in rs.stream(settings):
            self.rounds[draw.round].append(draw)
        self.at = _At([0, 0, 0])
        for place, name in enumerate(seeded_at):
            hook = functools.partial(_seed_here, settings.run.seed, self.at, "abc"[place])
            self.model.get_submodule(name).register_forward_pre_hook(hook)

    def optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return OPTIMIZERS[self.settings.optimizer.name](list(parameters), self.settings.optimizer)

    def loss(self, model: nn.Module, draw: rs.Draw) -> torch.Tensor:
        self.at[:] = draw.round, draw.phone, draw.step
        inputs, labels = self.batches.of(draw)
        return self._loss(model.train()(torch.from_numpy(inputs)), torch.from_numpy(labels))


def unsplit(settings: rs.Config, seeded_at: tuple[str, ...] = (), loss: Loss = functional.cross_entropy) -> nn.Module:
    """Train the unsplit model on one thread.

    `seeded_at` names the first layer of A, B and C, where torch is seeded, for models with Dropout.
    """
    run = Training(settings, loss, seeded_at)
    model, optimizer = run.model, run.optimizer(run.model.parameters())
    for draw in rs.stream(settings):
        optimizer.zero_grad()
        run.loss(model, draw).backward()
        optimizer.step()
    return model


class _At(list[int]):
    """Round, phone and step, that copies of a hook share."""

    def __deepcopy__(self, _: Any) -> _At:
        return self


def _seed_here(seed: int, at: Sequence[int], segment: str, *_: Any) -> None:
    torch.default_generator.manual_seed(seeds.forward_seed(seed, *at, segment))


def fedavg(settings: rs.Config, seeded_at: Sequence[str] = ()) -> nn.Module:
    """Each phone trains a copy of the unsplit model; the mean of them, weighted by samples."""
    run = Training(settings, seeded_at=seeded_at)
    for draws in run.rounds.values():
        copies = {phone: copy.deepcopy(run.model) for phone in _phones(draws)}
        for phone, model in copies.items():
            optimizer = run.optimizer(model.parameters())
            for draw in draws:
                if draw.phone == phone:
                    optimizer.zero_grad()
                    run.loss(model, draw).backward()
                    optimizer.step()
        _load_mean(run.model, [copies[phone] for phone in _finishing(draws)], _samples(draws))
    return run.model


def sequential(settings: rs.Config) -> nn.Module:
    """The unsplit model on the stream; A and C of a phone that does not finish its round are lost, with their slots."""
    run = Training(settings)
    middle, ends = run.optimizer(_of(run.model, run.b)), run.optimizer(_of(run.model, run.b, others=True))
    for draws in run.rounds.values():
        for phone in dict.fromkeys(draw.phone for draw in draws):
            before = copy.deepcopy((run.model.state_dict(), ends.state_dict()))
            own = [draw for draw in draws if draw.phone == phone]
            for draw in own:
                run.model.zero_grad()
                run.loss(run.model, draw).backward()
                ends.step()
                middle.step()
            if not own[0].finishes:
                weights = {key: value for key, value in before[0].items() if not key.startswith(run.b)}
                run.model.load_state_dict(weights, strict=False)
                ends.load_state_dict(before[1])
    return run.model


def splitfed_v2(settings: rs.Config, seeded_at: Sequence[str] = ()) -> nn.Module:
    """The phones' models share B, which steps after each batch, in the stream's order; A and C are averaged."""
    run = Training(settings, seeded_at=seeded_at)
    middle = run.optimizer(_of(run.model, run.b))
    for draws in run.rounds.values():
        copies = {phone: _sharing(run.model, run.b) for phone in _phones(draws)}
        ends = {phone: run.optimizer(_of(model, run.b, others=True)) for phone, model in copies.items()}
        for draw in draws:
            middle.zero_grad()
            ends[draw.phone].zero_grad()
            run.loss(copies[draw.phone], draw).backward()
            ends[draw.phone].step()
            middle.step()
        _load_mean(run.model, [copies[phone] for phone in _finishing(draws)], _samples(draws), skip=run.b)
    return run.model


def splitfed_v3(settings: rs.Config, seeded_at: Sequence[str] = ()) -> tuple[nn.Module, dict[int, nn.Module]]:
    """A and C stay with their phone, with their optimizers; copies of B are averaged. B's model, and the phones'."""
    run = Training(settings, seeded_at=seeded_at)
    personal: dict[int, nn.Module] = {}
    ends: dict[int, torch.optim.Optimizer] = {}
    for draws in run.rounds.values():
        for phone in _phones(draws):
            if phone not in personal:
                personal[phone] = copy.deepcopy(run.model)
                ends[phone] = run.optimizer(_of(personal[phone], run.b, others=True))
            _load_mean(personal[phone], [run.model], [1], only=run.b)
            if phone not in _finishing(draws):
                continue  # nothing of its work is left
            middle = run.optimizer(_of(personal[phone], run.b))
            for draw in draws:
                if draw.phone == phone:
                    ends[phone].zero_grad()
                    middle.zero_grad()
                    run.loss(personal[phone], draw).backward()
                    ends[phone].step()
                    middle.step()
        _load_mean(run.model, [personal[phone] for phone in _finishing(draws)], _samples(draws), only=run.b)
    return run.model, personal


def parallel(settings: rs.Config, seeded_at: Sequence[str] = ()) -> nn.Module:
    """The phones' models share B; at each step B steps once, on the gradients weighted by batch size."""
    run = Training(settings, seeded_at=seeded_at)
    middle = run.optimizer(_of(run.model, run.b))
    for draws in run.rounds.values():
        copies = {phone: _sharing(run.model, run.b) for phone in _phones(draws)}
        ends = {phone: run.optimizer(_of(model, run.b, others=True)) for phone, model in copies.items()}
        for step in range(1 + max(draw.step for draw in draws)):
            now = _in_order(draws, step)
            total = sum(len(draw.indices) for draw in now)
            shared = [torch.zeros_like(parameter) for parameter in _of(run.model, run.b)]
            for draw in now:
                middle.zero_grad()
                ends[draw.phone].zero_grad()
                run.loss(copies[draw.phone], draw).backward()
                ends[draw.phone].step()
                for total_gradient, parameter in zip(shared, _of(run.model, run.b), strict=True):
                    total_gradient += parameter.grad * (len(draw.indices) / total)
            for total_gradient, parameter in zip(shared, _of(run.model, run.b), strict=True):
                parameter.grad = total_gradient
            middle.step()
        _load_mean(run.model, [copies[phone] for phone in _finishing(draws)], _samples(draws), skip=run.b)
    return run.model


def joint(settings: rs.Config, seeded_at: Sequence[str] = ()) -> nn.Module:
    """Of a model of a, b and c: at each step B runs once, on the batches of all phones as one, and steps once."""
    run = Training(settings, seeded_at=seeded_at)
    middle = run.optimizer(run.model.b.parameters())
    for draws in run.rounds.values():
        copies = {phone: _sharing(run.model, run.b) for phone in _phones(draws)}
        ends = {phone: run.optimizer(_of(model, run.b, others=True)) for phone, model in copies.items()}
        for step in range(1 + max(draw.step for draw in draws)):
            now = _in_order(draws, step)
            _joint_step(run, {draw.phone: draw for draw in now}, copies)
            middle.step()
            for draw in now:
                ends[draw.phone].step()
            for optimizer in (middle, *ends.values()):
                optimizer.zero_grad()
        _load_mean(run.model, [copies[phone] for phone in _finishing(draws)], _samples(draws), skip=run.b)
    return run.model


def _in_order(draws: Sequence[rs.Draw], step: int) -> list[rs.Draw]:
    """A step's batches: of phones with more steps, then of those with more samples, first."""
    sizes: dict[int, list[int]] = defaultdict(list)
    for draw in draws:
        sizes[draw.phone].append(len(draw.indices))
    now = [draw for draw in draws if draw.step == step]
    return sorted(now, key=lambda draw: (-len(sizes[draw.phone]), -sum(sizes[draw.phone]), draw.phone))


def _joint_step(run: Training, draws: dict[int, rs.Draw], copies: dict[int, nn.Module]) -> None:
    """The gradients of each phone's own mean loss in its A and C, and of the mean over all samples in B."""
    activations, total = {}, sum(len(draw.indices) for draw in draws.values())
    for phone, draw in draws.items():
        run.at[:] = draw.round, draw.phone, draw.step
        activations[phone] = copies[phone].train().a(torch.from_numpy(run.batches.of(draw)[0]))
    arrived = [activation.detach().requires_grad_() for activation in activations.values()]
    run.at[:] = *run.at[:1], next(iter(draws)), run.at[2]
    hidden = run.model.train().b(torch.cat(arrived))
    gradients = []
    for (phone, draw), own in zip(draws.items(), hidden.split([len(x) for x in arrived]), strict=True):
        run.at[:] = draw.round, draw.phone, draw.step
        leaf = own.detach().requires_grad_()
        run._loss(copies[phone].c(leaf), torch.from_numpy(run.batches.of(draw)[1])).backward()
        gradients.append(leaf.grad * (len(leaf) / total))
    hidden.backward(torch.cat(gradients))
    for activation, leaf in zip(activations.values(), arrived, strict=True):
        activation.backward(leaf.grad * (total / len(leaf)))


def one_large_batch(settings: rs.Config) -> nn.Module:
    """One step of the unsplit model on the first round's batches of all phones, as one batch."""
    run = Training(settings)
    optimizer = run.optimizer(run.model.parameters())
    indices = torch.cat([torch.from_numpy(draw.indices) for draw in run.rounds[0]]).numpy()
    run.loss(run.model, run.rounds[0][0]._replace(indices=indices)).backward()
    optimizer.step()
    return run.model


def _of(model: nn.Module, layers: tuple[str, ...], others: bool = False) -> list[nn.Parameter]:
    return [p for name, p in model.named_parameters() if name.startswith(layers) is not others]


def _sharing(model: nn.Module, layers: tuple[str, ...]) -> nn.Module:
    made = copy.deepcopy(model)
    for name in layers:
        setattr(made, name, getattr(model, name))
    return made


def _phones(draws: Sequence[rs.Draw]) -> list[int]:
    return sorted({draw.phone for draw in draws})


def _finishing(draws: Sequence[rs.Draw]) -> list[int]:
    return _phones([draw for draw in draws if draw.finishes])


def _samples(draws: Sequence[rs.Draw]) -> list[int]:
    """How many different samples each phone trained on that finishes the round."""
    return [len({i for d in draws if d.phone == phone for i in d.indices.tolist()}) for phone in _finishing(draws)]


def _load_mean(
    model: nn.Module,
    copies: list[nn.Module],
    samples: list[int],
    skip: tuple[str, ...] = (),
    only: tuple[str, ...] = ("",),
) -> None:
    total = sum(samples)
    if not copies:
        return
    with torch.no_grad():
        for key, tensor in model.state_dict().items():
            if not key.startswith(only) or (skip and key.startswith(skip)):
                continue
            values = [made.state_dict()[key] for made in copies]
            if tensor.is_floating_point() or tensor.is_complex():
                tensor.copy_(sum(value * (n / total) for value, n in zip(values, samples, strict=True)))
            else:
                tensor.copy_(torch.stack(values).amax(0))


def assert_same_weights(model: nn.Module, path: str) -> None:
    trained = rs.load_model(path).state_dict()
    expected = model.state_dict()
    assert trained.keys() == expected.keys()
    different = [key for key in expected if not torch.equal(expected[key], trained[key])]
    assert not different


def assert_close_weights(model: nn.Module, path: str, tolerance: float = 1e-6, only: tuple[str, ...] = ("",)) -> None:
    trained = rs.load_model(path).state_dict()
    for key, expected in model.state_dict().items():
        if key.startswith(only):
            difference = (trained[key] - expected).abs() - tolerance * expected.abs()
            assert difference.max() <= tolerance, f"{key} differs by {difference.max():.3g}"
