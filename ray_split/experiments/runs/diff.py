"""What differs between runs: their settings, and the results beside them.

    ray-split diff results/rings results/rings_slow
    ray-split diff rings rings_slow --storage results

RUN is a run's folder, a URI, or the name of a run in --storage. Settings that change no result (names, folders,
cohorts, actors) are only named in a last line; --all puts them into the table.

Exit status: 0, or 2 for a bad argument.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ray_split.errors import SettingsError
from ray_split.errors import shown as said
from ray_split.experiments import tables
from ray_split.experiments.command import exit_status, parser_of
from ray_split.experiments.runs.columns import shown, usual, value_of
from ray_split.experiments.runs.find import LISTS, Run, run_at, storage_of
from ray_split.experiments.runs.show import add_storage

NOISE = (
    "run.name", "run.storage_path", "run.resume", "run.private", "run.log_format",
    "phones.cohort", "phones.stacked", "server.lanes", "server.chunk", "server.memory_fraction",
    "cluster.", "checkpoint.",
)  # fmt: skip
"""Settings, and sections, that change no result: where a run lies and runs, and what is settled by size and machine."""
AS_SETTINGS = {"schedule": "schedule.name", "phones": "phones.count"}
"""Of a table's usual columns those that are settings too: told once, as the setting that differs."""
RESULTS = ("git_commit", "train_loss", "test_accuracy", "test_loss", "bytes_up_total", "bytes_down_total")


@exit_status
def main(arguments: Sequence[str]) -> int:
    """Tell runs apart; returns the exit status."""
    parser = parser_of("diff", __doc__)
    parser.add_argument("run", nargs="+", metavar="RUN", help="two or more: folders, or names")
    parser.needs = ("the two runs to compare: their folders, or their names with --storage FOLDER", LISTS)
    parser.add_argument("--all", action="store_true", help="also the settings that change no result")
    add_storage(parser)
    given = parser.parse_args(arguments)
    if len(given.run) < 2:
        wrong = f"diff needs two runs or more, but was given only {said(given.run[0])}"
        raise SettingsError("", given.run[0], f"Add another run. {LISTS}", wrong)
    storage = storage_of(given.storage)
    runs = [run_at(name, storage) for name in given.run]
    print("\n".join(lines_of(runs, given.all)))
    return 0


def differing(runs: Sequence[Run]) -> list[str]:
    """The names of the settings that the runs do not have alike."""
    names = dict.fromkeys(name for run in runs for name in run.settings)
    return [name for name in names if any(run.settings.get(name) != runs[0].settings.get(name) for run in runs)]


def is_noise(name: str) -> bool:
    """Whether a setting changes no result."""
    return name.startswith(NOISE)


def lines_of(runs: Sequence[Run], noise_too: bool = False) -> Iterator[str]:
    """The settings that differ, and the results, a column a run."""
    found = differing(runs)
    noise = [] if noise_too else [name for name in found if is_noise(name)]
    told = [name for name in found if name not in noise]
    results = [name for name in dict.fromkeys((*usual(runs)[1:], *RESULTS)) if name not in AS_SETTINGS]
    head = ["", *(run.name for run in runs)]
    settings = [_line(runs, name) for name in told]
    below = [line for line in (_line(runs, name) for name in results) if {*line[1:]} != {"-"}]
    table = tables.to_lines([head, *settings, *below])
    yield from table[: 1 + len(settings)]
    if not told:
        yield "no setting differs that changes a result"
    yield ""
    yield from table[1 + len(settings) :]
    if noise:
        yield f"\nalso different, and of no effect on results (--all): {', '.join(noise)}"


def _line(runs: Sequence[Run], name: str) -> list[str]:
    return [name, *(shown(value_of(run, name)) for run in runs)]
