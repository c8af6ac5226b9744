"""Federated methods as their papers write them, in float64: plain loops, with nothing of ray_split's algorithms.

Of ray_split they have the stream of a run, its batches and the untouched model. Plain SGD alone. Where the papers have
a mean over phones that weigh the same, here phones weigh by their samples, p_k = n_k / n, as in federated averaging.
"""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

import ray_split as rs
from tests.reference import Training

Weights = dict[str, torch.Tensor]
Rate = Callable[[str, int], float]
"""The learning rate of a weight in a round."""
KLr = Callable[[int, str], float]
"""Of a phone and a weight the sum of the rates of the round's steps."""
CORRECTED = {"splitfed_v1": "abc", "fedavg": "abc", "splitfed_v2": "ac", "parallel": "ac", "splitfed_v3": "b"}
"""The segments whose copies are averaged."""


class Net(nn.Module):
    """A, B and C in float64."""

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Linear(4, 6), nn.Tanh()).double()
        self.b = nn.Sequential(nn.Linear(6, 5), nn.Tanh()).double()
        self.c = nn.Linear(5, num_classes).double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(self.b(self.a(x.double())))


class FedAvg:
    """McMahan et al. 2017. Weights are called x at the server and y on a phone."""

    def __init__(self, **kwargs: float) -> None:
        self.kwargs = kwargs

    def gradient(self, phone: int, name: str, g: torch.Tensor, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return g

    def beside(self, model: nn.Module, inputs: torch.Tensor, phone: int, x: Weights) -> torch.Tensor:
        """What stands beside the loss of a phone's batch."""
        return torch.zeros((), requires_grad=True)

    def finished(self, phones: Mapping[int, Weights], x: Weights, k_lr: KLr, p: Mapping[int, float]) -> None:
        """The phones that finished a round: their weights, their steps times the rate, and how they weigh of all."""

    def server(self, name: str, x: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
        return mean


class FedProx(FedAvg):
    """Li et al. 2020: a phone minimises F_k(w) + mu / 2 |w - w^t|^2."""

    def gradient(self, phone: int, name: str, g: torch.Tensor, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        w = y.detach().clone().requires_grad_()
        (self.kwargs["mu"] / 2 * (w - x).square().sum()).backward()
        assert w.grad is not None
        return g + w.grad


class Scaffold(FedAvg):
    """Karimireddy et al. 2020, algorithm 1, option II."""

    def __init__(self, **kwargs: float) -> None:
        super().__init__(**kwargs)
        self.c: dict[str, Any] = defaultdict(float)
        self.c_i: dict[tuple[int, str], Any] = defaultdict(float)

    def gradient(self, phone: int, name: str, g: torch.Tensor, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return g - self.c_i[phone, name] + self.c[name]

    def finished(self, phones: Mapping[int, Weights], x: Weights, k_lr: KLr, p: Mapping[int, float]) -> None:
        for name in x:
            change: Any = 0.0
            for phone, y in phones.items():
                c_plus = self.c_i[phone, name] - self.c[name] + (x[name] - y[name]) / k_lr(phone, name)
                change = change + p[phone] * (c_plus - self.c_i[phone, name])
                self.c_i[phone, name] = c_plus
            self.c[name] = self.c[name] + change


class FedDyn(FedAvg):
    """Acar et al. 2021, algorithm 1."""

    def __init__(self, **kwargs: float) -> None:
        super().__init__(**kwargs)
        self.h: dict[str, Any] = defaultdict(float)
        self.g_k: dict[tuple[int, str], Any] = defaultdict(float)

    def gradient(self, phone: int, name: str, g: torch.Tensor, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return g - self.g_k[phone, name] + self.kwargs["alpha"] * (y - x)

    def finished(self, phones: Mapping[int, Weights], x: Weights, k_lr: KLr, p: Mapping[int, float]) -> None:
        alpha = self.kwargs["alpha"]
        for name in x:
            for phone, y in phones.items():
                self.g_k[phone, name] = self.g_k[phone, name] - alpha * (y[name] - x[name])
            self.h[name] = self.h[name] - alpha * sum(p[k] * (y[name] - x[name]) for k, y in phones.items())

    def server(self, name: str, x: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
        return mean - self.h[name] / self.kwargs["alpha"]


class Moon(FedAvg):
    """Li et al. 2021, algorithm 1; R_w is all but the output layer. Without a previous local model, the global one."""

    def __init__(self, **kwargs: float) -> None:
        super().__init__(**kwargs)
        self.previous: dict[int, Weights] = {}

    def beside(self, model: nn.Module, inputs: torch.Tensor, phone: int, x: Weights) -> torch.Tensor:
        z = _representation(model, inputs)
        similar = []
        for weights in (x, self.previous.get(phone, x)):
            other = copy.deepcopy(model).eval()
            other.load_state_dict({**other.state_dict(), **weights})
            with torch.no_grad():
                still = _representation(other, inputs)
            similar.append((z * still).sum(1) / (z.norm(dim=1) * still.norm(dim=1)) / self.kwargs["temperature"])
        positive, negative = similar
        return self.kwargs["mu"] * -torch.log(positive.exp() / (positive.exp() + negative.exp())).mean()

    def finished(
        self, phones: Mapping[int, Weights], x: Weights, steps: Mapping[int, int], p: Mapping[int, float]
    ) -> None:
        self.previous |= {phone: dict(y) for phone, y in phones.items()}


def _representation(model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = model.b(model.a(inputs.double()))
    return found


class FedAvgM(FedAvg):
    """Hsu et al. 2019: v = beta v + dw, w = w - v, where dw is what the phones' mean went down by."""

    def __init__(self, **kwargs: float) -> None:
        super().__init__(**kwargs)
        self.v: dict[str, Any] = defaultdict(float)

    def server(self, name: str, x: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
        self.v[name] = self.kwargs["momentum"] * self.v[name] + (x - mean)
        return x - self.kwargs["lr"] * self.v[name]


class Adaptive(FedAvg):
    """Reddi et al. 2021, algorithm 2, with v from tau^2."""

    def __init__(self, second: str, **kwargs: float) -> None:
        super().__init__(**kwargs)
        self.second = second
        self.m: dict[str, Any] = defaultdict(float)
        self.v: dict[str, Any] = defaultdict(lambda: kwargs["tau"] ** 2)

    def server(self, name: str, x: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
        delta, k = mean - x, self.kwargs
        beta_2, v = k.get("beta_2", 0.0), self.v[name]
        self.m[name] = k["beta_1"] * self.m[name] + (1 - k["beta_1"]) * delta
        self.v[name] = {
            "fedadagrad": v + delta**2,
            "fedyogi": v - (1 - beta_2) * delta**2 * torch.sign(v - delta**2),
            "fedadam": beta_2 * v + (1 - beta_2) * delta**2,
        }[self.second]
        return x + k["lr"] * self.m[name] / (self.v[name].sqrt() + k["tau"])


def trained(settings: rs.Config, method: FedAvg, rate: Rate | None = None, clip: float | None = None) -> Weights:
    """The weights that a method leaves, on the stream of a run; of V3's A and C what the model began with.

    `clip`: the norm that a step's gradient of all segments has at most, of V1 and fedavg.
    """
    rates: Rate = rate or (lambda key, round: settings.optimizer.lr)
    run, name = Training(settings), settings.schedule.name
    everybody = settings.with_values(phones={"per_round": None, "dropout": 0.0}, run={"rounds": 1})
    n = _sizes(list(rs.stream(everybody)))
    p, averaged = {phone: own / sum(n.values()) for phone, own in n.items()}, CORRECTED[name]
    personal: dict[int, Weights] = {}
    x = _weights(run.model)
    for number, draws in enumerate(run.rounds.values()):
        finishing = sorted({draw.phone for draw in draws if draw.finishes})
        phones = {draw.phone: {**x, **personal.get(draw.phone, {})} for draw in draws}
        shared = {key: x[key] for key in x if key[0] == "b" and "b" not in averaged}
        for together in _in_order(draws, name):
            lr = {key: rates(key, number) for key in x}
            joint = [_step(run, method, draw, phones, shared, x, averaged, lr, clip) for draw in together]
            total = sum(len(draw.indices) for draw in together)
            for key in shared:
                gradient = sum(g[key] * (len(d.indices) / total) for g, d in zip(joint, together, strict=True))
                shared[key] = shared[key] - lr[key] * gradient
        x = {**x, **shared}
        if not finishing:
            continue
        done = {phone: phones[phone] for phone in finishing}
        if name == "splitfed_v3":
            personal |= {phone: {k: w for k, w in own.items() if k[0] != "b"} for phone, own in done.items()}
        start = {key: w for key, w in x.items() if key[0] in averaged}
        k = settings.data.accumulate
        steps = {phone: math.ceil(sum(draw.phone == phone for draw in draws) / k) for phone in finishing}
        method.finished(done, start, lambda phone, key: steps[phone] * rates(key, number), p)  # noqa: B023  called now
        size = sum(n[phone] for phone in finishing)
        for key, before in start.items():
            mean = sum(n[phone] / size * own[key] for phone, own in done.items())
            assert isinstance(mean, torch.Tensor)
            x[key] = method.server(key, before, mean)
    return x


def _step(
    run: Training, method: FedAvg, draw: rs.Draw, phones: dict[int, Weights], shared: Weights, x: Weights,
    averaged: str, lr: Mapping[str, float], clip: float | None,
) -> Weights:  # fmt: skip
    """A phone's step, of its own weights; returns the gradient of those that are shared.

    Where it takes several batches to make a step, the sum of their gradients waits in `phones`.
    """
    model = copy.deepcopy(run.model)
    own = {**phones[draw.phone], **shared}
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            parameter.copy_(own[key])
    whole = run.backward(model, draw)
    (method.beside(model, torch.from_numpy(run.batches.of(draw)[0]), draw.phone, x) / run.parts(draw)).backward()
    gradients = {key: parameter.grad for key, parameter in model.named_parameters() if parameter.grad is not None}
    waiting = run.waiting.setdefault(draw.phone, {})
    if run.begins(draw):
        waiting.clear()
    for key, gradient in gradients.items():
        waiting[key] = gradients[key] = waiting.get(key, 0.0) + gradient
    right = {
        key: method.gradient(draw.phone, key, gradient, own[key], x[key]) if key[0] in averaged else gradient
        for key, gradient in gradients.items()
        if whole and key not in shared
    }
    norm = float(sum(gradient.square().sum() for gradient in right.values())) ** 0.5
    scale = 1.0 if clip is None else min(1.0, clip / (norm + 1e-6))  # as torch's clip_grad_norm_
    for key, gradient in right.items():
        own[key] = own[key] - lr[key] * scale * gradient
    phones[draw.phone] = own
    return {key: gradients[key] for key in shared}


def _in_order(draws: Sequence[rs.Draw], schedule: str) -> list[list[rs.Draw]]:
    """The steps in their order; those of parallel are all phones' at once."""
    if schedule != "parallel":
        return [[draw] for draw in draws]
    return [[draw for draw in draws if draw.step == step] for step in sorted({draw.step for draw in draws})]


def _sizes(draws: Sequence[rs.Draw]) -> dict[int, int]:
    found: dict[int, set[int]] = defaultdict(set)
    for draw in draws:
        found[draw.phone].update(np.asarray(draw.indices).tolist())
    return {phone: len(own) for phone, own in found.items()}


def _weights(model: nn.Module) -> Weights:
    return {key: parameter.detach().clone() for key, parameter in model.named_parameters()}
