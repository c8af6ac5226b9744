"""SplitFed V2: one B for all; at every step the phones take turns, in an order that is drawn anew.

Whose weights: B is shared, and steps after each phone's batch; A and C are each phone's own within the round, and the
fed server averages them at its end, phone i with n_i of the round's N samples weighing n_i / N.
Optimizer state: B's stays on the server; A's and C's are new each round. BatchNorm statistics of A and C are averaged
like weights (`statistics: local`: they stay with their phone); B's stay. A backward uses the weights of its forward by
strict turn-taking at B; the next phone's A runs meanwhile, on weights that nobody else has.
Source: Thapa et al. 2020, https://arxiv.org/abs/2004.12088, section 3.2.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator

from ray_split.draws import Stream, Turn
from ray_split.schedules.exchange import STATISTICS, Middle, collected, ended, middle, phone_turns, visit
from ray_split.wiring import Handle, Ref, Roles


def splitfed_v2(
    turn: Turn, stream: Stream, roles: Roles, statistics: str = "average"
) -> Generator[Ref, None, tuple[None, Ref]]:
    """Submit one round; returns the ref of B's state."""
    ends, keep = roles.fed_server.client_state.remote(turn), STATISTICS[statistics]
    turns = phone_turns(turn, stream)
    hosts = {at.phones[0]: roles.client(number) for number, at in enumerate(turns)}
    for at in turns:
        own = roles.fed_server.own_state.remote(at) if keep != "nothing" else None
        yield hosts[at.phones[0]].load.remote(at, ends, True, own)
    yield from _exchanges(list(_in_order(turn, stream)), hosts, middle(roles))
    closed, turns = [], sorted(turns, key=lambda at: at.phones)
    for at in turns:  # in the phones' order: it is that of the sums
        closed.append(hosts[at.phones[0]].close.remote(at, stream.shares(at.round, at.phones), keep))
    yield from collected(turns, roles, closed)
    return None, roles.server.state.remote(turn)


def _in_order(turn: Turn, stream: Stream) -> Iterator[Turn]:
    for step in range(int(stream.steps(stream.phones(turn.round)).max())):
        for phone in stream.order(turn.round, step):
            yield turn._replace(phones=(phone,), step=step)


def _exchanges(turns: list[Turn], hosts: dict[int, Handle], methods: Middle) -> Iterator[Ref]:
    ahead: Ref | None = None
    for i, now in enumerate(turns):
        client, following = hosts[now.phones[0]], turns[i + 1] if i + 1 < len(turns) else None
        activation = ahead or client.forward.remote(now)
        under_way = visit(client, now, activation, methods)
        next(under_way)
        # The next phone's A runs while B does; but a phone's own A has to step first.
        free = following is not None and following.phones != now.phones
        ahead = hosts[following.phones[0]].forward.remote(following) if following is not None and free else None
        yield client.backward.remote(now, ended(under_way))


splitfed_v2.kwargs = {"statistics": ("average", "local")}  # type: ignore[attr-defined]
splitfed_v2.one_by_one = True  # type: ignore[attr-defined]
