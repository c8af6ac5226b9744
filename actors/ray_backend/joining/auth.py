"""Ray's token authentication, for a driver: Ray reads the mode once, when it is imported."""

from __future__ import annotations

import os
import secrets
import tempfile
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


def make_token() -> None:
    """Make the token that Ray keeps, if it would find none and wants one. Ray's own is readable for everybody."""
    if has_token() or os.environ.get("RAY_AUTH_MODE", "token").lower() != "token":
        return
    file = token_file()
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, written = tempfile.mkstemp(dir=file.parent)  # for its owner alone, from the start
    with os.fdopen(descriptor, "w") as out:
        out.write(secrets.token_hex(32))
    try:
        os.link(written, file)  # whole, and never in the place of one that another process has just made
    except FileExistsError:
        pass
    finally:
        Path(written).unlink()
