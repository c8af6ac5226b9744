"""Ray's token authentication, for a driver: Ray reads the mode once, when it is imported."""

from __future__ import annotations

import os
from pathlib import Path


def use_token() -> None:
    """Send the token, where there is one and nothing else was said: a head that `ray start` began asks for it."""
    named = "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ
    if named or (Path.home() / ".ray" / "auth_token").exists():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
