"""Text into tokens: by characters, by bytes, or by a tokenizer of transformers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ray_split.arrays import Array
from ray_split.config.language.packages import language_package
from ray_split.config.user_code.plugins import suggest
from ray_split.data.types import DataSet, Part
from ray_split.errors import MISFITS, SettingsError, shown, told
from ray_split.messages.labels import IGNORED

CHOICES = "Set it to characters, bytes, or the name or folder of a tokenizer of transformers"
UNKNOWN = "<unknown>"
AT_ONCE = 1000  # texts that transformers is given: its lists of numbers take several times the memory of arrays


@dataclass(frozen=True)
class Tokenizer:
    """How text becomes numbers: `encode` gives those (length,) of each text, int32, and `decode` the text of some.

    `begin` and `end` stand before and after each document, `pad` where a sample has no more. `size`: of the
    vocabulary; None where it is that of the training samples (`with_vocabulary`).
    """

    encode: Callable[[Sequence[str]], list[Array]]
    decode: Callable[[Array], str]
    size: int | None
    begin: tuple[int, ...] = ()
    end: tuple[int, ...] = ()
    pad: int = 0


def tokenizer_of(name: str | None, gguf_file: str | None = None) -> Tokenizer:
    """The tokenizer that `data.kwargs` names; `FOLDER::FILE.gguf` is a folder and its gguf_file. SettingsError."""
    if name is None:
        raise SettingsError("data.kwargs", {"tokenizer": None}, CHOICES, "tokenizer is not set")
    if not isinstance(name, str) or not name:
        raise SettingsError("data.kwargs", {"tokenizer": name}, CHOICES, f"tokenizer can't be {shown(name)}")
    if name in OURS:
        if gguf_file is not None:
            wrong = f"gguf_file can't be used with tokenizer {name}"
            raise SettingsError("data.kwargs", {"gguf_file": gguf_file}, "Remove gguf_file", wrong)
        return OURS[name]
    if not Path(name).exists() and (meant := suggest(name, OURS)):  # a typo is no name to ask a hub for
        raise SettingsError("data.kwargs", {"tokenizer": name}, f"{meant} {CHOICES}", f"there is no {shown(name)}")
    folder, _, file = name.partition("::")
    return _of_transformers(folder, gguf_file or file or None)


def _characters(texts: Sequence[str]) -> list[Array]:
    """The numbers that Unicode has for them."""
    return [np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<i4").astype(np.int32) for text in texts]


def _bytes(texts: Sequence[str]) -> list[Array]:
    return [np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8).astype(np.int32) for text in texts]


def _of_characters(tokens: Array) -> str:
    return "".join(map(chr, tokens.tolist()))


def _of_bytes(tokens: Array) -> str:
    return bytes(tokens.tolist()).decode("utf-8", "replace")


LINE_BREAK = (ord("\n"),)
OURS = {
    "characters": Tokenizer(_characters, _of_characters, None, end=LINE_BREAK),
    "bytes": Tokenizer(_bytes, _of_bytes, 256, end=LINE_BREAK),
}


def with_vocabulary(data: DataSet) -> DataSet:
    """Samples of Unicode's numbers as those of a vocabulary: the line break and the training part's, sorted, from 1 on.

    0 is what is unknown, and padding. `classes` has the vocabulary.
    """
    found = np.union1d(np.union1d(np.asarray(data.train.inputs), data.train.labels), LINE_BREAK)
    known = found[found > 0]  # neither padding nor what is ignored
    parts = [Part(*(_numbered(each, known) for each in part)) for part in (data.train, data.test)]
    names = [UNKNOWN, *map(chr, known.tolist())]
    return replace(data, train=parts[0], test=parts[1], num_classes=len(names), classes=names)


def _numbered(tokens: Any, known: Array) -> Array:
    at = np.searchsorted(known, tokens).clip(max=len(known) - 1)
    numbers: Array = np.where(known[at] == tokens, at + 1, np.where(tokens == IGNORED, IGNORED, 0))
    return numbers


def _of_transformers(name: str, gguf_file: str | None) -> Tokenizer:
    found = _loaded(name, gguf_file)
    begin, pad, end = found.bos_token_id, found.pad_token_id, found.eos_token_id
    # Where a model is used to a token before each text, its tokenizer puts it there.
    begins = begin is not None and begin in found("")["input_ids"]
    return Tokenizer(
        partial(_encoded, found),
        lambda tokens: str(found.decode(tokens.tolist())),
        len(found),
        begin=(begin,) if begins else (),
        end=() if end is None else (end,),
        pad=0 if pad is None else pad,
    )


def _loaded(name: str, gguf_file: str | None) -> Any:
    given = {"tokenizer": name} | ({"gguf_file": gguf_file} if gguf_file else {})
    wrong = f"tokenizer {shown(name)} needs transformers, which is not installed"
    instead = ", or set tokenizer to characters or bytes"
    transformers = language_package("transformers", "data.kwargs", given, wrong, instead)
    try:
        return transformers.AutoTokenizer.from_pretrained(name, **({"gguf_file": gguf_file} if gguf_file else {}))
    except MISFITS as error:
        wrong = f"transformers can't load the tokenizer {shown(name)}: {told(error)}"
        raise SettingsError("data.kwargs", given, CHOICES, wrong) from error


def _encoded(found: Any, texts: Sequence[str]) -> list[Array]:
    lists = (
        each
        for start in range(0, len(texts), AT_ONCE)
        for each in found(list(texts[start : start + AT_ONCE]), add_special_tokens=False, verbose=False)["input_ids"]
    )
    return [np.array(each, np.int32) for each in lists]
