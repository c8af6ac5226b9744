"""A parser whose complaints are SettingsErrors, and that remembers what it was given twice."""

from __future__ import annotations

import argparse
import re
import sys
from typing import Any, NoReturn

from ray_split import logs
from ray_split.config.exposed_credentials import check_flags, in_job
from ray_split.config.plugins import suggest
from ray_split.errors import SettingsError

logger = logs.get(__name__)


NEGATIVE = re.compile(r"-(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$|-inf$")


class Parser(argparse.ArgumentParser):
    """Raises SettingsError for a command line that it can't take, and in a Ray job for one with credentials."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)
        self._negative_number_matcher = NEGATIVE  # argparse knows no exponents: it takes -1e3 for a flag
        self.given: list[str] = []
        self.repeated: list[str] = []
        """Flags that were given more than once, each time another value."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's."""
        self.given = list(sys.argv[1:] if args is None else args)
        if in_job():
            check_flags(self.given)
        return super().parse_known_args(self.given, namespace)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's; of a flag that there is not, which may be meant."""
        found, unknown = self.parse_known_args(args, namespace)
        if unknown:
            meant = suggest(unknown[0].partition("=")[0], self.flags())
            self.error(f"unrecognized arguments: {' '.join(unknown)}{meant}")
        return found

    def flags(self) -> list[str]:
        """All that it takes."""
        return [flag for action in self._actions for flag in action.option_strings if flag.startswith("--")]

    def error(self, message: str) -> NoReturn:
        raise SettingsError("command line", " ".join(self.given), f"as --help shows: {message}")

    def tell_repeated(self) -> None:
        """Say which flags the command line had more than once."""
        while self.repeated:
            logger.warning("given more than once, and the last counts: %s", self.repeated.pop(0))


class Last(argparse.Action):
    """Of a flag that is given several times the last counts, as everywhere; that it does is remembered."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, value: Any, flag: str | None = None
    ) -> None:
        """Keep the value."""
        value = "--" if value == [] else value  # argparse has taken the two dashes of --flag=-- for the end of flags
        if isinstance(parser, Parser) and getattr(namespace, self.dest, None) not in (None, value):
            parser.repeated.append(f"{flag} {value}")
        setattr(namespace, self.dest, value)
