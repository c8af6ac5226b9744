"""Every random draw of a run, as a pure function of (run seed, purpose, round, phone, step, segment).

No generator ever runs on from one draw to the next, so who computes a draw, where, and after which crash
makes no difference to its value.
"""

from __future__ import annotations

import functools

import numpy as np

from ray_split.arrays import Array

# Numbers, not hash(): the same in every process and for good. Add at the end, never reorder.
PURPOSES = {
    "model": 1,
    "partition": 2,
    "phones": 3,
    "batches": 4,
    "forward": 5,
    "test_part": 6,
    "val_part": 7,
    "order": 8,
    "synthetic": 9,
    "augment": 10,
    "fake_images": 11,
    "taskset": 12,
    "hostile": 13,
    "devices": 14,
    "links": 15,
    "messages": 16,
    "availability": 17,
    "dropout": 18,
    "mixup": 19,
    "adapters": 20,
    "length_groups": 21,
    "ranks": 22,
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
    block, place = _place(step, segment)
    return int(_block(seed, round, phone, block)[place])


def forward_seeds(seed: int, round: int, phones: Array, step: int, segment: str) -> list[int]:
    """`forward_seed` of many phones at once."""
    block, place = _place(step, segment)
    found: list[int] = words([seed, PURPOSES["forward"], round, phones, block], np.array([place]))[:, 0].tolist()
    return found


BLOCK = 64  # steps


def _place(step: int, segment: str) -> tuple[int, int]:
    return divmod(3 * step + SEGMENTS[segment], 3 * BLOCK)


@functools.lru_cache(maxsize=64)
def _block(seed: int, round: int, phone: int, block: int) -> Array:
    return sequence(seed, "forward", round, phone, block).generate_state(3 * BLOCK, np.uint64)


# numpy.random.SeedSequence for thousands of phones at once, in numpy's own arithmetic (O'Neill 2015, seed_seq):
# one by one, a round of 1,000 phones spent 50 ms on it, more than on its training. A test holds them equal.

_INIT_A, _MULT_A = 0x43B0D7E5, 0x931E8875
_INIT_B, _MULT_B = 0x8B51F9DD, 0x58F38DED
_MIX_LEFT, _MIX_RIGHT = np.uint32(0xCA01F9DD), np.uint32(0x4973F715)
_MASK, _HALF, _POOL = 0xFFFFFFFF, np.uint32(16), 4


def words(entropy: list[int | Array], places: Array) -> Array:
    """The 64-bit words at `places` of SeedSequence(entropy)'s state, for each element of the arrays in it.

    Entropy: numbers, and arrays (K,) of numbers below 2**32. Result (K, len(places)).
    """
    pool = _pool(_columns(entropy))
    at = np.stack([2 * places, 2 * places + 1], axis=-1).reshape(-1)
    factors = _powers(_INIT_B, _MULT_B, int(at.max()) + 2)
    mixed = (pool[:, at % _POOL] ^ factors[at]) * factors[at + 1]
    mixed ^= mixed >> _HALF
    low, high = mixed[:, 0::2].astype(np.uint64), mixed[:, 1::2].astype(np.uint64)
    joined: Array = low | (high << np.uint64(32))
    return joined


def _columns(entropy: list[int | Array]) -> list[Array]:
    """Entropy as columns of 32-bit words, as SeedSequence takes numbers apart."""
    columns: list[Array] = []
    for value in entropy:
        if isinstance(value, np.ndarray):
            columns.append(value.astype(np.uint32))
            continue
        columns.append(np.array([value & _MASK], np.uint32))
        while value := value >> 32:
            columns.append(np.array([value & _MASK], np.uint32))
    return columns


def _pool(columns: list[Array]) -> Array:
    factor = _INIT_A

    def hashed(value: Array) -> Array:
        nonlocal factor
        value = value ^ np.uint32(factor)
        factor = (factor * _MULT_A) & _MASK
        value = value * np.uint32(factor)
        return _folded(value)

    def mixed(x: Array, y: Array) -> Array:
        result: Array = x * _MIX_LEFT - y * _MIX_RIGHT
        return _folded(result)

    zero = np.zeros(1, np.uint32)
    pool = [hashed(columns[i] if i < len(columns) else zero) for i in range(_POOL)]
    for source in range(_POOL):
        for target in range(_POOL):
            if source != target:
                pool[target] = mixed(pool[target], hashed(pool[source]))
    for column in columns[_POOL:]:
        for target in range(_POOL):
            pool[target] = mixed(pool[target], hashed(column))
    return np.stack(np.broadcast_arrays(*pool), axis=-1)


def _folded(value: Array) -> Array:
    folded: Array = value ^ (value >> _HALF)
    return folded


@functools.lru_cache(maxsize=8)
def _powers(first: int, factor: int, count: int) -> Array:
    """first * factor**i, modulo 2**32."""
    powers, value = np.empty(count, np.uint32), first
    for i in range(count):
        powers[i] = value
        value = (value * factor) & _MASK
    return powers


def uniform(seed: int, purpose: str, *at: int | Array, count: int = 1) -> Array:
    """Draws in [0, 1) (K, count) for each element of the arrays in `at`."""
    found = words([seed, PURPOSES[purpose], *at], np.arange(count))
    return (found >> np.uint64(11)) * 2.0**-53
