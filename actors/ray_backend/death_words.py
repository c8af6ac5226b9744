"""Words for how Ray says that an actor died. Imports no Ray."""

from __future__ import annotations

from collections.abc import Iterable

MAX_WORDS = 50
# Of Ray's message: what our line says already, or what is no news.
LEFT_OUT = ("class_name:", "actor_id:", "namespace:", "name:", "The actor died unexpectedly", "The actor never ran")
ADVICE, OUT_OF_REACH, UNSURE = "Some common causes", "temporarily unavailable: ", "The task may or may not"


def death(message: str) -> str:
    """Ray's several lines about who died, as what follows 'the server died': its process and node, and how."""
    message = message.partition(ADVICE)[0].rpartition(OUT_OF_REACH)[2].partition(UNSURE)[0]
    lines = [line.strip() for line in message.splitlines()]
    where = [line.replace(":", "", 1) for line in lines if line.startswith(("pid:", "ip:"))]
    how = [line for line in lines if line and not line.startswith((*LEFT_OUT, "pid:", "ip:"))]
    words = " ".join(how).split()[:MAX_WORDS]
    return (f" ({', '.join(where)})" if where else "") + ": " + " ".join(words)


def raised(message: str) -> str:
    """Of a traceback's text, the exception that it ends with."""
    lines = message.splitlines()
    files = [number for number, line in enumerate(lines) if line.startswith("  File ")]
    return " ".join(_unindented(lines[files[-1] + 1 :] if files else lines[-1:])).strip()


def _unindented(lines: Iterable[str]) -> list[str]:
    return [line.strip() for line in lines if not line.startswith("    ")]
