"""The command `ray-split`. Exit status 0 only if the run finished; 2 for a bad setting, in one line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from pydantic.fields import FieldInfo

from ray_split import config, logs
from ray_split.config.exposed_credentials import check_flags, in_job
from ray_split.config.fields import Section, read_yaml
from ray_split.config.plugins import suggest
from ray_split.driver.interrupted_start import stoppable
from ray_split.errors import OutOfTimeError, RunFailedError, RunStoppedError, SettingsError

if TYPE_CHECKING:
    from ray_split.driver.ending import Ending

logger = logs.get(__name__)


class Parser(argparse.ArgumentParser):
    """Raises SettingsError for a command line that it can't take."""

    given: Sequence[str] = ()
    again: ClassVar[list[str]] = []
    """Flags that were given more than once, each time another value."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's; in a Ray job credentials are refused."""
        if in_job():
            check_flags(list(sys.argv[1:] if args is None else args))
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        raise SettingsError("command line", " ".join(self.given), f"as --help shows: {message}")


class Last(argparse.Action):
    """Of a flag that is given several times the last counts, as everywhere; that it does is remembered."""

    def __call__(self, _: Any, namespace: argparse.Namespace, value: Any, flag: str | None = None) -> None:
        """Keep the value."""
        value = "--" if value == [] else value  # argparse has taken the two dashes of --flag=-- for the end of flags
        if getattr(namespace, self.dest, None) not in (None, value):
            Parser.again.append(f"{flag} {value}")
        setattr(namespace, self.dest, value)


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
    train.add_argument("--config", metavar="FILE", action=Last, help="a YAML file of settings, by section")
    train.add_argument("--print-config", action="store_true", help="check and print the resolved settings, and exit")
    train.add_argument(
        "--dry-run", action="store_true", help="check the settings, say which actor would be placed where, and exit"
    )
    add_flags(train, config.Config)
    return parser


def add_flags(parser: argparse.ArgumentParser, root: type[Section]) -> None:
    """A flag `--section.field` for every setting."""
    for name, field in _fields(root):
        bare = {"nargs": "?", "const": "true"} if field.annotation is bool or name == "run.resume" else {}
        text = f"{field.description or ''} (default: {_shown(field.default)})".strip().replace("%", "%%")
        metavar = name.rpartition(".")[2].upper()
        options: dict[str, Any] = {"metavar": metavar, "default": argparse.SUPPRESS, "help": text, **bare}
        parser.add_argument(f"--{name}", action=Last, **options)


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


def merged(below: Any, above: Any) -> Any:
    """Mappings within mappings: what is above wins."""
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return {**below, **{key: merged(below.get(key), value) for key, value in above.items()}}


def settings_of(arguments: Sequence[str]) -> tuple[config.Config, str]:
    """The settings that a command line and its file say, and what to do by them. Raises SettingsError."""
    Parser.given, Parser.again = arguments, []
    namespace, unknown = _parser().parse_known_args(arguments)
    if unknown:
        known = [f"--{name}" for name, _ in _fields(config.Config)]
        flag = unknown[0].partition("=")[0]
        raise SettingsError(flag, " ".join(unknown[1:2]), f"one of the flags that --help shows{suggest(flag, known)}")
    flags = vars(namespace)
    _, file, wanted = flags.pop("command"), flags.pop("config"), [name for name in INSTEAD if flags.pop(name)]
    values = {} if file is None else read_yaml(file)
    _check_sections(values, config.Config)
    settings = config.Config(**merged(values, nested(flags)))
    with logs.written(settings.run.log_format):
        tell_again()
    return settings, (wanted or ["train"])[0]


def _check_sections(values: dict[str, Any], section: type[Section], prefix: str = "") -> None:
    """A flag would take the place of what is no section in the file, and nobody would know. Raises SettingsError."""
    for name, value in values.items():
        kind = section.model_fields[name].annotation if name in section.model_fields else None
        if not (isinstance(kind, type) and issubclass(kind, Section)):
            continue
        if isinstance(value, dict):
            _check_sections(value, kind, f"{prefix}{name}.")
        elif value is not None:
            raise SettingsError(prefix + name, value, f"a section of fields: {', '.join(kind.model_fields)}")


def tell_again() -> None:
    """Say which flags the command line had more than once."""
    while Parser.again:
        logger.warning("given more than once, and the last counts: %s", Parser.again.pop(0))


def _train(settings: config.Config, ending: Ending) -> int:
    from ray_split.api import fit  # torch and more: not for --help

    fit(settings, ending.callbacks)
    return 0


def _print_config(settings: config.Config, _: Ending) -> int:
    from ray_split.preparation.prepare import prepare

    print(prepare(settings).settings.to_yaml(), end="")
    return 0


def _dry_run(settings: config.Config, _: Ending) -> int:
    from ray_split.api import dry_run

    room, lines = dry_run(settings)
    print("\n".join(lines if room else ["there is no room now, so the run would wait", *lines]))
    return 0 if room else 1


INSTEAD = ("print_config", "dry_run")  # flags that ask for something else than training
COMMANDS = {"train": _train, "print_config": _print_config, "dry_run": _dry_run}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    with stoppable():
        return _main(sys.argv[1:] if arguments is None else arguments)


def _main(arguments: Sequence[str]) -> int:
    ending = None
    try:
        settings, wanted = settings_of(arguments)
        from ray_split.driver.ending import Ending

        ending = Ending(settings.run.log_format)
        return _ended(ending, COMMANDS[wanted](settings, ending))
    except SettingsError as error:
        return _ended(ending, 2, f"error: {error}")
    except RunStoppedError as error:
        began = ending is not None and ending.began
        how = "stopped; --run.resume goes on from the last checkpoint" if began else "stopped before the run began"
        return _ended(ending, 128 + error.signal_number, how)
    except OutOfTimeError as error:
        return _ended(ending, 1, f"stopped: {error}")
    except KeyboardInterrupt:
        return _ended(ending, 130, "stopped before the run began")
    except RunFailedError as error:
        return _ended(ending, 1, f"error: the run failed: {error}")


def _ended(ending: Ending | None, status: int, complaint: str | None = None) -> int:
    """Say how it ended; the status. Of a run that began, the last line names the results' place."""
    if ending:
        ending.say(complaint)
    elif complaint:
        print(complaint, file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
