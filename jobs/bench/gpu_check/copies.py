"""Rows of what goes between a GPU and the rest of the machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import torch
from torch import nn

from jobs.bench.gpu_check.rows import Measured, Row
from ray_split.messages.message import as_bits, clone
from ray_split.segments.segment import Segment

SIZE = 64 << 20  # bytes


def _seconds(do: Callable[[], object], repeats: int = 20) -> float:
    """The median of it, the GPU's work waited for."""
    times = []
    for _ in range(repeats + 3):
        torch.cuda.synchronize()
        start = time.perf_counter()
        do()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return median(times[3:])


def _rate(back: bool) -> Measured:
    """What we copy, against the same bytes from and to a pinned tensor with nothing around it."""
    device = torch.device("cuda")
    host, pinned = torch.ones(SIZE // 4), torch.ones(SIZE // 4, pin_memory=True)
    there = torch.ones(SIZE // 4, device=device)
    if back:
        plain, ours = _seconds(lambda: pinned.copy_(there)), _seconds(lambda: as_bits(there))
    else:
        plain, ours = _seconds(lambda: there.copy_(pinned)), _seconds(lambda: clone(host, device))
    share = plain / ours
    return Measured(f"{share:.2f} of {SIZE / plain / 1e9:.1f} GB/s", share >= 0.7)


def _bytes_over() -> Measured:
    """Of an exchange: what torch's profiler says was copied, and what crosses."""
    from torch.profiler import ProfilerActivity, profile

    import ray_split as rs

    segment = Segment(nn.Linear(1000, 500), rs.config.Optimizer(lr=0.1), "cuda")
    arrived, gradient = (torch.ones(256, size).numpy() for size in (1000, 500))
    as_bits(segment.forward(arrived, 0))
    segment.backward(gradient)
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as found:
        as_bits(segment.forward(arrived, 0))
        segment.backward(gradient)
        torch.cuda.synchronize()
    crossing = 2 * (arrived.nbytes + gradient.nbytes)
    copied = sum(_copied(event) for event in found.profiler.kineto_results.events())
    return Measured(f"{copied:,} of {crossing:,} bytes", abs(copied - crossing) <= 0.01 * crossing)


def _copied(event: object) -> int:
    name = str(getattr(event, "name", str)())
    between = "Memcpy HtoD" in name or "Memcpy DtoH" in name
    return int(getattr(event, "nbytes", int)()) if between else 0


COPY_ROWS = [
    Row("gpu copies there", "at least 0.7 of the pinned rate", 10, lambda: _rate(back=False)),
    Row("gpu copies back", "at least 0.7 of the pinned rate", 10, lambda: _rate(back=True)),
    Row("gpu bytes of an exchange", "what crosses, within 1 %", 15, _bytes_over),
]
