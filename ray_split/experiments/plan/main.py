"""Plan where to cut a model, for a phone and a link: every position, what it costs, and the best cuts.

    python -m jobs.plan --model.name resnet18 --input 3x64x64 --phone.memory_mb 300 --link.up_mbps 10

Nothing is trained and no weights are made: a model of any size takes seconds. Prints a table of all positions and
the recommended cuts; writes positions.csv, pareto.csv and plan.png to --out. docs/planner.md says what is computed.

In the table: kB cross per sample there, and come back as gradients; A is everything up to the position, C everything
after it, MB their peak memory in training (a batch at once). Seconds a sample are of the best pair with this
position as its first, or as its second cut.

Exit status: 0, or 2 for a bad setting.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from ray_split.cli import Parser, add_flags, nested, tell_again
from ray_split.config import Model
from ray_split.costs.planner import Plan, plan
from ray_split.costs.position_costs import scan_of
from ray_split.errors import SettingsError
from ray_split.experiments.compare.tables import figures
from ray_split.experiments.plan import plots as planplots
from ray_split.experiments.plan import settings as planning


def settings_of(arguments: Sequence[str]) -> planning.Settings:
    """The settings that a command line says. Raises SettingsError."""
    about, _, more = (__doc__ or "").partition("\n")
    raw = argparse.RawDescriptionHelpFormatter
    parser = Parser(prog="jobs.plan", description=about, epilog=more, allow_abbrev=False, formatter_class=raw)
    add_flags(parser, planning.Settings)
    Parser.given = arguments
    flags = parser.parse_args(arguments)
    tell_again()
    return planning.Settings(**nested(vars(flags)))


def plan_of(settings: planning.Settings) -> Plan:
    """The plan for these settings. Raises SettingsError."""
    model = Model(**settings.model.model_dump())
    scanned = scan_of(model, settings.input, settings.batch)
    return plan(scanned, settings.trained_with(), settings.profile(), double=settings.split == "double")


def write(found: Plan, settings: planning.Settings) -> None:
    """Print the table and the recommendation; write CSV and plot."""
    rows, out = planning.position_rows(found, settings.trained_with()), settings.folder()
    print(planning.to_text(rows))
    print(recommendation(found, settings))
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "positions.csv").write_text(planning.to_csv(rows))
        (out / "pareto.csv").write_text(planning.to_csv(planning.front_rows(found)))
    except OSError as error:
        raise SettingsError("out", str(out), f"a folder to write to: {error.strerror}") from error
    try:
        planplots.plot(found, rows, settings.model.name, out / "plan.png")
    except ImportError as error:
        print(f"no plot: {error}; pip install matplotlib")
    print(f"results: {out}")


def recommendation(found: Plan, settings: planning.Settings) -> str:
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


def main(arguments: Sequence[str]) -> int:
    """Plan; returns the exit status."""
    try:
        settings = settings_of(arguments)
        write(plan_of(settings), settings)
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
