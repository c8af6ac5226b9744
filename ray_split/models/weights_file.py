"""What a file is that was taken for weights and has none: by how it begins, and what stands in it."""

from __future__ import annotations

import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path

BEGINS = {
    b"version https://git-lfs": "a pointer of Git LFS; git lfs pull gets the weights",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUMPY": "a numpy array",
    b"GGUF": "a GGUF file",
    b"\x1f\x8b": "a gzip archive",
    b"%PDF": "a PDF",
    b"PK\x05\x06": "an empty zip archive",
}
PAGE = (b"<!doctype", b"<html", b"<?xml")
"""A page that says why there was no download, mostly."""

MOST_BYTES = 1 << 20  # of a file without an end that is looked into
SAFE = ("collections", "torch")
"""Modules of what a state dict's pickle names."""


def what_is(path: Path) -> str:
    """What a path is that can't be read as weights, in some words. Raises OSError."""
    if not path.exists():
        return f"there is no file {path}"
    if path.is_dir():
        return f"{path} is a folder"
    if not path.is_file():
        return f"{path} is no regular file"
    with path.open("rb") as file:
        begin = file.read(MOST_BYTES)
    return f"{path} is {_named(path, begin)}"


def _named(path: Path, begin: bytes) -> str:
    if not begin:
        return "an empty file"
    if found := next((what for mark, what in BEGINS.items() if begin.startswith(mark)), None):
        return found
    if begin.lstrip()[:20].lower().startswith(PAGE):
        return "a web page"
    if zipfile.is_zipfile(path):
        return _archive(path)
    if begin[:2] == b"PK":
        return "a zip archive that is cut off"
    if begin[:1] == b"\x80":
        return _pickled(path, begin)
    if begin[8:9] == b"{" and int.from_bytes(begin[:8], "little") < 10**8:
        return (
            "of safetensors, and damaged or cut off" if path.suffix == ".safetensors" else "of safetensors: call it so"
        )
    return "text" if _is_text(begin) else "none that begins as torch's or safetensors' do"


def _archive(path: Path) -> str:
    """A zip, as torch writes: what its pickle names, if it has one."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        pickled = next((name for name in names if name.endswith("data.pkl")), None)
        if pickled is None:
            return f"a zip archive, with {names[0] if names else 'nothing'} in it"
        if any("/code/" in name for name in names):
            return "a TorchScript program; save its state_dict()"
        return _pickled(path, archive.read(pickled))


def _pickled(path: Path, content: bytes) -> str:
    if (other := next(_others(content), None)) is not None:
        return f"a pickle of {other}, which is not unpickled, because that could run code; save its state_dict()"
    if path.suffix == ".safetensors":
        return "of torch's kind, not of safetensors: call it .pt"
    return "a pickle that is damaged, or of something else than a state dict"


def _others(content: bytes) -> Iterator[str]:
    """What a pickle names that no state dict has. Nothing of it is run."""
    words: list[str] = []
    try:
        for code, argument, _ in pickletools.genops(content):
            if code.name == "GLOBAL":
                words = str(argument).split(" ", 1)
            elif isinstance(argument, str):
                words = [*words[-1:], argument]
            theirs = words and (words[0].partition(".")[0] not in SAFE or words[0].startswith("torch.nn"))
            if code.name in ("GLOBAL", "STACK_GLOBAL") and theirs:
                yield ".".join(words)
    except ValueError:  # cut off
        return


def _is_text(begin: bytes) -> bool:
    try:
        return begin[:1000].decode("ascii").replace("\n", "").replace("\t", "").replace("\r", "").isprintable()
    except UnicodeDecodeError:
        return False
