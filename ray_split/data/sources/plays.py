"""Plays as Project Gutenberg has them: what each speaking role says, as LEAF deals them to clients."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ray_split.data.sources.synthetic import whole
from ray_split.data.sources.text import Document, data_set, read, wanted_of
from ray_split.data.types import DataSet
from ray_split.errors import SettingsError, shown

ROLE = "role"
LEAST_SPEECHES = 2

LICENCE_ENDS = re.compile(r"^\*\*\* ?START OF TH.*$|^\*END\*.*$", re.MULTILINE)
LICENCE_BEGINS = re.compile(
    r"^\*\*\* ?END OF TH.*|^\W*End of (?:the |this )?Project Gutenberg.*|^FINIS\b(?!\W*act).*",
    re.MULTILINE | re.IGNORECASE,
)
NOTICE = re.compile(r"<<.*?>>", re.DOTALL)
# After a letter a bracket is part of a word: the[m]selues.
DIRECTION = re.compile(r"(?<!\w)[\[{](?:[^\[\]{}\n]|\n(?!\s*\n))*[\]}]")
UNSPOKEN = re.compile(
    r"^\s*\[?(?:(?:(?i:re-)?(?:Enter|ENTER)|Exit|EXIT|Exeunt|EXEUNT|Manet|Flourish|Sennet|Alarums?|Hoboyes)\b"
    r"|[\w, ]{1,40}\. (?:Enter|Exit|Exeunt)\b)"
)
NUMBER = r"(?:[IVXLC]+\b|\d+)"
PERSONS = re.compile(
    r"^\W*(?:dramatis person|persons? (?:represented|of the play)|(?:the )?names of (?:all )?the actors"
    r"|the actors.? names)",
    re.IGNORECASE,
)
HEADING = re.compile(
    rf"^\s*(?:(?:ACT|SCENE|Scene)\b[ .:-]*(?:{NUMBER}|[A-Z])|Act\b[ .:]*{NUMBER}|(?i:actus|sc[oae]+na|finis)\b"
    rf"|INDUCTION\b|(?i:the end\W*$)|{NUMBER}\W*$)"
)
NAME = r"(?:\d\.? ?(?=[A-Z])|\d|[A-Z])[\w'’& -]{0,30}"
BESIDE = re.compile(rf"^(?: {{1,6}}({NAME}\w|\d)|([A-Z][A-Z'’& -]*[A-Z]))[.:] +(\S.*)$")
ABOVE = re.compile(rf"^\s*(?:({NAME})[.:]|([A-Z][A-Z'’& -]*[A-Z]))\s*$")


def shakespeare(
    path: Path | None = None,
    tokenizer: str | None = "characters",
    max_length: int = 80,
    min_characters: int | None = None,
    files: str = "*.txt",
    gguf_file: str | None = None,
) -> DataSet:
    """Plays, a file each, in the folder `data.path`: the groups `role`, "PLAY: ROLE", are who speaks in which play.

    As LEAF's next-character task (Caldas et al. 2018), but that the next token is learned of each of the max_length
    places, and that samples of a role do not overlap. The last fifth of each role's samples is for the test. Roles
    with one speech, or fewer than `min_characters` (none: twice max_length), are left out. `files`: which files of the
    folder. `tokenizer` as of `text`. Raises SettingsError.
    """
    if path is None:
        raise SettingsError("data.path", None, "Add --data.path FOLDER, where FOLDER has plays as .txt", "is not set")
    wanted = wanted_of(tokenizer, gguf_file, max_length)
    least = 2 * max_length if min_characters is None else min_characters
    if not (whole(least) and least >= 0):
        wrong = f"min_characters can't be {shown(least)}"
        raise SettingsError("data.kwargs", {"min_characters": least}, "Set it to a whole number", wrong)
    documents = list(_documents(path, files, least))
    if not documents:
        wrong = (
            f"no {shown(files)} in {shown(str(path))} has a role with {LEAST_SPEECHES} speeches and {least} characters"
        )
        do = "Give a folder of plays whose speeches have the role's name above them or before them, as Gutenberg has it"
        raise SettingsError("data.path", str(path), do, wrong)
    return data_set(path, documents, wanted, ROLE)


def _documents(path: Path, files: str, least: int) -> Iterator[Document]:
    try:
        there = [path] if path.is_file() else sorted(file for file in path.glob(files) if file.is_file())
    except (ValueError, NotImplementedError, TypeError) as error:
        wrong = f"files can't be {shown(files)}"
        raise SettingsError("data.kwargs", {"files": files}, "Set it to a pattern such as *.txt", wrong) from error
    for file in there:
        for role, said in speeches(read(file)).items():
            text = "\n".join(said)
            if len(said) >= LEAST_SPEECHES and len(text) >= least:
                yield Document(text, group=f"{file.stem}: {role}")


def speeches(play: str) -> dict[str, list[str]]:
    """What each role of a play says, in the order in which they first speak.

    Without licence, list of persons, headings and stage directions. A file has its roles' names above speeches or
    beside them: what it has more of.
    """
    lines = _without_persons(DIRECTION.sub("", _without_licence(play)).split("\n"))
    said: dict[str, list[str]] = {}
    above, beside = list(_cues_above(lines)), list(_cues_beside(lines))
    for role, speech in _spoken(lines, dict(beside if len(beside) > len(above) else above)):
        if text := "\n".join(speech).strip():
            said.setdefault(role, []).append(re.sub(r"\n{2,}", "\n", text))
    return said


def _without_licence(play: str) -> str:
    begins = max((found.end() for found in LICENCE_ENDS.finditer(play)), default=0)
    ends = LICENCE_BEGINS.search(play, begins)
    return NOTICE.sub("", play[begins : ends.start() if ends else len(play)])


def _without_persons(lines: list[str]) -> list[str]:
    """Without what is from the list of persons to the heading that follows it, if one does."""
    at = next((number for number, line in enumerate(lines) if PERSONS.match(line)), len(lines))
    first = next((number for number in range(at, len(lines)) if HEADING.match(lines[number])), at)
    return lines[:at] + lines[first:]


Cue = tuple[int, tuple[str, str]]
"""The line of a role's name, the name, and what of its line is spoken."""


def _cues_above(lines: list[str]) -> Iterator[Cue]:
    """Names on a line of their own, after an empty one and before one that isn't."""
    for at, line in enumerate(lines[:-1]):
        found = None if at and lines[at - 1].strip() else ABOVE.match(line)
        if found and lines[at + 1].strip() and not _is_unspoken(line):
            yield at, (_named(found), "")


def _cues_beside(lines: list[str]) -> Iterator[Cue]:
    """Names before what is spoken: indented, or in capitals."""
    for at, line in enumerate(lines):
        if (found := BESIDE.match(line)) and not _is_unspoken(line):
            yield at, (_named(found), found[3])


def _named(found: re.Match[str]) -> str:
    return " ".join((found[1] or found[2]).replace(".", " ").split()).upper()


def _is_unspoken(line: str) -> bool:
    return bool(_is_heading(line) or UNSPOKEN.match(line))


def _is_heading(line: str) -> bool:
    return bool(HEADING.match(line) or PERSONS.match(line))


def _spoken(lines: list[str], cues: dict[int, tuple[str, str]]) -> Iterator[tuple[str, list[str]]]:
    """Each speech's role and lines; a heading ends it, a stage direction does not."""
    role, speech, directed = "", list[str](), False
    for at, line in enumerate(lines):
        if at in cues or _is_heading(line):
            if role:
                yield role, speech
            role, first = cues.get(at, ("", ""))
            speech, directed = [first] if first else [], False
            continue
        directed = bool(line.strip()) and (directed or bool(UNSPOKEN.match(line)))
        if role and not directed:
            speech.append(line.strip())
        directed = directed and not line.rstrip().endswith(".")  # it may have several lines
    if role:
        yield role, speech
