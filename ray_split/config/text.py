"""Words of settings that are to be written down, shown in a line, or to name a folder or a file. Raises ValueError."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import Any, get_args, get_origin

from ray_split.errors import SettingsError, shown
from ray_split.filesystem import IS_URI, PARTIAL, place

MOST_CHARACTERS = 4096
MOST_BYTES = 255
"""Of a folder's name, on the file systems that there are."""

PATH_BYTES = 3800
"""Of a folder's path: Linux takes 4,095, and a run has files below it."""

HIDDEN = re.compile(
    "[\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e007f]"
)
"""Of no width, or turning around how what follows is read: two names that look alike would be two folders."""

NEEDED = re.compile(r"(?<=[^\x00-\u02ff])[\u200c\u200d](?=[^\x00-\u02ff])|\U0001f3f4[\U000e0020-\U000e007f]+")
"""Joiners within words of scripts that have them, and within emoji; the flags of countries' parts."""

SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(?!//)(/?)")
SCHEMES = ("file", "s3", "s3a", "s3n", "gs", "gcs", "abfs", "abfss", "az", "adl", "wasb", "wasbs", "hdfs", "viewfs",
           "webhdfs", "http", "https", "ftp", "sftp", "ssh", "smb", "memory")  # fmt: skip


def is_kind(annotation: Any, *kinds: type) -> bool:
    """Whether an annotation is one of the types, or has one among those that it joins."""
    if get_origin(annotation) is dict:
        return False
    return annotation in kinds or any(is_kind(part, *kinds) for part in get_args(annotation))


def check(text: str, lines: bool) -> None:
    """See that a word can be written down, and unless `lines` that it is in one."""
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise SettingsError("", text, "Save or type it as UTF-8", "has a character that is not valid Unicode")
    if lines:
        return
    if len(text) > MOST_CHARACTERS:
        raise SettingsError("", text, "Use less", f"has {len(text)} characters, but may have at most {MOST_CHARACTERS}")
    if any(unicodedata.category(letter) in ("Cc", "Zl", "Zp") for letter in text):
        wrong = f"{shown(text)} has a line break or another control character"
        raise SettingsError("", text, "Use text of one line", wrong)
    if hidden := HIDDEN.search(NEEDED.sub("", text)):
        name = unicodedata.name(hidden[0], "a character").lower()
        wrong = f"{shown(text)} has a character that can't be seen, U+{ord(hidden[0]):04X} ({name})"
        raise SettingsError("", text, "Delete that character, or type the text anew", wrong)


def folder_name(name: str) -> str:
    """The name of one folder, on any file system."""
    if not name or name in (".", ".."):
        raise ValueError("the name of a folder, such as my-run")
    if "/" in name:
        proposal = "-".join(part for part in name.split("/") if part not in ("", ".", "..")) or "my-run"
        raise SettingsError(
            "", name, f"Use a single folder name, such as {proposal:.60}", f"{shown(name)} contains a slash"
        )
    if name.startswith(PARTIAL):
        wrong = f"{shown(name)} begins with {PARTIAL}, as the names of unfinished files do"
        raise SettingsError("", name, "Use another name", wrong)
    if name != name.strip():
        wrong = f"{shown(name)} begins or ends with a space"
        raise SettingsError("", name, f"Leave the space out: {name.strip() or 'my-run'}", wrong)
    if (length := len(name.encode())) > MOST_BYTES:
        raise SettingsError("", name, "Shorten it", f"has {length} bytes, but may have at most {MOST_BYTES}")
    return name


def path(path: str) -> str:
    """A local path, or a URI."""
    if not path:
        raise ValueError("a local path or a URI")
    found = SCHEME.match(path)
    if found and (found[2] or found[1].lower() in SCHEMES):
        rest = path[found.end() :]
        other = f"file:///{rest}" if found[1].lower() == "file" else f"{found[1]}://{rest or 'bucket/folder'}"
        do = f"Write {other}, or ./{path} if you mean a local folder of that name"
        raise SettingsError("", path, do, f"{shown(path)} is neither a local path nor a URI")
    if not IS_URI.match(path):
        local(Path(path))
    elif path.partition("://")[2].partition("?")[0].strip("/") == "":
        do = "Write both, such as s3://bucket/folder"
        raise SettingsError("", path, do, f"{shown(path)} is a URI without a bucket and a path")
    return path


def given(path: Any) -> Any:
    """An empty word, to pathlib, is the folder that one stands in."""
    if path == "":
        raise ValueError("a path")
    return path


def local(path: Path) -> Path:
    """A path of this machine."""
    found = place(path)
    long = next((part for part in found.parts if len(part.encode()) > MOST_BYTES), None)  # type: ignore[union-attr]
    if long is not None:
        wrong = f"has a part of {len(long.encode())} bytes, but each may have at most {MOST_BYTES}"
        raise SettingsError("", str(path), f"Shorten {shown(long)}", wrong)
    if len(str(found).encode()) > PATH_BYTES:
        wrong = f"has {len(str(found).encode())} bytes, but may have at most {PATH_BYTES}"
        raise SettingsError("", str(path), "Use a shorter path", wrong)
    return path


ADDRESS = re.compile(r"auto|local|(?:ray://)?(?:\[[0-9a-fA-F:.]+\]|[^\s:/@?#\[\]]+):([0-9]{1,5})")


def address(address: str) -> str:
    """Of a Ray, as ray.init takes it."""
    found = ADDRESS.fullmatch(address)
    if found is None or int(found[1] or 1) not in range(1, 65536):
        raise ValueError("host:port or ray://host:port of a running Ray, auto or local")
    return address
