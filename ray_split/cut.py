"""Cut a model after named layers into segments that keep their own parts of it.

Only the ancestors of a cut are opened and traced by torch.fx; every other module stays one call, so its control
flow and custom code are never touched. A cut after layer X is a place in the order of execution: what was computed
up to the end of X's last call is left of it, and what is still needed right of it crosses, as a tuple.
"""

from __future__ import annotations

import copy
import inspect
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import fx, nn

from ray_split.chain import Chain
from ray_split.failure import SettingsError
from ray_split.loading import suggest
from ray_split.message import leaves, tree_map
from ray_split.part import Part, Program, adopt, is_size, program_of
from ray_split.segment import call

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class CutError(SettingsError):
    """This model can't be cut there; the message says what can."""

    def __init__(self, value: Any, allowed: str) -> None:
        super().__init__("model.cuts", value, allowed)

    def __reduce__(self) -> tuple[type[CutError], tuple[Any, str]]:
        return CutError, (self.value, self.allowed)  # it crosses processes, in a sweep


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
        segments = _linked(model, cuts)
        if example is not None:
            _check_hidden(segments.a, example, cuts)
        return segments
    model = copy.deepcopy(model)
    _check_names(model, cuts)
    programs: list[dict[bool, Program]] = [{} for _ in range(len(cuts) + 1)]
    for training in (True, False):
        graph, ends = _trace(model.train(training), cuts)
        places = _places(graph, ends, cuts)
        for place, program in enumerate(programs):
            program[training] = program_of(graph, places, place, last=len(cuts))
        _check_raw_input(programs[0][training], graph, cuts)
    parts = [Part(model, program) for program in programs]
    _adopt_unused(model, parts)
    _check_ties(parts)
    segments = Segments(*(copy.deepcopy(part).train() for part in parts))
    if example is not None:
        _check_same(model, segments, example, cuts)
        _check_hidden(segments.a, example, cuts)
    return segments


def _linked(model: Chain, cuts: Sequence[str]) -> Segments:
    if list(cuts) != model.cuts:
        raise CutError(list(cuts), f"{', '.join(model.cuts)}: the model comes in segments")
    links = model.links()
    _check_ties(links)
    return Segments(*(link.train() for link in links))


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


class _Tracer(fx.Tracer):
    """Opens the modules in `opened`, keeps all others as one call, and notes where each call ended."""

    def __init__(self, opened: set[str]) -> None:
        super().__init__()
        self.opened = opened
        self.ends: dict[str, fx.Node] = {}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name not in self.opened

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        output = super().call_module(m, forward, args, kwargs)
        self.ends[self.path_of_module(m)] = next(iter(reversed(self.graph.nodes)))
        return output

    def create_args_for_root(
        self, root_fn: Any, is_module: bool, concrete_args: dict[str, Any] | tuple[Any, ...] | None = None
    ) -> tuple[Any, list[Any]]:
        """One input; arguments that have defaults keep them."""
        parameters = inspect.signature(self.root.forward).parameters.values()
        places = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        needed = [
            p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        ]
        if not places or len(needed) > 1 or needed not in ([], [places[0].name]):
            raise TypeError(f"forward takes {', '.join(needed) or 'nothing'}, and should take one input")
        return root_fn, [self.root, self.create_proxy("placeholder", places[0].name, (), {})]

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        if not torch.is_grad_enabled() or any(torch.is_autocast_enabled(kind) for kind in ("cpu", "cuda")):
            raise NotImplementedError("a no_grad or autocast block around a cut is lost by tracing")
        return super().create_node(*args, **kwargs)


def _trace(model: nn.Module, cuts: Sequence[str]) -> tuple[fx.Graph, dict[str, fx.Node]]:
    opened = {""} | {prefix for name in cuts for prefix in _ancestors(name)}
    for name in sorted(opened):
        if any(getattr(model.get_submodule(name), hooks) for hooks in HOOKS):
            raise CutError(list(cuts), f"cuts outside of {name or 'the model'}, whose hooks would be lost")
    tracer = _Tracer(opened)
    random_state = torch.get_rng_state()
    try:
        with torch.enable_grad():
            graph = tracer.trace(model)
    except (fx.proxy.TraceError, TypeError, NotImplementedError, RuntimeError, ValueError, AttributeError) as error:
        where = ", ".join(sorted(n for n in opened if n)) or "the model's forward"
        advice = "put these lines into a layer of their own, which stays whole, or give your own Segments(a, b, c)"
        allowed = f"cuts that leave {where} whole, which can't be traced: {_told(error)}; or {advice}"
        raise CutError(list(cuts), allowed) from error
    if not torch.equal(random_state, torch.get_rng_state()):
        torch.set_rng_state(random_state)
        raise CutError(list(cuts), "cuts elsewhere: random numbers drawn around these would be frozen by tracing")
    return graph, tracer.ends


def _told(error: Exception) -> str:
    """An error of tracing, and the line of the model's code that it came from."""
    here = (str(Path(torch.__file__).parent), __file__)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(here)]
    line = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}: {frames[-1].line}: " if frames else ""
    return line + str(error)


def _places(graph: fx.Graph, ends: dict[str, fx.Node], cuts: Sequence[str]) -> dict[fx.Node, int]:
    """The segment that each node belongs to, by its position; sizes go with the tensor that they are the size of."""
    order = {node: i for i, node in enumerate(graph.nodes)}
    for name in cuts:
        if name not in ends:
            called = ", ".join(sorted(ends))
            raise CutError(name, f"a layer that forward calls: {called}{suggest(name, ends)}")
    borders = [order[ends[name]] for name in cuts]
    if borders != sorted(set(borders)):
        right = sorted(cuts, key=lambda name: order[ends[name]])
        raise CutError(list(cuts), f"different places in the order they run: {', '.join(right)}")
    if all(node.op in ("output", "get_attr") for node in order if order[node] > borders[-1]):
        raise CutError(cuts[-1], "a layer that is not the last: nothing would be left after it")
    places: dict[fx.Node, int] = {}
    for node, i in order.items():
        places[node] = sum(i > border for border in borders)
        if is_size(node):
            places[node] = max((places[arg] for arg in node.all_input_nodes), default=0)
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


def _adopt_unused(model: nn.Module, parts: list[Part]) -> None:
    """What forward never uses is still in the model's state dict: it goes to B, and stays as it is."""
    held = {key for part in parts for key in part.state_dict()}
    for key in model.state_dict():
        if key not in held:
            adopt(parts[1], model, key)


def _check_ties(parts: Sequence[nn.Module]) -> None:
    owner: dict[int, tuple[int, str]] = {}
    for place, part in enumerate(parts):
        tensors = [
            *part.named_parameters(remove_duplicate=False),
            *part.named_buffers(remove_duplicate=False),
        ]
        for name, tensor in tensors:
            other, other_name = owner.setdefault(id(tensor), (place, name))
            if other != place:
                both = f"{other_name} and {name}" if other_name != name else name
                segments = f"{'ABC'[other]} and {'ABC'[place]}"
                raise CutError(both, f"on one side of a cut only, not shared by {segments} (tied weights)")


@torch.no_grad()
def _check_same(model: nn.Module, segments: Segments, example: torch.Tensor, cuts: Sequence[str]) -> None:
    value: Any = (example,)
    try:
        for module in segments.modules().values():
            # As at a real border, where what crosses shares no memory.
            value = module.eval()(*tree_map(lambda x: x.clone() if isinstance(x, torch.Tensor) else x, value))
            module.train()
    except (RuntimeError, TypeError, ValueError, AttributeError, KeyError, IndexError) as error:
        raise CutError(list(cuts), f"other layers: cut here, the segments don't run: {error}") from error
    expected, got = leaves(model.eval()(example)), leaves(value)
    if len(expected) != len(got) or not all(_same(x, y) for x, y in zip(expected, got, strict=True)):
        raise CutError(list(cuts), "other layers: cut here, the segments compute something else than the model")


def _same(x: Any, y: Any) -> bool:
    if isinstance(x, torch.Tensor) and isinstance(y, torch.Tensor):
        return x.shape == y.shape and torch.allclose(x, y, rtol=0, atol=0, equal_nan=True)
    return bool(x == y)
