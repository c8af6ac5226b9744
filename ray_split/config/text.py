"""Words of settings that are to be written down, shown in a line, or to name a folder or a file. Raises ValueError."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import Any, get_args, get_origin

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
        raise ValueError("text in UTF-8")
    if lines:
        return
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"at most {MOST_CHARACTERS} characters, not {len(text)}")
    if any(unicodedata.category(letter) in ("Cc", "Zl", "Zp") for letter in text):
        raise ValueError("in one line, without control characters")
    if hidden := HIDDEN.search(NEEDED.sub("", text)):
        name = unicodedata.name(hidden[0], "a character").lower()
        raise ValueError(f"text that shows all that it has: U+{ord(hidden[0]):04X} in it ({name}) can't be seen")


def folder_name(name: str) -> str:
    """The name of one folder, on any file system."""
    if not name or "/" in name or name in (".", ".."):
        raise ValueError("the name of one folder")
    if name.startswith(PARTIAL):
        raise ValueError(f"the name of one folder; {PARTIAL} is how what is not whole is called")
    if name != name.strip():
        raise ValueError("the name of one folder, without a space at its ends")
    if (length := len(name.encode())) > MOST_BYTES:
        raise ValueError(f"the name of one folder, at most {MOST_BYTES} bytes; it has {length}")
    return name


def path(path: str) -> str:
    """A local path, or a URI."""
    if not path:
        raise ValueError("a local path or a URI")
    found = SCHEME.match(path)
    if found and (found[2] or found[1].lower() in SCHEMES):
        rest = path[found.end() :]
        other = f"file:///{rest}" if found[1].lower() == "file" else f"{found[1]}://{rest}"
        raise ValueError(f"a local path or a URI: {other}, or ./{path} for a local folder of that name")
    if not IS_URI.match(path):
        local(Path(path))
    elif path.partition("://")[2].partition("?")[0].strip("/") == "":
        raise ValueError("a local path, or a URI with a bucket and a path")
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
        raise ValueError(f"a path whose parts have at most {MOST_BYTES} bytes; one has {len(long.encode())}")
    if len(str(found).encode()) > PATH_BYTES:
        raise ValueError(f"a path of at most {PATH_BYTES} bytes")
    return path


ADDRESS = re.compile(r"auto|local|(?:ray://)?(?:\[[0-9a-fA-F:.]+\]|[^\s:/@?#\[\]]+):([0-9]{1,5})")


def address(address: str) -> str:
    """Of a Ray, as ray.init takes it."""
    found = ADDRESS.fullmatch(address)
    if found is None or int(found[1] or 1) not in range(1, 65536):
        raise ValueError("of a running Ray, as host:port, ray://host:port, auto or local")
    return address
