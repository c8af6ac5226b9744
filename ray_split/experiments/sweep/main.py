"""Search over settings with Ray Tune: several runs share a cluster, each with its own room, each reporting every round.

    python -m jobs.sweep --config jobs/configs/digits.yaml --over optimizer.lr=0.03,0.1,0.3 --seeds 0,1,2
    python -m jobs.sweep --over 'optimizer.lr=loguniform(0.01, 1)' --over schedule.name=splitfed_v1,parallel \\
        --samples 20 --stop-early --concurrent 4 --out ~/ray_results/lr

Any setting can be an axis; every flag of `ray-split train` holds for all runs. Started again with the same --out and
--trust it goes on where it stopped: Tune's own files are pickles, and whoever can write there can run code.
Needs `pip install 'ray-split[sweep]'`.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")  # a model of one's own is found where the job runs
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # our own lines are enough

from actors.ray_backend.connection import connect  # first: it sets what ray reads when it is imported

import yaml
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from rich.console import Console

from actors.ray_backend.placement_group import nodes
from ray_split.experiments.sweep.axes import SEED, settings_at, space
from ray_split.experiments.out_folder import alone, unnamed
from ray_split.experiments.sweep.report import Lines, best_of, by_point, last_line, shown
from ray_split.experiments.sweep.trials import Trial, resources
from ray_split import config, filesystem
from ray_split.results import folder_lock
from ray_split.config import text
from ray_split.cli import settings_of
from ray_split.errors import SettingsError, first_line
from ray_split.resolve import resolve
from ray_split.filesystem import Place, full, place

SEED_WORD, MOST_RUNS = re.compile("[0-9]{1,40}"), 100_000
TUNE, RUNS, ASKED, TABLE, POINTS, BEST = "tune", "runs", "sweep.yaml", "sweep.csv", "points.csv", "best.yaml"


class Plan(NamedTuple):
    """What a command line asks for."""

    base: config.Config
    space: dict[str, Any]
    flags: argparse.Namespace
    out: Place


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise SettingsError("command line", " ".join(sys.argv[1:]), f"as --help shows: {message}")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m jobs.sweep",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--over", action="append", default=[], metavar="AXIS", help="section.field=A,B,... or =loguniform(LOW, HIGH)")
    add("--seeds", default="", help="an axis of seeds, as 0,1,2")
    add("--samples", type=int, default=1, help="how often the whole list is gone through, drawing anew (default: 1)")
    add("--metric", default="val_accuracy", help="of metrics.jsonl, to compare by (default: val_accuracy)")
    add("--mode", choices=("max", "min"), help="(default: max, and min of a loss)")
    add("--stop-early", action="store_true", help="stop runs that fall behind (ASHA)")
    add("--grace", type=int, default=3, help="rounds that every run has, with --stop-early (default: 3)")
    add("--concurrent", type=int, help="runs at a time (default: as many as there is room for)")
    add("--out", help="folder of the sweep (default: under run.storage_path)")
    add("--trust", action="store_true", help="go on in a folder: unpickles what is there, which can run any code")
    return parser


def plan_of(arguments: Sequence[str]) -> Plan:
    """The sweep that a command line asks for. Raises SettingsError."""
    flags, rest = _parser().parse_known_args(arguments)
    base, wanted = settings_of(["train", *rest])
    if wanted != "train" or base.run.name is not None or base.run.resume != "never":
        raise SettingsError(
            "command line", " ".join(rest), "without --run.name, --run.resume, --dry-run: runs get names"
        )
    if base.cluster.backend != "ray":
        raise SettingsError("cluster.backend", base.cluster.backend, "ray: a sweep's runs are trials of Ray Tune")
    axes = space(flags.over, _seeds(flags.seeds))
    if not axes:
        raise SettingsError("command line", " ".join(arguments), "with --over or --seeds: there is nothing to search")
    flags.mode = flags.mode or ("min" if "loss" in flags.metric else "max")
    _check_counts(flags)
    out = _out(flags, base)
    out = out.absolute() if isinstance(out, Path) else out
    return Plan(base.with_values(run={"storage_path": full(out / RUNS)}), axes, flags, out)


def _seeds(given: str) -> list[int]:
    words = [word.strip() for word in given.split(",") if word.strip()]
    if not all(SEED_WORD.fullmatch(word) for word in words):
        raise SettingsError("--seeds", given, "whole numbers, as 0,1,2")
    return [int(word) for word in words]


def _check_counts(flags: argparse.Namespace) -> None:
    """How many of something there are to be. Raises SettingsError."""
    for name in ("samples", "grace", "concurrent"):
        value = getattr(flags, name)
        if value is not None and not 1 <= value <= MOST_RUNS:
            raise SettingsError(f"--{name}", value, f"1 to {MOST_RUNS}")


def _out(flags: argparse.Namespace, base: config.Config) -> Place:
    if flags.out is None:
        return place(base.run.storage_path) / unnamed("sweep")
    try:
        return place(text.path(flags.out))
    except ValueError as error:
        raise SettingsError("--out", flags.out, str(error)) from error


def _asked_by(plan: Plan) -> dict[str, Any]:
    return {"over": plan.flags.over, "seeds": plan.flags.seeds, **plan.base.model_dump(mode="json")}


def _check_same(plan: Plan) -> None:
    """A sweep that is gone on with must be the same one. Raises SettingsError."""
    file = plan.out / ASKED
    if file.exists() and _asked(file) != _asked_by(plan):
        raise SettingsError(
            "--out", str(plan.out), "a folder that is free: it holds a sweep with other settings or axes"
        )


def _asked(file: Place) -> object:
    try:
        return yaml.safe_load(file.read_text())
    except (yaml.YAMLError, ValueError) as error:
        allowed = f"a folder that is free: it holds a sweep whose {ASKED} can't be read: {' '.join(str(error).split())}"
        raise SettingsError("--out", str(file.parent), allowed) from error


def _check_trusted(plan: Plan) -> None:
    """What Tune keeps of a sweep are pickles: read only if whoever wrote there is trusted. Raises SettingsError."""
    kept = plan.out / TUNE
    if plan.flags.trust or all(folder_lock.passes(path) for path in filesystem.children(kept)):
        return
    allowed = (
        "a folder that is free, or, if you trust whoever wrote there, with --trust: "
        f"going on unpickles {kept}/tuner.pkl"
    )
    raise SettingsError("--out", str(plan.out), allowed)


def settled(base: config.Config) -> config.Config:
    """The base with what `auto` would give to one run that has the cluster alone: here a client each. SettingsError."""
    if base.cluster.client_actors == "auto":
        base = base.with_values(cluster={"client_actors": 1})
    return resolve(base, list(nodes().values()))


def tuner_of(plan: Plan, base: config.Config) -> tune.Tuner:
    """A new sweep, or the one in the folder."""
    trial = tune.with_resources(tune.with_parameters(Trial, base=base), lambda point: resources(base, point))
    path = str(plan.out / TUNE)
    if tune.Tuner.can_restore(path):
        return tune.Tuner.restore(path, trial, resume_errored=True, param_space=plan.space)
    flags, early = plan.flags, None
    if flags.stop_early:
        rounds = base.run.rounds
        early = ASHAScheduler(time_attr="rounds", max_t=rounds, grace_period=min(flags.grace, rounds))
    how = tune.TuneConfig(
        metric=flags.metric,
        mode=flags.mode,
        scheduler=early,
        num_samples=flags.samples,
        max_concurrent_trials=flags.concurrent,
    )
    run = tune.RunConfig(name=TUNE, storage_path=full(plan.out), verbose=0, callbacks=[Lines(flags.metric)])
    return tune.Tuner(trial, param_space=plan.space, tune_config=how, run_config=run)


def main(arguments: Sequence[str]) -> int:
    """Run the sweep; exit status 0 if all its runs came to their end, 1 if one failed, 2 for a bad setting."""
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # a run that fails is told in our line, not in a traceback
    console = Console(soft_wrap=True, highlight=False, markup=False)
    try:
        plan = plan_of(arguments)
        with alone(plan.out):
            return _sweep(plan, console)
    except OSError as error:
        print(f"error: {first_line(error)}", file=sys.stderr)
        return 1
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _sweep(plan: Plan, console: Console) -> int:
    _check_same(plan)
    _check_trusted(plan)
    connection = connect(plan.base.cluster.address)
    try:
        base = settled(plan.base)
        filesystem.write(plan.out / ASKED, yaml.safe_dump(_asked_by(plan), sort_keys=False).encode())
        return _finished(plan, base, tuner_of(plan, base).fit(), console)
    finally:
        connection.close()


def _finished(plan: Plan, base: config.Config, grid: tune.ResultGrid, console: Console) -> int:
    """Write the tables, and say which point was best."""
    frame = grid.get_dataframe()
    filesystem.write(plan.out / TABLE, frame.to_csv(index=False).encode())
    axes = [axis for axis in plan.space if axis != SEED]
    points = by_point(frame, axes, plan.flags.metric, plan.flags.mode)
    filesystem.write(plan.out / POINTS, points.to_csv(index=False).encode())
    if not points.empty:
        console.print(shown(points, plan.flags.metric))
        point = best_of(points, axes, grid)
        filesystem.write(plan.out / BEST, settings_at(plan.base, point).to_yaml().encode())
    for error in grid.errors:
        console.print(f"failed: {last_line(error)}")
    console.print(f"results: {plan.out}")
    return 1 if grid.num_errors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
