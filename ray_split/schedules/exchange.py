"""What the schedules share: the exchange of a batch, and going through several of them abreast.

A lane is the calls of one cohort in their order: a generator that stops where the other actor's turn comes, with the
refs that nobody consumes.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from itertools import pairwise

from ray_split.data.stream import Stream
from ray_split.messages.turn import Start, Turn
from ray_split.schedules.roles import Handle, Ref, Roles, refs_of_each

Lane = Iterator[Sequence[Ref]]

LANES = 3  # cohorts under way for each client
COLLECT = 32  # cohorts whose sums go to the fed server in one call


Visit = Generator[Sequence[Ref], None, Ref]
Visits = Generator[Sequence[Ref], None, list[Ref]]


def visit(client: Handle, at: Turn, activation: Ref, server: Handle, single: bool) -> Visit:
    """Submit what lies between A's forward and A's backward; returns the ref of the activation's gradient.

    Stops after each call to the server, and before C's is answered. `single`: the server has the loss.
    """
    (gradient,) = yield from visit_together([(client, at)], [activation], server, at, single)
    return gradient


def visit_together(
    hosts: Sequence[tuple[Handle, Turn]], activations: Sequence[Ref], server: Handle, turn: Turn, single: bool
) -> Visits:
    """As `visit`, of several cohorts, each with the client that hosts it, in one call to the server; `turn` is its."""
    count = len(hosts)
    if single:
        gradients = refs_of_each(server.learn, count, turn, *activations)
        yield []
        return gradients
    hidden = refs_of_each(server.forward, count, turn, *activations)
    yield []
    hidden_gradients = [client.loss.remote(at, own) for (client, at), own in zip(hosts, hidden, strict=True)]
    yield []
    gradients = refs_of_each(server.backward, count, turn, *hidden_gradients)
    yield []
    return gradients


def finish(visit: Visit) -> Ref:
    """Go through with a visit: the ref that it returns."""
    while True:
        try:
            next(visit)
        except StopIteration as stop:
            return stop.value


def submit_backward(client: Handle, server: Handle, at: Turn, activation_gradient: Ref, clips: bool) -> list[Ref]:
    """Submit A's backward and step; and B's step, where that waits for the norm of all segments' gradients."""
    refs = [client.backward.remote(at, activation_gradient)]
    return [*refs, server.step.remote(at, client.norms.remote(at))] if clips and at.updates_any else refs


def exchange(client: Handle, server: Handle, turn: Turn, single: bool, clips: bool = False) -> Iterator[Ref]:
    """Submit one exchange of one phone; yields the ref of its report, which is there once A has stepped.

    A backward uses the weights of its forward because nothing is submitted to the server in between.
    """
    activation = client.forward.remote(turn)
    activation_gradient = finish(visit(client, turn, activation, server, single))
    yield from submit_backward(client, server, turn, activation_gradient, clips)


def interleave(lanes: Iterable[Lane]) -> Iterator[Ref]:
    """Submit the lanes' calls, a stage of each in turn, so that one cohort computes while another waits."""
    under_way = list(lanes)
    while under_way:
        for lane in list(under_way):
            refs = next(lane, None)
            if refs is None:
                under_way.remove(lane)
            else:
                yield from refs


def waves(numbers: Sequence[int], roles: Roles) -> Iterator[Sequence[int]]:
    """Cohorts to go abreast: a few for each client, which computes for one while the server does for another.

    What they hold is in memory, copies of B at the server too (server.lanes), so not all at once; but in waves of like
    size, since one alone has nobody to overlap with. Nothing that is computed may depend on how many these are.
    """
    most = roles.lanes * len(roles.servers)
    if roles.gateway is None:  # where there is one, its phones compute all at the same time
        most = min(LANES * len(roles.clients), most)
    count = -(-len(numbers) // most)  # rounded up
    # As even as can be: of 9 cohorts and at most 8 at a time 4 and 5, not 8 and 1.
    borders = [len(numbers) * i // count for i in range(count + 1)] if count else [0]
    return (numbers[start:stop] for start, stop in pairwise(borders))


def submit_load(
    client: Handle,
    stream: Stream,
    at: Turn,
    ends: Ref,
    fresh_optimizer: bool = True,
    own: Ref | None = None,
    middle: Ref | None = None,
    crosses: bool = True,
    sender: tuple[int, ...] = (),
    remembered: Ref | None = None,
) -> Ref:
    """Submit that a client begins to train the turn's phones, each as far as it comes: see Client.load."""
    start = Start(fresh_optimizer, crosses, sender, stream.cut_short(at.round, at.phones), trains=True)
    return client.load.remote(at, ends, own, middle, start, *([] if remembered is None else [remembered]))


def submit_remembered(roles: Roles, at: Turn, *names: str) -> Ref | None:
    """Ask the fed server for what the turn's phones remember of these segments; None if that is nothing."""
    asked = tuple(name for name in names if name in roles.remember)
    return roles.fed_server.remembered.remote(at, asked) if asked else None


def submit_close(client: Handle, stream: Stream, at: Turn, keep: str = "nothing") -> Ref:
    """Submit the end of the turn's phones' round; returns the ref of what those that finish leave."""
    return client.close.remote(at, stream.shares(at.round, at.phones), keep)


def most_steps(stream: Stream, at: Turn) -> int:
    """The batches of a cohort: its first phone takes most."""
    return int(stream.taken(at.round, at.phones[:1])[0])


def submit_collect(turns: Sequence[Turn], stream: Stream, roles: Roles, closed: Sequence[Ref]) -> Iterator[Ref]:
    """Send what the turns' cohorts left to the fed server, in their order."""
    cohorts = [stream.finishing(at.round, at.phones) for at in turns]
    for start in range(0, len(closed), COLLECT):
        some = slice(start, start + COLLECT)
        yield roles.fed_server.collect.remote(turns[0], cohorts[some], *closed[some])


def cohort_turns(turn: Turn, stream: Stream) -> list[Turn]:
    """A turn for each cohort of the round."""
    return [stream.at(turn, phones) for phones in stream.cohorts(turn.round)]


def phone_turns(turn: Turn, stream: Stream) -> list[Turn]:
    """A turn for each phone of the round, in the order in which they are drawn."""
    return [stream.at(turn, (phone,)) for phone in stream.phones(turn.round)]


def turns_one_by_one(turn: Turn, stream: Stream) -> Iterator[Turn]:
    """As `phone_turns`, where each phone's steps come after the other's: the turns say how many came before."""
    for at in phone_turns(turn, stream):
        yield at._replace(before=turn.before)
        turn = turn._replace(before=turn.before + int(stream.updates(at.round, at.phones)[0]))


STATISTICS = {"average": "nothing", "local": "statistics"}
"""The setting `statistics`, and what the phones then keep for themselves."""
