"""fit, dry_run, load_model and stream: the ways in from Python."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn

from ray_split import config, logs
from ray_split.arrays import Array
from ray_split.callbacks import Callback, listeners, show_sample
from ray_split.config.user_code.by_value import is_record
from ray_split.config.user_code.plugins import named_by
from ray_split.config.user_code.scripts import refuse_to_train_while_importing
from ray_split.data import load as data
from ray_split.data import partitions
from ray_split.data.length_groups import lengths_of
from ray_split.data.stream import Draw, Stream
from ray_split.driver.backend import Backend
from ray_split.driver.interrupted_start import stoppable
from ray_split.driver.one_run import carry_out
from ray_split.driver.stopping import Stop
from ray_split.driver.text_sample import sample_of, writes
from ray_split.errors import MISFITS, SettingsError, first_line, shown, told
from ray_split.filesystem import Place, place, write
from ray_split.messages.message import receive_leaf
from ray_split.messages.state import weights
from ray_split.models import registry
from ray_split.models.pretrained import with_versions
from ray_split.name_clashes import check_not_hidden
from ray_split.preparation.prepare import Prepared, prepare, with_held_out
from ray_split.preparation.run_folder import Claimed, check_quarantine, claimed, inherit
from ray_split.preparation.settings import named_callbacks
from ray_split.results.adapter import write_adapter
from ray_split.results.left_behind import BY_VALUE, CONFIG, MODEL, SUMMARY, WITHOUT_EMA
from ray_split.results.personal_state import FOLDER, Personal
from ray_split.results.result import Result
from ray_split.schedules import schedule_of
from ray_split.segments.base_weight import base_keys

logger = logs.get(__name__)

BACKENDS = {"ray": "actors.ray_backend.backend", "inprocess": "actors.inprocess"}


def fit(
    settings: config.Config | None = None, callbacks: Sequence[Callback] | None = None, progress: bool | None = None
) -> Result:
    """Train by the settings, and return where everything lies.

    `callbacks` are told as the run goes on, beside those that run.callbacks names. `progress`: whether a bar is shown,
    or plain lines where there is no terminal; by default it is, but with `callbacks=[]`, which says: not a word.
    Raises SettingsError before anything is started or written; RunFailedError if the run could not finish: the last
    checkpoint stands; OutOfTimeError (one of these) if run.max_hours is over, and RunStoppedError (a KeyboardInterrupt)
    if it was asked to stop: a checkpoint of the last completed round is written, if that can be.
    """
    refuse_to_train_while_importing()
    if not isinstance(settings, config.Config | None):
        wrong = f"it was given a {type(settings).__name__}, and no rs.Config"
        do = "Write rs.fit(rs.Config(...)); of a file rs.Config.from_yaml(file)"
        raise SettingsError("settings", settings, do, wrong)
    settings = settings or config.Config()
    with stoppable(), logs.written(settings.run.log_format), logs.run(settings.run.name):
        return _fit(settings, listeners(callbacks, progress, settings.run.log_format))


def _fit(settings: config.Config, callbacks: list[Callback]) -> Result:
    prepared = prepare(settings)
    check_not_hidden()
    any_name = settings.run.name is None and settings.run.resume == "never"
    with claimed(inherit(prepared.settings), any_name) as folder:
        check_quarantine(folder.settings, prepared.stream)
        return _connected(prepared._replace(settings=folder.settings), folder, callbacks)


def _connected(prepared: Prepared, folder: Claimed, callbacks: list[Callback]) -> Result:
    backend = connect(prepared.settings.cluster)
    try:
        stop = Stop(prepared.settings.run.max_hours)
        # After connect: ray.init sets a handler for SIGTERM of its own.
        with stop.listening(), stop.telling():
            resolved = backend.resolve(prepared.settings, prepared.work)
            told = [*callbacks, *named_callbacks.made(resolved.run), *backend.callbacks()]
            with logs.run(resolved.run.name):
                result = carry_out(prepared._replace(settings=resolved), folder, backend, told, stop)
                return _with_sample(result, resolved, prepared, told)
    finally:
        backend.stop()


def _with_sample(result: Result, settings: config.Config, prepared: Prepared, callbacks: Sequence[Callback]) -> Result:
    """What the trained model writes, where it is one of text: below the table, in the log and in summary.json."""
    folder = settings.run.folder
    if not writes(settings) or not (folder / MODEL).exists():
        return result
    try:
        found = sample_of(_loaded(settings, folder), settings, prepared.parts)
    except MISFITS as error:  # the run is complete: this was to show it
        logger.warning("no sample of text was written: %s", first_line(error))
        return result
    if found is None:
        return result
    logger.info("a sample: %s | %s", found["prompt"], found["text"], extra=logs.about(sample=found))
    show_sample(callbacks, found)
    summary = {**json.loads((folder / SUMMARY).read_text()), "sample": found}
    write(folder / SUMMARY, (json.dumps(summary, indent=1) + "\n").encode())
    return Result.from_path(folder)


def connect(settings: config.Cluster) -> Backend:
    """The backend that the settings name, loaded when it is needed. `stop` it when all is done."""
    backend: Backend = importlib.import_module(BACKENDS[settings.backend]).connect(settings)
    return backend


def dry_run(settings: config.Config) -> tuple[bool, list[str]]:
    """Whether a run's actors have room now, and lines that say who would be placed where. Nothing is written.

    Raises SettingsError as `fit` does.
    """
    refuse_to_train_while_importing()
    prepared = prepare(settings)
    check_not_hidden()
    backend = connect(prepared.settings.cluster)
    try:
        return backend.plan(backend.resolve(prepared.settings, prepared.work))
    finally:
        backend.stop()


def load_model(
    path: str | Place,
    phone: int | None = None,
    trust: bool = False,
    ema: bool = True,
    model: Callable[..., nn.Module] | None = None,
) -> nn.Module:
    """The trained, unsplit model of the run in a folder, in eval mode; with what is the phone's own, if one is named.

    Of a run with optimizer.ema_decay the average of weights, which was evaluated; without `ema` the last ones.
    A model that the folder names as package.module:function is imported only with `trust`: that runs code, of whoever
    wrote there. `model`: the function or class itself, as the run was given it. Raises SettingsError for one that isn't
    trusted or must be given, and if there is no model, or it can't be read.
    """
    folder = _with_weights(path)
    settings = _with_model(config.Config.from_yaml(folder / CONFIG), folder, model)
    with named_by(folder, trust):
        made = _loaded(settings, folder, ema)
    if phone is not None:
        _fill(made, folder / FOLDER, _own_weights(folder, phone), strict=False)
    return made


def _loaded(settings: config.Config, folder: Place, ema: bool = True) -> nn.Module:
    """The model with the weights that a run left, in eval mode."""
    made = registry.build(settings.model, settings.run.seed)
    file = folder / (MODEL if ema or settings.optimizer.ema_decay is None else WITHOUT_EMA)
    base = base_keys(made)
    file_has = {**{key: tensor for key, tensor in made.state_dict().items() if key in base}, **_read_weights(file)}
    _fill(made, file, file_has, strict=True)
    return made.eval()


def save_adapter(path: str | Place, folder: str | Place, phone: int | None = None) -> None:
    """Write the adapters of the run in a folder as peft keeps them, into another; or a phone's own, if one is named.

    Those of all phones a run has in its folder already, in adapter/. Raises SettingsError as `load_model` does, and if
    the run trained no adapters.
    """
    run = _with_weights(path)
    settings = config.Config.from_yaml(run / CONFIG).model
    if settings.lora.r is None:
        do = "Give a run with model.lora.r, or use load_model"
        raise SettingsError("path", str(path), do, f"the run in {shown(str(path))} trained no adapters")
    weights = _read_weights(run / MODEL) | (_own_weights(run, phone) if phone is not None else {})
    write_adapter(place(folder), settings, weights)


def _with_weights(path: str | Place) -> Place:
    """A run's folder. Raises SettingsError if there is no model in it."""
    folder = place(path)
    if not (folder / MODEL).exists():
        raise SettingsError("path", str(path), NO_MODEL, f"there is no {MODEL} in {shown(str(path))}")
    return folder


def _with_model(settings: config.Config, folder: Place, model: Callable[..., nn.Module] | None) -> config.Config:
    """A run's settings with the model's function that is given, where the folder can't tell it."""
    was = settings.model.name
    if model is None:
        if is_record(was):
            name = was.rpartition(":")[2]
            wrong = f"the model of this run is {name}, which was made in a notebook or a script"
            do = f"Give it again: load_model(..., model={name}). {folder / BY_VALUE} has its text"
            raise SettingsError("model", None, do, wrong)
        return settings
    settings = settings.with_values(model={"name": model})
    if is_record(was) and settings.model.name != was:
        logger.warning("the model's function is another than the run was given: %s, not %s", settings.model.name, was)
    return settings


def _read_weights(path: Place) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return dict(load(path.read_bytes()))
    except (SafetensorError, ValueError, OSError) as error:
        raise SettingsError("path", str(path), OTHER_FOLDER, f"{path} can't be read: {first_line(error)}") from error


def _fill(model: nn.Module, path: Place, given: dict[str, torch.Tensor], strict: bool) -> None:
    """The weights are those of the model as it is now: what its layers do to older ones is not done to them."""
    try:
        model.load_state_dict(with_versions(given, model.state_dict()), strict)
    except (RuntimeError, ValueError, KeyError) as error:
        wrong = f"the weights in {path} don't fit the model that {CONFIG} names: {told(error)}"
        raise SettingsError("path", str(path), OTHER_FOLDER, wrong) from error


NO_MODEL = "Give the folder of a run that has completed a round"
OTHER_FOLDER = "Give the folder of another run, or train this one again"
SHARED = "Leave phone out to load the model that all phones share"


def _untrained(phone: int, trained: Array) -> tuple[str, str]:
    """What to do, and what is wrong, where a phone has no weights of its own."""
    there = [str(each) for each in range(len(trained)) if trained[each]]
    some = f"{', '.join(there[:10])}{', ...' if there[10:] else ''}"
    return f"The phones that have trained are {some}", f"phone {phone} has not trained in this run"


def _own_weights(folder: Place, phone: int) -> dict[str, torch.Tensor]:
    try:
        personal = Personal.open(folder / FOLDER)
    except FileNotFoundError as error:
        raise SettingsError(
            "phone", phone, SHARED, f"phones have no weights of their own in the run in {shown(str(folder))}"
        ) from error
    except (ValueError, EOFError, OSError) as error:
        raise SettingsError("phone", phone, SHARED, f"{folder / FOLDER} can't be read: {first_line(error)}") from error
    if not 0 <= phone < len(personal.trained) or not personal.trained[phone]:
        raise SettingsError("phone", phone, *_untrained(phone, personal.trained))
    own = personal.own(phone).values()
    return {key: receive_leaf(array) for state in own for key, array in weights(state).items()}


def stream(settings: config.Config) -> Iterator[Draw]:
    """All local steps of a run, in order, to replay it in a reference loop. Raises SettingsError.

    for draw in rs.stream(config):
        inputs, labels = batches.of(draw)   # batches = rs.Batches(config, rs.load_data(config.data))

    Indices are of `rs.load_data(config.data).train`.
    """
    steps = _stream_of(settings)
    for round in range(settings.run.rounds):
        yield from steps.draws(round)


def _stream_of(settings: config.Config) -> Stream:
    if (settings.phones.device, settings.phones.link, settings.server.device, settings.phones.deadline) != (None,) * 4:
        return prepare(settings).stream  # who is late, or has too little memory, depends on the model
    schedule = schedule_of(settings.schedule)
    settings = with_held_out(settings, schedule)
    parts = data.load(settings.data)
    partition = partitions.deal(settings, parts.train.labels, parts.groups)
    return Stream(settings, partition, schedule.order, lengths=lengths_of(settings, parts))
