"""The tables of the paper behind this project again, predicted: Table 1 and Figures 4a to 4c.

    python -m jobs.paper --out ~/ray_results/paper

Phone and link are calibrated from ResNet50's row of Table 1 alone; all else is predicted. Nothing is trained and no
weights are made. Prints Table 1 beside the paper's, its errors beside those of the constant predictor (ResNet50's row
for all), and whether what the paper says in words holds; writes CSV and plots. docs/paper.md says what is assumed, and
where and why the prediction misses.

Exit status: 0, or 2 for a bad setting.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from ray_split.cli import Parser, add_flags, nested, tell_again
from ray_split.config.fields import LocalPath, Positive, Section
from ray_split.config.validation import one_line
from ray_split.errors import SettingsError
from ray_split.experiments.paper import plots as paperplots
from ray_split.experiments.paper import predict as predicting
from ray_split.experiments.paper import tables as papertables
from ray_split.experiments.paper import text as papertext
from ray_split.experiments.paper.published import NETWORKS
from ray_split.experiments.paper.tables import Assumed, Row, System
from ray_split.experiments.plan.settings import to_csv


class Settings(Section):
    """All that can be asked."""

    cut: Literal["first_convolution", "7x7_pixels", "first_pooling", "end_of_stem"] = Field(
        "7x7_pixels", description="where the first cut is assumed: docs/paper.md"
    )
    server_gflops: Positive = Field(1000.0, description="billion FLOPs that the server computes in a second, one image")
    phone_memory_mb: Positive | None = Field(
        None, description="million bytes that training may take; none: what ResNet50 needs, as that is known to fit"
    )
    out: LocalPath = Field(Path("~/ray_results/paper"), description="folder for CSV and plots")

    def __init__(self, **values: Any) -> None:
        """Raises SettingsError (one line) instead of pydantic's report."""
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise one_line(error, Settings) from None


def settings_of(arguments: Sequence[str]) -> Settings:
    """The settings that a command line says. Raises SettingsError."""
    about, _, more = (__doc__ or "").partition("\n")
    raw = argparse.RawDescriptionHelpFormatter
    parser = Parser(prog="jobs.paper", description=about, epilog=more, allow_abbrev=False, formatter_class=raw)
    add_flags(parser, Settings)
    Parser.given = arguments
    flags = parser.parse_args(arguments)
    tell_again()
    return Settings(**nested(vars(flags)))


def system_of(settings: Settings) -> System:
    """The six networks, traced, and what they run on."""
    scans = {name: predicting.scanned(network) for name, network in NETWORKS.items()}
    assumed = Assumed(settings.cut, settings.server_gflops, memory_mb=settings.phone_memory_mb)
    return System(scans, assumed)


def report(system: System) -> str:
    """What was calibrated, Table 1, its errors, and the orderings."""
    found, rows = system.found, papertables.table_1(system)
    link, held = found.link, papertables.orderings(system)
    return "\n".join([
        f"calibrated from ResNet50's row: phone {found.phone.gflops:.3g} GFLOP/s, {found.phone.memory_mb:.0f} MB; "
        f"link {link.up_mbps:.3g} Mbit/s, {link.latency_ms:.3g} ms a message, {found.text:.0%} of both is text",
        "", papertext.table_1(rows), papertext.near(rows), papertext.errors(rows), *papertext.held(held),
    ])  # fmt: skip


def tables(system: System) -> dict[str, list[dict[str, Any]]]:
    """All rows by the name of their file."""
    return {
        "table1": papertables.table_1(system),
        "figure4a": papertables.figure_4a(system),
        "figure4b": papertables.figure_4b(system),
        "figure4c": papertables.figure_4c(system),
        "variants": papertables.variants(system.scans),
    }


def write(found: Mapping[str, Sequence[Row]], out: Path) -> None:
    """CSV files and plots. Raises SettingsError."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, rows in found.items():
            (out / f"{name}.csv").write_text(to_csv(rows))
    except OSError as error:
        raise SettingsError("out", str(out), f"a folder to write to: {error.strerror}") from error
    try:
        paperplots.plot(found, out)
    except ImportError as error:
        print(f"no plots: {error}; pip install matplotlib")
    print(f"results: {out}")


def main(arguments: Sequence[str]) -> int:
    """Predict; returns the exit status."""
    try:
        settings = settings_of(arguments)
        system = system_of(settings)
        print(report(system))
        write(tables(system), settings.out.expanduser())
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
