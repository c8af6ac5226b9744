"""SplitFed V1: all phones at once, each with its own copy of B; then everything is averaged.

Whose weights: in a round each phone trains its own A, B and C, from the same start. At its end the fed server averages
A and C, and the server its copies of B, phone i with n_i of the round's N samples weighing n_i / N.
Optimizer state: all of it is new each round. BatchNorm statistics are averaged like weights (`statistics: local`:
those of A and C stay with their phone; the average, for evaluation, is made all the same); num_batches_tracked is the
maximum. A backward uses the weights of its forward because no two phones share a copy.
Of a phone that does not finish the round nothing is averaged or kept, its copy of B neither.
Replicas of the server each serve a block of the cohorts that go abreast. The sum of B's copies is one and the same, in
the order of the cohorts: it passes from replica to replica, once for each block. So any number gives the same bits.
Equal within rounding to federated averaging of the unsplit model.
Source: Thapa et al. 2020, https://arxiv.org/abs/2004.12088, algorithms 1 and 2.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence

from ray_split.data.stream import Stream
from ray_split.messages.turn import Turn
from ray_split.schedules.direct import lead_abreast
from ray_split.schedules.exchange import (
    STATISTICS,
    Lane,
    cohort_turns,
    interleave,
    most_steps,
    submit_backward,
    submit_close,
    submit_collect,
    submit_load,
    submit_remembered,
    visit,
    waves,
)
from ray_split.schedules.roles import Handle, Ref, Roles


def splitfed_v1(
    turn: Turn, stream: Stream, roles: Roles, statistics: str = "average"
) -> Generator[Ref, None, tuple[None, Ref]]:
    """Submit one round; returns the ref of B's average."""
    return None, (yield from train_copies(turn, stream, roles, keep=STATISTICS[statistics]))


def train_copies(turn: Turn, stream: Stream, roles: Roles, keep: str) -> Generator[Ref, None, Ref]:
    """Submit a round of V1, or of V3, where phones `keep` all of A and C; returns the ref of B's average.

    `keep`: nothing, the statistics, or all.
    """
    ends, left, of_b = roles.fed_server.client_state.remote(turn), [], []
    turns, holder = cohort_turns(turn, stream), roles.server  # of the sum
    for wave in waves(range(len(turns)), roles):
        servers = _in_blocks(wave, roles.servers)
        if roles.direct:
            yield from _led(roles, [(roles.client(i, turns[i].phones), turns[i]) for i in wave], stream, ends, keep)
        else:
            hosts = {i: roles.client(i, turns[i].phones) for i in wave}
            yield from interleave(_lane(roles, hosts[i], servers[i], turns[i], stream, ends, keep) for i in wave)
        for i in wave:  # in their order: it is that of the sums
            if servers[i] is not holder:  # the sum goes to the replica that has the next copies
                yield servers[i].take.remote(turn, holder.pass_on.remote(turn))
                holder = servers[i]
            left.append(submit_close(roles.client(i, turns[i].phones), stream, turns[i], keep))
            closed = _close_b(holder, stream, turns[i], i, roles)
            of_b.append(closed)
            if "b" not in roles.remember:
                yield closed
    yield from submit_collect(turns, stream, roles, left)
    if "b" in roles.remember:
        yield from submit_collect(turns, stream, roles, of_b)
    return holder.state.remote(turn, *[each.rows.remote(turn) for each in roles.servers if each is not holder])


def _in_blocks(wave: Sequence[int], servers: Sequence[Handle]) -> dict[int, Handle]:
    return {number: servers[place * len(servers) // len(wave)] for place, number in enumerate(wave)}


def _close_b(server: Handle, stream: Stream, at: Turn, number: int, roles: Roles) -> Ref:
    """Submit the end of a cohort's copies of B; the ref of what their phones remember of them, if they do."""
    shares = stream.shares(at.round, at.phones)
    if "b" not in roles.remember:
        return server.close.remote(at, shares, number)
    return server.close.remote(at, shares, number, stream.updates(at.round, at.phones))


def _open_b(server: Handle, at: Turn, roles: Roles) -> Ref:
    remembered = submit_remembered(roles, at, "b")
    return server.open.remote(at, *([] if remembered is None else [remembered]))


def _begin(roles: Roles, client: Handle, server: Handle, at: Turn, stream: Stream, ends: Ref, keep: str) -> list[Ref]:
    own = roles.fed_server.own_state.remote(at) if keep != "nothing" else None
    remembered = submit_remembered(roles, at, "a", "c")
    began = submit_load(client, stream, at, ends, keep != "all", own, crosses=keep != "all", remembered=remembered)
    return [began, _open_b(server, at, roles)]


def _steps(stream: Stream, at: Turn) -> list[Turn]:
    return [at._replace(step=step) for step in range(most_steps(stream, at))]


def _led(
    roles: Roles, hosts: Sequence[tuple[Handle, Turn]], stream: Stream, ends: Ref, keep: str
) -> Generator[Ref, None, None]:
    """A wave whose exchanges clients lead: there is one server."""
    cohorts = []
    for client, at in hosts:
        began, opened = _begin(roles, client, roles.server, at, stream, ends, keep)
        yield began
        yield opened
        cohorts.append((client, _steps(stream, at), opened))
    yield from lead_abreast(roles.server, cohorts)


def _lane(roles: Roles, client: Handle, server: Handle, at: Turn, stream: Stream, ends: Ref, keep: str) -> Lane:
    refs = _begin(roles, client, server, at, stream, ends, keep)
    for now in _steps(stream, at):
        activation = client.forward.remote(now)
        yield refs
        activation_gradient = yield from visit(client, now, activation, server, roles.single)
        refs = submit_backward(client, server, now, activation_gradient, roles.clips)
    yield refs
