"""Words for what actors ask of a cluster, and for how Ray says that one died. Imports no Ray."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

Needs = Mapping[str, float]
"""CPUs and GPUs that an actor asks for: num_cpus, num_gpus."""

MAX_WORDS = 50
# Of Ray's message: what our line says already, or what is no news.
LEFT_OUT = ("class_name:", "actor_id:", "namespace:", "name:", "The actor died unexpectedly", "The actor never ran")
ADVICE, OUT_OF_REACH, UNSURE = "Some common causes", "temporarily unavailable: ", "The task may or may not"


def amounts(cpus: float, gpus: float) -> str:
    """'1 CPU and 2 GPUs'."""
    parts = [f"{number:g} {what}{'' if number == 1 else 's'}" for number, what in ((cpus, "CPU"), (gpus, "GPU"))]
    return " and ".join(parts)


def waits(needs: Mapping[str, Needs], free: Mapping[str, float], total: Mapping[str, float]) -> str:
    """Who waits for what, and what the cluster has, for people."""
    each = "; ".join(f"{name}: waits for {_asked(need, free)}" for name, need in needs.items())
    has, left = (amounts(found.get("CPU", 0.0), found.get("GPU", 0.0)) for found in (total, free))
    return f"{each}; the cluster has {has}, of which {left} are free (an actor's must be on one node)"


def _asked(need: Needs, free: Mapping[str, float]) -> str:
    cpus, gpus = need.get("num_cpus", 0.0), need.get("num_gpus", 0.0)
    asked = amounts(cpus, gpus) if gpus else f"{cpus:g} CPU{'' if cpus == 1 else 's'}"
    # There may be room, and the machine is slow to start a process: or no single node has it.
    fits = cpus <= free.get("CPU", 0.0) and gpus <= free.get("GPU", 0.0)
    return f"its process, with {asked}" if fits else asked


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
