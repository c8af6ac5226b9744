"""Every place where a model can be cut: traced once in each mode, with every module opened that can be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import fx, nn

from ray_split.costs.shared_weights import SharedWeight, is_base, shared_weights, stay_together
from ray_split.cutting.references import HOOKS
from ray_split.cutting.segment_module import is_device, is_size
from ray_split.cutting.tracer import MADE, UNTRACEABLE, Tracer
from ray_split.errors import BROKEN, SettingsError, told


class Position(NamedTuple):
    """A place to cut: after the last call of each of these layers."""

    names: tuple[str, ...]  # the shortest first: it stands for the others
    place: int  # in the order of execution: what is computed up to it is on the left
    first: bool  # whether it may be the first cut: no raw input crosses, and something on the left is trained

    @property
    def name(self) -> str:
        """The layer to name in model.cuts."""
        return self.names[0]


class Span(NamedTuple):
    """From where a value is made to where it is needed last."""

    node: fx.Node
    made: int
    last: int


class Trace(NamedTuple):
    """A model's forward as nodes in the order they run."""

    graph: fx.Graph
    ends: dict[str, fx.Node]  # the last node of each layer that is called
    places: dict[fx.Node, int]  # sizes go with the tensor that they are the size of

    def spans(self) -> list[Span]:
        """Every value that something needs; what the model returns is needed to the end."""
        moving = [node for node in self.places if node.op not in ("get_attr", "output") and node.users]
        return [Span(n, self.places[n], max(self.places[user] for user in n.users)) for n in moving]


class _Opener(Tracer):
    """Opens every module that has children and can be traced; one that can't stays a single call."""

    def __init__(self, first: int) -> None:
        super().__init__(set(), first)
        self.closed: set[str] = set()

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        name = self.path_of_module(m)
        if name in self.closed or not any(True for _ in m.children()) or any(getattr(m, hooks) for hooks in HOOKS):
            return super().call_module(m, forward, args, kwargs)
        before, stack = next(iter(reversed(self.graph.nodes))), self.module_stack.copy()
        self.opened.add(name)
        try:
            with drawing_nothing():
                return super().call_module(m, forward, args, kwargs)
        except UNTRACEABLE:
            self.opened.discard(name)
            self.closed.add(name)
            self.module_stack = stack
            self._take_back(before)
            return super().call_module(m, forward, args, kwargs)

    def _take_back(self, before: fx.Node) -> None:
        for node in reversed(self.graph.nodes):
            if node is before:
                break
            if node.op != "get_attr":  # fx hands these out again
                self.graph.erase_node(node)
        kept = set(self.graph.nodes)
        self.ends = {name: node for name, node in self.ends.items() if node in kept}


@contextmanager
def drawing_nothing() -> Iterator[None]:
    """Raises RuntimeError if random numbers were drawn: tracing would freeze them. The generator is put back."""
    state = torch.get_rng_state()
    try:
        yield
        if not torch.equal(state, torch.get_rng_state()):
            raise RuntimeError("draws random numbers")
    finally:
        torch.set_rng_state(state)


def trace(model: nn.Module, training: bool) -> Trace:
    """The model's forward in one mode. Raises SettingsError if its own forward can't be traced."""
    if any(getattr(model, hooks) for hooks in HOOKS):
        raise SettingsError(
            "model.name",
            type(model).__name__,
            "Return the model without hooks, or register them in a layer that stays whole",
            f"{type(model).__name__} has hooks, which would be lost when it is cut",
        )
    tracer = _Opener(sum(name.startswith(MADE) for name in model._modules))
    try:
        with torch.enable_grad(), drawing_nothing():
            graph = tracer.trace(model.train(training))
    except (*UNTRACEABLE, *BROKEN) as error:
        wrong = f"the forward of {type(model).__name__} can't be traced by torch.fx: {told(error)}"
        raise SettingsError(
            "model.name", type(model).__name__, "Change that line, or choose another model", wrong
        ) from error
    finally:
        model.train()
    for name, layer in tracer.made.items():
        model.add_module(name, layer)
    places: dict[fx.Node, int] = {}
    for i, node in enumerate(graph.nodes):
        sizes_of = [places[argument] for argument in node.all_input_nodes] if is_size(node) or is_device(node) else []
        places[node] = max(sizes_of, default=i)
    return Trace(graph, tracer.ends, places)


def positions_of(model: nn.Module, training: Trace, evaluating: Trace) -> list[Position]:
    """The places after which every layer of the model can be cut, in the order they run.

    Layers that end at the same place share a position. Not among them: layers not called in both modes, the last
    ones, and places on whose two sides the same weight is used, unless a second cut leaves it to A and C.
    """
    modes = (training, evaluating)
    apart = _used_by_both_modes(model, *modes)
    borders = [(_raw_until(trace), _ends_at(trace), _tied(model, trace, apart)) for trace in modes]
    trained = first_trained(model, training)
    found: dict[tuple[int, ...], list[str]] = {}
    for name in training.ends.keys() & evaluating.ends.keys():
        found.setdefault(tuple(trace.places[trace.ends[name]] for trace in modes), []).append(name)
    positions, so_far = [], -1
    for places, names in sorted(found.items()):
        tied = any(start <= at < stop for at, (_, _, ties) in zip(places, borders, strict=True) for start, stop in ties)
        over = any(at >= end for at, (_, end, _) in zip(places, borders, strict=True))
        if tied or over or places[1] <= so_far:
            continue
        so_far = places[1]
        raw = any(at < until for at, (until, _, _) in zip(places, borders, strict=True))
        positions.append(Position(tuple(sorted(names, key=_shortest)), places[0], not raw and trained <= places[0]))
    return _with_a_second(positions, shared_weights(uses(model, training)))


def _with_a_second(positions: list[Position], shared: Sequence[SharedWeight]) -> list[Position]:
    """Those where the model can be cut alone, or beside another one."""
    places = np.array([position.place for position in positions], int)
    first, second = (index.ravel() for index in np.meshgrid(*[np.arange(len(places))] * 2, indexing="ij"))
    pairs = stay_together(shared, places[first], places[second]) & (first < second)
    pairs &= np.array([position.first for position in positions], bool)[first]
    kept = {*np.flatnonzero(stay_together(shared, places, None)), *first[pairs], *second[pairs]}
    return [position for number, position in enumerate(positions) if number in kept]


def _shortest(name: str) -> tuple[int, int, str]:
    return name.count("."), len(name), name


def _raw_until(trace: Trace) -> int:
    """The last place that needs the raw input."""
    return max((span.last for span in trace.spans() if span.node.op == "placeholder"), default=-1)


def _ends_at(trace: Trace) -> int:
    """The last place at which anything is computed: after it nothing would be left."""
    return max((place for node, place in trace.places.items() if node.op not in ("output", "get_attr")), default=-1)


def uses(model: nn.Module, trace: Trace) -> Iterator[tuple[int, torch.Tensor]]:
    """Every weight and buffer that is used, with each place that does."""
    for node, place in trace.places.items():
        if node.op == "call_module":
            layer = model.get_submodule(str(node.target))
            yield from ((place, tensor) for tensor in [*layer.parameters(), *layer.buffers()])
        elif node.op == "get_attr":
            owner, _, attribute = str(node.target).rpartition(".")
            value = getattr(model.get_submodule(owner), attribute)
            yield from ((trace.places[user], value) for user in node.users if isinstance(value, torch.Tensor))


def _tied(model: nn.Module, trace: Trace, but: Container[int]) -> set[tuple[int, int]]:
    """The first and the last place of each weight or buffer that is used at several; but for some, by their ids."""
    spans: dict[int, tuple[int, int]] = {}
    for place, tensor in uses(model, trace):
        if id(tensor) not in but:
            start, stop = spans.get(id(tensor), (place, place))
            spans[id(tensor)] = min(start, place), max(stop, place)
    return {(start, stop) for start, stop in spans.values() if start < stop}


def _used_by_both_modes(model: nn.Module, training: Trace, evaluating: Trace) -> set[int]:
    """The parameters that both modes use as often: whether a segment has one is asked of the first mode alone."""
    found = [Counter(id(tensor) for _, tensor in uses(model, trace)) for trace in (training, evaluating)]
    weights = {id(weight) for weight in model.parameters() if not is_base(weight)}
    return {key for key in weights if found[0][key] == found[1][key]}


def first_trained(model: nn.Module, trace: Trace) -> int:
    """The first place that uses a weight that is trained; beyond the last one if there is none."""
    trained = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    return min((place for place, tensor in uses(model, trace) if id(tensor) in trained), default=len(trace.places))
