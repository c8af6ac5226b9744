"""Evaluation: the state at a round's start on validation or test samples, or each phone's model on its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from ray_split import logs
from ray_split.arrays import Array
from ray_split.data.stream import Stream
from ray_split.driver.backend import Backend
from ray_split.driver.bounded_calls import sum_reports
from ray_split.messages.report import Sums
from ray_split.messages.turn import Turn
from ray_split.schedules.roles import Ref, Roles

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


def evaluate_own(turn: Turn, backend: Backend, stream: Stream, part: str, batch: int) -> Sums:
    """Every phone on the samples that it holds out for 'val' or 'test', some `batch` at a time, in eval mode."""

    def reports() -> Iterator[Ref]:
        roles = backend.roles
        ends = roles.fed_server.client_state.remote(turn, True)
        for number, phones in enumerate(_together(stream, part, turn.round)):
            client, at = roles.client(number), turn._replace(phones=phones)
            own = roles.fed_server.own_state.remote(at, True)
            yield client.load.remote(at, ends, own)
            most, each = int(stream.partition.held_out_sizes(part)[phones[0]]), max(1, batch // len(phones))
            for start in range(0, most, each):
                stop = min(start + each, most)
                activation = client.evaluate_own_forward.remote(at, part, start, stop)
                of_hidden = partial(client.evaluate_own_loss.remote, at, part, start, stop)
                yield _figures(roles, number, at, activation, of_hidden)
            yield client.release.remote(at)

    return sum_reports(backend, reports())


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
    out |= stream.remote  # their held-out samples are on their devices
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
