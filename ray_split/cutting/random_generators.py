"""The generators of random numbers that a forward may draw from: whether it did, and where."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch

TORCH, NUMPY, PYTHON = "torch", "numpy", "Python's random"


class Generators:
    """The states of torch's, numpy's and Python's generators as they were when this was made."""

    def __init__(self) -> None:
        self._torch = torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
        self._numpy: Any = np.random.get_state()
        self._python = random.getstate()

    def moved(self) -> str:
        """Whose numbers have been drawn since, or nothing."""
        cuda = torch.cuda.get_rng_state_all() if self._cuda else []
        same = torch.equal(self._torch, torch.get_rng_state())
        if not same or not all(torch.equal(a, b) for a, b in zip(self._cuda, cuda, strict=True)):
            return TORCH
        return self.moved_unseeded()

    def moved_unseeded(self) -> str:
        """As `moved`, of those that a run doesn't seed."""
        now: Any = np.random.get_state()
        if self._numpy[2] != now[2] or not np.array_equal(self._numpy[1], now[1]):
            return NUMPY
        return "" if self._python == random.getstate() else PYTHON

    def restore(self) -> None:
        """Put all of them back."""
        torch.set_rng_state(self._torch)
        if self._cuda:
            torch.cuda.set_rng_state_all(self._cuda)
        np.random.set_state(self._numpy)
        random.setstate(self._python)


def seed_everywhere(seed: int) -> None:
    """As torch.manual_seed.

    Where there is no accelerator, that would write down for each kind of one who called it, for a driver that is never
    started: a millisecond each time, in a model's start some fifteen times.
    """
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


def drawing_line(run: Callable[[], Any]) -> str:
    """The line of somebody's code at which `run` first draws random numbers, with its file; or nothing."""
    before, found = Generators(), list[str]()
    libraries = tuple(str(Path(module.__file__ or "").parent) for module in (torch, np, random))

    def watch(frame: FrameType, event: str, _: Any) -> None:
        if event not in ("c_return", "return") or found or not before.moved():
            return
        caller: FrameType | None = frame if event == "c_return" else frame.f_back
        while caller is not None and _is_library(caller.f_code.co_filename, libraries):
            caller = caller.f_back
        found.append(f"{Path(caller.f_code.co_filename).name}:{caller.f_lineno}" if caller else "")

    sys.setprofile(watch)
    try:
        run()
    finally:
        sys.setprofile(None)
        before.restore()
    return found[0] if found else ""


def _is_library(filename: str, libraries: tuple[str, ...]) -> bool:
    torch_or_numpy = filename.startswith(libraries[:2])
    return torch_or_numpy or filename in (random.__file__, __file__)
