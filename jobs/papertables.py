"""The paper's Table 1 and Figures 4a to 4c as rows: what is predicted, beside what the paper measured."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from jobs import predicting, published
from jobs.predicting import Calibrated, Work
from jobs.published import FITTED, NETWORKS, RULES
from ray_split.devices import DEVICES, LINKS, Device, Link
from ray_split.scan import Scan

Row = Mapping[str, Any]
SERVERS = {"same_network": "same network", "cloud_tcp": "cloud, TCP", "tunnel": "tunnel"}
FIGURE_4A = ("DenseNet201", "ResNet50", "ResNet152")  # three times the parameters from the first to the last
SIZES = (224, 299)
SPLITS = ("double", "single")


class Assumed(NamedTuple):
    """What the paper does not say."""

    rule: str = "7x7_pixels"  # of published.RULES
    server_gflops: float = 500.0
    text: bool = True  # writing and reading JSON is not in the paper's communication, but in its overall
    memory_mb: float | None = None  # None: what the fitted row needs, as that is known to fit


class System:
    """The networks, and what they run on."""

    def __init__(self, scans: Mapping[str, Scan], assumed: Assumed) -> None:
        self.scans, self.assumed = scans, assumed

    @cached_property
    def found(self) -> Calibrated:
        """Phone, server and link."""
        network, scan = NETWORKS[FITTED], self.scans[FITTED]
        server = _server(self.assumed.server_gflops)
        memory = self.assumed.memory_mb or predicting.memory_mb(scan, None, network.stem.last)
        works = (self.work(FITTED, split) for split in SPLITS)
        return predicting.calibrated(scan, *works, server, memory, self.assumed.text)

    def cut(self, name: str, further: int = 0) -> str | None:
        """The layer of the first cut, or the one so many further in the network's stem, if there is one."""
        stem = NETWORKS[name].stem
        at = stem.rules[self.assumed.rule] + further
        return stem.layers[at] if 0 <= at < len(stem.layers) else None

    def work(self, name: str, split: str, first: str | None = None, scan: Scan | None = None) -> Work:
        """Of a network cut as assumed, or at another first cut, or for another size of image."""
        last = NETWORKS[name].stem.last if split == "double" else None
        return predicting.work_of(scan or self.scans[name], first or str(self.cut(name)), last)

    def both(self, name: str, split: str, first: str | None = None) -> tuple[float, float]:
        """Predicted overall and communication."""
        return predicting.predicted(self.work(name, split, first), self.found)


def _server(gflops: float) -> Device:
    return DEVICES["rtx_2080"]._replace(
        gflops=gflops, source="assumed: a GPU of then on one image a step, where starting kernels is what takes time"
    )


def table_1(system: System) -> list[dict[str, Any]]:
    """A row for each cell: predicted and the paper's seconds; of cells with a cut also what neighbouring cuts give."""
    rows = []
    for name, network in NETWORKS.items():
        near = [first for further in (-1, 1) if (first := system.cut(name, further))]
        for split in SPLITS:
            found = zip(*(system.both(name, split, first) for first in [None, *near]), strict=True)
            needed = predicting.memory_mb(system.scans[name], system.cut(name), network.stem.last)
            for column, seconds in zip(("overall", "communication"), found, strict=True):
                told = getattr(network.paper, f"{column}_{split}")
                cut = {"cut": system.cut(name), "lowest": min(seconds), "highest": max(seconds)}
                rows.append(_cell(system, name, f"{column}, {split}", seconds[0], told, needed) | cut)
        whole = predicting.memory_mb(system.scans[name], None, network.stem.last)
        unsplit = predicting.alone(system.scans[name], system.found.phone)
        rows.append(_cell(system, name, "on the phone alone", unsplit, network.paper.alone, whole))
    return rows


def _cell(system: System, name: str, column: str, seconds: float, told: float | None, memory: float) -> dict[str, Any]:
    fits = memory <= system.found.phone.memory_mb
    row = {"network": name, "column": column, "predicted": seconds, "fits": int(fits), "phone_mb": memory}
    row |= {"paper": told, "error": None if told is None else abs(seconds / told - 1)}
    return row | {"cut": None, "lowest": None, "highest": None}


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
    cells = [(fitted[row["column"]], row["paper"]) for row in rows if row["network"] != FITTED]
    return _errors([abs(said / told - 1) for said, told in cells if told is not None])


def _errors(found: Sequence[float]) -> Errors:
    return Errors(statistics.median(found), statistics.mean(found), max(found))


def variants(scans: Mapping[str, Scan]) -> list[dict[str, Any]]:
    """The errors of Table 1 by what is assumed: a row for each rule, rate of the server, and place of the text."""
    rows = []
    for rule in RULES:
        for gflops in (250.0, 500.0, 1000.0, 5000.0):
            for text in (True, False):
                assumed = Assumed(rule, gflops, text)
                found = table_1(System(scans, assumed))
                row = {"rule": rule, "server_gflops": gflops, "text": int(text), **errors(found)._asdict()}
                rows.append({**row, "communication_is_most": int(communication_is_most(System(scans, assumed)))})
    return rows


def figure_4a(system: System) -> list[dict[str, Any]]:
    """Seconds against parameters, for two sizes of image."""
    rows = []
    for size in SIZES:
        for name in FIGURE_4A:
            network = NETWORKS[name]
            scan = system.scans[name] if size == network.size else predicting.scanned(network, size)
            row: dict[str, Any] = {"network": name, "size": size, "parameters": scan.total_parameters}
            rows.append(row | _columns(system, lambda split, s=scan, n=name: system.work(n, split, scan=s)))
    return rows


def figure_4b(system: System, name: str = "InceptionResNetV2") -> list[dict[str, Any]]:
    """Seconds against the first cut: the first seven layers of Table 2."""
    rows, scan = [], system.scans[name]
    for layer in NETWORKS[name].stem.layers[: published.LAYERS_OF_TABLE_2]:
        shape = scan.shapes(predicting.place(scan, layer))[0]
        row: dict[str, Any] = {"cut": layer, "output": "x".join(map(str, [*shape[2:], shape[1]]))}
        row["phone_mb"] = predicting.memory_mb(scan, layer, NETWORKS[name].stem.last)
        rows.append(row | _columns(system, lambda split, first=layer: system.work(name, split, first)))
    return rows


def figure_4c(system: System, name: str = "ResNet152") -> list[dict[str, Any]]:
    """Seconds against where the server is."""
    rows = []
    for profile, server in SERVERS.items():
        link = further(system.found.link, LINKS[profile], LINKS["same_network"])
        rows.append({"server": server, **_columns(system, lambda split: system.work(name, split), link)})
    return rows


def further(link: Link, there: Link, here: Link) -> Link:
    """The calibrated link, to a server that is not `here` but `there`: what that takes more, by message and by bit."""
    late = link.latency_ms + there.latency_ms + there.jitter_ms - here.latency_ms - here.jitter_ms
    up = 1 / (1 / link.up_mbps + 1 / there.up_mbps - 1 / here.up_mbps)
    down = 1 / (1 / link.down_mbps + 1 / there.down_mbps - 1 / here.down_mbps)
    return link._replace(up_mbps=up, down_mbps=down, latency_ms=late)


def _columns(system: System, work: Any, link: Link | None = None) -> dict[str, float]:
    found = {split: predicting.predicted(work(split), system.found, link) for split in SPLITS}
    return {
        f"{what}_{split}": found[split][i] for i, what in enumerate(("overall", "communication")) for split in SPLITS
    }


def communication_is_most(system: System) -> bool:
    """Whether communication takes longer than the phone, the server, and the text, each, in all of Table 1."""
    for name in NETWORKS:
        for split in SPLITS:
            work = system.work(name, split)
            step = predicting.seconds(work, system.found.phone, system.found.link, system.found.server)
            text = system.found.text * step.communication
            if step.communication - text <= max(step.phone, step.server, text):
                return False
    return True


def orderings(system: System) -> dict[str, bool]:
    """What the paper reports of its figures in words, and whether it holds of the predicted ones."""
    overall = {split: {name: system.both(name, split)[0] for name in NETWORKS} for split in SPLITS}
    cells = [row for row in table_1(system) if row["column"] == "on the phone alone"]
    alone = all(not row["fits"] or row["predicted"] > overall["double"][row["network"]] for row in cells)
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
