"""SplitFed V3: as V1, but A and C are each phone's own.

Whose weights: in a round each phone trains its own A and C and its own copy of B. At its end the server averages the
copies of B, phone i with n_i of the round's N samples weighing n_i / N; A and C stay with their phone.
Optimizer state and BatchNorm statistics of A and C stay with the phone too, through the rounds; B's optimizer is new
each round, B's statistics are averaged. A backward uses the weights of its forward because no two phones share a copy.
Replicas of the server each host some of the copies; any number of them gives the same bits (splitfed_v1.py).
There is no single model: each phone is evaluated on samples of its own that it holds out.
Source: Gawali et al. 2021, https://arxiv.org/abs/2012.10893.
"""

from __future__ import annotations

from collections.abc import Generator

from ray_split.data.stream import Stream
from ray_split.messages.turn import Turn
from ray_split.schedules.roles import Ref, Roles
from ray_split.schedules.splitfed_v1 import train_copies


def splitfed_v3(turn: Turn, stream: Stream, roles: Roles) -> Generator[Ref, None, tuple[None, Ref]]:
    """Submit one round; returns the ref of B's average."""
    return None, (yield from train_copies(turn, stream, roles, keep="all"))
