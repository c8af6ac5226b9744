"""100 steps of two nets, unsplit, with torch: the losses that the exchanges of the tests must have too."""

from __future__ import annotations

from typing import Any

import torch
from described import described
from sklearn.datasets import load_digits
from torch import nn

Json = dict[str, Any]
STEPS = 100


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    found = load_digits()
    order = torch.randperm(len(found.target), generator=torch.Generator().manual_seed(0))
    return torch.tensor(found.images).byte()[order].unsqueeze(1), torch.tensor(found.target)[order]


def series() -> tuple[torch.Tensor, torch.Tensor]:
    """Waves of four kinds, six channels, with noise."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(4, (400,), generator=generator)
    shifts = torch.rand(400, 6, 1, generator=generator) * 6.28
    waves = torch.sin(torch.arange(64) * (labels + 1).view(-1, 1, 1) * 0.15 + shifts)
    return waves + 0.5 * torch.randn(400, 6, 64, generator=generator), labels


def digits_net() -> dict[str, nn.Sequential]:
    return {
        "a": nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU()),
        "b": nn.Sequential(nn.Flatten(), nn.Linear(16 * 64, 64), nn.ReLU()),
        "c": nn.Sequential(nn.Linear(64, 10)),
    }


def series_net() -> dict[str, nn.Sequential]:
    return {
        "a": nn.Sequential(nn.Conv1d(6, 32, 5, padding=2), nn.ReLU(), nn.MaxPool1d(2)),
        "b": nn.Sequential(nn.Conv1d(32, 32, 5, padding=2), nn.BatchNorm1d(32), nn.ReLU()),
        "c": nn.Sequential(nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(32, 4)),
    }


SGD: Json = {"name": "sgd", "momentum": 0.9, "dampening": 0.0, "nesterov": False, "weight_decay": 0.0}
ADAM: Json = {"name": "adam", "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.0, "amsgrad": False}
CASES: dict[str, Json] = {
    "digits": {"data": digits, "net": digits_net, "scale": 0.0625, "optimizer": SGD, "lr": 0.1, "batch": 64},
    "series": {"data": series, "net": series_net, "scale": 1.0, "optimizer": ADAM, "lr": 0.003, "batch": 32},
}


def optimizer_of(settings: Json, parameters: Any) -> torch.optim.Optimizer:
    fields = {name: value for name, value in settings.items() if name != "name"}
    return {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[settings["name"]](parameters, lr=1.0, **fields)


def batches(samples: int, size: int) -> list[list[int]]:
    """Each pass over the samples in an order of its own; whole batches."""
    generator, found = torch.Generator().manual_seed(5), []
    while len(found) < STEPS:
        order = torch.randperm(samples, generator=generator).tolist()
        found += [order[start : start + size] for start in range(0, samples - size + 1, size)]
    return found[:STEPS]


def accuracy(net: nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> float:
    with torch.no_grad():
        return (net.eval()(inputs).argmax(1) == labels).double().mean().item()


def trained(net: nn.Sequential, case: Json, inputs: torch.Tensor, labels: torch.Tensor, plan: Any) -> list[float]:
    optimizer = optimizer_of({**case["optimizer"]}, net.parameters())
    losses = []
    for batch in plan:
        optimizer.param_groups[0]["lr"] = case["lr"]
        loss = nn.functional.cross_entropy(net.train()(inputs[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def start(case: Json) -> dict[str, nn.Sequential]:
    torch.manual_seed(6)
    return case["net"]()


def exchange(case: Json) -> Json:
    """The last fifth of the samples is held out."""
    raw, labels = case["data"]()
    inputs = raw.float() * case["scale"]
    held = len(labels) // 5
    train = len(labels) - held
    parts, plan = start(case), batches(train, case["batch"])
    found = {
        "parts": {name: {"segment": described(part), "weights": _tensors(part)} for name, part in parts.items()},
        "kind": "U8" if raw.dtype == torch.uint8 else "F32",
        "inputs": {"shape": list(raw.shape), "data": raw.flatten().tolist()},
        "labels": labels.tolist(),
        "train": train,
        "batches": plan,
        **{name: case[name] for name in ("scale", "optimizer", "lr")},
    }
    net = nn.Sequential(*parts.values())
    found["losses"] = trained(net, case, inputs, labels, plan)
    found["accuracy"] = accuracy(net, inputs[train:], labels[train:])
    return found


def _tensors(part: nn.Module) -> Json:
    """Copies: training changes the weights in place."""
    return {
        name: {"shape": list(tensor.shape), "data": tensor.double().flatten().tolist()}
        for name, tensor in part.state_dict().items()
    }


def exchanges() -> dict[str, Json]:
    return {f"exchange_{name}": exchange(case) for name, case in CASES.items()}


if __name__ == "__main__":
    for name, found in exchanges().items():
        print(name, found["losses"][0], found["losses"][-1], found["accuracy"])
