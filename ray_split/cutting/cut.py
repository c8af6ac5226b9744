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

from ray_split.config.user_code.plugins import suggest
from ray_split.cutting.constants import constants
from ray_split.cutting.cut_error import ADVICE, OTHER, CutError
from ray_split.cutting.cut_trial import Trial, equal
from ray_split.cutting.language.blocks import parts_of
from ray_split.cutting.language.families import family_of
from ray_split.cutting.model_inputs import changed, values_of
from ray_split.cutting.own_segments import Chain
from ray_split.cutting.random_generators import TORCH, Generators, drawing_line
from ray_split.cutting.references import names_of, references_of
from ray_split.cutting.segment_module import Program, SegmentModule, adopt, is_size, program_of
from ray_split.cutting.tracer import UNTRACEABLE, Tracer, line_of, lost_by_opening
from ray_split.errors import SettingsError, listed, shown
from ray_split.messages.message import leaves
from ray_split.segments.base_weight import BaseWeight
from ray_split.segments.parameter_hooks import copied
from ray_split.segments.segment import call
from ray_split.segments.tied_weight import make_end

ENDS = (0, 2)
"""The places of A and C, which are both on the phone."""
APART = "Cut so that both stay in one segment, or one in A and the other in C, which are both on the phone"


class Segments(NamedTuple):
    """The modules of a cut model. Called in turn, `c(*b(*a(x)))`, they compute what the model does."""

    a: nn.Module
    b: nn.Module
    c: nn.Module | None = None

    def modules(self) -> dict[str, nn.Module]:
        """The segments there are, by name."""
        return {name: module for name, module in zip("abc", self, strict=True) if module is not None}


def cut(model: nn.Module, cuts: Sequence[str], example: Any = None, mask: str | None = None) -> Segments:
    """Cut `model` after one layer (A | B) or two (A | B | C), named as in `model.named_modules()`.

    The segments are copies: the model is left as it was. Each has its own parameters and buffers, under the model's
    own names, so that `merge` of their state dicts is the model's. With an `example` input (N, ...) the segments
    are checked to compute what the model does. `mask`: the argument of the model's forward that is given the mask of
    sequences of different lengths; A is then called with both, and an example is (values, mask).

    Raises CutError if a name is unknown, never called or out of order, if the raw input would cross, if parameters
    are tied across a cut, or if what lies between the cuts can't be traced.
    """
    if isinstance(model, Chain):
        return _linked(model, cuts, example, mask)
    _check_names(model, cuts)
    if (family := family_of(model, mask)) is not None:
        return _whole_parts(model, parts_of(model, family, cuts), cuts, example, mask)
    traced = copied(model)
    programs: list[dict[bool, Program]] = [{} for _ in range(len(cuts) + 1)]
    modes: dict[bool, dict[str, bool]] = {}
    made: dict[str, nn.Module] = {}
    for training in (True, False):
        graph, tracer = _trace(traced.train() if training else traced.eval(), cuts, len(made), mask)
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
        Trial(model, apart, example, cuts, tracer.opened, mask).run(shared)
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
                    raise CutError(
                        list(cuts),
                        OTHER,
                        f"{where} refers to {other}, but these cuts put the two into different segments",
                    )


def _linked(model: Chain, cuts: Sequence[str], example: Any, mask: str | None) -> Segments:
    if list(cuts) != model.cuts:
        raise CutError(
            list(cuts),
            "Remove model.cuts",
            f"can't be set, because this model is already cut (after {listed(model.cuts)})",
        )
    return _whole_parts(model, model.links(), cuts, example, mask)


def _whole_parts(
    model: nn.Module, parts: Sequence[nn.Module], cuts: Sequence[str], example: Any, mask: str | None
) -> Segments:
    """Segments that need no tracing, tried beside the model."""
    segments, shared = _apart(parts)
    if example is not None:
        Trial(model, segments, example, cuts, opened={""}, mask=mask).run(shared)
        _check_hidden(segments[0], example, cuts)
    return Segments(*segments)


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


def _trace(model: nn.Module, cuts: Sequence[str], made: int, mask: str | None) -> tuple[fx.Graph, Tracer]:
    opened = {""} | {prefix for name in cuts for prefix in _ancestors(name)}
    for name in sorted(opened):
        if lost := lost_by_opening(model, name):
            where = name or "the model"
            raise CutError(list(cuts), f"Cut outside of {where}", f"can't cut inside {where}, because its {lost}")
    tracer = Tracer(opened, made, mask)
    before = Generators()
    try:
        with torch.enable_grad():
            graph = tracer.trace(model)
        drawn = before.moved()
    except UNTRACEABLE as error:
        where = ", ".join(sorted(n for n in opened if n)) or "the model's forward"
        wrong = f"can't cut there, because {where} can't be traced: {line_of(error)}"
        raise CutError(list(cuts), f"Cut outside of {where}, or {ADVICE}", wrong) from error
    finally:
        before.restore()
    if drawn:
        line = drawing_line(lambda: Tracer(opened, mask=mask).trace(model))
        wrong = f"can't cut there, because random numbers from {drawn} are drawn around these layers ({line})"
        advice = ADVICE if drawn == TORCH else f"use torch's random functions, and {ADVICE}"
        raise CutError(list(cuts), f"Cut elsewhere, or {advice}", wrong)
    return graph, tracer


def _places(graph: fx.Graph, ends: dict[str, fx.Node], cuts: Sequence[str], fixed: set[fx.Node]) -> dict[fx.Node, int]:
    """The segment that each node belongs to, by its position; sizes go with the tensor that they are the size of.

    Those that are `fixed` have none.
    """
    order = {node: i for i, node in enumerate(graph.nodes)}
    for name in cuts:
        if name not in ends:
            there = f"You can cut after {listed(sorted(ends), 'or')}"
            raise CutError(name, suggest(name, ends, there), f"the model's forward never calls the layer {shown(name)}")
    borders = [order[ends[name]] for name in cuts]
    if borders != sorted(set(borders)):
        right = sorted(cuts, key=lambda name: order[ends[name]])
        if len(set(borders)) < len(borders):
            raise CutError(
                list(cuts),
                "Name two layers that run one after the other",
                f"{' and '.join(cuts)} end at the same place",
            )
        raise CutError(list(cuts), f"Write {','.join(right)}", f"{cuts[1]} runs before {cuts[0]}")
    if all(node.op == "output" or node in fixed for node in order if order[node] > borders[-1]):
        raise _is_last(cuts, [name for name in ends if order[ends[name]] < borders[-1]], borders, order, ends)
    places: dict[fx.Node, int] = {}
    for node, i in order.items():
        if node in fixed:
            continue
        places[node] = sum(i > border for border in borders)
        if is_size(node):
            places[node] = max((places[arg] for arg in node.all_input_nodes if arg in places), default=0)
    return places


def _is_last(
    cuts: Sequence[str], earlier: list[str], borders: list[int], order: dict[fx.Node, int], ends: dict[str, fx.Node]
) -> CutError:
    """What is said of a cut after the last layer, with those that are left."""
    left = [name for name in earlier if len(cuts) < 2 or order[ends[name]] > borders[0]]
    wrong = f"can't cut after {shown(cuts[-1])}, because it is the last layer"
    if not left:
        return CutError(cuts[-1], "Cut after earlier layers", wrong)
    which = "Make the second cut" if len(cuts) > 1 else "Cut"
    do = f"{which} after {listed(left[-8:], 'or')}, for example {','.join([*cuts[:-1], left[-1]])}"
    return CutError(cuts[-1], do, wrong)


def _check_names(model: nn.Module, cuts: Sequence[str]) -> None:
    if not 1 <= len(cuts) <= 2:
        wrong = f"has {len(cuts)} layers, but must have one or two"
        raise CutError(
            list(cuts), "Name one layer to make two parts, or two, such as first,second, to make three", wrong
        )
    known = [name for name, _ in model.named_modules(remove_duplicate=False) if name]
    for name in cuts:
        if name not in known:
            there = f"The layers are {listed(_near(name, known))}"
            raise CutError(name, suggest(name, known, there), f"there is no layer {shown(name)}")


def _near(name: str, known: list[str]) -> Iterator[str]:
    """The layers beside `name`: the children of its longest ancestor that exists."""
    parents = ["", *(p for p in _ancestors(name) if p in known)]
    prefix = parents[-1] + "." if parents[-1] else ""
    return (k for k in known if k.startswith(prefix) and "." not in k.removeprefix(prefix))


def _ancestors(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts))]


def _check_raw_input(program: Program, graph: fx.Graph, cuts: Sequence[str]) -> None:
    inputs = [node.name for node in graph.nodes if node.op == "placeholder"][:1]  # a mask has lengths, and no values
    if raw := [name for name in program.crossing if name in inputs]:
        sent = "so the phone's data would be sent to the server"
        wrong = f"layers after {shown(cuts[0])} use the raw input {', '.join(raw)}, {sent}"
        raise CutError(cuts[0], "Cut after the last layer that uses the raw input", wrong)


@torch.no_grad()
def _check_hidden(a: nn.Module, example: Any, cuts: Sequence[str]) -> None:
    """What crosses first must not be the input itself, as it is or rearranged."""
    allowed, wrong = (
        "Cut after the first layer with weights, or later",
        f"the raw input would cross after {shown(cuts[0])}, so the phone's data would be sent to the server",
    )
    if not any(True for _ in a.parameters()):
        raise CutError(list(cuts), allowed, wrong)
    with torch.random.fork_rng(devices=[]):
        crossing = leaves(call(copy.deepcopy(a).eval(), changed(example, torch.clone)))
    values = values_of(example).flatten().sort().values
    for tensor in crossing:
        same = isinstance(tensor, torch.Tensor) and tensor.numel() == len(values) and tensor.dtype == values.dtype
        if same and torch.equal(tensor.flatten().sort().values, values):
            raise CutError(list(cuts), allowed, wrong)


def _adopt_unused(model: nn.Module, parts: list[SegmentModule]) -> None:
    """What forward never uses is still in the model's state dict: it goes to B, and stays as it is.

    One that is tied to a weight that is used goes where that is.
    """
    held = {key for part in parts for key in part.state_dict()}
    there = {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }
    owners = {id(tensor): part for part in parts for tensor in part.parameters()}
    for key in model.state_dict():
        if key not in held and key in there:
            adopt(owners.get(id(there[key]), parts[1]), model, key)


def _apart(parts: Sequence[nn.Module]) -> tuple[list[nn.Module], list[str]]:
    """Copies that share nothing, and the names of the buffers that several of them have.

    Such a buffer is in the state dict of the first. A parameter that A and C have, which are one phone's, is A's, and C
    has an end of it. Raises CutError if another is in two of them.
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
            if isinstance(tensor, BaseWeight):
                continue  # frozen, and in no state: each segment may read it
            if name in parameters and (other, place) == ENDS:
                make_end(copies[place], name, other_name)
                continue
            if name in parameters:
                both = f"{other_name} and {name}" if other_name != name else name
                segments = f"{'ABC'[other]} and {'ABC'[place]}"
                wrong = f"the tied weights {both} would be in both segments {segments}"
                raise CutError(both, APART, wrong)
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
            wrong = f"can't cut there, because {name} is set by a forward that would be cut, or by train() or eval()"
            raise CutError(list(cuts), f"Cut elsewhere, or {ADVICE}", wrong)


def _check_keys(model: nn.Module, parts: Sequence[nn.Module], cuts: Sequence[str]) -> None:
    """The segments' keys together are the model's, and all are of tensors."""
    state = model.state_dict()
    if others := [key for key, value in state.items() if not isinstance(value, torch.Tensor)]:
        wrong = f"{listed(others[:3])} in the state dict is not a tensor (get_extra_state), so it can't be sent"
        raise SettingsError("model.name", type(model).__name__, "Keep it in a buffer, with register_buffer", wrong)
    held = {key for part in parts for key in part.state_dict()}
    if different := sorted(held ^ state.keys()):
        wrong = f"{', '.join(different[:3])} would have another name in the trained model's state dict"
        raise CutError(list(cuts), OTHER, wrong)
