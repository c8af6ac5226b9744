"""How many phones make a cohort, and which segments are computed stacked: a rule over shapes, never over timing.

The same settings must give the same cohorts on every machine. Stacking saves the cost of each call, but a stack of
large tensors leaves the cache, and a grouped convolution is slower than a plain one: it pays where a phone's tensors
are small. The limits come from docs/performance.md; a row of jobs/bench checks them against measurement.
A base that adapters are trained beside is no phone's own: a stack has it once, and its products are plain ones, of all
phones' samples as one batch.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from ray_split.config.phones import Phones
from ray_split.segments.base_weight import BaseWeight, base_keys
from ray_split.segments.segment_work import forward_seen

LARGEST = 2**17  # elements of one phone's largest tensor, a layer's output for a batch or a weight, that still stacks
CACHED = 2**22  # elements of a cohort's largest tensor
MEMORY = 2**29  # bytes of a cohort's copies and activations, in one process
LANES = 2  # cohorts a round at least, if that leaves them large: one computes while another waits
SMALLEST = 50  # phones that are worth a cohort of their own


class Sizes(NamedTuple):
    """A segment's tensors for one phone's batch, in elements."""

    largest: int
    weights: int  # of the phone's own
    outputs: int  # of all layers
    slots: int = 2  # of the optimizer, each as large as the weights

    @property
    def bytes(self) -> int:
        """Of weights, gradients and slots of the optimizer, and of outputs and their gradients."""
        return 4 * ((2 + self.slots) * self.weights + 2 * self.outputs)


def sizes(module: nn.Module, inputs: object, slots: int = 2) -> tuple[Sizes, object]:
    """The sizes of a segment's tensors, but for its base, and its outputs, for inputs of one batch.

    `slots`: of its optimizer. Beside a base they count as they are, without one as two; and what an adapter's layer
    passes on untouched counts then as nothing.
    """
    outputs: list[int] = []
    adapted = bool(base_keys(module))

    def see(layer: nn.Module, output: object) -> None:
        passed_on = adapted and isinstance(layer, nn.Identity)
        if isinstance(output, torch.Tensor) and not list(layer.children()) and not passed_on:
            outputs.append(output.numel())

    result = forward_seen(module, inputs, see)
    weights = [p.numel() for p in module.parameters() if not isinstance(p, BaseWeight)]
    return Sizes(max([*outputs, *weights, 0]), sum(weights), sum(outputs), slots if adapted else 2), result


def suits(size: Sizes) -> bool:
    """Whether a segment's tensors are small enough for stacking to pay."""
    return size.largest <= LARGEST


def cohort(settings: Phones, segments: dict[str, Sizes], per_round: int, stackable: set[str]) -> Phones:
    """The settings with `cohort` a number and `stacked` a list, given the segments that are to be stacked."""
    number = settings.cohort
    if number == "auto":
        # A stacked C alone is not worth it: A and B are what takes time.
        number = _size(segments, per_round) if stackable & {"a", "b"} else 1
    stacked = [name for name in segments if name in stackable] if number > 1 else []
    return settings.model_copy(update={"cohort": number, "stacked": stacked})


def _size(segments: dict[str, Sizes], per_round: int) -> int:
    largest = max(size.largest for size in segments.values())
    # A and C are in one process.
    each = max(
        sum(size.bytes for name, size in segments.items() if (name == "b") is server) for server in (True, False)
    )
    fits = max(1, min(CACHED // largest, MEMORY // max(each, 1)))
    lanes = -(-per_round // max(1, min(LANES, per_round // SMALLEST)))
    return min(fits, lanes)
