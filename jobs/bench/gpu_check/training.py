"""Rows of whole runs with B on a GPU."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn

from jobs.bench.gpu_check.rows import Measured, MissingError, Row, Sections, trained

DIGITS: Sections = {"phones": {"count": 8}, "run": {"rounds": 3, "seed": 1}}
SMALL: Sections = {
    "data": {"name": "synthetic", "kwargs": {"samples": 4000, "shape": [1, 8, 8]}},
    "phones": {"count": 100, "local_steps": 4, "cohort": 100},
    "run": {"rounds": 4},
    "schedule": {"name": "splitfed_v1"},
}


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingError(f"{name} is not installed here") from error


def _unsplit(model: nn.Module, shape: tuple[int, ...], batch: int, steps: int, half: bool) -> float:
    """Samples a second of the untouched model in the plain loop."""
    model = model.to("cuda").train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    inputs, labels = torch.randn(batch, *shape), torch.randint(0, 10, (batch,))
    start = 0.0
    for step in range(steps + 3):
        if step == 3:
            torch.cuda.synchronize()
            start = time.perf_counter()
        optimizer.zero_grad()
        with torch.autocast("cuda", torch.bfloat16) if half else nullcontext():
            loss = nn.functional.cross_entropy(model(inputs.cuda()), labels.cuda())
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    torch.cuda.synchronize()
    return batch * steps / (time.perf_counter() - start)


def _resnet(dtype: str) -> Measured:
    """Double split, all on one card, against the untouched model there."""
    torchvision = _library("torchvision")
    batch, steps = 64, 20
    settings: Sections = {
        "model": {"name": "resnet50", "cuts": ["maxpool", "avgpool"], "num_classes": 10},
        "data": {
            "name": "fake_images", "batch_size": batch,
            "kwargs": {"samples": 2048, "shape": [3, 224, 224]}, "val_fraction": 0.05,
        },
        "phones": {"count": 1, "local_steps": steps, "dtype": dtype},
        "server": {"dtype": dtype},
        "optimizer": {"lr": 0.01, "momentum": 0.9},
        "run": {"rounds": 3},
    }  # fmt: skip
    split = trained(settings, client_gpus=1).samples_per_second
    plain = _unsplit(torchvision.models.resnet50(num_classes=10), (3, 224, 224), batch, steps, dtype == "bfloat16")
    return Measured(f"{split / plain:.3f} ({split:.0f} of {plain:.0f} samples/s)", split / plain >= 0.95)


def _busy() -> Measured:
    """Clients on CPUs: the share of a round in which the server computes."""
    _library("torchvision")
    settings: Sections = {
        "model": {"name": "resnet50", "cuts": ["maxpool", "avgpool"], "num_classes": 10},
        "data": {"name": "fake_images", "batch_size": 32, "kwargs": {"samples": 512, "shape": [3, 64, 64]}},
        "phones": {"count": 8, "local_steps": 4},
        "schedule": {"name": "splitfed_v1"},
        "run": {"rounds": 3},
    }
    run = trained(settings, backend="ray")
    shares = [float(row["server_compute_seconds"]) / float(row["round_seconds"]) for row in run.rows[1:]]
    return Measured(f"{max(shares):.2f} with 8 phones", max(shares) >= 0.9)


def _stacked() -> Measured:
    """A hundred phones' copies of B: stacked, against looped."""
    ends = ["a", "c"]
    stacked, looped = (
        min(float(row["server_compute_seconds"]) for row in trained(_with_stacked(own)).rows[1:])
        for own in ([*ends, "b"], ends)
    )
    return Measured(f"{looped / stacked:.1f} times ({1000 * stacked:.0f} ms a round)", looped / stacked >= 20)


def _with_stacked(segments: list[str]) -> Sections:
    return {**SMALL, "phones": {**SMALL["phones"], "stacked": segments}}


def _parallel() -> Measured:
    """B's joint step on the batches of a hundred phones, against the same samples as one phone's batch."""
    many: Sections = {**SMALL, "schedule": {"name": "parallel"}}
    one: Sections = {
        **many, "phones": {"count": 1, "local_steps": 4}, "data": {**SMALL["data"], "batch_size": 1600},
    }  # fmt: skip
    each = [min(float(row["server_compute_seconds"]) for row in trained(given).rows[1:]) for given in (many, one)]
    return Measured(f"{each[0] / each[1]:.2f} times", each[0] / each[1] <= 1.2)


def _same_bits(schedule: str) -> Measured:
    """The Ray actor on the card, and the same in one process, twice."""
    settings: Sections = {**DIGITS, "schedule": {"name": schedule}}
    digests = [trained(settings, backend).digest for backend in ("inprocess", "inprocess", "ray")]
    again, on_ray = (("the same" if each == digests[0] else "OTHER") for each in digests[1:])
    return Measured(f"again {again} bytes, on Ray {on_ray}", len(set(digests)) == 1)


def _as_on_cpu() -> Measured:
    """Losses of fifty rounds of one step each."""
    settings: Sections = {"phones": {"count": 4, "local_steps": 1}, "run": {"rounds": 50, "seed": 1}}
    card, cpu = (trained(settings, gpus=gpus).losses for gpus in (1, 0))
    off = max(abs(a - b) / abs(b) for a, b in zip(card, cpu, strict=True))
    return Measured(f"off by {off:.1e} at most", off <= 1e-3)


Measure = Callable[[], Measured]


def _same(schedule: str) -> Measure:
    return lambda: _same_bits(schedule)


TRAINING_ROWS = [
    Row("gpu bits, sequential", "Ray and one process the same, twice", 30, _same("sequential")),
    Row("gpu bits, splitfed_v1", "Ray and one process the same, twice", 30, _same("splitfed_v1")),
    Row("gpu losses against a CPU", "within 1e-3 over 50 steps", 15, _as_on_cpu),
    Row("gpu stacked B of 100 phones", "at least 20 times a loop", 40, _stacked),
    Row("gpu parallel of 100 phones", "at most 1.2 times one large batch", 20, _parallel),
    Row("gpu resnet50 float32", "at least 0.95 of unsplit", 60, lambda: _resnet("float32")),
    Row("gpu resnet50 bfloat16", "at least 0.95 of unsplit", 60, lambda: _resnet("bfloat16")),
    Row("gpu busy with clients on CPUs", "at least 0.9 of a round", 80, _busy),
]
