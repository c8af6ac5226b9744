"""Unsplit training, a baseline: one model on all data, on the stream's batches in the order of `sequential`.

One model and one optimizer, which stay from batch to batch and through the rounds; nothing crosses. The phones are
only where the batches come from; those of a phone that does not finish its round are passed over.
"""

from __future__ import annotations

from collections.abc import Generator

from ray_split.data.stream import Stream
from ray_split.messages.turn import Turn
from ray_split.schedules.exchange import most_steps, submit_load, turns_one_by_one
from ray_split.schedules.roles import Ref, Roles


def unsplit(turn: Turn, stream: Stream, roles: Roles) -> Generator[Ref, None, tuple[Ref | None, None]]:
    """Submit one round; returns the ref of the whole model's state."""
    state, middle = roles.fed_server.client_state.remote(turn), roles.fed_server.server_state.remote(turn)
    client = roles.clients[0]
    sender: tuple[int, ...] = ()
    for at in turns_one_by_one(turn, stream):
        if not stream.finishing(turn.round, at.phones):
            continue
        yield submit_load(client, stream, at, state, False, middle=middle, crosses=False, sender=sender)
        yield client.train_alone.remote(at, most_steps(stream, at))
        state, middle, sender = client.state.remote(at), None, at.phones
    return state if sender else None, None
