"""The command `ray-split`, which does what its first word names; a word that names nothing is a line, and status 2."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ray_split.errors import SettingsError, first_line, listed, shown
from ray_split.version import __version__


class Command(NamedTuple):
    """A subcommand, loaded only when it is asked for: torch and ray take seconds."""

    about: str
    module: str  # its main(arguments) returns the exit status
    extra: str | None = None  # of this package, without which it can't be loaded


COMMANDS = {
    "train": Command("train a model, split between phones and a server", "ray_split.train"),
    "compare": Command("train by several schedules; a table and a plot of all", "ray_split.experiments.compare.main"),
    "sweep": Command("search over settings, with Ray Tune", "ray_split.experiments.sweep.main", extra="sweep"),
    "plan": Command("where to cut a model, for a phone and a link", "ray_split.experiments.plan.main"),
    "trace": Command("look at a round of a finished run", "ray_split.experiments.trace.main"),
    "runs": Command("which runs there are: status, when, where, results", "ray_split.experiments.runs.main"),
    "show": Command("one run at a glance, by default the latest", "ray_split.experiments.runs.show"),
    "diff": Command("what differs between runs, settings and results", "ray_split.experiments.runs.diff"),
    "export": Command("runs as CSV, Markdown or LaTeX", "ray_split.experiments.runs.export"),
    "device": Command("be a phone of a run that is elsewhere", "ray_split.experiments.remote.device"),
    "devices": Command("invite devices to runs, and list them", "ray_split.experiments.remote.devices"),
    "paper": Command("predict the tables of the paper behind this project", "ray_split.experiments.paper.main"),
}
"""In the order that the overview has them."""

HELP = ("-h", "--help")
COMPLETION = "--completion"


def overview() -> str:
    """What there is, in one screen."""
    lines = [f"  {name:<9}{command.about}" for name, command in COMMANDS.items()]
    return "\n".join([
        "usage: ray-split COMMAND ...", "", "Multi-client split learning on Ray.", "", *lines, "",
        "ray-split COMMAND --help says what a command takes. A first run, on this machine: ray-split train",
        "ray-split --completion bash (zsh, fish) prints the script by which your shell completes all of this.",
    ])  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if not given or given[0] in HELP:
        print(overview())
    if given[:1] and given[0] in HELP:
        return 0
    if given == ["--version"]:
        print(f"ray-split {__version__}")
        return 0
    try:
        if given[:1] == [COMPLETION]:
            print(_completion(given[1:]), end="")
            return 0
        command = _load(given)
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # while it is loaded, which takes seconds
        print("stopped", file=sys.stderr)
        return 130
    return command(given[1:])


def _completion(shells: Sequence[str]) -> str:
    """The script by which a shell completes. Raises SettingsError."""
    from ray_split.command_line.completion import script  # imports all commands

    return script(" ".join(shells), {name: (command.about, command.module) for name, command in COMMANDS.items()})


def _load(given: Sequence[str]) -> Callable[[Sequence[str]], int]:
    """The main function of the command that is asked for. Raises SettingsError."""
    name = given[0] if given else ""
    if name not in COMMANDS:
        from ray_split.config.user_code.plugins import suggest  # pydantic and more: not for --help

        wrong = f"there is no command {shown(name)}" if given else "no command was given"
        raise SettingsError("", name, suggest(name, COMMANDS, f"The commands are {listed(COMMANDS)}"), wrong)
    _, module, extra = COMMANDS[name]
    try:
        found: Callable[[Sequence[str]], int] = importlib.import_module(module).main
    except ImportError as error:
        if extra is None:
            raise
        wrong = f"{name} needs a package that is not installed: {first_line(error)}"
        raise SettingsError("", name, f"Run: pip install 'ray-split[{extra}]'", wrong) from error
    return found


if __name__ == "__main__":
    sys.exit(main())
