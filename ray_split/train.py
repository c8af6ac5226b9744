"""The command `ray-split train`. Exit status 0 only if the run finished; 2 for a bad setting, in one line."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ray_split import config
from ray_split.command_line.training import settings_of
from ray_split.driver.interrupted_start import stoppable
from ray_split.errors import BadPhoneError, OutOfTimeError, RunFailedError, RunStoppedError, SettingsError, sentence

if TYPE_CHECKING:
    from ray_split.driver.ending import Ending


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


WANTED = {"train": _train, "print_config": _print_config, "dry_run": _dry_run}


HELPS = "A lower optimizer.lr may help. With run.on_bad_phone skip, a run goes on without such phones."


def main(arguments: Sequence[str]) -> int:
    """Train; returns the exit status."""
    with stoppable():
        return _main(arguments)


def _main(arguments: Sequence[str]) -> int:
    ending = None
    try:
        settings, wanted = settings_of(arguments)
        from ray_split.driver.ending import Ending

        ending = Ending(settings.run.log_format)
        return _ended(ending, WANTED[wanted](settings, ending))
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
        return _ended(ending, 1, f"error: the run failed: {_why(error)}")


def _why(error: RunFailedError) -> str:
    """Why a run failed, and what may help."""
    if not isinstance(error.__cause__, BadPhoneError):
        return str(error)
    return f"{sentence(str(error.__cause__))} {HELPS}"


def _ended(ending: Ending | None, status: int, complaint: str | None = None) -> int:
    """Say how it ended; the status. Of a run that began, the last line names the results' place."""
    if ending:
        ending.say(complaint)
    elif complaint:
        print(complaint, file=sys.stderr)
    return status
