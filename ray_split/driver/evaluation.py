"""Evaluation: the state at a round's start on validation or test samples, or each phone's model on its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np

from ray_split import logs
from ray_split.arrays import Array
from ray_split.data.stream import Stream
from ray_split.driver.backend import Backend
from ray_split.driver.bounded_calls import sum_reports
from ray_split.messages.report import Sums
from ray_split.messages.turn import Turn
from ray_split.schedules.roles import Handle, Ref, Roles

logger = logs.get(__name__)

PHONES = 32  # evaluated at once, if cohorts are smaller


def evaluate(turn: Turn, backend: Backend, part: str, total: int, batch: int) -> Sums:
    """All `total` samples of 'val' or 'test', `batch` at a time, in eval mode."""

    def reports() -> Iterator[Ref]:
        roles = backend.roles
        ends = roles.fed_server.client_state.remote(turn, True)
        yield from [client.load.remote(turn, ends) for client in roles.clients]
        for i, start in enumerate(range(0, total, batch)):
            client, stop = roles.clients[i % len(roles.clients)], min(start + batch, total)
            activation = client.evaluate_forward.remote(turn, part, start, stop)
            of_hidden = partial(client.evaluate_loss.remote, turn, part, start, stop)
            yield _figures(roles, i, turn, activation, of_hidden)

    return sum_reports(backend, reports())


def evaluate_own(
    turn: Turn, backend: Backend, stream: Stream, part: str, batch: int, gone: frozenset[int] = frozenset()
) -> Sums:
    """Every phone on the samples that it holds out for 'val' or 'test', some `batch` at a time, in eval mode.

    Without those that are `gone`. Remote phones are asked one by one, for what they would be asked for beside others.
    """

    def reports() -> Iterator[Ref]:
        roles = backend.roles
        ends = roles.fed_server.client_state.remote(turn, True)
        for number, group in enumerate(_together(stream, part, turn.round)):
            for phones in _apart(group, stream.remote):
                if gone.isdisjoint(phones):
                    yield from of_phones(number, group, phones, ends)

    def of_phones(number: int, group: tuple[int, ...], phones: tuple[int, ...], ends: Ref) -> Iterator[Ref]:
        roles, held = backend.roles, stream.partition.held_out_sizes(part)
        client, at = roles.client(number, phones), turn._replace(phones=phones)
        own = roles.fed_server.own_state.remote(at, True)
        yield client.load.remote(at, ends, own)
        most, each = int(held[phones[0]]), max(1, batch // len(group))
        starts = range(0, most, each)
        for step, start in enumerate(starts):
            now, stop = at._replace(step=step), min(start + each, most)
            activation = client.evaluate_own_forward.remote(now, part, start, stop)
            several = [_several(held, group, start, start + each)] if phones != group else []
            of_hidden = _own_loss(client, several, now, part, start, stop)
            yield _figures(roles, number, now, activation, of_hidden)
        yield client.release.remote(at._replace(step=len(starts)))

    return sum_reports(backend, reports())


def _apart(group: tuple[int, ...], remote: frozenset[int]) -> Iterator[tuple[int, ...]]:
    """A group's phones as they are asked: simulated ones at once, each remote one alone."""
    if here := tuple(phone for phone in group if phone not in remote):
        yield here
    yield from ((phone,) for phone in group if phone in remote)


def _own_loss(client: Handle, several: Sequence[frozenset[int]], *where: object) -> Callable[[Ref], Ref]:
    """Submits the call for the ref of hidden."""
    return lambda hidden: client.evaluate_own_loss.remote(*where, hidden, *several)


def _several(held: Array, group: tuple[int, ...], start: int, stop: int) -> frozenset[int]:
    """Those of a group that have as many of their samples start:stop as another one."""
    sizes = np.clip(held[list(group)], start, stop).tolist()
    return frozenset(phone for phone, size in zip(group, sizes, strict=True) if sizes.count(size) > 1)


def _figures(roles: Roles, number: int, at: Turn, activation: Ref, of_hidden: Callable[[Ref], Ref]) -> Ref:
    """The ref of the report: of B in single split, else of C. Numbers are dealt over the server's replicas."""
    server = roles.server_of(number)
    if roles.single:
        return server.evaluate_loss.remote(at, activation)
    return of_hidden(server.evaluate.remote(at, activation))


def _together(stream: Stream, part: str, round: int) -> Iterator[tuple[int, ...]]:
    """The phones that hold out samples, some at a time, those with equally many side by side.

    Without those that the round before this one's start was trained without.
    """
    held = stream.partition.held_out_sizes(part).copy()
    out = {phone for phone in stream.left_out if stream.is_left_out(phone, round - 1)} | stream.not_evaluated
    held[list(out)] = 0
    phones = np.argsort(-held, kind="stable")[: np.count_nonzero(held)]
    size = max(stream.cohort, PHONES)
    return (tuple(phones[start : start + size].tolist()) for start in range(0, len(phones), size))


class Nonfinite:
    """Says of a part how many of its samples have outputs that are not finite, whenever it is another number."""

    def __init__(self) -> None:
        self._said: dict[str, int] = {}

    def tell(self, round: int, part: str, sums: Sums) -> int:
        """How many these sums tell of; a warning if that is not what was said last."""
        count, total = sums.nonfinite
        if count != self._said.get(part, 0):
            phones = sums.phones_nonfinite
            follows = "these count as wrong" if sums.accuracy is not None else "loss and scores are null"
            line = f"{_nonfinite(part, count, total, phones)}: {follows}" if count else _finite(part, total)
            logger.warning(line, extra=logs.about(round, phones.tolist() or None))
            self._said[part] = count
        return count


def _nonfinite(part: str, count: int, total: int, phones: Array) -> str:
    """For people; `phones`: whose they are, where models are evaluated phone by phone."""
    whose = ", ".join(map(str, phones[:10])) + (", ..." if len(phones) > 10 else "")
    of = f" (of {'phone' if len(phones) == 1 else 'phones'} {whose})" if len(phones) else ""
    return f"{part}: the model's outputs are not finite for {count} of {total} samples{of}"


def _finite(part: str, total: int) -> str:
    return f"{part}: the model's outputs are finite again for all {total} samples"
