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
That is another training than with one server.
Equal within rounding, with one local step, to one step of B on one large batch.
Source: Pal et al. 2021, https://arxiv.org/abs/2112.01299; Jeon and Kim 2020, https://doi.org/10.1109/ICOIN48656.2020.9016486.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from ray_split.data.stream import Stream
from ray_split.messages.turn import JointStep, Turn
from ray_split.schedules.exchange import (
    STATISTICS,
    Lane,
    cohort_turns,
    interleave,
    most_steps,
    submit_close,
    submit_collect,
    submit_load,
    submit_remembered,
    visit_together,
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

    def host(number: int) -> Handle:
        return roles.client(number, turns[number].phones)

    def begin(number: int) -> Ref:
        own = roles.fed_server.own_state.remote(turns[number]) if keep != "nothing" else None
        remembered = submit_remembered(roles, turns[number], "a", "c")
        return submit_load(host(number), stream, turns[number], ends, own=own, remembered=remembered)

    def end(number: int, step: int) -> None:
        if step == steps[number]:  # so a cohort's copies at its client are free for others at once
            left[number] = submit_close(host(number), stream, turns[number], keep)

    def lane(now: _JointStep, numbers: Sequence[int]) -> Lane:
        """The step of cohorts whose batches B takes in one call."""
        step = now.turn.step
        hosts = [(host(number), turns[number]._replace(step=step)) for number in numbers]
        refs = [] if step else [begin(number) for number in numbers]
        activations = [client.forward.remote(at) for client, at in hosts]
        yield refs
        together = now.of([at.phones for _, at in hosts])
        back = yield from visit_together(hosts, activations, now.server, together, roles.single)
        yield [client.backward.remote(at, own) for (client, at), own in zip(hosts, back, strict=True)]
        for number in numbers:
            end(number, step + 1)

    for number in range(len(turns)):
        if not steps[number]:
            yield begin(number)
            end(number, 0)
    for step in range(max(steps)):
        # A share's first cohort has most steps: if it has no batch, none has.
        active = [share for share in shares if steps[share.numbers[0]] > step]
        now = [_joint_step(share, steps, stream, turn._replace(step=step)) for share in active]
        if batch == "joint":
            yield from interleave(lane(each, each.active) for each in now)
        else:
            of = {number: each for each in now for number in each.active}
            for wave in waves(sorted(of), roles):
                yield from interleave(lane(of[number], [number]) for number in wave)
        for each in now:
            yield each.server.step.remote(each.turn)
    yield from submit_collect(turns, stream, roles, left)
    return None, (yield from submit_average(turn, stream, shares))


class _JointStep(NamedTuple):
    """A replica's: the cohorts that have a batch, and the turn of the step, which says how phones weigh in it."""

    server: Handle
    active: list[int]
    turn: Turn

    def of(self, cohorts: Sequence[tuple[int, ...]]) -> Turn:
        """The turn of a call that brings these cohorts' batches."""
        assert self.turn.joint is not None
        joint = self.turn.joint._replace(sizes=tuple(map(len, cohorts)))
        return self.turn._replace(phones=tuple(chain.from_iterable(cohorts)), joint=joint)


def _joint_step(share: Share, steps: Sequence[int], stream: Stream, at: Turn) -> _JointStep:
    phones = np.array(share.phones)
    sizes = stream.batch_sizes(phones[stream.taken(at.round, phones) > at.step], at.step)
    active = [number for number in share.numbers if steps[number] > at.step]
    return _JointStep(share.server, active, at._replace(joint=JointStep(int(sizes.max()), int(sizes.sum()))))
