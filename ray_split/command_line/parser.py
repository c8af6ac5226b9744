"""A parser whose complaints are SettingsErrors, and that remembers what it was given twice."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, NoReturn

from ray_split import logs
from ray_split.command_line.kwargs_hint import arguments_of, kwargs_for
from ray_split.config.exposed_credentials import check_flags, in_job
from ray_split.config.user_code.plugins import suggest
from ray_split.errors import SettingsError, listed, shown

logger = logs.get(__name__)


NEGATIVE = re.compile(r"-(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$|-inf$")


_only_built: ContextVar[bool] = ContextVar("only_built", default=False)


class _BuiltError(Exception):
    """A parser that is not to parse anything."""


class Parser(argparse.ArgumentParser):
    """Raises SettingsError for a command line that it can't take, and in a Ray job for one with credentials."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)
        self._negative_number_matcher = NEGATIVE  # argparse knows no exponents: it takes -1e3 for a flag
        self.given: list[str] = []
        self.needs: tuple[str, str] | None = None
        """What it can't do without, and what is said of how to give it."""
        self.repeated: list[str] = []
        """Flags that were given more than once, each time another value."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's."""
        if _only_built.get():
            raise _BuiltError(self)
        self.given = list(sys.argv[1:] if args is None else args)
        if in_job():
            check_flags(self.given)
        return super().parse_known_args(self.given, namespace)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's; of a flag that there is not, which may be meant."""
        found, unknown = self.parse_known_args(args, namespace)
        if unknown:
            raise unknown_words(unknown, self.flags(), f"{self.prog} --help", vars(found))
        return found

    def flags(self) -> list[str]:
        """All that it takes."""
        return [flag for action in self._actions for flag in action.option_strings if flag.startswith("--")]

    def actions(self) -> list[argparse.Action]:
        """What it takes, as argparse has it."""
        return list(self._actions)

    def error(self, message: str) -> NoReturn:
        raise complaint(message, self)

    def tell_repeated(self) -> None:
        """Say which flags the command line had more than once."""
        while self.repeated:
            logger.warning("given more than once, and the last counts: %s", self.repeated.pop(0))


def parser_built_by(main: Callable[[Sequence[str]], object]) -> Parser:
    """The parser that a command makes first, of which nothing is asked."""
    token = _only_built.set(True)
    try:
        main([])
    except _BuiltError as built:
        parser: Parser = built.args[0]
        return parser
    finally:
        _only_built.reset(token)
    raise TypeError(f"{main} makes no parser")


def unknown_words(unknown: Sequence[str], known: Sequence[str], helps: str, given: Mapping[str, Any]) -> SettingsError:
    """What is said of words of a command line that nothing takes, beside the flags that are `given`."""
    flag, _, value = unknown[0].partition("=")
    if not flag.startswith("-"):
        wrong = f"unexpected {'argument' if len(unknown) == 1 else 'arguments'} {shown(' '.join(unknown))}"
        return SettingsError("", " ".join(unknown), UNEXPECTED, wrong)
    value = value or " ".join(unknown[1:2])
    kwargs = kwargs_for(flag, value, arguments_of(given), known) if "--data.kwargs" in known else ""
    allowed = kwargs or suggest(flag, known) or f"'{helps}' lists the flags"
    return SettingsError(flag, value, allowed, f"there is no flag {shown(flag)}")


UNEXPECTED = "Remove it, or if it is the value of a flag, put it right after that flag"


def complaint(message: str, parser: Parser) -> SettingsError:
    """What argparse complains of, as a person would say it."""
    flag, said, command = "", message, parser.prog.rpartition(" ")[2]
    if found := ARGUMENT.match(message):
        flag, said = found.groups()
    if found := re.match("the following arguments are required: (.*)", said):
        what, do = parser.needs or (found[1], f"'{parser.prog} --help' shows how to give that")
        return SettingsError("", found[1], do, f"{command} needs {what}")
    if said.startswith("expected"):
        return SettingsError(flag, "", "", f"needs a value{_of_kind(parser, flag)}")
    for theirs, allowed in VALUES:
        if found := re.match(theirs, said):
            choices = [choice.strip("' ") for choice in found.groupdict().get("choices", "").split(",")]
            return SettingsError(flag, found["value"].strip("'"), allowed or listed(choices, "or"))
    if found := re.match("ignored explicit argument (.*)", said):
        return SettingsError(flag, found[1], f"Write {flag} alone", f"takes no value, but was given {found[1]}")
    if found := re.match("not allowed with argument (.*)", said):
        return SettingsError(flag, said, "Leave one of them out", f"can't be used together with {found[1]}")
    return SettingsError(flag, said, f"'{parser.prog} --help' shows the usage", said)


def _of_kind(parser: Parser, flag: str) -> str:
    """What values a flag takes, if that is known."""
    action = next((each for each in parser.actions() if "/".join(each.option_strings) == flag), None)
    if isinstance(action, Last) and action.takes:
        return f", {action.takes}"
    kinds: dict[object, str] = {int: ", a whole number", float: ", a number"}
    return (
        f": {listed(action.choices, 'or')}"
        if action and action.choices
        else kinds.get(getattr(action, "type", None), "")
    )


ARGUMENT = re.compile("argument ([^:]+): (.*)", re.DOTALL)

VALUES = (
    ("invalid int value: (?P<value>.*)", "a whole number"),
    ("invalid float value: (?P<value>.*)", "a number"),
    ("invalid choice: (?P<value>.*) \\(choose from (?P<choices>.*)\\)", ""),
)
"""Of argparse, as patterns: a value that a flag doesn't take, and what it must be."""


class Last(argparse.Action):
    """Of a flag that is given several times the last counts, as everywhere; that it does is remembered."""

    takes = ""
    """What its value is, in words."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, value: Any, flag: str | None = None
    ) -> None:
        """Keep the value."""
        value = "--" if value == [] else value  # argparse has taken the two dashes of --flag=-- for the end of flags
        if isinstance(parser, Parser) and getattr(namespace, self.dest, None) not in (None, value):
            parser.repeated.append(f"{flag} {value}")
        setattr(namespace, self.dest, value)
