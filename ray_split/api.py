"""fit and load_model: the way in from Python."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

import torch
from torch import nn

from ray_split import config, logs, models, training
from ray_split.callbacks import Callback, progress
from ray_split.checkpoint import round_of
from ray_split.claim import claim, inherit
from ray_split.failure import OutOfTimeError, RunFailedError, SettingsError
from ray_split.personal import FOLDER, Personal
from ray_split.prepare import Prepared, prepare
from ray_split.records import CONFIG, MODEL, Records
from ray_split.resolve import resolve
from ray_split.result import Result
from ray_split.scripts import refuse_to_train_while_importing
from ray_split.state import weights
from ray_split.stopping import Stop
from ray_split.storage import Place, place
from ray_split.wiring import Wiring

BACKENDS = {"ray": "actors.cluster", "inprocess": "actors.inprocess"}


def fit(settings: config.Config | None = None, callbacks: Sequence[Callback] | None = None) -> Result:
    """Train by the settings, and return where everything lies.

    `callbacks` are told as the run goes on; by default a progress bar, or plain lines where there is no terminal.
    Raises SettingsError before anything is started or written; RunFailedError if the run could not finish: the last
    checkpoint stands; OutOfTimeError (one of these) if run.max_hours is over, and RunStoppedError (a KeyboardInterrupt)
    if it was asked to stop: a checkpoint of the last completed round is written, if that can be.
    """
    refuse_to_train_while_importing()
    settings = settings or config.Config()
    with logs.written(settings.run.log_format), logs.run(settings.run.name):
        return _fit(settings, [progress(settings.run.log_format)] if callbacks is None else list(callbacks))


def _fit(settings: config.Config, callbacks: list[Callback]) -> Result:
    prepared = prepare(settings)
    prepared = prepared._replace(settings=inherit(prepared.settings))
    checkpoint = claim(prepared.settings)
    backend = importlib.import_module(BACKENDS[prepared.settings.cluster.backend])
    wiring, nodes = backend.connect(prepared.settings.cluster)
    try:
        stop = Stop(prepared.settings.run.max_hours)
        # After connect: ray.init sets a handler for SIGTERM of its own.
        with stop.listening(), stop.telling():
            resolved = resolve(prepared.settings, nodes)
            told = [*callbacks, *wiring.callbacks()]
            with logs.run(resolved.run.name):
                return _run(prepared._replace(settings=resolved), checkpoint, wiring, told, stop)
    finally:
        wiring.stop()


def dry_run(settings: config.Config) -> tuple[bool, list[str]]:
    """Whether a run's actors have room now, and lines that say who would be placed where. Nothing is written.

    Raises SettingsError as `fit` does.
    """
    refuse_to_train_while_importing()
    prepared = prepare(settings).settings
    backend = importlib.import_module(BACKENDS[prepared.cluster.backend])
    wiring: Wiring
    wiring, nodes = backend.connect(prepared.cluster)
    try:
        return wiring.plan(resolve(prepared, nodes))
    finally:
        wiring.stop()


def _run(prepared: Prepared, checkpoint: Place | None, wiring: Wiring, callbacks: list[Callback], stop: Stop) -> Result:
    settings, parts, stream, borders, clock = prepared
    first = round_of(checkpoint) if checkpoint else 0
    records = Records(settings, first, wiring.differing)
    for each in records.quarantined:
        stream.leave_out(each["phone"], each["round"])
    loop = training.RoundLoop(settings, stream, wiring, callbacks, stop)
    loop.callbacks = [*callbacks, _Quarantine(records, loop)]
    records.summary("running", 0)
    status, error = "failed", None
    try:
        with stop.telling():
            wiring.start(settings, parts, stream, borders)
            loop.start()
            for callback in callbacks:
                callback.on_run_start(settings, loop.where, first)
            sizes = {"val": len(parts.val.inputs), "test": len(parts.test.inputs)}
            training.run(loop, settings, records, sizes, first, clock)
        status = "finished"
    except (KeyboardInterrupt, OutOfTimeError) as asked:
        status, error = "stopped", str(asked) if isinstance(asked, OutOfTimeError) else "stopped on request"
        raise
    except Exception as failure:
        error = f"{type(failure).__name__}: {failure}"
        raise failure if isinstance(failure, RunFailedError) else RunFailedError(error) from failure
    finally:
        summary = records.summary(status, loop.recoveries, error)
        records.close(status)
        for callback in callbacks:
            callback.on_run_end(summary, str(records.folder))
    return Result.from_path(records.folder)


class _Quarantine(Callback):
    """Writes down at once who is left out: a run that is killed goes on without them when it is resumed."""

    def __init__(self, records: Records, loop: training.RoundLoop) -> None:
        self._records, self._loop = records, loop

    def on_quarantine(self, round: int, phones: tuple[int, ...], reason: str) -> None:
        """A line each in summary.json."""
        self._records.quarantine(round, phones, reason)
        self._records.summary("running", self._loop.recoveries)


def load_model(path: str | Place, phone: int | None = None) -> nn.Module:
    """The trained, unsplit model of the run in a folder, in eval mode; with what is the phone's own, if one is named.

    Raises SettingsError if there is none.
    """
    from safetensors.torch import load

    folder = place(path)
    if not (folder / MODEL).exists():
        raise SettingsError("path", str(path), "the folder of a finished run, with its model.safetensors")
    settings = config.Config.from_yaml(folder / CONFIG)
    model = models.build(settings.model, settings.run.seed)
    model.load_state_dict(load((folder / MODEL).read_bytes()))
    if phone is not None:
        model.load_state_dict(_own_weights(folder, phone), strict=False)
    return model.eval()


def _own_weights(folder: Place, phone: int) -> dict[str, torch.Tensor]:
    try:
        personal = Personal.open(folder / FOLDER)
    except FileNotFoundError as error:
        raise SettingsError("phone", phone, f"none: in {folder} nothing is a phone's own") from error
    if not 0 <= phone < len(personal.trained) or not personal.trained[phone]:
        raise SettingsError("phone", phone, "one that has trained")
    own = personal.own(phone).values()
    return {key: torch.from_numpy(array) for state in own for key, array in weights(state).items()}
