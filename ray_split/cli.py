"""The command `ray-split`. Exit status 0 only if the run finished; 2 for a bad setting, in one line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from pydantic.fields import FieldInfo

from ray_split import config
from ray_split.failure import RunFailedError, RunStoppedError, SettingsError
from ray_split.loading import suggest
from ray_split.section import Section, read_yaml

if TYPE_CHECKING:
    from ray_split.ending import Ending


class Parser(argparse.ArgumentParser):
    """Raises SettingsError for a command line that it can't take."""

    given: Sequence[str] = ()

    def error(self, message: str) -> NoReturn:
        raise SettingsError("command line", " ".join(self.given), f"as --help shows: {message}")


def _fields(section: type[Section], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from _fields(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name, field


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="ray-split", description="Multi-client split learning on Ray.")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=Parser)
    train = commands.add_parser(
        "train",
        help="train a model, split between phones and a server",
        description="Train by settings from a file, from flags, or both (flags win).",
        allow_abbrev=False,
    )
    train.add_argument("--config", metavar="FILE", help="a YAML file of settings, by section")
    train.add_argument("--print-config", action="store_true", help="check and print the resolved settings, and exit")
    add_flags(train, config.Config)
    return parser


def add_flags(parser: argparse.ArgumentParser, root: type[Section]) -> None:
    """A flag `--section.field` for every setting."""
    for name, field in _fields(root):
        bare = {"nargs": "?", "const": "true"} if field.annotation is bool or name == "run.resume" else {}
        text = f"{field.description or ''} (default: {_shown(field.default)})".strip().replace("%", "%%")
        metavar = name.rpartition(".")[2].upper()
        parser.add_argument(f"--{name}", metavar=metavar, default=argparse.SUPPRESS, help=text, **bare)  # type: ignore[arg-type]


def _shown(value: Any) -> str:
    return "none" if value is None else str(value)


def nested(flags: dict[str, str]) -> dict[str, Any]:
    """Flags as sections of fields."""
    values: dict[str, Any] = {}
    for name, value in flags.items():
        *sections, field = name.split(".")
        place = values
        for section in sections:
            place = place.setdefault(section, {})
        place[field] = None if value in ("null", "none") and field != "resume" else value
    return values


def _merged(below: Any, above: Any) -> Any:
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return {**below, **{key: _merged(below.get(key), value) for key, value in above.items()}}


def settings_of(arguments: Sequence[str]) -> tuple[config.Config, bool]:
    """The settings that a command line and its file say, and whether only to print them. Raises SettingsError."""
    Parser.given = arguments
    namespace, unknown = _parser().parse_known_args(arguments)
    if unknown:
        known = [f"--{name}" for name, _ in _fields(config.Config)]
        flag = unknown[0].partition("=")[0]
        raise SettingsError(flag, " ".join(unknown[1:2]), f"one of the flags that --help shows{suggest(flag, known)}")
    flags = vars(namespace)
    _, file, show = flags.pop("command"), flags.pop("config"), flags.pop("print_config")
    values = read_yaml(file) if file else {}
    return config.Config(**_merged(values, nested(flags))), show


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    ending = None
    try:
        settings, show = settings_of(sys.argv[1:] if arguments is None else arguments)
        from ray_split.api import fit  # torch and more: not for --help
        from ray_split.ending import Ending
        from ray_split.prepare import prepare

        if show:
            print(prepare(settings).settings.to_yaml(), end="")
            return 0
        ending = Ending(settings.run.log_format)
        fit(settings, ending.callbacks)
    except SettingsError as error:
        return _ended(ending, 2, f"error: {error}")
    except RunStoppedError as error:
        return _ended(ending, 128 + error.signal_number, "stopped; --run.resume goes on from the last checkpoint")
    except KeyboardInterrupt:
        return _ended(ending, 130, "stopped before the run began")
    except RunFailedError as error:
        return _ended(ending, 1, f"error: the run failed: {error}")
    return _ended(ending, 0)


def _ended(ending: Ending | None, status: int, complaint: str | None = None) -> int:
    """Say how it ended; the status. Of a run that began, the last line names the results' place."""
    if ending:
        ending.say(complaint)
    elif complaint:
        print(complaint, file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
