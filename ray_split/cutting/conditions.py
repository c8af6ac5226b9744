"""What a test in somebody's forward has to come out as: an assert holds, and `if ...: raise` is not taken.

Tracing has no values to test with. Where the code itself says how a test must come out, it is answered so, and the
test is done at each forward.
"""

from __future__ import annotations

import ast
import dis
import functools
import linecache
from collections.abc import Iterator
from types import FrameType
from typing import NamedTuple


class Span(NamedTuple):
    """Where an expression stands: from (line, column) to before (line, column)."""

    start: tuple[int, int]
    stop: tuple[int, int]

    def holds(self, other: Span) -> bool:
        """Whether `other` lies within."""
        return self.start <= other.start and other.stop <= self.stop


def wanted(frame: FrameType) -> bool | None:
    """How the test that a frame is at must come out, or None where both ways go on."""
    here = _position(frame)
    if here is None:
        return None
    answers = [(span, truth) for span, truth in _answers(frame.f_code.co_filename) if span.holds(here)]
    if not answers:
        return None
    return max(answers, key=lambda answer: answer[0].start)[1]


_BETWEEN = {"CACHE", "COPY", "TO_BOOL", "NOT_TAKEN"}


def _position(frame: FrameType) -> Span | None:
    """Of what computed the value that is tested: the jump itself may stand at another part of the test."""
    before = [i for i in dis.get_instructions(frame.f_code) if i.offset < frame.f_lasti and i.opname not in _BETWEEN]
    if not before or before[-1].positions is None:
        return None
    line, end_line, column, end_column = before[-1].positions
    if line is None or end_line is None or column is None or end_column is None:
        return None
    return Span((line, column), (end_line, end_column))


@functools.cache
def _answers(filename: str) -> tuple[tuple[Span, bool], ...]:
    """Of a file's tests whose outcome is known: each part, and how it must come out."""
    try:
        tree = ast.parse("".join(linecache.getlines(filename)))
    except SyntaxError:  # not a file of Python
        return ()
    found: list[tuple[Span, bool]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert):
            found += _parts(node.test, True)
        elif isinstance(node, ast.If) and len(node.body) == 1 and isinstance(node.body[0], ast.Raise):
            found += _parts(node.test, False)
    return tuple(found)


def _parts(test: ast.expr, truth: bool) -> Iterator[tuple[Span, bool]]:
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        yield from _parts(test.operand, not truth)
    elif isinstance(test, ast.BoolOp):
        if isinstance(test.op, ast.And) is truth:  # else one of them alone decides nothing
            for value in test.values:
                yield from _parts(value, truth)
    elif not any(isinstance(node, _DECIDES) for node in ast.walk(test)) and (truth or _single(test)):
        start, stop = (test.lineno, test.col_offset), (test.end_lineno or 0, test.end_col_offset or 0)
        yield Span(start, stop), truth


_DECIDES = (ast.BoolOp, ast.Not, ast.IfExp, ast.comprehension, ast.Lambda)


def _single(test: ast.expr) -> bool:
    """Whether no more than one thing is tested: where `a < b < c` doesn't hold, either may be why."""
    return not any(isinstance(node, ast.Compare) and len(node.ops) > 1 for node in ast.walk(test))
