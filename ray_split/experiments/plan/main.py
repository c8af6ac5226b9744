"""Plan where to cut a model, for a phone and a link: every position, what it costs, and the best cuts.

    ray-split plan --model.name resnet18 --input 3x64x64 --phone.memory_mb 300 --link.up_mbps 10
    ray-split plan --model.name my_model:net --data.name my_model:rings

Nothing is trained and no weights are made: a model of any size takes seconds. With --data.name the shape of a sample
and the number of classes are read from that data; else give --input and --model.num_classes. Prints a table of all
positions and the recommended cuts; writes positions.csv, pareto.csv and plan.png to --out. docs/planner.md says what is
computed.

In the table: kB are what crosses there for a sample, and comes back as gradients. A is everything up to the position,
C everything after it, MB their peak memory in training (one batch). Seconds a sample are those of the best pair of
cuts with this position as the first, or as the second.

Exit status: 0, or 2 for a bad setting.
"""

from __future__ import annotations

from collections.abc import Sequence

from ray_split.costs.planner import Plan, plan
from ray_split.experiments.command import exit_status, parser_of, settings_of
from ray_split.experiments.out_folder import check_writable
from ray_split.experiments.plan.plots import figure_of
from ray_split.experiments.plan.rows import front_rows, position_rows, to_text
from ray_split.experiments.plan.sample import scanned
from ray_split.experiments.plan.settings import Settings
from ray_split.experiments.plots import save
from ray_split.experiments.tables import figures, write_csv

FILES = ("positions.csv", "pareto.csv", "plan.png")


def plan_of(settings: Settings) -> tuple[Plan, str]:
    """The plan for these settings, and a line that says for which inputs it is. Raises SettingsError."""
    optimizer = settings.trained_with()  # first: what is wrong with it is known in no time
    costs, planned_for = scanned(settings)
    return plan(costs, optimizer, settings.profile(), double=settings.split == "double"), planned_for


def write(found: Plan, settings: Settings) -> None:
    """Print the table and the recommendation; write CSV and plot. Raises SettingsError."""
    rows, out = position_rows(found, settings.trained_with()), settings.folder()
    print(to_text(rows))
    print(recommendation(found, settings))
    write_csv({"positions": rows, "pareto": front_rows(found)}, out)
    save({"plan.png": lambda: figure_of(found, rows, settings.title)}, out)
    print(f"results: {out}")


def recommendation(found: Plan, settings: Settings) -> str:
    """The best cuts in three lines: as a flag, what they cost, and out of how many."""
    c, best, batch = found.candidates, found.best, settings.batch
    up, down, flops = (figures(float(column[best]) / batch / scale) for column, scale in
                       ((c.bytes_up, 1e3), (c.bytes_down, 1e3), (c.phone_flops, 1e9)))  # fmt: skip
    fit, median = int(found.fits.sum()), float(c.seconds[found.median()] / c.seconds[best])
    return "\n".join([
        f"recommended: --model.cuts {','.join(found.cuts(best))}",
        f"a sample: {figures(float(c.seconds[best]))} s, {up} kB up, {down} kB down, {flops} GFLOPs on the phone; "
        f"a batch of {batch}: {figures(float(c.phone_memory[best]) / 1e6)} MB on the phone",
        f"{len(found.fits)} ways to cut, {fit} fit the phone, {int(found.pareto.sum())} on the Pareto "
        f"front; the median takes {figures(median)} times as long",
    ])  # fmt: skip


@exit_status
def main(arguments: Sequence[str]) -> int:
    """Plan; returns the exit status."""
    settings = settings_of(Settings, arguments, parser_of("plan", __doc__))
    check_writable(settings.folder(), *FILES, field="out")
    found, planned_for = plan_of(settings)
    print(planned_for)
    write(found, settings)
    return 0
