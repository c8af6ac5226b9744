"""The round that SplitFed V1 and V3 share: every phone trains its own A, B and C; then B's copies are averaged."""

from __future__ import annotations

from collections.abc import Iterator

from ray_split.draws import Stream, Turn
from ray_split.schedules.exchange import Lane, Middle, abreast, cohort_turns, collected, visit, waves
from ray_split.wiring import Handle, Ref, Roles


def own_copies(turn: Turn, stream: Stream, roles: Roles, keep: str) -> Iterator[Ref]:
    """Submit one round but for its end; phones `keep` nothing, their statistics, or all of A and C."""
    ends, closed = roles.fed_server.client_state.remote(turn), []
    turns = cohort_turns(turn, stream)
    for wave in waves(range(len(turns)), roles):
        yield from abreast(_lane(roles, roles.client(i), turns[i], stream, ends, keep) for i in wave)
        for i in wave:  # in their order: it is that of the sums
            shares = stream.shares(turn.round, turns[i].phones)
            closed.append(roles.client(i).close.remote(turns[i], shares, keep))
            yield roles.server.close.remote(turns[i], shares)
    yield from collected(turns, roles, closed)


def _lane(roles: Roles, client: Handle, at: Turn, stream: Stream, ends: Ref, keep: str) -> Lane:
    own = roles.fed_server.own_state.remote(at) if keep != "nothing" else None
    server = roles.server
    methods = Middle(roles.single, server.forward_own, server.backward_own, server.learn_own)
    refs = [client.load.remote(at, ends, keep != "all", own, None, keep != "all"), server.open.remote(at)]
    for step in range(int(stream.steps(at.phones)[0])):  # the cohort's first phone has most
        now = at._replace(step=step)
        activation = client.forward.remote(now)
        yield refs
        activation_gradient = yield from visit(client, now, activation, methods)
        refs = [client.backward.remote(now, activation_gradient)]
    yield refs
