"""Every random draw of a run, as a pure function of (run seed, purpose, round, phone, step, segment).

No generator ever runs on from one draw to the next, so who computes a draw, where, and after which crash
makes no difference to its value.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

# Numbers, not hash(): the same in every process and for good. Add at the end, never reorder.
PURPOSES = {
    "model": 1,
    "partition": 2,
    "phones": 3,
    "batches": 4,
    "forward": 5,
    "test_part": 6,
    "val_part": 7,
}
SEGMENTS = {"a": 0, "b": 1, "c": 2}


def sequence(seed: int, purpose: str, *at: int) -> np.random.SeedSequence:
    """The seed sequence of one draw; `at` is (round, phone, step, segment) or a prefix of it."""
    return np.random.SeedSequence([seed, PURPOSES[purpose], *at])


def generator(seed: int, purpose: str, *at: int) -> np.random.Generator:
    """A fresh numpy generator for one draw."""
    return np.random.default_rng(sequence(seed, purpose, *at))


def torch_seed(seed: int, purpose: str, *at: int) -> int:
    """A 64-bit seed for torch's generator for one draw."""
    return int(sequence(seed, purpose, *at).generate_state(1, np.uint64)[0])


def forward_seed(seed: int, round: int, phone: int, step: int, segment: str) -> int:
    """The seed of a segment's forward: Dropout and whatever else draws from torch's generator.

    Drawn in blocks of 64 steps, the words of (seed, 'forward', round, phone, block): one by one they took a tenth
    of a small exchange's time.
    """
    block, place = divmod(3 * step + SEGMENTS[segment], 3 * BLOCK)
    return int(_block(seed, round, phone, block)[place])


BLOCK = 64  # steps


@functools.lru_cache(maxsize=64)
def _block(seed: int, round: int, phone: int, block: int) -> np.ndarray[Any, Any]:
    return sequence(seed, "forward", round, phone, block).generate_state(3 * BLOCK, np.uint64)
