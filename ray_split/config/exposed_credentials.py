"""Flags of a Ray job: `ray job list` and the job's log show them, so no credentials may be in them."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from ray_split.errors import SettingsError, masked, shown

PORT = re.compile(r"(://[^/:@\s]+):\d+(?=[/?]|$)")
INSTEAD = (
    "Leave them out of the command, because 'ray job list' and the job's log show it. Give credentials to Ray's nodes: "
    "a role of the machine, AWS_PROFILE with a credentials file, or AWS_ACCESS_KEY_ID and such where Ray is started"
)


def in_job() -> bool:
    """Whether this process was started by Ray, as a job's entrypoint."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def check_flags(arguments: Sequence[str]) -> None:
    """Raises SettingsError for a flag, of a job's command, that has credentials in a URI."""
    for before, argument in zip(["", *arguments], arguments, strict=False):
        if has_credentials(argument):
            flag, equals, value = argument.partition("=") if argument.startswith("--") else (before, "", argument)
            given = value if equals else argument
            field = flag.removeprefix("--") if flag.startswith("--") else ""
            raise SettingsError(field, given, INSTEAD, f"{shown(given)} contains credentials")


def has_credentials(text: str) -> bool:
    """Whether a URI in the text has a password, a key or the like."""
    without_port = PORT.sub(r"\1", text)  # http://host:8080/a@b has none
    return masked(without_port) != without_port
