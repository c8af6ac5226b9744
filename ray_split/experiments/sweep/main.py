"""Search over settings with Ray Tune: several runs share a cluster, each with its own room, each reporting every round.

    ray-split sweep --config digits.yaml --over optimizer.lr=0.03,0.1,0.3 --seeds 0,1,2
    ray-split sweep --over 'optimizer.lr=loguniform(0.01, 1)' --over schedule.name=splitfed_v1,parallel \\
        --samples 20 --stop-early --concurrent 4 --out ~/ray_results/lr

Any setting can be an axis; every flag of `ray-split train` holds for all runs. Started again with the same --out and
--trust it goes on where it stopped: Tune's own files are pickles, and whoever can write there can run code.
Needs `pip install 'ray-split[sweep]'`.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence

os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")  # a model of one's own is found where the job runs
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # our own lines are enough
os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # interruption.py hears Ctrl-C, and remembers that it came

from actors.ray_backend.backend import RayBackend, connect  # first: it sets what ray reads when it is imported

import yaml
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from rich.console import Console

from ray_split import config, filesystem
from ray_split.experiments.command import exit_status, parser_of
from ray_split.experiments.out_folder import alone
from ray_split.experiments.sweep.axes import SEED, settings_at
from ray_split.experiments.sweep.interruption import interruptible
from ray_split.experiments.sweep.possible import check_possible
from ray_split.experiments.sweep.report import Lines, best_of, by_point, failure, table_of
from ray_split.experiments.sweep.settings import ASKED, TUNE, Sweep, asked_by, check_same, check_trusted, sweep_of
from ray_split.experiments.sweep.trials import Trial, resources
from ray_split.filesystem import full

TABLE, POINTS, BEST = "sweep.csv", "points.csv", "best.yaml"


def settle(base: config.Config, backend: RayBackend) -> config.Config:
    """The base with what `auto` would give to one run that has the cluster alone: here a client each. SettingsError."""
    if base.cluster.client_actors == "auto":
        base = base.with_values(cluster={"client_actors": 1})
    return backend.resolve(base)  # of one thread each, so that many have room


def tuner_of(sweep: Sweep, base: config.Config) -> tune.Tuner:
    """A new sweep, or the one in the folder."""
    trial = tune.with_resources(tune.with_parameters(Trial, base=base), lambda point: resources(base, point))
    path = str(sweep.out / TUNE)
    if tune.Tuner.can_restore(path):
        return tune.Tuner.restore(path, trial, resume_errored=True, param_space=sweep.space)
    flags, early = sweep.flags, None
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
    run = tune.RunConfig(name=TUNE, storage_path=full(sweep.out), verbose=0, callbacks=[Lines(flags.metric)])
    return tune.Tuner(trial, param_space=sweep.space, tune_config=how, run_config=run)


@exit_status
def main(arguments: Sequence[str]) -> int:
    """Run the sweep; exit status 0 if all its runs came to their end, 1 if one failed, 2 for a bad setting."""
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # a run that fails is told in our line, not in a traceback
    console = Console(soft_wrap=True, highlight=False, markup=False)
    sweep = sweep_of(arguments, parser_of("sweep", __doc__))
    with alone(sweep.out):
        return _run(sweep, console)


def _run(sweep: Sweep, console: Console) -> int:
    check_same(sweep)
    check_trusted(sweep)
    check_possible(sweep.base, sweep.space)
    backend = connect(sweep.base.cluster)
    try:
        base = settle(sweep.base, backend)
        filesystem.write(sweep.out / ASKED, yaml.safe_dump(asked_by(sweep), sort_keys=False).encode())
        with interruptible() as came:
            grid = tuner_of(sweep, base).fit()
        status = _write_results(sweep, base, grid, console)
        if came:
            print(f"stopped; the same command with --out {sweep.out} --trust goes on", file=sys.stderr)
        return 128 + came[0] if came else status
    finally:
        backend.stop()


def _write_results(sweep: Sweep, base: config.Config, grid: tune.ResultGrid, console: Console) -> int:
    """Write the tables, and say which point was best."""
    frame = grid.get_dataframe()
    filesystem.write(sweep.out / TABLE, frame.to_csv(index=False).encode())
    axes = [axis for axis in sweep.space if axis != SEED]
    points = by_point(frame, axes, sweep.flags.metric, sweep.flags.mode)
    filesystem.write(sweep.out / POINTS, points.to_csv(index=False).encode())
    if not points.empty:
        console.print(table_of(points, sweep.flags.metric))
        point = best_of(points, axes, grid)
        filesystem.write(sweep.out / BEST, settings_at(sweep.base, point).to_yaml().encode())
    for result in grid:
        if result.error is not None:
            console.print(f"failed: {failure(result)}")
    console.print(f"results: {sweep.out}")
    return 1 if grid.num_errors else 0
