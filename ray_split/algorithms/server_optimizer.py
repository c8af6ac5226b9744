"""What a server optimizer is: a round's average is no longer the next weights, but says which way to step.

Its function is (change, memory, lr, **kwargs), of one array of weights (...): `change` is the round's average minus the
weights before it, in double precision; `memory` what it remembered of this array, by name, empty at first. It returns
what is added to the weights, and what is remembered from now on. Of complex weights it gets the two parts (..., 2).
numpy alone: the fed server's process has no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ray_split.arrays import Array

Memory = dict[str, Array]
"""What is remembered of one array of weights, by name: arrays of its shape."""

Step = tuple[Array, Memory]
"""What is added to the weights, and what is remembered from now on."""


@dataclass(frozen=True)
class ServerOptimizer:
    """How the weights follow a round's average."""

    step: Callable[..., Step]
    """A function (change, memory, lr, **kwargs): see above."""
    lr: float = 1.0
    """Its learning rate, where the settings have none."""
