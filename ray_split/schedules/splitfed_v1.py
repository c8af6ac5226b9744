"""SplitFed V1: all phones at once, each with its own copy of B; then everything is averaged.

Whose weights: in a round each phone trains its own A, B and C, from the same start. At its end the fed server averages
A and C, and the server its copies of B, phone i with n_i of the round's N samples weighing n_i / N.
Optimizer state: all of it is new each round. BatchNorm statistics are averaged like weights (`statistics: local`:
those of A and C stay with their phone; the average, for evaluation, is made all the same); num_batches_tracked is the
maximum. A backward uses the weights of its forward because no two phones share a copy.
Of a phone that does not finish the round nothing is averaged or kept, its copy of B neither.
Replicas of the server each host some of the copies; any number of them gives the same bits (own_copies.py).
Equal within rounding to federated averaging of the unsplit model.
Source: Thapa et al. 2020, https://arxiv.org/abs/2004.12088, algorithms 1 and 2.
"""

from __future__ import annotations

from collections.abc import Generator

from ray_split.data.stream import Stream, Turn
from ray_split.schedules.exchange import STATISTICS
from ray_split.schedules.own_copies import own_copies
from ray_split.schedules.roles import Ref, Roles


def splitfed_v1(
    turn: Turn, stream: Stream, roles: Roles, statistics: str = "average"
) -> Generator[Ref, None, tuple[None, Ref]]:
    """Submit one round; returns the ref of B's average."""
    return None, (yield from own_copies(turn, stream, roles, keep=STATISTICS[statistics]))
