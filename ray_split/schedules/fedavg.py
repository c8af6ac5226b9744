"""Federated averaging, a baseline: the whole model is on the phone, nothing crosses but weights.

Whose weights: in a round each phone trains its own copy of the whole model; at its end the fed server averages them,
phone i with n_i of the round's N samples weighing n_i / N. Optimizer state is new each round, BatchNorm statistics are
averaged. The server is idle. What a phone trained that does not finish the round is lost, and N are the samples of
those that do (so it is in all schedules that average).
Source: McMahan et al. 2017, https://arxiv.org/abs/1602.05629, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Generator

from ray_split.data.stream import Stream
from ray_split.messages.turn import Turn
from ray_split.schedules.exchange import (
    cohort_turns,
    most_steps,
    submit_close,
    submit_collect,
    submit_load,
    submit_remembered,
)
from ray_split.schedules.roles import Ref, Roles


def fedavg(turn: Turn, stream: Stream, roles: Roles) -> Generator[Ref, None, tuple[None, None]]:
    """Submit one round."""
    ends, middle = roles.fed_server.client_state.remote(turn), roles.fed_server.server_state.remote(turn)
    left, turns = [], cohort_turns(turn, stream)
    for number, at in enumerate(turns):
        client = roles.client(number)
        remembered = submit_remembered(roles, at, "a", "b", "c")
        yield submit_load(client, stream, at, ends, middle=middle, remembered=remembered)
        if steps := most_steps(stream, at):
            yield client.train_alone.remote(at, steps)
        left.append(submit_close(client, stream, at))
    yield from submit_collect(turns, stream, roles, left)
    return None, None
