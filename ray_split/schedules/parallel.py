"""Parallel split learning: at every step B takes one joint step on the batches of all phones.

Whose weights: B is shared; A and C are each phone's own within the round, and the fed server averages them at its end,
phone i with n_i of the round's N samples weighing n_i / N. B's gradient weights phone i by its batch size over the
sum of the batch sizes; what goes back to A is the gradient of the phone's own mean loss, unscaled.
Optimizer state: B's stays on the server; A's and C's are new each round. BatchNorm statistics of A and C are averaged
like weights (`statistics: local`: they stay with their phone); B's are those of the joint batch. So is whatever else
B's forward does to its buffers: what it counts, it counts once a step, as on one large batch. Only where `batch` is
accumulated (asked for; or what crosses does not begin with the batch) does it count phone after phone, in their order.
A backward uses the weights of its forward because B steps once all are through.
Of a phone that does not finish the round A and C are left out of the average; the steps of B that it took part in stay,
weighted by batch sizes as they were.
Replicas of the server: the round's i-th cohort is served by replica i % N, whose own B takes a joint step on the
batches of its phones; at the round's end the replicas' B, optimizer and statistics are averaged (server_replicas.py).
That is
another training than with one server.
Equal within rounding, with one local step, to one step of B on one large batch.
Source: Pal et al. 2021, https://arxiv.org/abs/2112.01299; Jeon and Kim 2020, https://doi.org/10.1109/ICOIN48656.2020.9016486.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import NamedTuple

import numpy as np

from ray_split.data.stream import Stream
from ray_split.messages.turn import Turn
from ray_split.schedules.exchange import (
    STATISTICS,
    Lane,
    Middle,
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
from ray_split.schedules.server_replicas import Share, deal, submit_average

BATCH = ("accumulated", "joint")


def parallel(
    turn: Turn, stream: Stream, roles: Roles, statistics: str = "average", batch: str = "accumulated"
) -> Generator[Ref, None, tuple[None, Ref]]:
    """Submit one round; returns the ref of B's state.

    `batch`: accumulated over the cohorts, or joint, which a B that mixes the samples of a batch needs.
    """
    ends, keep = roles.fed_server.client_state.remote(turn), STATISTICS[statistics]
    turns = cohort_turns(turn, stream)
    shares = deal(turns, roles)
    steps, left = [most_steps(stream, at) for at in turns], [None] * len(turns)

    def begin(client: Handle, at: Turn) -> Ref:
        own = roles.fed_server.own_state.remote(at) if keep != "nothing" else None
        return submit_load(client, stream, at, ends, own=own)

    def end(number: int, step: int) -> None:
        if step == steps[number]:
            left[number] = submit_close(roles.client(number), stream, turns[number], keep)

    def lane(number: int, step: int, largest: int) -> Lane:
        client, at = roles.client(number), turns[number]._replace(step=step)
        refs = [] if step else [begin(client, at)]
        activation = client.forward.remote(at)
        yield refs
        activation_gradient = yield from visit(client, at, activation, _shared(roles, number), largest)
        yield [client.backward.remote(at, activation_gradient)]
        end(number, step + 1)

    def joint(server: Handle, active: Sequence[int], largest: int, factor: float, step: int) -> Lane:
        hosts = [(roles.client(number), turns[number]._replace(step=step)) for number in active]
        refs = [] if step else [begin(*host) for host in hosts]
        activations = [client.forward.remote(at) for client, at in hosts]
        yield refs
        first = turn._replace(phones=turns[active[0]].phones[:1], step=step)
        cohorts = [at.phones for _, at in hosts]
        if roles.single:
            back = _each(server.learn_joint, len(hosts), first, cohorts, largest, factor, *activations)
        else:
            hidden = _each(server.forward_joint, len(hosts), first, cohorts, *activations)
            yield []
            gradients = [client.loss.remote(at, h) for (client, at), h in zip(hosts, hidden, strict=True)]
            yield []
            back = _each(server.backward_joint, len(hosts), first, cohorts, largest, factor, *gradients)
        yield []
        yield [client.backward.remote(at, g) for (client, at), g in zip(hosts, back, strict=True)]
        for number in active:
            end(number, step + 1)

    for number, at in enumerate(turns):
        if not steps[number]:
            yield begin(roles.client(number), at)
            end(number, 0)
    for step in range(max(steps)):  # a share's first cohort has most
        now = [
            _joint_step(share, steps, stream, turn.round, step) for share in shares if steps[share.numbers[0]] > step
        ]
        if batch == "joint":
            yield from interleave(joint(*each, step) for each in now)
        else:
            largest = {number: each.largest for each in now for number in each.active}
            for wave in waves(sorted(largest), roles):
                yield from interleave(lane(number, step, largest[number]) for number in wave)
            for each in now:
                yield each.server.step_shared.remote(turn, each.factor)
    yield from submit_collect(turns, stream, roles, left)
    return None, (yield from submit_average(turn, stream, shares))


class _JointStep(NamedTuple):
    """A replica's: the cohorts that have a batch, the largest batch of a phone, and that over all samples."""

    server: Handle
    active: list[int]
    largest: int
    factor: float


def _joint_step(share: Share, steps: Sequence[int], stream: Stream, round: int, step: int) -> _JointStep:
    phones = np.array(share.phones)
    sizes = stream.batch_sizes(phones[stream.taken(round, phones) > step], step)
    active = [number for number in share.numbers if steps[number] > step]
    return _JointStep(share.server, active, int(sizes.max()), float(sizes.max() / sizes.sum()))


def _shared(roles: Roles, number: int) -> Middle:
    server = roles.server_of(number)
    return Middle(roles.single, server.forward_shared, server.backward_shared, server.learn_shared)


def _each(method: Handle, count: int, *arguments: object) -> list[Ref]:
    """Call a method that has a result for each cohort: their refs."""
    refs = method.options(num_returns=count).remote(*arguments)
    return list(refs) if count > 1 else [refs]
