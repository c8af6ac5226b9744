"""The round that SplitFed V1 and V3 share: every phone trains its own A, B and C; then B's copies are averaged.

Of a phone that does not finish the round nothing is averaged or kept: not its copy of B either.

With replicas of the server each serves a block of the cohorts that go abreast. The sum of B's copies is one and the
same, in the order of the cohorts: it passes from replica to replica, once for each block. So any number of replicas
gives the same bits.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence

from ray_split.data.stream import Stream, Turn
from ray_split.schedules.exchange import (
    Lane,
    Middle,
    abreast,
    closed,
    cohort_turns,
    collected,
    loaded,
    most_steps,
    visit,
    waves,
)
from ray_split.schedules.roles import Handle, Ref, Roles


def own_copies(turn: Turn, stream: Stream, roles: Roles, keep: str) -> Generator[Ref, None, Ref]:
    """Submit one round; phones `keep` nothing, their statistics, or all of A and C. Returns the ref of B's average."""
    ends, left = roles.fed_server.client_state.remote(turn), []
    turns, holder = cohort_turns(turn, stream), roles.server  # of the sum
    for wave in waves(range(len(turns)), roles):
        servers = _in_blocks(wave, roles.servers)
        yield from abreast(_lane(roles, roles.client(i), servers[i], turns[i], stream, ends, keep) for i in wave)
        for i in wave:  # in their order: it is that of the sums
            if servers[i] is not holder:
                yield servers[i].take.remote(turn, holder.pass_on.remote(turn))
                holder = servers[i]
            left.append(closed(roles.client(i), stream, turns[i], keep))
            yield holder.close.remote(turns[i], stream.shares(turn.round, turns[i].phones), i)
    yield from collected(turns, stream, roles, left)
    return holder.state.remote(turn, *[each.rows.remote(turn) for each in roles.servers if each is not holder])


def _in_blocks(wave: Sequence[int], servers: Sequence[Handle]) -> dict[int, Handle]:
    return {number: servers[place * len(servers) // len(wave)] for place, number in enumerate(wave)}


def _lane(roles: Roles, client: Handle, server: Handle, at: Turn, stream: Stream, ends: Ref, keep: str) -> Lane:
    own = roles.fed_server.own_state.remote(at) if keep != "nothing" else None
    methods = Middle(roles.single, server.forward_own, server.backward_own, server.learn_own)
    began = loaded(client, stream, at, ends, keep != "all", own, crosses=keep != "all")
    refs = [began, server.open.remote(at)]
    for step in range(most_steps(stream, at)):
        now = at._replace(step=step)
        activation = client.forward.remote(now)
        yield refs
        activation_gradient = yield from visit(client, now, activation, methods)
        refs = [client.backward.remote(now, activation_gradient)]
    yield refs
