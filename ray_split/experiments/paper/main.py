"""The tables of the paper behind this project again, predicted: Table 1 and Figures 4a to 4c.

    ray-split paper --out ~/ray_results/paper

Phone and link are calibrated from ResNet50's row of Table 1 alone; all else is predicted. Nothing is trained and no
weights are made. Prints Table 1 beside the paper's, its errors beside those of the constant predictor (ResNet50's row
for all), and whether what the paper says in words holds; writes CSV and plots. docs/paper.md says what is assumed, and
where and why the prediction misses.

Exit status: 0, or 2 for a bad setting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from ray_split.config.fields import Positive, StoragePath
from ray_split.config.validation import Root
from ray_split.experiments.command import exit_status, parser_of, settings_of
from ray_split.experiments.out_folder import check_writable
from ray_split.experiments.paper import tables, text
from ray_split.experiments.paper.plots import figures
from ray_split.experiments.paper.predict import scan_network
from ray_split.experiments.paper.published import NETWORKS
from ray_split.experiments.paper.tables import Assumed, System
from ray_split.experiments.plots import save
from ray_split.experiments.tables import Row, write_csv
from ray_split.filesystem import Place, place


class Settings(Root):
    """All that can be asked."""

    cut: Literal["first_convolution", "7x7_pixels", "first_pooling", "end_of_stem"] = Field(
        "7x7_pixels", description="where the first cut is assumed: docs/paper.md"
    )
    server_gflops: Positive = Field(
        1000.0, description="billion FLOPs that the server computes in a second on one image"
    )
    phone_memory_mb: Positive | None = Field(
        None, description="million bytes that training may take; none: what ResNet50 needs, as that is known to fit"
    )
    out: StoragePath = Field("~/ray_results/paper", description="folder or URI for CSV and plots")


def system_of(settings: Settings) -> System:
    """The six networks, traced, and what they run on."""
    scans = {name: scan_network(network) for name, network in NETWORKS.items()}
    assumed = Assumed(settings.cut, settings.server_gflops, memory_mb=settings.phone_memory_mb)
    return System(scans, assumed)


def report(system: System) -> str:
    """What was calibrated, Table 1, its errors, and the orderings."""
    found, rows = system.found, tables.table_1(system)
    link, held = found.link, tables.orderings(system)
    return "\n".join([
        f"calibrated from ResNet50's row: phone {found.phone.gflops:.3g} GFLOP/s, {found.phone.memory_mb:.0f} MB; "
        f"link {link.up_mbps:.3g} Mbit/s, {link.latency_ms:.3g} ms a message, {found.text:.0%} of both is text",
        "", text.table_1(rows), text.near(rows), text.errors(rows), *text.held(held),
    ])  # fmt: skip


def all_tables(system: System) -> dict[str, list[dict[str, Any]]]:
    """All rows by the name of their file."""
    return {
        "table1": tables.table_1(system),
        "figure4a": tables.figure_4a(system),
        "figure4b": tables.figure_4b(system),
        "figure4c": tables.figure_4c(system),
        "variants": tables.variants(system.scans),
    }


def write(found: Mapping[str, Sequence[Row]], out: Place) -> None:
    """CSV files and plots. Raises SettingsError."""
    write_csv(found, out)
    save(figures(found), out)
    print(f"results: {out}")


@exit_status
def main(arguments: Sequence[str]) -> int:
    """Predict; returns the exit status."""
    settings = settings_of(Settings, arguments, parser_of("paper", __doc__))
    out = place(settings.out)
    check_writable(out, field="out")
    system = system_of(settings)
    print(report(system))
    write(all_tables(system), out)
    return 0
