"""Text to learn the next token of: files of plain text or of JSON lines, whose texts they are, and what they become."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ray_split import logs
from ray_split.arrays import Array
from ray_split.data.sources.synthetic import whole
from ray_split.data.sources.tokenizers import Tokenizer, tokenizer_of, with_vocabulary
from ray_split.data.sources.windows import Tokens, one_each, packed, split
from ray_split.data.types import DataSet, Part
from ray_split.errors import SettingsError, brief, listed, shown, told
from ray_split.memory_limit import check_fits
from ray_split.messages.labels import IGNORED

logger = logs.get(__name__)

LAYOUT = "a text file, a .jsonl file, or a folder of .txt or of .jsonl files"
JSON_LINES = ".jsonl"


class Document(NamedTuple):
    """A text, what comes before it that is not to be learned, and whose it is."""

    text: str
    prompt: str = ""
    group: str = ""


@dataclass(frozen=True)
class Wanted:
    """What samples are to be like: of `length` tokens, and packed or one for each document."""

    tokenizer: Tokenizer
    length: int
    pack: bool = True


def text(
    path: Path | None = None,
    tokenizer: str | None = None,
    max_length: int = 128,
    field: str = "text",
    by: str | None = None,
    pack: bool = True,
    prompt: str | None = None,
    completion: str | None = None,
    gguf_file: str | None = None,
) -> DataSet:
    """Texts of `data.path`: inputs (N, max_length) tokens, labels (N, max_length) the next token of each.

    `tokenizer`: characters (those of the training part; 0 is what is unknown), bytes, or a name or folder for
    transformers' AutoTokenizer. `field`: what a JSON line calls its text; `prompt` and `completion`: of instructions,
    whose prompts' labels are ignored, a sample each. `by`: the field that says whose it is, or `file`: the groups.
    `pack`: documents of a group one after the other, cut in windows; else a sample each, of plain text of each line.
    Raises SettingsError.
    """
    if path is None:
        raise SettingsError("data.path", None, f"Add --data.path PATH, where PATH is {LAYOUT}", "is not set")
    _check_names(field=field, by=by, prompt=prompt, completion=completion, gguf_file=gguf_file)
    if not isinstance(pack, bool):
        raise SettingsError("data.kwargs", {"pack": pack}, "Set it to true or false", f"pack can't be {shown(pack)}")
    if (prompt is None) != (completion is None):
        lacking = "completion" if completion is None else "prompt"
        do = f"Set {lacking} too, to the name of a field, or neither"
        raise SettingsError("data.kwargs", {"prompt": prompt, "completion": completion}, do, f"{lacking} is not set")
    pack = pack and prompt is None
    wanted = wanted_of(tokenizer, gguf_file, max_length, pack)
    fields = _Fields(completion or field, prompt, by)
    documents = [fields.document(*each) for file in _files(path) for each in _records(file, pack)]
    return data_set(path, documents, wanted, by)


def _check_names(**given: Any) -> None:
    for name, value in given.items():
        if value is not None and not (isinstance(value, str) and value):
            raise SettingsError("data.kwargs", {name: value}, "Set it to a name", f"{name} can't be {shown(value)}")


def wanted_of(tokenizer: str | None, gguf_file: str | None, max_length: int, pack: bool = True) -> Wanted:
    """What `data.kwargs` say of samples. Raises SettingsError."""
    if not (whole(max_length) and max_length > 0):
        wrong = f"max_length can't be {shown(max_length)}"
        raise SettingsError("data.kwargs", {"max_length": max_length}, "Set it to a whole number of 1 or more", wrong)
    return Wanted(tokenizer_of(tokenizer, gguf_file), max_length, pack)


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    there = [file for file in sorted(path.iterdir()) if file.is_file() and not file.name.startswith(".")]
    kinds = [[file for file in there if file.suffix.lower() == ending] for ending in (".txt", JSON_LINES)]
    if all(kinds) or not any(kinds):
        wrong = f"{shown(str(path))} has {'both' if all(kinds) else 'neither'} .txt {'and' if all(kinds) else 'nor'}"
        raise SettingsError("data.path", str(path), f"Give {LAYOUT}", f"{wrong} .jsonl files")
    return kinds[0] or kinds[1]


def read(file: Path) -> str:
    """What a file says. Raises SettingsError."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        wrong = f"{shown(str(file))} is not text in UTF-8: byte {error.start} is {error.object[error.start]:#x}"
        do = "Convert it, for example with: iconv -f latin1 -t utf-8"
        raise SettingsError("data.path", str(file), do, wrong) from error
    except OSError as error:
        wrong = f"{shown(str(file))} can't be read: {told(error)}"
        raise SettingsError("data.path", str(file), "Give another file, or repair this one", wrong) from error


def _records(file: Path, pack: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """What a file has, as JSON lines would have it, and the place of each."""
    said = read(file)
    lines = [said.strip("\n")] if pack and file.suffix.lower() != JSON_LINES else said.split("\n")
    for number, line in enumerate(lines, 1):
        if line.strip():
            place = f"line {number} of {str(file)!r}"
            own = _parsed(file, place, line) if file.suffix.lower() == JSON_LINES else {"text": line}
            yield place, {"file": file.name, **own}


def _parsed(file: Path, place: str, line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        found = line
    if not isinstance(found, dict):
        wrong = f"{place} is not a JSON object: {brief(found, 60)[:60]}"
        raise SettingsError("data.path", str(file), 'Write one object in each line, such as {"text": "..."}', wrong)
    return found


@dataclass(frozen=True)
class _Fields:
    """Which fields of a record have what."""

    text: str
    prompt: str | None
    by: str | None

    def document(self, place: str, record: Mapping[str, Any]) -> Document:
        prompt = "" if self.prompt is None else self._of(place, record, self.prompt, str)
        group = "" if self.by is None else str(self._of(place, record, self.by, str, int))
        return Document(self._of(place, record, self.text, str), prompt, group)

    def _of(self, place: str, record: Mapping[str, Any], field: str, *kinds: type) -> Any:
        value = record.get(field)
        if isinstance(value, kinds) and not isinstance(value, bool):
            return value
        named = {"field": self.text, "prompt": self.prompt, "by": self.by}
        if field not in record:
            do = f"Name one of its fields, which are {listed(map(str, list(record)[:20]))}"
            raise SettingsError("data.kwargs", named, do, f"there is no field {shown(field)} in {place}")
        wrong = f"the field {shown(field)} in {place} is {shown(value)}, which is not text"
        raise SettingsError("data.kwargs", named, "Name a field that has text in each line", wrong)


def data_set(path: Path, documents: Sequence[Document], wanted: Wanted, by: str | None) -> DataSet:
    """Documents as samples, with groups where `by` names their kind. Raises SettingsError."""
    tokens = _tokenized(documents, wanted.tokenizer)
    samples, groups = (_packed if wanted.pack else _one_each)(documents, tokens, wanted)
    if not len(groups):
        wrong = f"{shown(str(path))} has no text with a token to predict"
        raise SettingsError("data.path", str(path), f"Give {LAYOUT}, with text in it", wrong)
    data = split(samples, by, groups)
    if not len(data.test.inputs):
        few = f"{len(groups)} samples" + (f" of {len(np.unique(groups))} groups" if by else "")
        wrong = f"{shown(str(path))} has {few}, of which a fifth{' of each group' if by else ''} is too few to test on"
        do = f"Give more text, or set a max_length of less than {wanted.length} in data.kwargs"
        raise SettingsError("data.path", str(path), do, wrong)
    size = wanted.tokenizer.size
    return with_vocabulary(data) if size is None else replace(data, num_classes=size)


def _tokenized(documents: Sequence[Document], tokenizer: Tokenizer) -> list[Tokens]:
    begin, end = (np.array(each, np.int32) for each in (tokenizer.begin, tokenizer.end))
    texts = tokenizer.encode([document.text for document in documents])
    prompts = [np.zeros(0, np.int32)] * len(texts)
    if any(document.prompt for document in documents):
        prompts = tokenizer.encode([document.prompt for document in documents])
    return [
        Tokens(np.concatenate([begin, prompt, text, end]), len(begin) + len(prompt) if len(prompt) else 0)
        for prompt, text in zip(prompts, texts, strict=True)
    ]


def _packed(documents: Sequence[Document], tokens: Sequence[Tokens], wanted: Wanted) -> tuple[Part, Array]:
    """Windows of each group's documents, and whose they are: no window is of two."""
    of_groups: dict[str, list[Array]] = {}
    for document, each in zip(documents, tokens, strict=True):
        of_groups.setdefault(document.group, []).append(each.tokens)
    _check_fits(wanted, len(of_groups) + sum(len(each.tokens) for each in tokens) // wanted.length)
    parts = [packed(own, wanted.length, wanted.tokenizer.pad) for own in of_groups.values()] or [packed([], 1, 0)]
    counts = [len(part.inputs) for part in parts] if of_groups else []
    groups = np.repeat(np.array(list(of_groups), str), np.array(counts, np.int64))
    return Part(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True))), groups


def _one_each(documents: Sequence[Document], tokens: Sequence[Tokens], wanted: Wanted) -> tuple[Part, Array]:
    """A sample of each document that has a label that counts, and whose it is."""
    _check_fits(wanted, len(tokens))
    samples = one_each(tokens, wanted.length, wanted.tokenizer.pad)
    kept = np.flatnonzero((samples.labels != IGNORED).any(1))
    if left := len(tokens) - len(kept):
        said = "%d of %d texts are left out: no token to learn among the first %d"
        logger.warning(said, left, len(tokens), wanted.length)
    return samples.subset(kept), np.array([document.group for document in documents], str)[kept]


def _check_fits(wanted: Wanted, rows: int) -> None:
    check_fits("data.kwargs", {"max_length": wanted.length}, 16 * rows * wanted.length)
