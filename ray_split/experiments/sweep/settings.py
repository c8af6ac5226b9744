"""What a sweep is asked to run: its own flags, the settings of its runs, and the folder they go to."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ray_split import config, filesystem
from ray_split.command_line.parser import Parser
from ray_split.command_line.training import settings_of
from ray_split.config import text
from ray_split.errors import SettingsError, shown
from ray_split.experiments.command import seeds_of
from ray_split.experiments.out_folder import unnamed
from ray_split.experiments.sweep.axes import space
from ray_split.experiments.sweep.points import check_metric, check_points
from ray_split.filesystem import Place, full, is_in_memory, place
from ray_split.results import folder_lock

MOST_RUNS = 100_000
TUNE, RUNS, ASKED = "tune", "runs", "sweep.yaml"


class Sweep(NamedTuple):
    """What a command line asks for."""

    base: config.Config
    space: dict[str, Any]
    flags: argparse.Namespace
    out: Place


def add_own_flags(parser: Parser) -> None:
    """What is asked beside the settings of the runs."""
    add = parser.add_argument
    add("--over", action="append", default=[], metavar="AXIS", help="section.field=A,B,... or =loguniform(LOW, HIGH)")
    add("--seeds", default="", help="an axis of seeds, as 0,1,2")
    add("--samples", type=int, default=1, help="how often all values are gone through, drawing anew (default: 1)")
    add("--metric", default="val_accuracy", help="column of metrics.jsonl to compare by (default: val_accuracy)")
    add("--mode", choices=("max", "min"), help="whether more or less is better (default: max; min for a loss)")
    add("--stop-early", action="store_true", help="stop runs that fall behind (ASHA)")
    add("--grace", type=int, default=3, help="rounds that every run gets, with --stop-early (default: 3)")
    add("--concurrent", type=int, help="runs at a time (default: as many as there is room for)")
    add("--out", help="folder of the sweep (default: under run.storage_path)")
    add("--trust", action="store_true", help="go on with the sweep in --out: unpickles what is there: any code can run")


def sweep_of(arguments: Sequence[str], parser: Parser) -> Sweep:
    """The sweep that a command line asks for. Raises SettingsError."""
    add_own_flags(parser)
    flags, rest = parser.parse_known_args(arguments)
    base, wanted = settings_of(rest, parser.flags())
    if wanted != "train" or base.run.name is not None or base.run.resume != "never":
        flag = (
            f"--{wanted.replace('_', '-')}"
            if wanted != "train"
            else f"--run.{'resume' if base.run.name is None else 'name'}"
        )
        wrong = "can't be used with sweep, which has several runs and names them itself"
        raise SettingsError(flag, " ".join(rest), f"Remove {flag}", wrong)
    if base.cluster.backend != "ray":
        raise SettingsError("cluster.backend", base.cluster.backend, "ray in a sweep")
    axes = space(flags.over, seeds_of(flags.seeds) if flags.seeds.strip() else [])
    if not axes:
        allowed = "Give --over optimizer.lr=0.01,0.1 or --seeds 0,1,2, or both"
        raise SettingsError("", " ".join(arguments), allowed, "sweep needs values to try")
    flags.mode = flags.mode or ("min" if "loss" in flags.metric else "max")
    _check_counts(flags)
    for settings in check_points(base, axes):
        check_metric(flags.metric, settings)
    _check_number(flags, axes)
    out = _out(flags, base)
    out = out.absolute() if isinstance(out, Path) else out
    if is_in_memory(out):
        wrong = f"{shown(str(out))} is in the memory of one process, which the runs' processes don't see"
        raise SettingsError("--out", str(out), "Name a folder, or a URI such as s3://bucket/folder", wrong)
    return Sweep(base.with_values(run={"storage_path": full(out / RUNS)}), axes, flags, out)


def _check_counts(flags: argparse.Namespace) -> None:
    """How many of something there are to be. Raises SettingsError."""
    for name in ("samples", "grace", "concurrent"):
        value = getattr(flags, name)
        if value is not None and not 1 <= value <= MOST_RUNS:
            raise SettingsError(f"--{name}", value, f"from 1 to {MOST_RUNS}")


def _check_number(flags: argparse.Namespace, axes: dict[str, Any]) -> None:
    runs = flags.samples * math.prod(len(axis["grid_search"]) for axis in axes.values() if isinstance(axis, dict))
    if runs > MOST_RUNS:
        wrong = f"--samples and --over make {runs} runs, but a sweep may have at most {MOST_RUNS}"
        raise SettingsError("--samples", flags.samples, "Lower --samples, or give fewer values", wrong)


def _out(flags: argparse.Namespace, base: config.Config) -> Place:
    if flags.out is None:
        return place(base.run.storage_path) / unnamed("sweep")
    try:
        return place(text.path(flags.out))
    except SettingsError as error:
        raise error.of("--out") from error
    except ValueError as error:
        raise SettingsError("--out", flags.out, str(error)) from error


def asked_by(sweep: Sweep) -> dict[str, Any]:
    """What is kept of it, to know it again."""
    return {"over": sweep.flags.over, "seeds": sweep.flags.seeds, **sweep.base.model_dump(mode="json")}


def check_same(sweep: Sweep) -> None:
    """A sweep that is gone on with must be the same one. Raises SettingsError."""
    file = sweep.out / ASKED
    if file.exists() and _asked(file) != asked_by(sweep):
        wrong = f"{shown(str(sweep.out))} already holds a sweep with other settings or values to try"
        raise SettingsError("--out", str(sweep.out), "Name a new folder", wrong)


def _asked(file: Place) -> object:
    try:
        return yaml.safe_load(file.read_text())
    except (yaml.YAMLError, ValueError) as error:
        wrong = f"{shown(str(file.parent))} holds a sweep whose {ASKED} can't be read: {' '.join(str(error).split())}"
        raise SettingsError("--out", str(file.parent), "Name a new folder", wrong) from error


def check_trusted(sweep: Sweep) -> None:
    """What Tune keeps of a sweep are pickles: read only if whoever wrote there is trusted. Raises SettingsError."""
    kept = sweep.out / TUNE
    if sweep.flags.trust or all(folder_lock.passes(path) for path in filesystem.children(kept)):
        return
    wrong = f"resuming the sweep loads {kept}/tuner.pkl, which can run any code"
    allowed = "Add --trust if you trust whoever wrote that folder, or name a new folder"
    raise SettingsError("--out", str(sweep.out), allowed, wrong)
