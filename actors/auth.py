"""Ray's token authentication, for a driver: Ray reads the mode once, when it is imported."""

from __future__ import annotations

import os
from pathlib import Path


def token_file() -> Path:
    """Where Ray keeps its token, if nothing else was said."""
    return Path.home() / ".ray" / "auth_token"


def has_token() -> bool:
    """Whether Ray would find a token: in the environment, or in the file that it keeps."""
    named = "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ
    return named or token_file().exists()


def use_token() -> None:
    """Send the token, where there is one and nothing else was said: a head that `ray start` began asks for it."""
    if has_token():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
