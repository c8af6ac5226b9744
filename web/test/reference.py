"""What torch computes, as JSON files in a folder: the tests compare the page's own numbers with them."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from described import described  # noqa: E402
from exchanges import exchanges  # noqa: E402

Json = dict[str, Any]


def plain(tensor: torch.Tensor) -> Json:
    return {"shape": list(tensor.shape), "data": tensor.detach().double().flatten().tolist()}


def tensors(module: nn.Module) -> Json:
    return {name: plain(tensor) for name, tensor in module.state_dict().items()}


def images(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.two(self.one(x))


def layers() -> dict[str, tuple[nn.Module, torch.Tensor]]:
    """At least one of each kind of layer, with settings that are easily got wrong."""
    image, series, rows = images(4, 6, 9, 7), images(4, 6, 11), images(5, 6)
    ids = torch.tensor([[0, 1, 2, 1], [3, 2, 0, 0], [5, 5, 1, 2]])
    small = images(3, 3, 5, 5)
    return {
        "linear": (nn.Linear(6, 4), rows),
        "linear of rows of rows": (nn.Linear(11, 4, bias=False), series),
        "conv1d": (nn.Conv1d(6, 4, 5, padding=2), series),
        "conv1d with stride, dilation, groups": (nn.Conv1d(6, 4, 3, 2, 3, dilation=2, groups=2), series),
        "conv2d": (nn.Conv2d(6, 5, 3, padding=1), image),
        "conv2d with uneven settings": (nn.Conv2d(6, 5, (3, 2), (2, 1), (1, 2), bias=False), image),
        "conv2d with stride": (nn.Conv2d(6, 5, 3, 2, 1), image),
        "conv2d with dilation": (nn.Conv2d(6, 5, (3, 2), padding=2, dilation=(2, 3)), image),
        "conv2d with groups": (nn.Conv2d(6, 12, 3, 2, 1, groups=3), image),
        "conv2d, depthwise": (nn.Conv2d(6, 6, 3, 1, 1, groups=6), image),
        "relu": (nn.ReLU(), image),
        "sigmoid": (nn.Sigmoid(), image),
        "tanh": (nn.Tanh(), image),
        "gelu": (nn.GELU(), image),
        "gelu, tanh": (nn.GELU(approximate="tanh"), image),
        "max_pool1d": (nn.MaxPool1d(3, 2, 1, ceil_mode=True), series),
        "max_pool2d": (nn.MaxPool2d(2), image),
        "max_pool2d, overlapping": (nn.MaxPool2d(3, 2, 1), image),
        "max_pool2d, ceil": (nn.MaxPool2d((3, 2), (2, 3), (1, 0), ceil_mode=True), image),
        "avg_pool1d": (nn.AvgPool1d(3, 2, 1), series),
        "avg_pool2d": (nn.AvgPool2d(2), image),
        "avg_pool2d, padding counted": (nn.AvgPool2d(3, 2, 1, ceil_mode=True), image),
        "avg_pool2d, padding not counted": (nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False), image),
        "avg_pool2d, uneven": (nn.AvgPool2d((2, 3), (1, 2), (1, 0), count_include_pad=False), image),
        "adaptive_avg_pool1d": (nn.AdaptiveAvgPool1d(4), series),
        "adaptive_avg_pool2d": (nn.AdaptiveAvgPool2d((4, 3)), image),
        "adaptive_avg_pool2d to one": (nn.AdaptiveAvgPool2d(1), image),
        "adaptive_avg_pool2d, larger": (nn.AdaptiveAvgPool2d((None, 10)), image),
        "batch_norm of images": (nn.BatchNorm2d(6), image),
        "batch_norm of series": (nn.BatchNorm1d(6, momentum=0.3, eps=1e-3), series),
        "batch_norm of rows": (nn.BatchNorm1d(6, momentum=None), rows),
        "batch_norm without weights": (nn.BatchNorm2d(6, affine=False), image),
        "batch_norm without statistics": (nn.BatchNorm2d(6, track_running_stats=False), image),
        "layer_norm": (nn.LayerNorm([9, 7]), image),
        "layer_norm without weights": (nn.LayerNorm(6, elementwise_affine=False), rows),
        "flatten": (nn.Flatten(), image),
        "flatten in the middle": (nn.Flatten(1, -2), image),
        "dropout of nothing": (nn.Dropout(0.0), image),
        "embedding": (nn.Embedding(6, 3), ids),
        "embedding with padding": (nn.Embedding(6, 3, padding_idx=0), ids),
        "add": (Residual(), small),
    }


def scrambled(module: nn.Module) -> nn.Module:
    """Weights and statistics that are neither 0 nor 1; float32 numbers, computed with as float64."""
    generator = torch.Generator().manual_seed(2)
    for parameter in module.parameters():
        parameter.data.normal_(generator=generator)
    for name, buffer in module.named_buffers():
        if buffer.is_floating_point():
            buffer.normal_(generator=generator)
        if name.endswith("running_var"):
            buffer.abs_().add_(0.5)
    return module.double()


def layer_case(module: nn.Module, x: torch.Tensor) -> Json:
    """In training mode: output, gradients, buffers afterwards. And the output in eval mode, before that."""
    module = scrambled(module)
    segment, before = described(module), tensors(module)
    x = x.double().requires_grad_() if x.is_floating_point() else x
    evaluated = copy.deepcopy(module).eval()(x)
    y = module.train()(x)
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(3)).double()
    y.backward(dy)
    return {
        "segment": segment,
        "weights": before,
        "x": plain(x),
        "y": plain(y),
        "evaluated": plain(evaluated),
        "dy": plain(dy),
        "dx": plain(x.grad) if x.grad is not None else None,
        "gradients": {name: plain(parameter.grad) for name, parameter in module.named_parameters()},
        "after": tensors(module),
    }


Optimizer = Callable[[list[torch.Tensor]], torch.optim.Optimizer]


def optimizers() -> dict[str, tuple[Json, Optimizer]]:
    def sgd(**fields: Any) -> tuple[Json, Optimizer]:
        settings = {"momentum": 0.0, "dampening": 0.0, "nesterov": False, "weight_decay": 0.0, **fields}
        return {"name": "sgd", **settings}, lambda weights: torch.optim.SGD(weights, lr=1.0, **settings)

    def adam(kind: str, **fields: Any) -> tuple[Json, Optimizer]:
        settings = {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0, "amsgrad": False, **fields}
        cls = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[kind]
        return {"name": kind, **settings}, lambda weights: cls(weights, lr=1.0, **settings)

    return {
        "sgd": sgd(),
        "sgd with momentum": sgd(momentum=0.9),
        "sgd with decay and dampening": sgd(momentum=0.9, dampening=0.3, weight_decay=0.1),
        "sgd with nesterov": sgd(momentum=0.8, nesterov=True, weight_decay=0.01),
        "adam": adam("adam"),
        "adam with decay": adam("adam", betas=(0.8, 0.9), eps=1e-4, weight_decay=0.1),
        "adamw": adam("adamw", weight_decay=0.1),
    }


def optimizer_case(settings: Json, make: Optimizer) -> Json:
    generator = torch.Generator().manual_seed(4)
    weight = torch.randn(3, 4, generator=generator).double().requires_grad_()
    optimizer, start, steps = make([weight]), plain(weight), []
    for number in range(10):
        weight.grad = torch.randn(3, 4, generator=generator).double()
        rate = 0.1 / (number + 1)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        steps.append({"gradient": plain(weight.grad), "lr": rate, "after": plain(weight)})
    slots = {name: plain(slot) for name, slot in optimizer.state[weight].items() if slot is not None}
    return {"settings": settings, "start": start, "steps": steps, "slots": slots}


def loss_cases() -> list[Json]:
    scores, labels = images(7, 5).double() * 3, torch.tensor([0, 4, 2, 2, 1, 3, 0])
    cases = []
    for smoothing in (0.0, 0.1):
        x = scores.clone().requires_grad_()
        loss = nn.functional.cross_entropy(x, labels, label_smoothing=smoothing)
        loss.backward()
        correct = int((scores.argmax(1) == labels).sum())
        found = {"scores": plain(scores), "labels": labels.tolist(), "smoothing": smoothing, "correct": correct}
        cases.append({**found, "loss": loss.item(), "gradient": plain(x.grad)})
    return cases


def main(folder: Path) -> None:
    def write(name: str, found: object) -> None:
        (folder / f"{name}.json").write_text(json.dumps(found))

    torch.manual_seed(0)
    write("layers", {name: layer_case(module, x) for name, (module, x) in layers().items()})
    write("optimizers", {name: optimizer_case(*pair) for name, pair in optimizers().items()})
    write("losses", loss_cases())
    for name, found in exchanges().items():
        write(name, found)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
