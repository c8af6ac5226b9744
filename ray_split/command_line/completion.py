"""`ray-split --completion SHELL`: what a shell is to know of the commands, for its completion."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterator, Mapping

from ray_split.command_line.closed_lists import values_of
from ray_split.command_line.parser import Parser, parser_built_by
from ray_split.command_line.shells import SHELLS, Command, Flag
from ray_split.command_line.training import parser_of_settings
from ray_split.config.user_code.plugins import suggest
from ray_split.errors import SettingsError, listed, shown

WITH_SETTINGS = ("train", "compare", "sweep")
"""Commands that take the flags of train, each beside its own."""


def script(shell: str, commands: Mapping[str, tuple[str, str]]) -> str:
    """What the shell reads. `commands`: of each what it is for, and the module that has its main.

    All is written into it, so that the key is answered at once: a process that knows the settings takes a second or
    more to start. Raises SettingsError for a shell that there is no script for.
    """
    if shell not in SHELLS:
        allowed = suggest(shell, SHELLS, f"Choose {listed(SHELLS, 'or')}")
        wrong = f"there is no completion script for {shown(shell)}" if shell else "needs the name of a shell"
        raise SettingsError("--completion", shell, allowed, wrong)
    settings = tuple(_flags(parser_of_settings()))
    known = {flag.name for flag in settings}
    found = [_command(name, about, module) for name, (about, module) in commands.items()]
    own = [each._replace(flags=tuple(f for f in each.flags if _is_own(each, f, known))) for each in found]
    return SHELLS[shell](own, WITH_SETTINGS, settings)


def _is_own(command: Command, flag: Flag, settings: set[str]) -> bool:
    return command.name not in WITH_SETTINGS or flag.name not in settings


def _command(name: str, about: str, module: str) -> Command:
    try:
        parser = parser_built_by(importlib.import_module(module).main)
    except ImportError:  # of what it needs: an extra that is not installed
        return Command(name, about, (), False)
    return Command(name, about, tuple(_flags(parser)), any(not action.option_strings for action in parser._actions))


def _flags(parser: Parser) -> Iterator[Flag]:
    for action in parser._actions:
        for name in action.option_strings:
            if name.startswith("--"):
                yield Flag(name, tuple(values_of(name, action)), _follows(action), _about(action))


def _follows(action: argparse.Action) -> str:
    return "never" if action.nargs == 0 else "sometimes" if action.nargs == "?" else "always"


def _about(action: argparse.Action) -> str:
    return (action.help or "").replace("%%", "%").replace("%(default)s", str(action.default))
