"""Replicas of the server that each have a B of their own through a round, and average it at the round's end.

Cohort (or phone) i of the round is served by replica i % N; one that is dealt none is idle. All begin the round with
the same B and the same state of its optimizer. At its end both are averaged, a replica weighing as the samples that
its phones trained on do in the round's, also those of phones that did not finish it: weights, BatchNorm statistics, and
what the optimizer remembers (momentum, Adam's moments); of counters (num_batches_tracked, the optimizer's step) there
is the largest. All begin the next round with that.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import NamedTuple

from ray_split.data.stream import Stream
from ray_split.messages.turn import Turn
from ray_split.schedules.roles import Handle, Ref, Roles


class Share(NamedTuple):
    """What one replica serves in a round: turns by their numbers, and all their phones."""

    server: Handle
    numbers: Sequence[int]
    phones: tuple[int, ...]


def deal(turns: Sequence[Turn], roles: Roles) -> list[Share]:
    """The round's turns dealt over the replicas, but for those that get none."""
    found = []
    for first, server in enumerate(roles.servers[: len(turns)]):
        numbers = range(first, len(turns), len(roles.servers))
        found.append(Share(server, numbers, tuple(phone for i in numbers for phone in turns[i].phones)))
    return found


def submit_average(turn: Turn, stream: Stream, shares: Sequence[Share]) -> Generator[Ref, None, Ref]:
    """Submit the end of the round; returns the ref of B's average."""
    (server, *_), *others = shares
    if others:
        weights = [stream.weight(turn.round, share.phones) for share in shares]
        yield server.average.remote(turn, weights, *[share.server.state.remote(turn) for share in others])
    return server.state.remote(turn)
