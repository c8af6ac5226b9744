"""How many CPUs, and torch threads, each role has, and how many client actors there are, where settings say auto.

A rule over what each side of the cuts computes, who can compute at the same time, and the nodes' CPUs; never over
timing: the number of threads may change the last bits, so the same settings must give the same on the same nodes.
What it decides is in the run's config.yaml. docs/performance.md has it beside a measured grid.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ray_split import config
from ray_split.schedules import schedule_of
from ray_split.segments.segment_work import SegmentWork

# Orders of magnitude of a CPU's, for comparisons between one choice and another alone.
RATE = 2e10  # FLOPs a second of one thread
CALL = 5e-4  # seconds that a call takes beside its FLOPs
CLIENT_CALLS, SERVER_CALLS = 3, 2  # of an exchange: A, C, and A's backward; B, and its backward
GPU = 100  # threads that a GPU is worth
GAIN = 0.85  # t threads are worth t ** GAIN
LEAST = 5e8  # FLOPs of a call for each of its threads: of less the threads' meeting takes more than they save
SHARED = 1.25  # two roles' threads on the same cores: what they lose by taking turns
WORTH = 1.03  # what must be won for more processes, more threads, or shared CPUs

COUNTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
"""Of threads that are tried, beside all that a node has and all but one."""


class Share(NamedTuple):
    """Who has how much: threads of a server and of a client, client actors, and whether all are on the same CPUs."""

    server: int
    client: int
    clients: int
    same_cpus: bool = False


class Room(NamedTuple):
    """What there is for a run: CPUs of the largest node that suits a server, and whether it is the only one."""

    largest: int
    alone: bool


def on_gpu(work: SegmentWork) -> SegmentWork:
    """The work where B is on a GPU, which does it in less time, and on no CPU."""
    return work._replace(server=work.server / GPU)


def choose(settings: config.Config, work: SegmentWork, room: Room, cohorts: int, shares: Sequence[Share]) -> Share:
    """The share of those that fit with which an exchange takes least; of about as good ones the smallest."""
    times = {share: _seconds(settings, work, room, cohorts, share) for share in shares}
    best = min(times.values())
    good = [share for share, time in times.items() if time <= WORTH * best]
    return min(good, key=lambda share: (share.same_cpus, share.server + share.clients * share.client, share))


def threads(asked: int | str, flops: float, at_most: int) -> Iterator[int]:
    """How many threads to try: as asked for, or up to what a call of so many FLOPs can use."""
    if asked != "auto":
        yield int(asked)
        return
    most = max(1, min(at_most, int(flops / LEAST)))
    yield from sorted({count for count in (*COUNTS, at_most - 1, at_most) if 1 <= count <= most})


def enough_clients(settings: config.Config, work: SegmentWork, server: int, client: int, most: int) -> int:
    """Client actors with which the server waits for none, at most so many."""
    if schedule_of(settings.schedule).order == "in_turn":
        return 1
    if _takes_turns(settings):
        return most
    ours, theirs = _server_seconds(work, server), _client_seconds(work, client)
    return max(1, min(most, math.ceil(theirs / ours * settings.server.replicas)))


def pairs(settings: config.Config, work: SegmentWork, cohort: int, room: Room) -> Iterator[tuple[int, int]]:
    """Threads of a server and of a client to try together.

    Where one phone computes at a time, both have as many: so sequential has the bits of unsplit.
    """
    ours, theirs = settings.server.num_cpus, settings.cluster.cpus_per_client
    if schedule_of(settings.schedule).order == "in_turn" and (ours, theirs) == ("auto", "auto"):
        yield from ((count, count) for count in threads("auto", work.server + work.client, room.largest))
        return
    for client in threads(theirs, work.client * cohort, room.largest):
        yield from ((server, client) for server in threads(ours, work.server * cohort, room.largest))


def _takes_turns(settings: config.Config) -> bool:
    """Whether the server computes only while no client does: one phone's turn, or one step for all, at a time."""
    schedule = schedule_of(settings.schedule)
    one_step = schedule.way_with(settings.schedule.kwargs) in ("shared_step", "joint_batch")
    return schedule.order == "in_turn" or one_step or not schedule.on_server


def _seconds(settings: config.Config, work: SegmentWork, room: Room, cohorts: int, share: Share) -> float:
    """What an exchange takes on average, while a round is under way."""
    ours, theirs = _server_seconds(work, share.server), _client_seconds(work, share.client)
    ours, clients = ours * schedule_of(settings.schedule).on_server, min(share.clients, cohorts)
    if schedule_of(settings.schedule).order == "in_turn":
        return ours + theirs
    if _takes_turns(settings) or cohorts == 1:
        return ours / settings.server.replicas + theirs / clients
    at_once = max(ours / settings.server.replicas, theirs / clients)
    if not share.same_cpus:
        return at_once
    busy = ours * share.server + theirs * share.client  # CPU seconds
    return SHARED * max(at_once, busy / room.largest)


def _server_seconds(work: SegmentWork, count: int) -> float:
    return SERVER_CALLS * CALL + work.server / RATE / math.pow(count, GAIN)


def _client_seconds(work: SegmentWork, count: int) -> float:
    return CLIENT_CALLS * CALL + work.client / RATE / math.pow(count, GAIN)


def told(settings: config.Config) -> str:
    """Who has how many CPUs, for people."""
    ours, theirs = settings.server.num_cpus, settings.cluster.cpus_per_client
    same = ", on the same CPUs" if settings.cluster.share_cpus == "always" else ""
    return f"CPUs: {ours} for the server, {theirs} for each of {settings.cluster.client_actors} client(s){same}"
