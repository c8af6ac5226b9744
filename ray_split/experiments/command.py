"""What the commands of experiments share: their parser, their settings, seeds as people type them, how they end."""

from __future__ import annotations

import argparse
import functools
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

from ray_split.command_line.flags import add_flags, fields_of, nested
from ray_split.command_line.parser import Parser
from ray_split.config.validation import Root
from ray_split.errors import RunStoppedError, SettingsError, first_line

Asked = TypeVar("Asked", bound=Root)
Main = Callable[[Sequence[str]], int]

SEED = re.compile("[0-9]{1,40}")


def parser_of(command: str, text: str | None) -> Parser:
    """A parser whose help is a module's docstring: its first line above the flags, the rest below."""
    about, _, more = (text or "").partition("\n")
    raw = argparse.RawDescriptionHelpFormatter
    return Parser(prog=f"ray-split {command}", description=about, epilog=more, formatter_class=raw)


def settings_of(root: type[Asked], arguments: Sequence[str], parser: Parser) -> Asked:
    """The settings that a command line says, a flag for each field. Raises SettingsError."""
    add_flags(parser, fields_of(root))
    flags = parser.parse_args(arguments)
    parser.tell_repeated()
    return root(**nested(vars(flags)))


def words_of(flag: str, text: str) -> list[str]:
    """The words of a list a,b. Raises SettingsError for one that is empty, or has a word twice."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words or len(set(words)) < len(words):
        raise SettingsError(flag, text, "a list such as a,b, with each name once")
    return words


def seeds_of(text: str) -> list[int]:
    """The seeds that --seeds says. Raises SettingsError."""
    words = words_of("--seeds", text)
    if not all(SEED.fullmatch(word) for word in words) or len(set(map(int, words))) < len(words):
        raise SettingsError("--seeds", text, "whole numbers of 0 or more, such as 0,1,2, with each once")
    return [int(word) for word in words]


def exit_status(main: Main) -> Main:
    """A command that says in one line what it raises: status 2 for a setting, 1 for the system's, 130 for Ctrl-C."""

    @functools.wraps(main)
    def run(arguments: Sequence[str]) -> int:
        try:
            status = main(arguments)
            sys.stdout.flush()
            return status
        except BrokenPipeError:  # who reads has seen enough, as `| head` has
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except SettingsError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except OSError as error:
            print(f"error: {first_line(error)}", file=sys.stderr)
            return 1
        except KeyboardInterrupt as error:
            print("stopped", file=sys.stderr)
            return 128 + error.signal_number if isinstance(error, RunStoppedError) else 130

    return run
