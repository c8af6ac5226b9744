"""fit and load_model: the way in from Python."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

import torch
from torch import nn

from ray_split import config, logs
from ray_split.callbacks import Callback, progress
from ray_split.config.plugins import named_by
from ray_split.config.scripts import refuse_to_train_while_importing
from ray_split.driver import training_loop
from ray_split.driver.interrupted_start import stoppable
from ray_split.driver.stopping import Stop
from ray_split.errors import OutOfTimeError, RunFailedError, SettingsError, first_line, told
from ray_split.filesystem import Place, place
from ray_split.messages.message import receive_leaf
from ray_split.messages.state import weights
from ray_split.models import registry
from ray_split.models.pretrained import with_versions
from ray_split.name_clashes import check_not_hidden
from ray_split.preparation.prepare import Prepared, prepare
from ray_split.preparation.run_folder import Claimed, check_quarantine, claimed, inherit
from ray_split.resolve import resolve
from ray_split.results.checkpoint import round_of
from ray_split.results.left_behind import CONFIG, MODEL
from ray_split.results.personal_state import FOLDER, Personal
from ray_split.results.records import Records
from ray_split.results.result import Result
from ray_split.schedules.roles import Wiring

BACKENDS = {"ray": "actors.ray_backend.backend", "inprocess": "actors.inprocess"}


def fit(settings: config.Config | None = None, callbacks: Sequence[Callback] | None = None) -> Result:
    """Train by the settings, and return where everything lies.

    `callbacks` are told as the run goes on; by default a progress bar, or plain lines where there is no terminal.
    Raises SettingsError before anything is started or written; RunFailedError if the run could not finish: the last
    checkpoint stands; OutOfTimeError (one of these) if run.max_hours is over, and RunStoppedError (a KeyboardInterrupt)
    if it was asked to stop: a checkpoint of the last completed round is written, if that can be.
    """
    refuse_to_train_while_importing()
    settings = settings or config.Config()
    with stoppable(), logs.written(settings.run.log_format), logs.run(settings.run.name):
        return _fit(settings, [progress(settings.run.log_format)] if callbacks is None else list(callbacks))


def _fit(settings: config.Config, callbacks: list[Callback]) -> Result:
    prepared = prepare(settings)
    check_not_hidden()
    any_name = settings.run.name is None and settings.run.resume == "never"
    with claimed(inherit(prepared.settings), any_name) as folder:
        check_quarantine(folder.settings, prepared.stream)
        return _connected(prepared._replace(settings=folder.settings), folder, callbacks)


def _connected(prepared: Prepared, folder: Claimed, callbacks: list[Callback]) -> Result:
    backend = importlib.import_module(BACKENDS[prepared.settings.cluster.backend])
    wiring, nodes = backend.connect(prepared.settings.cluster)
    try:
        stop = Stop(prepared.settings.run.max_hours)
        # After connect: ray.init sets a handler for SIGTERM of its own.
        with stop.listening(), stop.telling():
            resolved = resolve(prepared.settings, nodes)
            told = [*callbacks, *wiring.callbacks()]
            with logs.run(resolved.run.name):
                return _run(prepared._replace(settings=resolved), folder, wiring, told, stop)
    finally:
        wiring.stop()


def dry_run(settings: config.Config) -> tuple[bool, list[str]]:
    """Whether a run's actors have room now, and lines that say who would be placed where. Nothing is written.

    Raises SettingsError as `fit` does.
    """
    refuse_to_train_while_importing()
    prepared = prepare(settings).settings
    check_not_hidden()
    backend = importlib.import_module(BACKENDS[prepared.cluster.backend])
    wiring: Wiring
    wiring, nodes = backend.connect(prepared.cluster)
    try:
        return wiring.plan(resolve(prepared, nodes))
    finally:
        wiring.stop()


def _run(prepared: Prepared, folder: Claimed, wiring: Wiring, callbacks: list[Callback], stop: Stop) -> Result:
    settings, parts, stream, borders, clock = prepared
    first = round_of(folder.checkpoint) if folder.checkpoint else 0
    try:
        records = Records(settings, first, wiring.differing, folder.hold, parts.classes)
        records.summary("running", 0)
    except OSError as unwritten:
        raise RunFailedError(f"{type(unwritten).__name__}: {unwritten}") from unwritten
    for each in records.quarantined:
        stream.leave_out(each["phone"], each["round"])
    loop = training_loop.RoundLoop(settings, stream, wiring, callbacks, stop)
    loop.callbacks = [*callbacks, _Quarantine(records, loop)]
    status, error = "failed", None
    try:
        with stop.telling():
            wiring.start(settings, parts, stream, borders)
            loop.start()
            for callback in callbacks:
                callback.on_run_start(settings, loop.where, first)
            sizes = {"val": len(parts.val.inputs), "test": len(parts.test.inputs)}
            training_loop.run(loop, settings, records, sizes, first, clock)
        status = "finished"
    except (KeyboardInterrupt, OutOfTimeError) as asked:
        status, error = "stopped", str(asked) if isinstance(asked, OutOfTimeError) else "stopped on request"
        raise
    except Exception as failure:
        error = f"{type(failure).__name__}: {failure}"
        raise failure if isinstance(failure, RunFailedError) else RunFailedError(error) from failure
    finally:
        summary, full = _end(records, status, loop.recoveries, error)
        for callback in callbacks:
            callback.on_run_end(summary, str(records.folder))
    if full:
        raise RunFailedError(str(summary["error"])) from full
    return Result.from_path(records.folder)


def _end(records: Records, status: str, recoveries: int, error: str | None) -> tuple[dict[str, object], OSError | None]:
    """Write what is left to be written. A run that came to its end has failed if that can't be: the error then."""
    try:
        summary = records.summary(status, recoveries, error)
        records.close(status)
    except OSError as unwritten:
        return records.summary("failed", recoveries, f"{type(unwritten).__name__}: {unwritten}"), unwritten
    return summary, None


class _Quarantine(Callback):
    """Writes down at once who is left out: a run that is killed goes on without them when it is resumed."""

    def __init__(self, records: Records, loop: training_loop.RoundLoop) -> None:
        self._records, self._loop = records, loop

    def on_quarantine(self, round: int, phones: tuple[int, ...], reason: str) -> None:
        """A line each in summary.json."""
        self._records.quarantine(round, phones, reason)
        self._records.summary("running", self._loop.recoveries)


def load_model(path: str | Place, phone: int | None = None, trust: bool = False) -> nn.Module:
    """The trained, unsplit model of the run in a folder, in eval mode; with what is the phone's own, if one is named.

    A model that the folder names as package.module:function is imported only with `trust`: that runs code, of whoever
    wrote there. Raises SettingsError for one that isn't trusted, and if there is no model, or it can't be read.
    """
    folder = place(path)
    if not (folder / MODEL).exists():
        raise SettingsError("path", str(path), "the folder of a finished run, with its model.safetensors")
    settings = config.Config.from_yaml(folder / CONFIG)
    with named_by(folder, trust):
        model = registry.build(settings.model, settings.run.seed)
    _fill(model, folder / MODEL, _read_weights(folder / MODEL), strict=True)
    if phone is not None:
        _fill(model, folder / FOLDER, _own_weights(folder, phone), strict=False)
    return model.eval()


def _read_weights(path: Place) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return dict(load(path.read_bytes()))
    except (SafetensorError, ValueError, OSError) as error:
        raise SettingsError("path", str(path), f"a model that can be read: {first_line(error)}") from error


def _fill(model: nn.Module, path: Place, given: dict[str, torch.Tensor], strict: bool) -> None:
    """The weights are those of the model as it is now: what its layers do to older ones is not done to them."""
    try:
        model.load_state_dict(with_versions(given, model.state_dict()), strict)
    except (RuntimeError, ValueError, KeyError) as error:
        allowed = f"the weights of the model that config.yaml names: {told(error)}"
        raise SettingsError("path", str(path), allowed) from error


def _own_weights(folder: Place, phone: int) -> dict[str, torch.Tensor]:
    try:
        personal = Personal.open(folder / FOLDER)
    except FileNotFoundError as error:
        raise SettingsError("phone", phone, f"none: in {folder} nothing is a phone's own") from error
    except (ValueError, EOFError, OSError) as error:
        raise SettingsError("phone", phone, f"none: {folder / FOLDER} can't be read: {first_line(error)}") from error
    if not 0 <= phone < len(personal.trained) or not personal.trained[phone]:
        raise SettingsError("phone", phone, "one that has trained")
    own = personal.own(phone).values()
    return {key: receive_leaf(array) for state in own for key, array in weights(state).items()}
