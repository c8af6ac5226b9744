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
from ray_split.schedules.exchange import (
    STATISTICS,
    Lane,
    cohort_turns,
    interleave,
    most_steps,
    submit_close,
    submit_collect,
    submit_load,
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
    ends, left = roles.fed_server.client_state.remote(turn), []
    turns, holder = cohort_turns(turn, stream), roles.server  # of the sum
    for wave in waves(range(len(turns)), roles):
        servers = _in_blocks(wave, roles.servers)
        yield from interleave(_lane(roles, roles.client(i), servers[i], turns[i], stream, ends, keep) for i in wave)
        for i in wave:  # in their order: it is that of the sums
            if servers[i] is not holder:  # the sum goes to the replica that has the next copies
                yield servers[i].take.remote(turn, holder.pass_on.remote(turn))
                holder = servers[i]
            left.append(submit_close(roles.client(i), stream, turns[i], keep))
            yield holder.close.remote(turns[i], stream.shares(turn.round, turns[i].phones), i)
    yield from submit_collect(turns, stream, roles, left)
    return holder.state.remote(turn, *[each.rows.remote(turn) for each in roles.servers if each is not holder])


def _in_blocks(wave: Sequence[int], servers: Sequence[Handle]) -> dict[int, Handle]:
    return {number: servers[place * len(servers) // len(wave)] for place, number in enumerate(wave)}


def _lane(roles: Roles, client: Handle, server: Handle, at: Turn, stream: Stream, ends: Ref, keep: str) -> Lane:
    own = roles.fed_server.own_state.remote(at) if keep != "nothing" else None
    began = submit_load(client, stream, at, ends, keep != "all", own, crosses=keep != "all")
    refs = [began, server.open.remote(at)]
    for step in range(most_steps(stream, at)):
        now = at._replace(step=step)
        activation = client.forward.remote(now)
        yield refs
        activation_gradient = yield from visit(client, now, activation, server, roles.single)
        refs = [client.backward.remote(now, activation_gradient)]
    yield refs
