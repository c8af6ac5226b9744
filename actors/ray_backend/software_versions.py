"""The software of the nodes that host actors, compared with the driver's. Imports no Ray, and no torch by itself."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from actors.ray_backend import own_code
from ray_split.errors import RunFailedError

Software = Mapping[str, str]
"""Versions by name, and `cpu`: the instructions that torch computes with."""

OTHER_BITS = ("torch", "numpy", "cpu")
CODE, PLACE = "ray_split", "ray_split lies in"
"""Our own code: its fingerprint, which is compared, and where it lies, which is told."""


class Found(NamedTuple):
    """What an actor's process says of itself."""

    node: str  # its id
    address: str
    software: Software


class Differing(NamedTuple):
    """A node whose software is not the driver's."""

    node: str  # its id
    told: str  # a line for people
    has: dict[str, str]  # its address, and what it has instead


def here(_: object = None) -> dict[str, str]:
    """This process's. What only torch can tell is left out where it isn't loaded: in the fed server's process."""
    found = {name: importlib.metadata.version(name) for name in ("ray", "torch", "numpy")}
    # A build for CPUs and one for CUDA are the same release.
    found = {name: version.partition("+")[0] for name, version in found.items()} | {"python": platform.python_version()}
    found[CODE] = own_code.fingerprint()
    if torch := sys.modules.get("torch"):
        found["cpu"] = torch.backends.cpu.get_cpu_capability()
    return found


def different(node: Software, driver: Software) -> dict[str, str]:
    """What both tell and the node has another of."""
    return {name: node[name] for name in driver if name in node and node[name] != driver[name]}


def stops(node: Software, driver: Software) -> bool:
    """Whether a run can't be: another Ray, or another Python but for its patch. What else differs changes bits."""
    release = {**driver, "python": _minor(driver["python"])}, {**node, "python": _minor(node["python"])}
    return bool({"ray", "python"} & different(*release).keys())


def _minor(python: str) -> str:
    return ".".join(python.split(".")[:2])


def line(address: str, actors: Iterable[str], node: Software, driver: Software) -> str:
    """'node 10.0.0.3 (client 2): torch 2.13.0, the driver has 2.15.0: other bits'."""
    names = different(node, driver)
    told = "; ".join(f"{name} {value}, the driver has {driver[name]}" for name, value in names.items())
    if stops(node, driver):
        what = "a run needs the same Ray and Python everywhere"
    elif CODE in names:
        what = f"another checkout or version of it, in {node.get(PLACE, 'a place unknown')}, with other code"
    else:
        what = "other bits" if set(names) & set(OTHER_BITS) else "it may matter"
    return f"node {address} ({', '.join(actors)}): {told}: {what}"


def compared(found: Mapping[str, Found], driver: Software) -> list[Differing]:
    """The nodes that differ, by what the actors on each tell together. Raises RunFailedError if a run can't be."""
    nodes: dict[str, tuple[str, list[str], dict[str, str]]] = {}
    for name, (node, address, software) in found.items():
        _, actors, together = nodes.setdefault(node, (address, [], {}))
        actors.append(name)
        together.update(software)
    differing = []
    for node, (address, actors, software) in nodes.items():
        if different(software, driver):
            told = line(address, actors, software, driver)
            if stops(software, driver):
                raise RunFailedError(told)
            differing.append(Differing(node, told, {"address": address, **different(software, driver)}))
    return differing


def mismatch(message: str) -> str | None:
    """Of what Ray says when it refuses this process for its versions, one line; None if it says something else."""
    if "Version mismatch" not in message:
        return None
    said = [line.strip() for line in message.splitlines() if line.strip().startswith(("Ray:", "Python:"))]
    theirs, ours = (" and ".join(each.replace(":", "") for each in said[i : i + 2]) for i in (0, 2))
    return f"the cluster has {theirs}, this process {ours}: they must be the same"
