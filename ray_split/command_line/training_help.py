"""The help of `ray-split train`: the settings most used, those of one section, or all."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterator

from pydantic.fields import FieldInfo

from ray_split import config
from ray_split.command_line.flags import add_flags, default_of, fields_of, section_of
from ray_split.config.fields import Section
from ray_split.config.user_code.plugins import suggest
from ray_split.errors import SettingsError, listed, shown

PROG = "ray-split train"
USAGE = f"{PROG} [--config FILE] [--section.field VALUE ...]"
ABOUT = "Train by settings from a file, from flags, or both (flags win)."
OPTIONS = {
    "config": "a YAML file of settings, by section",
    "print-config": "check and print the resolved settings, and exit",
    "dry-run": "check the settings, say which actor would be placed where, and exit",
    "help": "the settings most used, and exit; --help SECTION: those of a section",
    "help-all": "all settings, and exit",
}
"""What is no setting."""

MOST_USED = (
    *("model.name", "model.cuts"),
    *("data.name", "data.path", "data.batch_size", "data.partition.name", "data.partition.alpha"),
    *("phones.count", "phones.per_round", "phones.local_steps"),
    "schedule.name",
    *("optimizer.name", "optimizer.lr"),
    "server.num_gpus",
    "cluster.address",
    *("run.name", "run.storage_path", "run.rounds", "run.seed", "run.resume"),
)
WIDTH, INDENT = 100, 26
SECTIONS = {name: section for name, field in config.Config.model_fields.items() if (section := section_of(field))}


def short_help() -> str:
    """One screen of 100 columns: the settings most used, by section, and how to see the rest."""
    fields, lines, shown = dict(fields_of(config.Config)), [f"usage: {USAGE}", "", ABOUT, ""], ""
    for name in MOST_USED:
        section = name.partition(".")[0]
        if section != shown:
            lines.append(f"{section}: {SECTIONS[section].__doc__}")
        shown = section
        lines.append(_line(name, fields[name]))
    options = [f"  --{name}".ljust(INDENT) + text for name, text in OPTIONS.items()]
    sections = textwrap.fill(", ".join(SECTIONS), WIDTH, initial_indent="sections: ", subsequent_indent=" " * 10)
    return "\n".join([*lines, "", *options, sections])


def _line(name: str, field: FieldInfo) -> str:
    """Cut where the screen ends: the section's own help says it whole."""
    default = default_of(field)
    text = textwrap.shorten(field.description or "", WIDTH - INDENT - 1 - len(default), placeholder=" ...")
    return f"  --{name}".ljust(INDENT) + f"{text} {default}".strip()


def help_about(topic: str) -> str:
    """The settings of a section, or of a section within it, or one field. Raises SettingsError for none of these."""
    fields = [(name, field) for name, field in fields_of(config.Config) if f"{name}.".startswith(f"{topic}.")]
    if not fields:
        near = suggest(topic, SECTIONS, f"The sections are {listed(SECTIONS)}")
        raise SettingsError("--help", topic, near, f"there is no section {shown(topic)}")
    parser = argparse.ArgumentParser(usage=USAGE, add_help=False)
    add_flags(parser.add_argument_group(topic, _section_at(topic).__doc__), fields)
    return parser.format_help().rstrip()


def _section_at(topic: str) -> type[Section]:
    """The section of that name, or that a field of that name is in."""
    section: type[Section] = config.Config
    for name in topic.split("."):
        section = section_of(section.model_fields[name]) or section
    return section


def sections_of_flags() -> Iterator[tuple[str, str | None, list[tuple[str, FieldInfo]]]]:
    """Each section's name, what it is, and its fields."""
    for name, section in SECTIONS.items():
        yield name, section.__doc__, list(fields_of(section, f"{name}."))
