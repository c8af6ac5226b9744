"""The paper's Table 1 and Figures 4a to 4c as rows: what is predicted, beside what the paper measured."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from ray_split.config.devices import DEVICES, LINKS, Device, Link
from ray_split.costs.position_costs import PositionCosts
from ray_split.costs.workload import Work
from ray_split.experiments.paper import predict, published
from ray_split.experiments.paper.predict import Calibrated
from ray_split.experiments.paper.published import FITTED, NETWORKS, RULES
from ray_split.experiments.tables import Row

SERVERS = {"same_network": "same network", "cloud_tcp": "cloud, TCP", "tunnel": "tunnel"}
FIGURE_4A = ("DenseNet201", "ResNet50", "ResNet152")  # three times the parameters from the first to the last
SIZES = (224, 299)
SPLITS = ("double", "single")
COLUMNS = ("overall", "communication")
SERVER_GFLOPS = (500.0, 1000.0, 1500.0, 5000.0)
ALONE = "on the phone alone"


class Assumed(NamedTuple):
    """What the paper does not say."""

    rule: str = "7x7_pixels"  # of published.RULES
    server_gflops: float = 1000.0
    text: bool = True  # writing and reading JSON is not in the paper's communication, but in its overall
    memory_mb: float | None = None  # None: what the fitted row needs, as that is known to fit


class System:
    """The networks, and what they run on."""

    def __init__(self, scans: Mapping[str, PositionCosts], assumed: Assumed) -> None:
        self.scans, self.assumed = scans, assumed
        self._other: dict[tuple[str, int], PositionCosts] = {}

    @cached_property
    def found(self) -> Calibrated:
        """Phone, server and link."""
        memory = self.assumed.memory_mb or self.memory_mb(FITTED, None)
        double, single = (self.work(FITTED, split) for split in SPLITS)
        server = _server(self.assumed.server_gflops)
        return predict.calibrate(double, single, server, memory, self.assumed.text)

    def memory_mb(self, name: str, first: str | None) -> float:
        """That the phone needs, cut after `first`, or unsplit."""
        return predict.memory_mb(self.scans[name], first, NETWORKS[name].stem.last)

    def scan(self, name: str, size: int) -> PositionCosts:
        """Of a network, for images of another size too."""
        if size == NETWORKS[name].size:
            return self.scans[name]
        if (name, size) not in self._other:
            self._other[name, size] = predict.scan_network(NETWORKS[name], size)
        return self._other[name, size]

    def cut(self, name: str, further: int = 0) -> str | None:
        """The layer of the first cut, or the one so many further in the network's stem, if there is one."""
        stem = NETWORKS[name].stem
        at = stem.rules[self.assumed.rule] + further
        return stem.layers[at] if 0 <= at < len(stem.layers) else None

    def work(self, name: str, split: str, first: str | None = None, scan: PositionCosts | None = None) -> Work:
        """Of a network cut as assumed, or at another first cut, or for another size of image."""
        last = NETWORKS[name].stem.last if split == "double" else None
        return predict.work_of(scan or self.scans[name], first or str(self.cut(name)), last)

    def both(self, name: str, split: str, first: str | None = None) -> tuple[float, float]:
        """Predicted overall and communication."""
        return predict.predict(self.work(name, split, first), self.found)


def _server(gflops: float) -> Device:
    return DEVICES["rtx_2080"]._replace(
        gflops=gflops, source="assumed: a GPU of then on one image a step, where starting kernels is what takes time"
    )


def cells(system: System) -> list[dict[str, Any]]:
    """A row for each cell of Table 1: predicted and the paper's seconds."""
    rows = []
    for name, network in NETWORKS.items():
        for split in SPLITS:
            for column, seconds in zip(COLUMNS, system.both(name, split), strict=True):
                rows.append(_cell(name, f"{column}, {split}", seconds, getattr(network.paper, f"{column}_{split}")))
        unsplit = predict.alone(system.work(name, "double"), system.found)
        rows.append(_cell(name, ALONE, unsplit, network.paper.alone))
    return rows


def _cell(name: str, column: str, seconds: float, told: float | None) -> dict[str, Any]:
    row = {"network": name, "column": column, "predicted": seconds, "paper": told}
    return {**row, "error": None if told is None else abs(seconds / told - 1)}


def table_1(system: System) -> list[dict[str, Any]]:
    """Its cells, with the phone's memory, and of those with a cut what neighbouring cuts give."""
    return [row | _memory(system, row) | _near(system, row) for row in cells(system)]


def _memory(system: System, row: Row) -> dict[str, Any]:
    name = row["network"]
    needed = system.memory_mb(name, None if row["column"] == ALONE else system.cut(name))
    return {"phone_mb": needed, "fits": int(needed <= system.found.phone.memory_mb)}


def _near(system: System, row: Row) -> dict[str, Any]:
    name, (column, _, split) = row["network"], row["column"].partition(", ")
    if row["column"] == ALONE:
        return {"cut": None, "lowest": None, "highest": None}
    near = [first for further in (-1, 1) if (first := system.cut(name, further))]
    found = [row["predicted"], *(system.both(name, split, first)[COLUMNS.index(column)] for first in near)]
    return {"cut": system.cut(name), "lowest": min(found), "highest": max(found)}


class Errors(NamedTuple):
    """Of the predicted cells: as shares of what the paper measured."""

    median: float
    mean: float
    worst: float


def errors(rows: Sequence[Row]) -> Errors:
    """Over all cells with a number, but for the fitted row's."""
    return _errors([row["error"] for row in rows if row["network"] != FITTED and row["error"] is not None])


def constant(rows: Sequence[Row]) -> Errors:
    """Of the predictor that says the fitted row of each."""
    fitted = {row["column"]: row["paper"] for row in rows if row["network"] == FITTED}
    both = [(fitted[row["column"]], row["paper"]) for row in rows if row["network"] != FITTED]
    return _errors([abs(said / told - 1) for said, told in both if told is not None])


def _errors(found: Sequence[float]) -> Errors:
    return Errors(statistics.median(found), statistics.mean(found), max(found))


def variants(scans: Mapping[str, PositionCosts]) -> list[dict[str, Any]]:
    """The errors of Table 1 by what is assumed: a row for each rule, rate of the server, and place of the text."""
    rows = []
    for rule in RULES:
        for gflops in SERVER_GFLOPS:
            for text in (True, False):
                system = System(scans, Assumed(rule, gflops, text, memory_mb=1.0))  # which is not looked at
                row = {"rule": rule, "server_gflops": gflops, "text": int(text), **errors(cells(system))._asdict()}
                rows.append({**row, "communication_is_most": int(communication_is_most(system))})
    return rows


def figure_4a(system: System) -> list[dict[str, Any]]:
    """Seconds against parameters, for two sizes of image."""
    rows = []
    for size in SIZES:
        for name in FIGURE_4A:
            scan = system.scan(name, size)
            found = _columns(system, {split: system.work(name, split, scan=scan) for split in SPLITS})
            rows.append({"network": name, "size": size, "parameters": int(scan.total_parameters), **found})
    return rows


def figure_4b(system: System, name: str = "InceptionResNetV2") -> list[dict[str, Any]]:
    """Seconds against the first cut: the first seven layers of Table 2."""
    rows, scan = [], system.scans[name]
    for layer in NETWORKS[name].stem.layers[: published.LAYERS_OF_TABLE_2]:
        shape = scan.shapes(predict.place(scan, layer))[0]
        row: dict[str, Any] = {"cut": layer, "output": "x".join(map(str, [*shape[2:], shape[1]]))}
        row["phone_mb"] = system.memory_mb(name, layer)
        rows.append(row | _columns(system, {split: system.work(name, split, layer) for split in SPLITS}))
    return rows


def figure_4c(system: System, name: str = "ResNet152") -> list[dict[str, Any]]:
    """Seconds against where the server is."""
    rows, works = [], {split: system.work(name, split) for split in SPLITS}
    for profile, server in SERVERS.items():
        link = further(system.found.link, LINKS[profile], LINKS["same_network"])
        rows.append({"server": server, **_columns(system, works, link)})
    return rows


def further(link: Link, there: Link, here: Link) -> Link:
    """The calibrated link, to a server that is not `here` but `there`: what that takes more, by message and by bit."""
    late = link.latency_ms + there.latency_ms + there.jitter_ms - here.latency_ms - here.jitter_ms
    up = 1 / (1 / link.up_mbps + 1 / there.up_mbps - 1 / here.up_mbps)
    down = 1 / (1 / link.down_mbps + 1 / there.down_mbps - 1 / here.down_mbps)
    return link._replace(up_mbps=up, down_mbps=down, latency_ms=late)


def _columns(system: System, works: Mapping[str, Work], link: Link | None = None) -> dict[str, float]:
    """Both columns of both splits, by the work of each."""
    found = {split: predict.predict(work, system.found, link) for split, work in works.items()}
    return {f"{what}_{split}": found[split][i] for i, what in enumerate(COLUMNS) for split in SPLITS}


def communication_is_most(system: System) -> bool:
    """Whether communication takes longer than the phone, the server, and the text, each, in all of Table 1."""
    for name in NETWORKS:
        for split in SPLITS:
            work = system.work(name, split)
            step = predict.seconds(work, system.found.phone, system.found.link, system.found.server)
            text = system.found.text * step.communication
            if step.communication - text <= max(step.phone, step.server, text):
                return False
    return True


def orderings(system: System) -> dict[str, bool]:
    """What the paper reports of its figures in words, and whether it holds of the predicted ones."""
    overall = {split: {name: system.both(name, split)[0] for name in NETWORKS} for split in SPLITS}
    unsplit = [row for row in table_1(system) if row["column"] == ALONE]
    alone = all(not row["fits"] or row["predicted"] > overall["double"][row["network"]] for row in unsplit)
    servers, by_size = figure_4c(system), figure_4a(system)
    times = [[row[f"overall_{split}"] for row in servers] for split in SPLITS]
    spread = [
        max(found) - min(found)
        for size in SIZES
        for split in SPLITS
        if (found := [row[f"overall_{split}"] for row in by_size if row["size"] == size])
    ]
    return {
        "single below double": all(overall["single"][name] < overall["double"][name] for name in NETWORKS),
        "no split above both, or not fitting": alone,
        "communication the largest part": communication_is_most(system),
        "same network below cloud below tunnel": all(found == sorted(set(found)) for found in times),
        "three times the parameters: 0.6 s more at most": max(spread) <= 0.6,
    }
