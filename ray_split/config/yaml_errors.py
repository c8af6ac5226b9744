"""What is said of a file that is no YAML, or not of what settings are: its line, what is wrong, what to do."""

from __future__ import annotations

from typing import Any

import yaml


class NotYamlError(ValueError):
    """What is no YAML, or not of what settings are: in which line, what is wrong with it, and what to do."""

    def __init__(self, problem: str, line: int | None = None, do: str = "") -> None:
        super().__init__(problem, line, do)
        self.problem, self.line, self.do = problem, line, do

    def __str__(self) -> str:
        return " ".join([*([f"line {self.line}"] if self.line else []), self.problem])

    def said_of(self, file: str) -> str:
        """What is wrong, in words that name the file."""
        return f"{file if self.line is None else f'line {self.line} of {file}'} {self.problem}"


class RefusedError(yaml.MarkedYAMLError):
    """What YAML may have, and settings don't. `whole`: it is of more lines than one, which the problem tells."""

    def __init__(self, node: Any, problem: str, do: str = "", whole: bool = False) -> None:
        super().__init__(problem=problem, problem_mark=node.start_mark)
        self.do, self.line = do, None if whole else node.start_mark.line + 1


def told(error: yaml.YAMLError, text: str) -> NotYamlError:
    """What is wrong, in which line, and how that line reads."""
    mark = getattr(error, "problem_mark", None)
    if isinstance(error, RefusedError):
        return NotYamlError(str(error.problem), error.line, error.do)
    said = " ".join(str(getattr(error, "problem", None) or error).split())
    if mark is None:
        return NotYamlError(f"is not valid YAML: {said}"[:200])
    number, line = _line(text.splitlines(), mark.line)
    flow = "flow" in str(getattr(error, "context", None))
    do = "brackets, braces and commas" if flow else "indentation, colons and quotes"
    reason = HINTS.get(said, "" if flow or " expected " in said else f" ({said})")
    return NotYamlError(f'is not valid YAML: "{line:.80}"{reason}'[:200], number, f"Check its {do}")


HINTS = {
    "mapping values are not allowed in this context": ", where a colon comes at a place that can't have one",
    "found character that cannot start any token": ", where a tab or a special character begins a word",
}
"""Of what YAML's parser says what a person may not understand."""


def _line(lines: list[str], number: int) -> tuple[int, str]:
    """A line, counted from 1, and its text; of one that is empty, as the file's end is, the last before it."""
    for before in range(min(number, len(lines) - 1), -1, -1):
        if lines[before].strip():
            return before + 1, lines[before].strip()
    return number + 1, ""
