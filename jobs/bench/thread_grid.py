"""The rule that shares out CPUs (actors/resources/threads.py) beside other ways of sharing out two."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

import ray_split as rs
from actors.resources.placement import whole
from actors.resources.resolve import resolve
from actors.resources.threads import Share
from jobs.bench.phones import Rounds, settings_of
from jobs.bench.timing import Row, interleaved
from ray_split.preparation.prepare import prepare

CPUS = 2
GRID = [
    Share(1, 1, 1), Share(1, 1, 2, True), Share(1, 2, 1, True), Share(2, 1, 1, True), Share(2, 2, 1, True),
    Share(2, 1, 2, True),
]  # fmt: skip
SCHEDULES = ("sequential", "splitfed_v1", "splitfed_v2", "parallel")


def small(schedule: str) -> rs.Config:
    """Digits: 20 phones x 54, in exchanges of a few milliseconds."""
    return settings_of("digits_cnn", 20, 54, schedule)


def large(schedule: str) -> rs.Config:
    """resnet18 on 3x64x64, nearly all of it at the server: 4 phones x 32, in exchanges of half a second."""
    data = {"batch_size": 16, "kwargs": {"samples": 128, "shape": [3, 64, 64]}}
    return settings_of("resnet18", 4, 32, schedule, net={"cuts": ["maxpool", "avgpool"]}, data=data)


def share_of(settings: rs.Config) -> Share:
    """What the rule decides on two CPUs."""
    auto = settings.with_values(
        server={"num_cpus": "auto"}, cluster={"client_actors": "auto", "cpus_per_client": "auto"}
    )
    prepared = prepare(auto)
    found = resolve(prepared.settings, [whole("two CPUs", CPUS, 0)], prepared.work)
    cluster = found.cluster
    own = Share(int(found.server.num_cpus), int(cluster.cpus_per_client), int(cluster.client_actors))
    return own._replace(same_cpus=cluster.share_cpus == "always")


def with_share(settings: rs.Config, share: Share) -> rs.Config:
    """The settings with this share; as the machine has but two cores, asking Ray for more shares these."""
    cluster = {"client_actors": share.clients, "cpus_per_client": share.client, "share_cpus": "never"}
    return settings.with_values(server={"num_cpus": share.server}, cluster=cluster)


def name_of(share: Share) -> str:
    """As in docs: threads of the server + clients x threads of each."""
    return f"{share.server}+{share.clients}x{share.client}"


def _seconds(settings: rs.Config) -> float:
    """A round's, with actors of its own: those of the other ways would lie in its way."""
    rounds = Rounds(settings)
    found = interleaved({"": rounds}, 3, 1)[""]
    rounds.stop()
    return median(found)


def grid_row(settings: Callable[[str], rs.Config], schedule: str) -> Callable[[int, int], Row]:
    """A round under each way, in turn; and how much longer it takes under the rule's than under the best."""

    def row(repeats: int, calls: int) -> Row:
        chosen = share_of(settings(schedule))
        times: dict[Share, list[float]] = {share: [] for share in {*GRID, chosen}}
        for _ in range(min(repeats, 3)):
            for share, each in times.items():
                each.append(_seconds(with_share(settings(schedule), share)))
        best = min(times, key=lambda share: median(times[share]))
        return {
            "median_ms": {name_of(share): round(median(each) * 1e3, 1) for share, each in times.items()},
            "rule": name_of(chosen),
            "best": name_of(best),
            "rule_over_best": round(median(times[chosen]) / median(times[best]), 3),
        }

    return row


THREAD_ROWS = {
    f"threads of {schedule}, {settings.__name__}": grid_row(settings, schedule)
    for settings in (small, large)
    for schedule in SCHEDULES
}
