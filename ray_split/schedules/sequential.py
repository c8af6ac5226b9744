"""Sequential split learning: one phone after the other, each handing A and C to the next.

Whose weights: A, B and C are shared by all, nothing is averaged. Optimizer state and BatchNorm statistics of A and C
are handed on with the weights, through the rounds (`optimizer: fresh`: each phone begins with a new optimizer for A
and C); B's stay on the server. A backward uses the weights of its forward by strict turn-taking.
A phone that does not finish its round hands nothing on: the next one gets the A and C that it had got. The steps that B
took with it stay.
With `handed_on`, equal bit for bit to training the unsplit model on the same stream of batches.
Source: Gupta and Raskar 2018, https://arxiv.org/abs/1810.06060; Vepakomma et al. 2018, https://arxiv.org/abs/1812.00564.
"""

from __future__ import annotations

from collections.abc import Generator

from ray_split.data.stream import Stream
from ray_split.messages.turn import Turn
from ray_split.schedules.direct import Led
from ray_split.schedules.exchange import exchange, most_steps, submit_load, turns_one_by_one
from ray_split.schedules.roles import Ref, Roles

OPTIMIZER = ("handed_on", "fresh")


def sequential(
    turn: Turn, stream: Stream, roles: Roles, optimizer: str = "handed_on"
) -> Generator[Ref, None, tuple[Ref | None, Ref]]:
    """Submit one round; returns the refs of A's and C's state, and of B's."""
    ends = roles.fed_server.client_state.remote(turn)
    sender: tuple[int, ...] = ()
    led = Led(roles.server)
    reached = stream.fate(turn.round).reached
    for number, at in enumerate(at for at in turns_one_by_one(turn, stream) if at.phones[0] in reached):
        client = roles.client(number, at.phones)
        yield submit_load(client, stream, at, ends, optimizer == "fresh", sender=sender)
        steps = [at._replace(step=step) for step in range(most_steps(stream, at))]
        if roles.direct:
            yield from led.exchanges(client, steps)
        else:
            for now in steps:
                yield from exchange(client, roles.server, now, roles.single, roles.clips)
        if stream.finishing(turn.round, at.phones):
            ends, sender = client.state.remote(at), at.phones
        else:
            yield client.release.remote(at)
    yield from led.end()
    return ends if sender else None, roles.server.state.remote(turn)
