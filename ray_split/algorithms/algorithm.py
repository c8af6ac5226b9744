"""What an algorithm is: how a phone's gradients are corrected, and what of this outlasts a round.

Its function is (gradients, weights, start, **kwargs): dicts of a segment's tensors by parameter name, of one phone, of
the weights that a backward gave a gradient. `start` are the weights at the round's start. It returns the gradients to
step with, and changes nothing in place. It is called before every step, of every segment whose copies are averaged at
the round's end: what isn't averaged has nothing to drift from.

One that remembers is (gradients, weights, start, own, shared, **kwargs): `own` is what the phone remembers of its
rounds before, `shared` what the fed server does of all phones', by parameter name too, both zero at first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from ray_split.algorithms.server_optimizer import Step
from ray_split.arrays import Array

Tensors = dict[str, Any]
"""A segment's tensors by parameter name. Not of torch here: the fed server's process has none."""


@dataclass(frozen=True)
class Algorithm:
    """What corrects the gradients of phones' copies. A bare function of the user's gets the defaults."""

    correct: Callable[..., Tensors] | None
    """A function (gradients, weights, start, **kwargs), or with `remember` one that gets own and shared too. None:
    gradients stay as they are."""
    elementwise: bool = False
    """`correct` takes several phones' tensors at once, (K, ...) where `start` and `shared` are (...). Else phones'
    copies are not stacked, but trained one after the other."""
    remember: Callable[..., Array] | None = None
    """What phones remember of their round, of one array of weights: a numpy function (own, shared, start, weights,
    length, **kwargs), of own and weights (K, ...), and length (K, 1...), a phone's steps times the learning rate."""
    shares: bool = False
    """What phones remember is averaged, as `shared`: it crosses, beside the weights."""
    follow: Callable[..., Step] | None = None
    """How the weights follow a round's average, as ServerOptimizer.step does: (change, memory, part, **kwargs), where
    `part` is the share that the phones that finished have of all phones' samples."""
    optimizer: Literal["any", "sgd"] = "any"
    """sgd: without momentum, for `length` is taken for how far the gradients carried a phone."""
    contrast: Callable[..., Any] | None = None
    """What stands beside a phone's loss, of the representations of a batch that its model, that of the round's start
    and its own of before make: (z, of_start, of_before, **kwargs), tensors (K, n, D), to one for each phone (K,). What
    phones remember is then their model, all of it but the last segment."""
    off: str | None = None
    """The number in kwargs with which, at 0, nothing is corrected, remembered or followed."""
