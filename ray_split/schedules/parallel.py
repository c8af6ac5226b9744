"""Parallel split learning: at every step B takes one joint step on the batches of all phones.

Whose weights: B is shared; A and C are each phone's own within the round, and the fed server averages them at its end,
phone i with n_i of the round's N samples weighing n_i / N. B's gradient weights phone i by its batch size over the
sum of the batch sizes; what goes back to A is the gradient of the phone's own mean loss, unscaled.
Optimizer state: B's stays on the server; A's and C's are new each round. BatchNorm statistics of A and C are averaged
like weights (`statistics: local`: they stay with their phone); B's are those of the joint batch. A backward uses the
weights of its forward because B steps once all are through.
Equal within rounding, with one local step, to one step of B on one large batch.
Source: Pal et al. 2021, https://arxiv.org/abs/2112.01299; Jeon and Kim 2020, https://doi.org/10.1109/ICOIN48656.2020.9016486.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator

import numpy as np

from ray_split.draws import Stream, Turn
from ray_split.schedules.exchange import STATISTICS, Lane, Middle, abreast, cohort_turns, collected, visit, waves
from ray_split.wiring import Handle, Ref, Roles


def parallel(
    turn: Turn, stream: Stream, roles: Roles, statistics: str = "average", batch: str = "accumulated"
) -> Generator[Ref, None, tuple[None, Ref]]:
    """Submit one round; returns the ref of B's state.

    `batch`: accumulated over the cohorts, or joint, which a B that mixes the samples of a batch needs.
    """
    ends, keep, server = roles.fed_server.client_state.remote(turn), STATISTICS[statistics], roles.server
    turns, phones = cohort_turns(turn, stream), np.array(stream.phones(turn.round))
    shared = Middle(roles.single, server.forward_shared, server.backward_shared, server.learn_shared)
    steps, closed = [int(stream.steps(at.phones)[0]) for at in turns], [None] * len(turns)

    def begin(client: Handle, at: Turn) -> Ref:
        own = roles.fed_server.own_state.remote(at) if keep != "nothing" else None
        return client.load.remote(at, ends, True, own)

    def end(client: Handle, at: Turn) -> Ref:
        return client.close.remote(at, stream.shares(at.round, at.phones), keep)

    def lane(number: int, step: int, largest: int) -> Lane:
        client, at = roles.client(number), turns[number]._replace(step=step)
        refs = [] if step else [begin(client, at)]
        activation = client.forward.remote(at)
        yield refs
        activation_gradient = yield from visit(client, at, activation, shared, largest)
        yield [client.backward.remote(at, activation_gradient)]
        if step + 1 == steps[number]:
            closed[number] = end(client, at)

    def joint(active: list[int], step: int, largest: int, factor: float) -> Iterator[Ref]:
        hosts = [(roles.client(number), turns[number]._replace(step=step)) for number in active]
        if not step:
            yield from [begin(*host) for host in hosts]
        activations = [client.forward.remote(at) for client, at in hosts]
        first = turn._replace(phones=turns[active[0]].phones[:1], step=step)
        cohorts = [at.phones for _, at in hosts]
        if roles.single:
            back = _each(server.learn_joint, len(hosts), first, cohorts, largest, factor, *activations)
        else:
            hidden = _each(server.forward_joint, len(hosts), first, cohorts, *activations)
            gradients = [client.loss.remote(at, h) for (client, at), h in zip(hosts, hidden, strict=True)]
            back = _each(server.backward_joint, len(hosts), first, cohorts, largest, factor, *gradients)
        yield from [client.backward.remote(at, g) for (client, at), g in zip(hosts, back, strict=True)]
        for number, host in zip(active, hosts, strict=True):
            if step + 1 == steps[number]:
                closed[number] = end(*host)

    for step in range(max(steps)):
        sizes, active = stream.batch_sizes(phones, step), [i for i, count in enumerate(steps) if count > step]
        largest, factor = int(sizes.max()), float(sizes.max() / sizes.sum())
        if batch == "joint":
            yield from joint(active, step, largest, factor)
        else:
            for wave in waves(active, roles):
                yield from abreast(lane(number, step, largest) for number in wave)
            yield server.step_shared.remote(turn, factor)
    yield from collected(turns, roles, closed)
    return None, server.state.remote(turn)


def _each(method: Handle, count: int, *arguments: object) -> list[Ref]:
    """Call a method that has a result for each cohort: their refs."""
    refs = method.options(num_returns=count).remote(*arguments)
    return list(refs) if count > 1 else [refs]


parallel.kwargs = {"statistics": ("average", "local"), "batch": ("accumulated", "joint")}  # type: ignore[attr-defined]
