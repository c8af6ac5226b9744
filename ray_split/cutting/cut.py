"""Cut a model after named layers into segments that keep their own parts of it.

Only the ancestors of a cut are opened and traced by torch.fx; every other module stays one call, so its control
flow and custom code are never touched. A cut after layer X is a place in the order of execution: what was computed
up to the end of X's last call is left of it, and what is still needed right of it crosses, as a tuple.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import fx, nn

from ray_split.config.plugins import suggest
from ray_split.cutting.constants import constants
from ray_split.cutting.cut_error import ADVICE, CutError
from ray_split.cutting.cut_trial import Trial, equal
from ray_split.cutting.own_segments import Chain
from ray_split.cutting.random_generators import TORCH, Generators, drawing_line
from ray_split.cutting.references import names_of, references_of
from ray_split.cutting.segment_module import Program, SegmentModule, adopt, is_size, program_of
from ray_split.cutting.tracer import UNTRACEABLE, Tracer, line_of, lost_by_opening
from ray_split.errors import SettingsError
from ray_split.messages.message import leaves
from ray_split.segments.parameter_hooks import copied
from ray_split.segments.segment import call


class Segments(NamedTuple):
    """The modules of a cut model. Called in turn, `c(*b(*a(x)))`, they compute what the model does."""

    a: nn.Module
    b: nn.Module
    c: nn.Module | None = None

    def modules(self) -> dict[str, nn.Module]:
        """The segments there are, by name."""
        return {name: module for name, module in zip("abc", self, strict=True) if module is not None}


def cut(model: nn.Module, cuts: Sequence[str], example: torch.Tensor | None = None) -> Segments:
    """Cut `model` after one layer (A | B) or two (A | B | C), named as in `model.named_modules()`.

    The segments are copies: the model is left as it was. Each has its own parameters and buffers, under the model's
    own names, so that `merge` of their state dicts is the model's. With an `example` input (N, ...) the segments
    are checked to compute what the model does.

    Raises CutError if a name is unknown, never called or out of order, if the raw input would cross, if parameters
    are tied across a cut, or if what lies between the cuts can't be traced.
    """
    if isinstance(model, Chain):
        segments = _linked(model, cuts, example)
        if example is not None:
            _check_hidden(segments.a, example, cuts)
        return segments
    _check_names(model, cuts)
    traced = copied(model)
    programs: list[dict[bool, Program]] = [{} for _ in range(len(cuts) + 1)]
    modes: dict[bool, dict[str, bool]] = {}
    made: dict[str, nn.Module] = {}
    for training in (True, False):
        graph, tracer = _trace(traced.train() if training else traced.eval(), cuts, len(made))
        made |= tracer.made
        fixed = constants(graph, traced)
        places = _places(graph, tracer.ends, cuts, fixed)
        for place, program in enumerate(programs):
            program[training] = program_of(graph, places, place, last=len(cuts))
        _check_raw_input(programs[0][training], graph, cuts)
        now = {name: module.training for name, module in traced.named_modules(remove_duplicate=False)} | tracer.modes
        modes[training] = {name: mode for name, mode in now.items() if name and mode is not training}
    _check_unchanged(model, traced.train(), cuts)
    for name, layer in made.items():
        traced.add_module(name, layer)
    parts = [SegmentModule(traced, program, modes) for program in programs]
    _adopt_unused(traced, parts)
    _check_keys(model, parts, cuts)
    _check_references(traced, parts, cuts)
    apart, shared = _apart(parts)
    if example is not None:
        Trial(model, apart, example, cuts, tracer.opened).run(shared)
        _check_hidden(apart[0], example, cuts)
    return Segments(*apart)


def _check_references(model: nn.Module, parts: Sequence[nn.Module], cuts: Sequence[str]) -> None:
    """A layer that keeps another in a plain place must be on its side of a cut: each side has copies of its own."""
    names = names_of(model)
    for part in parts:
        own = names_of(part)
        for layer, module in part.named_modules():
            for reference in references_of(module):
                if (other := names.get(id(reference.target))) and id(reference.target) not in own:
                    where = f"{layer}.{reference.attribute}".lstrip(".")
                    raise CutError(list(cuts), f"cuts that leave {other} on the side of {where}, which refers to it")


def _linked(model: Chain, cuts: Sequence[str], example: torch.Tensor | None) -> Segments:
    if list(cuts) != model.cuts:
        raise CutError(list(cuts), f"{', '.join(model.cuts)}: the model comes in segments")
    links, shared = _apart(model.links())
    if example is not None:
        Trial(model, links, example, cuts, opened={""}).run(shared)
    return Segments(*links)


def merge(*states: dict[str, Any]) -> dict[str, Any]:
    """The unsplit model's state dict from its segments': no key is renamed, none is in two.

    Raises ValueError if a key is in two of them.
    """
    merged: dict[str, Any] = {}
    for state in states:
        if twice := merged.keys() & state.keys():
            raise ValueError(f"in two segments: {', '.join(sorted(twice))}")
        merged.update(state)
    return merged


def _trace(model: nn.Module, cuts: Sequence[str], made: int) -> tuple[fx.Graph, Tracer]:
    opened = {""} | {prefix for name in cuts for prefix in _ancestors(name)}
    for name in sorted(opened):
        if lost := lost_by_opening(model, name):
            raise CutError(list(cuts), f"cuts outside of {name or 'the model'}, whose {lost}")
    tracer = Tracer(opened, made)
    before = Generators()
    try:
        with torch.enable_grad():
            graph = tracer.trace(model)
        drawn = before.moved()
    except UNTRACEABLE as error:
        where = ", ".join(sorted(n for n in opened if n)) or "the model's forward"
        allowed = f"cuts that leave {where} whole, which can't be traced: {line_of(error)}; or {ADVICE}"
        raise CutError(list(cuts), allowed) from error
    finally:
        before.restore()
    if drawn:
        line = drawing_line(lambda: Tracer(opened).trace(model))
        said = f"cuts elsewhere: random numbers of {drawn} drawn around these would be frozen by tracing ({line})"
        advice = ADVICE if drawn == TORCH else f"draw from torch, whose generator a run seeds, and {ADVICE}"
        raise CutError(list(cuts), f"{said}; or {advice}")
    return graph, tracer


def _places(graph: fx.Graph, ends: dict[str, fx.Node], cuts: Sequence[str], fixed: set[fx.Node]) -> dict[fx.Node, int]:
    """The segment that each node belongs to, by its position; sizes go with the tensor that they are the size of.

    Those that are `fixed` have none.
    """
    order = {node: i for i, node in enumerate(graph.nodes)}
    for name in cuts:
        if name not in ends:
            called = ", ".join(sorted(ends))
            raise CutError(name, f"a layer that forward calls: {called}{suggest(name, ends)}")
    borders = [order[ends[name]] for name in cuts]
    if borders != sorted(set(borders)):
        right = sorted(cuts, key=lambda name: order[ends[name]])
        raise CutError(list(cuts), f"different places in the order they run: {', '.join(right)}")
    if all(node.op == "output" or node in fixed for node in order if order[node] > borders[-1]):
        raise CutError(cuts[-1], "a layer that is not the last: nothing would be left after it")
    places: dict[fx.Node, int] = {}
    for node, i in order.items():
        if node in fixed:
            continue
        places[node] = sum(i > border for border in borders)
        if is_size(node):
            places[node] = max((places[arg] for arg in node.all_input_nodes if arg in places), default=0)
    return places


def _check_names(model: nn.Module, cuts: Sequence[str]) -> None:
    if not 1 <= len(cuts) <= 2:
        raise CutError(list(cuts), "one layer (single split) or two (double split)")
    known = [name for name, _ in model.named_modules(remove_duplicate=False) if name]
    for name in cuts:
        if name not in known:
            near = list(_near(name, known))
            raise CutError(name, f"one of the layers {', '.join(near)}{suggest(name, known)}")


def _near(name: str, known: list[str]) -> Iterator[str]:
    """The layers beside `name`: the children of its longest ancestor that exists."""
    parents = ["", *(p for p in _ancestors(name) if p in known)]
    prefix = parents[-1] + "." if parents[-1] else ""
    return (k for k in known if k.startswith(prefix) and "." not in k.removeprefix(prefix))


def _ancestors(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts))]


def _check_raw_input(program: Program, graph: fx.Graph, cuts: Sequence[str]) -> None:
    inputs = {node.name for node in graph.nodes if node.op == "placeholder"}
    if raw := [name for name in program.crossing if name in inputs]:
        allowed = f"a cut after the last use of the raw input {', '.join(raw)}: it would leave the phone"
        raise CutError(cuts[0], allowed)


@torch.no_grad()
def _check_hidden(a: nn.Module, example: torch.Tensor, cuts: Sequence[str]) -> None:
    """What crosses first must not be the input itself, as it is or rearranged."""
    allowed = "one after the first layer with weights: the raw input would cross, and leave the phone"
    if not any(True for _ in a.parameters()):
        raise CutError(list(cuts), allowed)
    with torch.random.fork_rng(devices=[]):
        crossing = leaves(call(copy.deepcopy(a).eval(), example.clone()))
    values = example.flatten().sort().values
    for tensor in crossing:
        same = isinstance(tensor, torch.Tensor) and tensor.numel() == len(values) and tensor.dtype == values.dtype
        if same and torch.equal(tensor.flatten().sort().values, values):
            raise CutError(list(cuts), allowed)


def _adopt_unused(model: nn.Module, parts: list[SegmentModule]) -> None:
    """What forward never uses is still in the model's state dict: it goes to B, and stays as it is."""
    held = {key for part in parts for key in part.state_dict()}
    there = {*dict(model.named_parameters(remove_duplicate=False)), *dict(model.named_buffers(remove_duplicate=False))}
    for key in model.state_dict():
        if key not in held and key in there:
            adopt(parts[1], model, key)


def _apart(parts: Sequence[nn.Module]) -> tuple[list[nn.Module], list[str]]:
    """Copies that share nothing, and the names of the buffers that several of them have.

    Such a buffer is in the state dict of the first. Raises CutError if a parameter is in two of them.
    """
    owner: dict[int, tuple[int, str]] = {}
    copies: list[nn.Module] = [copied(part).train() for part in parts]
    keys, shared = set[str](), dict[str, None]()
    for place, part in enumerate(parts):
        parameters = dict(part.named_parameters(remove_duplicate=False))
        for name, tensor in [*parameters.items(), *part.named_buffers(remove_duplicate=False)]:
            other, other_name = owner.setdefault(id(tensor), (place, name))
            if other == place:
                continue
            if name in parameters:
                both = f"{other_name} and {name}" if other_name != name else name
                segments = f"{'ABC'[other]} and {'ABC'[place]}"
                raise CutError(both, f"on one side of a cut only, not shared by {segments} (tied weights)")
            shared.update({name: None, other_name: None})
            if name in keys:
                path, _, attribute = name.rpartition(".")
                copies[place].get_submodule(path)._non_persistent_buffers_set.add(attribute)
        keys |= part.state_dict().keys()
    return copies, list(shared)


def _check_unchanged(model: nn.Module, traced: nn.Module, cuts: Sequence[str]) -> None:
    """What tracing, train() or eval() did to the copy that the segments are made of."""
    before = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    after = {**dict(traced.named_parameters()), **dict(traced.named_buffers())}
    for name in before.keys() | after.keys():
        one, other = before.get(name), after.get(name)
        if one is None or other is None or not (one.is_meta or equal(one, other)):
            allowed = f"cuts elsewhere: {name} is set in a forward that they open, or by train() or eval(); {ADVICE}"
            raise CutError(list(cuts), allowed)


def _check_keys(model: nn.Module, parts: Sequence[nn.Module], cuts: Sequence[str]) -> None:
    """The segments' keys together are the model's, and all are of tensors."""
    state = model.state_dict()
    if others := [key for key, value in state.items() if not isinstance(value, torch.Tensor)]:
        allowed = f"one whose state dict has tensors alone: {', '.join(others[:3])} (get_extra_state) can't be sent"
        raise SettingsError("model.name", type(model).__name__, allowed)
    held = {key for part in parts for key in part.state_dict()}
    if different := sorted(held ^ state.keys()):
        allowed = (
            f"cuts elsewhere: {', '.join(different[:3])} would have another name in the trained model's state dict"
        )
        raise CutError(list(cuts), allowed)
