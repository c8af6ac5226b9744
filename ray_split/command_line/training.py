"""What `ray-split train` is asked: its flags, its file, and the settings that they say together."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from ray_split import config, logs
from ray_split.command_line import training_help
from ray_split.command_line.flags import add_flags, merged, nested, section_of
from ray_split.command_line.parser import Last, Parser, unknown_words
from ray_split.config.fields import Section, in_file, read_yaml
from ray_split.errors import SettingsError

INSTEAD = ("print_config", "dry_run")  # flags that ask for something else than training
BOTH = "--print-config and --dry-run can't be given together, because each does one thing and exits"


class Help(argparse.Action):
    """Shows the help that is asked for, and exits."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, value: Any, flag: str | None = None
    ) -> None:
        """Raises SettingsError for a section that there is not."""
        print(training_help.help_about(value) if value else training_help.short_help())
        parser.exit()


def parser_of_settings() -> Parser:
    """Its own help, with all settings, is that of --help-all."""
    told = training_help.OPTIONS
    parser = Parser(prog=training_help.PROG, usage=training_help.USAGE, description=training_help.ABOUT, add_help=False)
    parser.add_argument("--config", metavar="FILE", action=Last, help=told["config"])
    for flag in ("print-config", "dry-run"):
        parser.add_argument(f"--{flag}", action="store_true", help=told[flag])
    parser.add_argument("-h", "--help", metavar="SECTION", action=Help, nargs="?", help=told["help"])
    parser.add_argument("--help-all", action="help", help=told["help-all"])
    for name, about, fields in training_help.sections_of_flags():
        add_flags(parser.add_argument_group(name, about), fields)
    return parser


def settings_of(arguments: Sequence[str], beside: Sequence[str] = ()) -> tuple[config.Config, str]:
    """The settings that a command line and its file say, and what to do by them. Raises SettingsError.

    `beside`: flags that the command takes too.
    """
    parser = parser_of_settings()
    namespace, unknown = parser.parse_known_args(arguments)
    if unknown:
        known = [*beside, *parser.flags()]
        raise unknown_words(unknown, known, f"{training_help.PROG} --help-all", vars(namespace))
    flags = vars(namespace)
    flags.pop("help")
    file, wanted = flags.pop("config"), [name for name in INSTEAD if flags.pop(name)]
    if len(wanted) > 1:
        raise SettingsError("", " ".join(wanted), "Leave one of them out", BOTH)
    values = {} if file is None else read_yaml(file)
    try:
        _check_sections(values, config.Config)
        settings = config.Config(**merged(values, nested(flags)))
    except SettingsError as error:
        raise error if file is None or error.field in flags else in_file(error, file) from error
    with logs.written(settings.run.log_format):
        parser.tell_repeated()
    return settings, (wanted or ["train"])[0]


def _check_sections(values: dict[str, Any], section: type[Section], prefix: str = "") -> None:
    """A flag would take the place of what is no section in the file, and nobody would know. Raises SettingsError."""
    for name, value in values.items():
        kind = section_of(section.model_fields[name]) if name in section.model_fields else None
        if kind is None:
            continue
        if isinstance(value, dict):
            _check_sections(value, kind, f"{prefix}{name}.")
        elif value is not None:
            settings = ", ".join(kind.model_fields)
            raise SettingsError(prefix + name, value, f"a section, with its settings below it ({settings})")
