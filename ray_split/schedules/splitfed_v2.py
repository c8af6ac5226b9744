"""SplitFed V2: one B for all; at every step the phones take turns, in an order that is drawn anew.

Whose weights: B is shared, and steps after each phone's batch; A and C are each phone's own within the round, and the
fed server averages them at its end, phone i with n_i of the round's N samples weighing n_i / N.
Optimizer state: B's stays on the server; A's and C's are new each round. BatchNorm statistics of A and C are averaged
like weights (`statistics: local`: they stay with their phone); B's stay. A backward uses the weights of its forward by
strict turn-taking at B; the next phone's A runs meanwhile, on weights that nobody else has.
Of a phone that does not finish the round A and C are left out of the average; the steps that B took with it stay.
Replicas of the server: the round's i-th phone is served by replica i % N. Its phones take turns at the replica's own B,
in the same drawn order but for the others' phones; at the round's end the replicas' B, optimizer and statistics are
averaged (server_replicas.py). That is another training than with one server.
Source: Thapa et al. 2020, https://arxiv.org/abs/2004.12088, section 3.2.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from itertools import zip_longest

from ray_split.data.stream import Stream
from ray_split.messages.turn import Turn
from ray_split.schedules.direct import Led
from ray_split.schedules.exchange import (
    STATISTICS,
    Lane,
    interleave,
    phone_turns,
    submit_backward,
    submit_close,
    submit_collect,
    submit_load,
    submit_remembered,
    visit,
)
from ray_split.schedules.roles import Handle, Ref, Roles
from ray_split.schedules.server_replicas import Share, deal, submit_average


def splitfed_v2(
    turn: Turn, stream: Stream, roles: Roles, statistics: str = "average"
) -> Generator[Ref, None, tuple[None, Ref]]:
    """Submit one round; returns the ref of B's state."""
    ends, keep = roles.fed_server.client_state.remote(turn), STATISTICS[statistics]
    turns = phone_turns(turn, stream)
    shares = deal(turns, roles)
    hosts = {at.phones[0]: roles.client(number, at.phones) for number, at in enumerate(turns)}
    for at in turns:
        own = roles.fed_server.own_state.remote(at) if keep != "nothing" else None
        remembered = submit_remembered(roles, at, "a", "c")
        yield submit_load(hosts[at.phones[0]], stream, at, ends, own=own, remembered=remembered)
    order = list(_in_order(turn, stream))
    if roles.direct:
        led = Led(roles.server)
        yield from led.turns([(hosts[at.phones[0]], at) for at in order])
        yield from led.end()
    else:
        yield from interleave(_exchanges(_own(order, share), hosts, share.server, roles) for share in shares)
    # The host of a phone follows from its place in the round, but sums are in the phones' order.
    turns = sorted(turns, key=lambda at: at.phones)
    left = [submit_close(hosts[at.phones[0]], stream, at, keep) for at in turns]
    yield from submit_collect(turns, stream, roles, left)
    return None, (yield from submit_average(turn, stream, shares))


def _in_order(turn: Turn, stream: Stream) -> Iterator[Turn]:
    phones = {phone: stream.at(turn, (phone,)) for phone in stream.phones(turn.round)}
    for _, phone, step in stream.interleaved(turn.round):
        yield phones[phone]._replace(step=step)


def _own(order: Sequence[Turn], share: Share) -> list[Turn]:
    phones = set(share.phones)
    return [at for at in order if at.phones[0] in phones]


def _exchanges(turns: list[Turn], hosts: dict[int, Handle], server: Handle, roles: Roles) -> Lane:
    ahead: Ref | None = None  # the activation of the next exchange, where it is under way already
    for now, following in zip_longest(turns, turns[1:]):
        client = hosts[now.phones[0]]
        activation = ahead or client.forward.remote(now)
        under_way = visit(client, now, activation, server, roles.single)
        next(under_way)  # B's forward is submitted
        # The next phone's A runs while B does; but a phone's own A has to step first.
        ahead = None
        if following is not None and following.phones != now.phones:
            ahead = hosts[following.phones[0]].forward.remote(following)
        yield []
        activation_gradient = yield from under_way
        yield submit_backward(client, server, now, activation_gradient, roles.clips)
