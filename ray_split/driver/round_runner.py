"""One round as a transaction: run the schedule, commit, recover from lost actors. It knows no Ray.

A round begins with the state that the fed server holds and ends with a commit there. Whatever dies in between, the
actors are rebuilt and it is run again from the same state. If it was the fed server, the state is that of the last
checkpoint, or the first weights, and the rounds since are run again: to the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from ray_split import config, logs
from ray_split.callbacks import Callback, Stopwatch
from ray_split.data.stream import Stream
from ray_split.driver import room
from ray_split.driver.backend import Backend
from ray_split.driver.bounded_calls import Checked
from ray_split.driver.evaluation import Nonfinite, evaluate, evaluate_own
from ray_split.driver.remote_phones import Absent, RemotePhones
from ray_split.driver.room import Room
from ray_split.driver.stopping import Stop
from ray_split.errors import (
    ActorLostError,
    BadPhoneError,
    DeviceMemoryError,
    Failures,
    PhoneGoneError,
    RunFailedError,
)
from ray_split.filesystem import Place
from ray_split.messages.report import Report, RoundSums, Sums, mean_spent
from ray_split.messages.turn import Turn
from ray_split.results import checkpoint
from ray_split.schedules import idle, schedule_of
from ray_split.schedules.roles import FED_SERVER, Ref

T = TypeVar("T")
logger = logs.get(__name__)


class RoundRunner:
    """Runs rounds and evaluations on a backend's actors, each as a transaction."""

    def __init__(
        self,
        settings: config.Config,
        stream: Stream,
        backend: Backend,
        callbacks: Sequence[Callback],
        stop: Stop | None = None,
        smaller: list[dict[str, Any]] | None = None,
    ) -> None:
        """`smaller`: what was taken back of what servers compute at once, to which more is added."""
        self.stream = stream
        self.backend = backend
        self.callbacks = callbacks
        self.stop = stop or Stop()
        backend.meanwhile(self.stop.look)
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
        self.room = Room(settings, self._way, [] if smaller is None else smaller)
        self._counts_steps = any(settings.optimizer.of(segment).schedule.counts_steps for segment in "abc")
        self._averages = settings.optimizer.ema_decay is not None  # what is evaluated isn't what training goes on with
        self._restored: tuple[int, int, bool] | None = None  # (round, attempt, to evaluate), of the server's state
        self._loading: list[Ref] = []  # that load, not yet checked
        self._received: list[Report] = []  # of that load
        self.nonfinite = Nonfinite()
        self._remote = RemotePhones(settings, stream, backend, self._be_absent, self._tell_devices)

    def start(self) -> int:
        """Give the fed server the state to begin with: the last checkpoint's, or the first weights. Returns the round.

        What dies meanwhile is replaced, actors that are being made too.
        """
        return self._surviving(-1, self._begin)

    def _begin(self) -> int:
        self.where = self.backend.ready()
        roles = self.backend.roles
        self.backend.get([roles.fed_server.reach.remote()])
        restored = checkpoint.newest(self._checkpoints, self._restored_from)  # that claim chose, or a later one
        if restored is not None:
            return restored
        ends, middle = roles.clients[0].initial_state.remote(), roles.server.initial_state.remote()
        self.backend.get([roles.fed_server.commit.remote(0, ends, middle)])
        return 0

    def _restored_from(self, path: Place) -> int:
        return int(self.backend.get([self.backend.roles.fed_server.restore.remote(path)])[0])

    def transaction(self, round: int, work: Callable[[Turn], T], training: bool = True) -> T:
        """Do `work` on the state at the start of `round`; if an actor dies, again, with a new attempt number."""

        def attempt() -> T:
            before = self.stream.steps_before(round) if self._counts_steps and training else 0
            turn = Turn(round, self._attempt, phones=(), step=-1, before=before)
            self._restore(turn, to_evaluate=self._averages and not training)
            return work(turn)

        if training:
            return self._surviving(round, attempt, self._quarantine)
        self._remote.begin_evaluation()
        return self._surviving(round, attempt, self._pass_over, self._remote.pass_over)

    def save(self, round: int) -> None:
        """Write a checkpoint of the start of `round`."""
        self._surviving(round, lambda: self.save_now(round))

    def save_now(self, round: int) -> None:
        """As `save`, but whatever happens is raised. StateNotLoadedError if the fed server holds another round."""
        self.backend.get([self.backend.roles.fed_server.save_checkpoint.remote(round)])
        self.saved = round

    def save_model(self, round: int) -> None:
        """Write the model as it is at the start of `round`."""
        self._surviving(round, lambda: self.backend.get([self.backend.roles.fed_server.save_model.remote()]))

    def _surviving(
        self,
        round: int,
        work: Callable[[], T],
        leave_out: Callable[[int, BadPhoneError], None] | None = None,
        be_gone: Absent | None = None,
    ) -> T:
        """Do `work`, for which the fed server holds the start of `round` (-1: of none); if an actor dies, again.

        If a phone is bad, again after it was left out; if a remote one is gone, again without it: off in the round,
        unless `be_gone` says otherwise.
        """
        while True:
            try:
                return work()
            except BadPhoneError as error:
                bad = self._named(error)
                if leave_out is None:
                    raise bad from error
                leave_out(round, bad)
            except PhoneGoneError as error:
                self.forget()
                (be_gone or self._be_absent)(round, error.phones, error.reason)
            except ActorLostError as error:
                self._recover(round, error)
            except DeviceMemoryError as error:
                self._shrink(round, error)

    def _shrink(self, round: int, error: DeviceMemoryError) -> None:
        """Let servers compute less at once from `round` on. Raises RunFailedError if they can't."""
        before, at = self.room.at(round), max(round, 0)
        cohorts = len(self.stream.cohorts(at)) if self.stream.phones(at) else 0
        now = self.room.shrink(round, cohorts, len(self.backend.roles.clients), error)
        logger.warning("%s", room.told(round, now, before, error), extra=logs.about(round if round >= 0 else None))
        self.stop.allow()
        self.forget()
        self.recoveries += 1
        for callback in self.callbacks:
            callback.on_smaller(at, now.lanes, now.chunk)

    def _be_absent(self, round: int, phones: tuple[int, ...], reason: str) -> None:
        """Remote phones are off in a round. They may be there in the next one."""
        self.stream.be_absent(phones, round)
        for callback in self.callbacks:
            callback.on_absence(round, phones, reason)

    def _named(self, error: BadPhoneError) -> BadPhoneError:
        """Saying whose the phones are, where they are somebody's."""
        groups = self.stream.partition.groups
        return error if groups is None else BadPhoneError(error.phones, f"{groups.whose(error.phones)}: {error.reason}")

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
        when = f"round {round + 1}" if round >= 0 else "at the start"  # for people, from 1
        logger.warning("%s: %s", when, error, extra=logs.about(round if round >= 0 else None))
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
                lost = self.backend.rebuild()
            except ActorLostError as error:
                self._failures.add(error)
            else:
                self._failures.died(lost)
                return lost

    def _restore(self, turn: Turn, to_evaluate: bool) -> None:
        """Give the server's replicas the round's start. Not waited for: what is submitted after it comes after it."""
        if self._restored == (turn.round, turn.attempt, to_evaluate):
            return
        roles, limits = self.backend.roles, self.room.at(turn.round)
        roles.lanes = limits.lanes
        state = roles.fed_server.server_state.remote(turn, to_evaluate)
        chunk = [] if limits.chunk is None else [limits.chunk]
        self._loading = [server.load.remote(turn, state, self._way, *chunk) for server in roles.servers]
        self._restored = (turn.round, turn.attempt, to_evaluate)

    def _loaded(self) -> list[Report]:
        loading, self._loading = self._loading, []
        self._received = [report for report in self.backend.get(loading) if report is not None] or self._received
        return self._received

    def train(self, turn: Turn) -> RoundSums:
        """One round by the schedule, committed at the fed server. A stop waits from the commit until the next round."""
        self.stop.allow()
        if self.stream.count_left_out(turn.round) == len(self.stream.partition):
            raise RunFailedError(f"no phone is left for round {turn.round + 1}: all are left out")
        self._remote.gather(turn.round)
        self._remote.look(turn.round, now=True)
        work = self._schedule if self.stream.phones(turn.round) else idle
        self._restored = None  # from here on the server's state is no round's start
        sums, roles = RoundSums(), self.backend.roles
        self._loading += [actor.begin.remote() for actor in (*roles.servers, *roles.clients)]
        if roles.direct:  # their calls to the server come after its load, which is the driver's
            self._loading += [client.after.remote(*self._loading) for client in roles.clients]
        schedule = Checked(work(turn, self.stream, roles), self.backend)
        total, watch, samples = self.stream.trained(turn.round), Stopwatch(), 0
        for reports, queued in schedule:
            self.stop.allow()
            sums.extend(reports)
            self._tell_exchanges(turn.round, reports, queued)
            self._remote.look(turn.round)
            new = sum(int(np.sum(report.samples)) for report in reports)
            samples += new
            for callback in self.callbacks if new else ():
                callback.on_progress(turn.round, samples, total, samples / max(watch.seconds(), 1e-9))
        # Everybody answers before the commit: after it there is no way back to the round's start.
        received = self._loaded()
        spent = self.backend.get([actor.spent.remote(turn) for actor in (*roles.servers, *roles.clients)])
        sums.crossed = self._remote.crossed()
        self._remote.look(turn.round, now=True)
        last = self.stream.finishing(turn.round)[-1:]  # whose weights are handed on
        self.stop.hold()
        part = self.stream.part(turn.round)
        committed = self.backend.get([roles.fed_server.commit.remote(turn.round + 1, *schedule.end, last, part)])[0]
        moved = [*received, committed]  # the round's start and end, from and to the fed server
        sums.extend(moved if self._on_server else [])
        servers = len(roles.servers)
        sums.spent = {"server": mean_spent(spent[:servers]), "client": mean_spent(spent[servers:])}
        return sums

    def _tell_exchanges(self, round: int, reports: Sequence[Report], queued: int) -> None:
        exchanges = sum(report.exchanges for report in reports)
        for callback in self.callbacks:
            callback.on_exchanges(round, exchanges, queued)

    def _tell_devices(self, round: int, devices: list[dict[str, Any]]) -> None:
        for callback in self.callbacks:
            callback.on_devices(round, devices)

    def evaluate(self, turn: Turn, part: str, total: int, batch: int) -> Sums:
        """The state at the turn's round's start, on all `total` samples of 'val' or 'test', in eval mode."""
        sums = evaluate(turn, self.backend, part, total, batch)
        self._loaded()
        return sums

    def evaluate_own(self, turn: Turn, part: str, batch: int) -> Sums:
        """Each phone's model on what it holds out for 'val' or 'test'."""
        gone = self._remote.gone(turn.round)
        sums = evaluate_own(turn, self.backend, self.stream, part, batch, gone)
        self._loaded()
        return sums

    def crossed(self) -> dict[str, int]:
        """Columns of what crossed between the gateway and devices since this was asked last, or a round ended."""
        return self._remote.crossed()
