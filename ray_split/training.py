"""The round loop: run the schedule, commit, evaluate, record; recover from lost actors. It knows no Ray.

A round is a transaction: it begins with the state that the fed server holds and ends with a commit there. Whatever
fails in between, the actors are rebuilt and it is run again from the same state.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from ray_split import config
from ray_split.callbacks import Callback, Stopwatch
from ray_split.draws import Stream, Turn
from ray_split.failure import Decision, decide
from ray_split.metrics import Report, RoundSums, Sums
from ray_split.records import Records
from ray_split.schedules import Round, schedule_of
from ray_split.wiring import Ref, Wiring

MAX_OUTSTANDING = 64  # refs that nobody consumes: exchanges submitted and not yet checked

T = TypeVar("T")
logger = logging.getLogger(__name__)


class Checked:
    """Goes through a schedule with at most MAX_OUTSTANDING refs unchecked; gives their reports, in order.

    `end` has what the schedule returned, once it is through.
    """

    def __init__(self, schedule: Round, wiring: Wiring) -> None:
        self._schedule = schedule
        self._wiring = wiring
        self.checked = 0
        self.end: tuple[Ref, Ref] | tuple[()] = ()

    def __iter__(self) -> Iterator[list[Report]]:
        outstanding: list[Ref] = []
        for ref in self._refs():
            outstanding.append(ref)
            if len(outstanding) >= MAX_OUTSTANDING:
                half = len(outstanding) // 2
                due, outstanding = outstanding[:half], outstanding[half:]
                yield self._check(due)
        yield self._check(outstanding)

    def _refs(self) -> Iterator[Ref]:
        self.end = yield from self._schedule

    def _check(self, refs: list[Ref]) -> list[Report]:
        reports: list[Report] = self._wiring.get(refs)
        self.checked += len(reports)
        return reports


class RoundLoop:
    """Runs rounds and evaluations on a wiring's actors, each as a transaction."""

    def __init__(self, settings: config.Config, stream: Stream, wiring: Wiring, callbacks: Sequence[Callback]) -> None:
        self.stream = stream
        self.wiring = wiring
        self.callbacks = callbacks
        self.failures = 0  # of attempts
        self.recoveries = 0  # of those, how many were made good
        self._max_failures = settings.run.max_failures
        self._batch = settings.data.eval_batch_size
        self._schedule = schedule_of(settings.schedule)
        self._restored: tuple[int, int] | None = None  # the (round, attempt) that the server was loaded for
        self._received = Report()  # of that load

    def start(self, checkpoint: str | None) -> int:
        """Give the fed server the state to begin with: a checkpoint's, or the first weights. Returns the round."""
        roles = self.wiring.roles
        if checkpoint is not None:
            return int(self.wiring.get([roles.fed_server.restore.remote(checkpoint)])[0])
        ends, middle = roles.clients[0].initial_state.remote(), roles.server.initial_state.remote()
        self.wiring.get([roles.fed_server.commit.remote(0, ends, middle)])
        return 0

    def transaction(self, round: int, work: Callable[[Turn], T]) -> T:
        """Do `work` on the state at the start of `round`; if an actor dies, again, with a new attempt number."""
        while True:
            turn = Turn(round, self.failures, phone=-1, step=-1)
            try:
                self._restore(turn)
                return work(turn)
            except Exception as error:
                self.failures += 1
                if decide(error, self.failures, self._max_failures) is Decision.RAISE:
                    raise
                logger.warning("round %d: %s", round, error)
                lost = self.wiring.rebuild()
                self.recoveries += 1
                for callback in self.callbacks:
                    callback.on_recovery(round, lost)

    def _restore(self, turn: Turn) -> None:
        if self._restored == (turn.round, turn.attempt):
            return
        self._restored = None
        roles = self.wiring.roles
        state = roles.fed_server.server_state.remote(turn)
        self._received = self.wiring.get([roles.server.load.remote(turn, state)])[0]
        self._restored = (turn.round, turn.attempt)

    def train(self, turn: Turn) -> RoundSums:
        """One round by the schedule, committed at the fed server."""
        self._restored = None  # from here on the server's state is no round's start
        sums = RoundSums()
        sums.add([self._received])
        schedule = Checked(self._schedule(turn, self.stream, self.wiring.roles), self.wiring)
        total, watch = self._exchanges(turn.round), Stopwatch()
        for reports in schedule:
            sums.add(reports)
            done = min(schedule.checked, total)
            for callback in self.callbacks:
                callback.on_progress(turn.round, done, total, sums.total.samples / max(watch.seconds(), 1e-9))
        commit = self.wiring.roles.fed_server.commit.remote(turn.round + 1, *schedule.end)
        sums.add(self.wiring.get([commit]))
        return sums

    def _exchanges(self, round: int) -> int:
        return sum(self.stream.steps(phone) for phone in self.stream.phones(round))

    def evaluate(self, turn: Turn, part: str, total: int) -> Sums:
        """The state at the turn's round's start, on all `total` samples of 'val' or 'test', in eval mode."""
        roles, sums = self.wiring.roles, Sums()
        ends = roles.fed_server.client_state.remote(turn)
        reports = [client.load.remote(turn, ends) for client in roles.clients]
        for i, start in enumerate(range(0, total, self._batch)):
            client, stop = roles.clients[i % len(roles.clients)], min(start + self._batch, total)
            activation = client.evaluate_forward.remote(turn, part, start, stop)
            hidden = roles.server.evaluate.remote(turn, activation)
            reports.append(client.evaluate_loss.remote(turn, part, start, stop, hidden))
            if len(reports) > MAX_OUTSTANDING:
                sums.add(self.wiring.get([reports.pop(0)])[0])
        for report in self.wiring.get(reports):
            sums.add(report)
        return sums


def run(loop: RoundLoop, settings: config.Config, records: Records, sizes: dict[str, int], first: int) -> None:
    """All rounds from `first` on: train, evaluate, checkpoint, record. `sizes` are those of 'val' and 'test'."""
    for round in range(first, settings.run.rounds):
        watch = Stopwatch()
        sums = loop.transaction(round, loop.train)
        row = sums.row(round, watch.seconds())
        last = round + 1 == settings.run.rounds
        if last or (round + 1) % settings.run.eval_every == 0:
            row |= _evaluation(loop, records, round, sizes, last)
        due = last or (round + 1) % settings.checkpoint.every == 0
        # Before the checkpoint: resuming cuts lines that lie beyond one, and could not write one that is missing.
        records.round(row, sums.phone_rows(round), flush=due)
        if due:
            loop.wiring.get([loop.wiring.roles.fed_server.save_checkpoint.remote()])
            records.summary("running", loop.recoveries)
        for callback in loop.callbacks:
            callback.on_round_end(row)
    loop.wiring.get([loop.wiring.roles.fed_server.save_model.remote()])


def _evaluation(
    loop: RoundLoop, records: Records, round: int, sizes: dict[str, int], last: bool
) -> dict[str, float | None]:
    """Validation after `round`; the test part too when validation is the best so far, and after the last round."""
    row: dict[str, float | None] = {}
    if sizes["val"]:
        val = loop.transaction(round + 1, lambda turn: loop.evaluate(turn, "val", sizes["val"]))
        row |= {"val_loss": val.mean_loss, "val_accuracy": val.accuracy}
    if last or records.would_be_best(row.get("val_accuracy")):
        test = loop.transaction(round + 1, lambda turn: loop.evaluate(turn, "test", sizes["test"]))
        row |= {"test_loss": test.mean_loss, "test_accuracy": test.accuracy}
    return row
