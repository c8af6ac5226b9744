"""The packages of the extra ray-split[language], imported when something asks for them."""

from __future__ import annotations

import importlib
from typing import Any

from ray_split.errors import SettingsError


def language_package(name: str, field: str, value: Any, wrong: str, instead: str = "") -> Any:
    """The package. Raises SettingsError, that `wrong` is with the field, if it isn't installed.

    `instead`: what else to do than to install it.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise SettingsError(field, value, f"Run: pip install 'ray-split[language]'{instead}", wrong) from error
