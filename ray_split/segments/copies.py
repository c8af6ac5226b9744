"""The copies of a segment that a cohort's phones train: what a client and a server ask of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from ray_split.arrays import Array
from ray_split.messages.message import Groups, Wanted
from ray_split.messages.state import State, Terms
from ray_split.messages.turn import Turn
from ray_split.tasks.task import Task


class Learned(NamedTuple):
    """What the last segment tells after its backward: gradients of what arrived, and each phone's figures."""

    gradients: Groups
    losses: Array  # (phones,) each the mean over its batch
    correct: Array  # (phones,)


class Copies(Protocol):
    """A segment's copies for the phones of a cohort. Groups are of the cohort's first phones, in their order."""

    draws: bool  # whether `forward` wants seeds
    chunk: int | None  # phones to compute in one go; of more graphs aren't kept, but computed again by `backward`
    wanted: Wanted  # of which leaves of the last forward's outputs the gradient is

    def load(
        self, state: State, count: int, own: State | None = None, fresh: bool = True, terms: Terms | None = None
    ) -> int:
        """Make `count` copies of a state; what `own` has (count, ...) is each phone's own. Returns the bytes.

        `terms`: what is remembered of them for the algorithm that corrects their gradients, if it remembers anything.
        """

    def tie(self, other: Copies) -> None:
        """Have the phones' copies of C use the weights of these of A that they are tied to, until either is loaded.

        The gradients that C's `learn` finds for them are added up in A's `backward`.
        """

    def forward(self, arrived: Groups, seeds: Sequence[int], differentiable: Wanted = True) -> Groups:
        """The outputs in train mode; keeps the graphs."""

    def backward(self, gradients: Groups, turn: Turn | None = None) -> Groups:
        """Backward with the gradients that arrived: the gradients of what arrived in `forward`.

        `turn` says which phones' gradients are still to be accumulated; without it those of each batch make a step.
        """

    def learn(
        self,
        arrived: Groups,
        labels: Sequence[Array],
        seeds: Sequence[int],
        task: Task,
        differentiable: Wanted = True,
        scales: Array | None = None,
        turn: Turn | None = None,
    ) -> Learned:
        """Forward, each phone's own mean loss, and backward from that times its phone's scale (phones,), if any.

        `turn` as in `backward`: of so many batches as are accumulated each has its part of the loss.
        """

    def step(self, turn: Turn | None = None, norms: Array | None = None) -> None:
        """One step of the optimizers of the phones that were in the last forward, and have nothing to accumulate.

        `turn`: where it stands in the stream, which a learning rate that has a schedule goes by. `norms` (k,): of each
        such phone's gradients, of all segments, where they are clipped by that.
        """

    def gradient_norms(self) -> dict[str, Array]:
        """By parameter the L2 norm (k,) of the gradient of each phone that is to step, of those that have one."""

    def evaluate(self, arrived: Groups) -> list[Any]:
        """The outputs of each group, tensors (k, n, ...), in eval mode and without a graph."""

    def average(self, shares: Array) -> State:
        """The copies' weights and buffers added up, each times its phone's share; of integers the largest.

        Of the phones that have a share: 0 is that of one whose copy doesn't count, whatever is in it.
        Without the weights that aren't trained: a sum of shares of a weight is not the weight, to the last bit.
        """

    def learned(self) -> State:
        """Every copy's weights that are trained, and buffers, (K, ...): what `average` adds up."""

    def states(self) -> State:
        """Every copy's weights and optimizer, (K, ...)."""

    def norms(self) -> Array:
        """The L2 norm (K,) of each copy's weights and BatchNorm statistics; not finite where one of them isn't."""
