"""The round loop: run the schedule, commit, evaluate, record; recover from lost actors. It knows no Ray.

A round is a transaction: it begins with the state that the fed server holds and ends with a commit there. Whatever
dies in between, the actors are rebuilt and it is run again from the same state. If it was the fed server, the state is
that of the last checkpoint, or the first weights, and the rounds since are run again: to the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from ray_split import config, logs
from ray_split.callbacks import Callback, Stopwatch
from ray_split.costs.virtual_clock import Clock
from ray_split.data.stream import Stream
from ray_split.data.types import PART_NAMES
from ray_split.driver.bounded_calls import Checked
from ray_split.driver.evaluation import Nonfinite, evaluate, evaluate_own
from ray_split.driver.stopping import Stop
from ray_split.errors import ActorLostError, BadPhoneError, Failures, OutOfTimeError, RunFailedError
from ray_split.filesystem import Place
from ray_split.messages.report import Report, RoundSums, Sums, mean_spent
from ray_split.messages.turn import Turn
from ray_split.results import checkpoint
from ray_split.results.records import Records
from ray_split.schedules import idle, schedule_of
from ray_split.schedules.roles import FED_SERVER, Ref, Wiring
from ray_split.tasks.task import Task

T = TypeVar("T")
logger = logs.get(__name__)


class RoundLoop:
    """Runs rounds and evaluations on a wiring's actors, each as a transaction."""

    def __init__(
        self,
        settings: config.Config,
        stream: Stream,
        wiring: Wiring,
        callbacks: Sequence[Callback],
        stop: Stop | None = None,
    ) -> None:
        self.stream = stream
        self.wiring = wiring
        self.callbacks = callbacks
        self.stop = stop or Stop()
        wiring.meanwhile(self.stop.look)
        self.saved = 0  # the round of the last checkpoint
        self.recoveries = 0  # how many failures were made good
        self.where: list[str] = []  # the actors run, for people
        self._attempt = 0  # no two attempts have the same number
        self._failures = Failures(settings.run.max_failures)
        self._skips = settings.run.on_bad_phone == "skip"
        self._checkpoints = settings.run.folder / checkpoint.FOLDER
        schedule = schedule_of(settings.schedule)
        self._schedule, self._on_server = schedule.bind(settings.schedule.kwargs), schedule.on_server
        self._way = schedule.way_with(settings.schedule.kwargs)
        self._restored: tuple[int, int] | None = None  # the (round, attempt) that the server was loaded for
        self._loading: list[Ref] = []  # that load, not yet checked
        self._received: list[Report] = []  # of that load
        self.nonfinite = Nonfinite()

    def start(self) -> int:
        """Give the fed server the state to begin with: the last checkpoint's, or the first weights. Returns the round.

        What dies meanwhile is replaced, actors that are being made too.
        """
        return self._surviving(-1, self._begin)

    def _begin(self) -> int:
        self.where = self.wiring.ready()
        roles = self.wiring.roles
        self.wiring.get([roles.fed_server.reach.remote()])
        restored = checkpoint.newest(self._checkpoints, self._restored_from)  # that claim chose, or a later one
        if restored is not None:
            return restored
        ends, middle = roles.clients[0].initial_state.remote(), roles.server.initial_state.remote()
        self.wiring.get([roles.fed_server.commit.remote(0, ends, middle)])
        return 0

    def _restored_from(self, path: Place) -> int:
        return int(self.wiring.get([self.wiring.roles.fed_server.restore.remote(path)])[0])

    def transaction(self, round: int, work: Callable[[Turn], T], training: bool = True) -> T:
        """Do `work` on the state at the start of `round`; if an actor dies, again, with a new attempt number."""

        def attempt() -> T:
            turn = Turn(round, self._attempt, phones=(), step=-1)
            self._restore(turn)
            return work(turn)

        return self._surviving(round, attempt, self._quarantine if training else self._pass_over)

    def save(self, round: int) -> None:
        """Write a checkpoint of the start of `round`."""
        self._surviving(round, lambda: self.save_now(round))

    def save_now(self, round: int) -> None:
        """As `save`, but whatever happens is raised. StateNotLoadedError if the fed server holds another round."""
        self.wiring.get([self.wiring.roles.fed_server.save_checkpoint.remote(round)])
        self.saved = round

    def save_model(self, round: int) -> None:
        """Write the model as it is at the start of `round`."""
        self._surviving(round, lambda: self.wiring.get([self.wiring.roles.fed_server.save_model.remote()]))

    def _surviving(
        self, round: int, work: Callable[[], T], leave_out: Callable[[int, BadPhoneError], None] | None = None
    ) -> T:
        """Do `work`, for which the fed server holds the start of `round` (-1: of none); if an actor dies, again.

        If a phone is bad, again after it was left out.
        """
        while True:
            try:
                return work()
            except BadPhoneError as error:
                if leave_out is None:
                    raise
                leave_out(round, error)
            except ActorLostError as error:
                self._recover(round, error)

    def _quarantine(self, round: int, error: BadPhoneError) -> None:
        """Go on without the phones from `round` on. Raises the error if the run is not to."""
        new = tuple(phone for phone in error.phones if not self.stream.is_left_out(phone, round))
        if not self._skips or not new:
            raise error
        self.forget()
        for phone in new:
            self.stream.leave_out(phone, round)
        for callback in self.callbacks:
            callback.on_quarantine(round, new, error.reason)

    def _pass_over(self, round: int, error: BadPhoneError) -> None:
        """Evaluate without the phones. They go on training: when there is an evaluation must not change that."""
        if not self._skips or set(error.phones) <= self.stream.not_evaluated:
            raise error
        self.forget()
        self.stream.not_evaluated |= set(error.phones)
        logger.warning("not evaluated: %s", error, extra=logs.about(round, error.phones))

    def forget(self) -> None:
        """Nobody holds a state any more: what is next is a new attempt."""
        self._attempt += 1
        self._restored, self._loading = None, []

    def _recover(self, round: int, error: ActorLostError) -> None:
        """Make the failure good, and bring the fed server back to the start of `round`. Raises RunFailedError."""
        logger.warning("round %d: %s", round, error, extra=logs.about(round if round >= 0 else None))
        self.stop.allow()
        self._failures.add(error)
        lost = self._rebuilt()
        self.forget()
        self.recoveries += 1
        for callback in self.callbacks:
            callback.on_recovery(round, lost)
        if FED_SERVER in lost and round >= 0:
            for earlier in range(self.start(), round):
                self.transaction(earlier, self.train)

    def _rebuilt(self) -> list[str]:
        """Replace who died; if another dies meanwhile, again."""
        while True:
            try:
                lost = self.wiring.rebuild()
            except ActorLostError as error:
                self._failures.add(error)
            else:
                self._failures.died(lost)
                return lost

    def _restore(self, turn: Turn) -> None:
        """Give the server's replicas the round's start. Not waited for: what is submitted after it comes after it."""
        if self._restored == (turn.round, turn.attempt):
            return
        roles = self.wiring.roles
        state = roles.fed_server.server_state.remote(turn)
        self._loading = [server.load.remote(turn, state, self._way) for server in roles.servers]
        self._restored = (turn.round, turn.attempt)

    def _loaded(self) -> list[Report]:
        loading, self._loading = self._loading, []
        self._received = [report for report in self.wiring.get(loading) if report is not None] or self._received
        return self._received

    def train(self, turn: Turn) -> RoundSums:
        """One round by the schedule, committed at the fed server. A stop waits from the commit until the next round."""
        self.stop.allow()
        if self.stream.count_left_out(turn.round) == len(self.stream.partition):
            raise RunFailedError(f"no phone is left for round {turn.round}: all are left out")
        work = self._schedule if self.stream.phones(turn.round) else idle
        self._restored = None  # from here on the server's state is no round's start
        sums, roles = RoundSums(), self.wiring.roles
        self._loading += [actor.begin.remote() for actor in (*roles.servers, *roles.clients)]
        schedule = Checked(work(turn, self.stream, roles), self.wiring)
        total, watch, samples = self.stream.trained(turn.round), Stopwatch(), 0
        for reports, queued in schedule:
            self.stop.allow()
            sums.extend(reports)
            self._tell_exchanges(turn.round, reports, queued)
            new = sum(int(np.sum(report.samples)) for report in reports)
            samples += new
            for callback in self.callbacks if new else ():
                callback.on_progress(turn.round, samples, total, samples / max(watch.seconds(), 1e-9))
        # Everybody answers before the commit: after it there is no way back to the round's start.
        received = self._loaded()
        spent = self.wiring.get([actor.spent.remote(turn) for actor in (*roles.servers, *roles.clients)])
        last = self.stream.finishing(turn.round)[-1:]  # whose weights are handed on
        self.stop.hold()
        committed = self.wiring.get([roles.fed_server.commit.remote(turn.round + 1, *schedule.end, last)])[0]
        moved = [*received, committed]  # the round's start and end, from and to the fed server
        sums.extend(moved if self._on_server else [])
        servers = len(roles.servers)
        sums.spent = {"server": mean_spent(spent[:servers]), "client": mean_spent(spent[servers:])}
        return sums

    def _tell_exchanges(self, round: int, reports: Sequence[Report], queued: int) -> None:
        exchanges = sum(report.exchanges for report in reports)
        for callback in self.callbacks:
            callback.on_exchanges(round, exchanges, queued)

    def evaluate(self, turn: Turn, part: str, total: int, batch: int) -> Sums:
        """The state at the turn's round's start, on all `total` samples of 'val' or 'test', in eval mode."""
        sums = evaluate(turn, self.wiring, part, total, batch)
        self._loaded()
        return sums

    def evaluate_own(self, turn: Turn, part: str, batch: int) -> Sums:
        """Each phone's model on what it holds out for 'val' or 'test'."""
        sums = evaluate_own(turn, self.wiring, self.stream, part, batch)
        self._loaded()
        return sums


def run(
    loop: RoundLoop, settings: config.Config, records: Records, sizes: dict[str, int], first: int,
    clock: Clock | None = None,
) -> None:  # fmt: skip
    """All rounds from `first` on: train, evaluate, checkpoint, record. `sizes` are those of 'val' and 'test'.

    If it is stopped, the rounds that are complete are written first, if that can be.
    """
    loop.saved = first
    try:
        _rounds(loop, settings, records, sizes, first, clock)
    except (KeyboardInterrupt, OutOfTimeError):
        loop.stop.finish(lambda: _save_completed(loop, records))
        raise
    loop.save_model(settings.run.rounds)


def _save_completed(loop: RoundLoop, records: Records) -> None:
    """A checkpoint of the last round that has a row, if there is none yet."""
    records.summary("stopped", loop.recoveries)  # at once: there may be no time for more
    if records.rounds > loop.saved:
        records.flush()  # before the checkpoint, as in `_rounds`
        loop.wiring.abandon()
        loop.save_now(records.rounds)
        records.saved = loop.saved


def _rounds(
    loop: RoundLoop, settings: config.Config, records: Records, sizes: dict[str, int], first: int, clock: Clock | None
) -> None:
    for round in range(first, settings.run.rounds):
        logs.at(round)
        watch = Stopwatch()
        sums = loop.transaction(round, loop.train)
        row, own = sums.row(round, watch.seconds()) | {"left_out": loop.stream.count_left_out(round)}, None
        fate, times = loop.stream.fate(round), clock.round(loop.stream, round) if clock else None
        row |= fate.row() | (times.row(fate.over) if times else {})
        last = round + 1 == settings.run.rounds
        if last or (round + 1) % settings.run.eval_every == 0:
            row, own = _evaluated(row, loop, settings, records, sizes, last)
        due = last or (round + 1) % settings.checkpoint.every == 0
        # Before the checkpoint: resuming cuts lines that lie beyond one, and could not write one that is missing.
        table = sums.phone_table(round, own)
        columns = {"fate": fate.column(table["phone"])} | (times.columns(table["phone"]) if times else {})
        records.round(row, table | columns, flush=due)
        if due:
            loop.save(round + 1)
            records.saved = loop.saved
            records.summary("running", loop.recoveries)
        for callback in loop.callbacks:
            callback.on_round_end(row)


def _evaluated(
    row: dict[str, Any], loop: RoundLoop, settings: config.Config, records: Records, sizes: dict[str, int], last: bool
) -> tuple[dict[str, Any], Sums | None]:
    """The row with validation; with the test too when validation is the best so far, and after the last round.

    Phones with personal models are each evaluated on their own samples, and others too if they hold any out.
    """
    round, batch, alone = row["round"] + 1, settings.data.eval_batch_size, schedule_of(settings.schedule).personal
    task = Task(settings.task)

    def on(part: str) -> Sums:
        if alone:
            return loop.transaction(round, lambda turn: loop.evaluate_own(turn, part, batch), training=False)
        return loop.transaction(round, lambda turn: loop.evaluate(turn, part, sizes[part], batch), training=False)

    def told(part: str, sums: Sums) -> dict[str, Any]:
        accuracy = sums.phone_mean if alone else sums.accuracy
        scores = {f"{part}_{name}": value for name, value in task.figures(sums.tallies).items()}
        broken = {f"{part}_nonfinite": loop.nonfinite.tell(row["round"], PART_NAMES[part], sums)}
        return {f"{part}_loss": sums.mean_loss, f"{part}_accuracy": accuracy, **scores, **broken}

    if sizes["val"] or alone:
        row |= told("val", on("val"))
    if not last and not records.would_be_best(row):
        return row, None
    test = on("test")
    row |= told("test", test)
    if not settings.phones.held_out:
        return row, None
    own = (
        test if alone else loop.transaction(round, lambda turn: loop.evaluate_own(turn, "test", batch), training=False)
    )
    if not alone:
        row |= {"phone_nonfinite": loop.nonfinite.tell(row["round"], "phones' test", own)}
    return row | own.over_phones(), own
