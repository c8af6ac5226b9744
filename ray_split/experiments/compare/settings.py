"""What a comparison is asked to run: its own flags, and each run's settings, checked before anything starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ray_split import config
from ray_split.arrays import Array
from ray_split.command_line.parser import Parser
from ray_split.command_line.training import settings_of
from ray_split.config import text
from ray_split.errors import SettingsError, listed, shown
from ray_split.experiments.command import seeds_of, words_of
from ray_split.experiments.compare.methods import method_of
from ray_split.experiments.compare.results import folder_name, label
from ray_split.experiments.out_folder import check_writable, unnamed
from ray_split.filesystem import Place, full, is_in_memory, place
from ray_split.preparation.prepare import prepare
from ray_split.preparation.run_folder import claim, inherit
from ray_split.results.left_behind import CONFIG
from ray_split.tasks.losses import LOSSES, Distance, MultiLabel

BY_DEFAULT = "unsplit,fedavg,sequential,splitfed_v1,splitfed_v2,splitfed_v3,parallel"
OURS = {"--schedule.name": "--schedules", "--run.seed": "--seeds"}
EXAMPLES = {"--schedules": ("schedule", "fedavg,parallel"), "--seeds": ("seed", "3 for seed 3 alone")}
UNLIKE = ("run.rounds", "run.eval_every", "cluster.backend", "cluster.client_actors", "cluster.cpus_per_client")
"""Settings that a resumed run may change, but that the runs of one comparison must share."""


class Comparison(NamedTuple):
    """What is to be run: settings by the name of the run's folder, each ready for fit."""

    out: Place
    schedules: list[str]
    seeds: list[int]
    target: float | None
    runs: dict[str, config.Config]
    show: bool  # print the settings, and run nothing


def add_own_flags(parser: Parser) -> None:
    """What is asked beside the settings of the runs."""
    add = parser.add_argument
    add("--seeds", default="0,1,2", help="run.seed of each run (default: %(default)s)")
    add(
        "--schedules",
        default=BY_DEFAULT,
        help="schedule.name of each run; +NAME adds an algorithm or a server "
        "optimizer, as in splitfed_v1+scaffold (default: %(default)s)",
    )
    add("--target", help="validation accuracy to reach (default: 95 %% of unsplit's best)")
    add("--out", help="folder (default: run.storage_path/run.name, or compare_<time>)")


def comparison_of(arguments: Sequence[str], parser: Parser) -> Comparison:
    """The runs that a command line asks for, each checked as far as can be without actors. Raises SettingsError."""
    add_own_flags(parser)
    flags, rest = parser.parse_known_args(arguments)
    _check_ours(rest)
    schedules, seeds, target = _schedules(flags.schedules), seeds_of(flags.seeds), _target(flags.target)
    if flags.out == "":
        raise SettingsError("--out", flags.out, "a local folder or a URI")
    base, wanted = settings_of(rest, parser.flags())
    _check_out(flags.out)
    if wanted == "dry_run":
        wrong = "can't be used with compare, because it is about one run and compare has several"
        raise SettingsError("--dry-run", wanted, "Remove --dry-run, or use 'ray-split train --dry-run'", wrong)
    _check_base(base, schedules)
    try:
        runs = _runs(base, flags.out or full(_place(base.run)), schedules, seeds)
    except SettingsError as error:
        if flags.out and error.field == "run.storage_path":
            raise error.of("--out") from error
        raise
    out = next(iter(runs.values())).run.folder.parent
    if (out / CONFIG).exists():
        raise SettingsError(
            "--out",
            str(out),
            "Name a new folder for the comparison",
            f"{shown(str(out))} is the folder of a single run",
        )
    return Comparison(out, schedules, seeds, target, runs, wanted == "print_config")


def _check_out(out: str | None) -> None:
    try:
        folder = None if out is None else place(text.path(out))
    except SettingsError as error:
        raise error.of("--out") from error
    except ValueError as error:
        raise SettingsError("--out", out, str(error)) from error
    if folder is not None and not is_in_memory(folder):  # what lies there is told of with the runs
        check_writable(folder, *(f"compare.{ending}" for ending in ("csv", "md", "tex", "png")))


def _check_ours(rest: Sequence[str]) -> None:
    for word in rest:
        if instead := OURS.get(word.partition("=")[0]):
            flag, (what, example) = word.partition("=")[0], EXAMPLES[instead]
            wrong = f"can't be used with compare, which sets the {what} of each run"
            raise SettingsError(flag, word, f"Use {instead} instead, for example {instead} {example}", wrong)


def _runs(base: config.Config, out: str, schedules: Sequence[str], seeds: Sequence[int]) -> dict[str, config.Config]:
    """Seed by seed, so that a comparison that is stopped has compared something."""
    runs = {folder_name(s, n): _run(base, s, n) for n in seeds for s in schedules}
    return {name: _prepare_run(_in(settings, out, name)) for name, settings in runs.items()}


def _schedules(text: str) -> list[str]:
    names = words_of("--schedules", text)
    for name in names:
        method_of(name)
    if len({label(name) for name in names}) < len(names):
        wrong = f"{shown(text)} has two functions of the same name, but the folders of the runs are named after them"
        raise SettingsError("--schedules", text, "Rename one of the functions", wrong)
    return names


def _target(text: str | None) -> float | None:
    try:
        target = None if text is None else float(text)
    except ValueError:
        target = -1.0
    if target is not None and not 0 < target <= 1:
        raise SettingsError("--target", text, "an accuracy greater than 0 and at most 1")
    return target


def _place(run: config.Run) -> Place:
    return place(run.storage_path) / (run.name or unnamed("compare"))


def _takes(name: str, kwarg: str) -> bool:
    takes = method_of(name).record.takes
    return takes is None or kwarg in takes


def _check_base(base: config.Config, schedules: Sequence[str]) -> None:
    """Raises SettingsError if none of the schedules takes one of the kwargs, or a run is to be resumed."""
    given = base.schedule.kwargs
    if unknown := {name: value for name, value in given.items() if not any(_takes(each, name) for each in schedules)}:
        known = {name for each in schedules for name in method_of(each).record.takes or ()}
        allowed = f"They take {listed(sorted(known))}"
        wrong = f"none of the schedules takes an argument {shown(', '.join(unknown))}"
        raise SettingsError("schedule.kwargs", unknown, allowed, wrong)
    if base.run.resume not in ("never", "auto"):
        wrong = "can't be used with compare, which resumes its own runs"
        do = "Remove run.resume, and to resume a comparison give its folder with --out"
        raise SettingsError("run.resume", base.run.resume, do, wrong)


def _run(base: config.Config, name: str, seed: int) -> config.Config:
    """The settings with a run's method and seed, without what its schedule has no use for."""
    method = method_of(name)
    kwargs = {key: value for key, value in base.schedule.kwargs.items() if _takes(name, key)}
    own, record = config.Schedule(name=method.schedule, kwargs=kwargs), method.record
    alone = {} if record.cohorts else {"cohort": "auto", "stacked": None}
    mean = {} if record.averages else config.Aggregator().model_dump()
    uncorrected = {} if record.averages else config.Algorithm().model_dump()
    averaged = {} if record.averages else config.ServerOptimizer().model_dump()
    one = {"replicas": 1} if record.replicas == "none" else {}
    sections = {"algorithm": uncorrected, "server_optimizer": averaged, **method.sections(base)}
    return base.with_values(schedule=own.model_dump(), phones=alone, aggregator=mean, server=one, run={"seed": seed},
                            **sections)  # fmt: skip


def _in(settings: config.Config, out: str, name: str) -> config.Config:
    return settings.with_values(run={"storage_path": out, "name": name, "resume": "auto"})


def _prepare_run(settings: config.Config) -> config.Config:
    """The settings without a blank, and the folder seen to be this run's. Raises SettingsError that names the run."""
    try:
        prepared = prepare(settings)
        ready = inherit(prepared.settings)
        _check_accuracy(ready, prepared.parts.train.labels)
        claim(ready)
        _check_alike(ready)
    except SettingsError as error:
        raise error.with_note(f"in {settings.run.name}") from error
    return ready


def _check_accuracy(settings: config.Config, labels: Array) -> None:
    loss = LOSSES.get(settings.task.loss)
    if isinstance(loss, Distance) or (np.issubdtype(labels.dtype, np.floating) and not isinstance(loss, MultiLabel)):
        wrong = "can't be compared, because compare tables accuracies and a regression has none"
        raise SettingsError("task.loss", settings.task.loss, "Choose a loss for classes, such as cross_entropy", wrong)


def _check_alike(settings: config.Config) -> None:
    path = settings.run.folder / CONFIG
    before = config.Config.from_yaml(path) if path.exists() else settings
    for name in UNLIKE:
        section, field = name.split(".")
        now, then = (getattr(getattr(values, section), field) for values in (settings, before))
        if now not in ("auto", then):
            wrong = f"is {shown(now)}, but was {shown(then)} when the comparison in this folder was started"
            raise SettingsError(name, now, f"Set {name} to {shown(then)}, or give another folder with --out", wrong)
