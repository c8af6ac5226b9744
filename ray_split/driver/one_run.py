"""One prepared run, from its actors' start to its summary: whatever ends it is written down there."""

from __future__ import annotations

from ray_split import logs
from ray_split.callbacks import Callback
from ray_split.driver import training_loop
from ray_split.driver.backend import Backend
from ray_split.driver.guarded_callbacks import Guarded
from ray_split.driver.round_runner import RoundRunner
from ray_split.driver.stopping import Stop
from ray_split.errors import CallbackError, OutOfTimeError, RunFailedError, first_line
from ray_split.preparation.prepare import Prepared
from ray_split.preparation.run_folder import Claimed
from ray_split.results.checkpoint import round_of
from ray_split.results.records import Records
from ray_split.results.result import Result

logger = logs.get(__name__)


def carry_out(prepared: Prepared, folder: Claimed, backend: Backend, callbacks: list[Callback], stop: Stop) -> Result:
    """Start the actors, go through the rounds, and write what is left: what the run came to.

    Raises RunFailedError if it could not finish, OutOfTimeError and KeyboardInterrupt if it was stopped.
    """
    settings, parts, stream, contract, clock, _ = prepared
    callbacks = [Guarded(callback) for callback in callbacks]
    first = round_of(folder.checkpoint) if folder.checkpoint else 0
    try:
        groups = stream.partition.groups
        names = None if groups is None else groups.names
        records = Records(settings, first, backend.differing, folder.hold, parts.classes, names)
        records.summary("running", 0)
    except OSError as unwritten:
        raise RunFailedError(f"{type(unwritten).__name__}: {unwritten}") from unwritten
    for each in records.quarantined:
        stream.leave_out(each["phone"], each["round"])
    for each in records.absent:
        stream.be_absent([each["phone"]], each["round"])
    runner = RoundRunner(settings, stream, backend, callbacks, stop, records.smaller)
    runner.callbacks = [*callbacks, _Quarantine(records, runner)]
    status, error = "failed", None
    try:
        with stop.telling():
            backend.start(settings, parts, stream, contract)
            runner.start()
            for callback in callbacks:
                callback.on_run_start(settings, runner.where, first)
            sizes = {"val": len(parts.val.inputs), "test": len(parts.test.inputs)}
            training_loop.run(runner, settings, records, sizes, first, clock)
        status = "finished"
    except (KeyboardInterrupt, OutOfTimeError) as asked:
        status, error = "stopped", str(asked) if isinstance(asked, OutOfTimeError) else "stopped on request"
        raise
    except Exception as failure:
        error = str(failure) if isinstance(failure, CallbackError) else f"{type(failure).__name__}: {failure}"
        raise failure if isinstance(failure, RunFailedError) else RunFailedError(error) from failure
    finally:
        summary, full = _end(records, status, runner.recoveries, error)
        raised = _tell_end(callbacks, summary, str(records.folder))
    if full:
        raise RunFailedError(str(summary["error"])) from full
    if raised:
        records.summary("failed", runner.recoveries, str(raised))
        raise raised
    return Result.from_path(records.folder)


def _end(records: Records, status: str, recoveries: int, error: str | None) -> tuple[dict[str, object], OSError | None]:
    """Write what is left to be written. A run that came to its end has failed if that can't be: the error then."""
    try:
        summary = records.summary(status, recoveries, error)
        records.close(status)
    except OSError as unwritten:
        return records.summary("failed", recoveries, f"{type(unwritten).__name__}: {unwritten}"), unwritten
    return summary, None


def _tell_end(callbacks: list[Callback], summary: dict[str, object], path: str) -> CallbackError | None:
    """Tell all that it is over. What the first that raises raised; of a run that ends by an error this is but said."""
    found = None
    for callback in callbacks:
        try:
            callback.on_run_end(summary, path)
        except CallbackError as error:
            found = found or error
            logger.warning("%s", first_line(error))
    return found


class _Quarantine(Callback):
    """Writes down at once who is left out or off, and what has no room: a run that is resumed goes on so."""

    def __init__(self, records: Records, runner: RoundRunner) -> None:
        self._records, self._runner = records, runner

    def on_absence(self, round: int, phones: tuple[int, ...], reason: str) -> None:
        """A line each in summary.json."""
        self._records.absence(round, phones, reason)
        self._write()

    def on_quarantine(self, round: int, phones: tuple[int, ...], reason: str) -> None:
        """A line each in summary.json."""
        self._records.quarantine(round, phones, reason)
        self._write()

    def on_smaller(self, round: int, lanes: int, chunk: int | None) -> None:
        """It is in the records already."""
        self._write()

    def _write(self) -> None:
        self._records.summary("running", self._runner.recoveries)
