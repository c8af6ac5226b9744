"""The module that a cut makes: the layers of one segment under their own names, and the calls it makes in order."""

from __future__ import annotations

import functools
import importlib
import itertools
import operator
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import fx, nn

from ray_split.messages.message import leaves

SIZE_METHODS = {"size", "dim", "numel", "ndimension", "nelement", "is_floating_point", "is_complex"}
SIZE_ATTRIBUTES = {"shape", "ndim", "dtype"}
DEVICE = "device"  # the kind of call whose result is where a segment computes
SIZE_ARITHMETIC = {operator.getitem, operator.mul, operator.add, operator.sub, operator.floordiv}


class Value(NamedTuple):
    """Stands in a call's arguments for the result of another."""

    name: str


class Call(NamedTuple):
    """One call: what to call, its arguments as templates, and which values nobody needs after it."""

    name: str
    kind: str
    target: Any
    args: Any
    kwargs: Any
    dead: tuple[str, ...]
    plain: tuple[str, ...] | None  # the arguments' names, where they are values and nothing else

    def __reduce__(self) -> tuple[Any, ...]:
        """Some of torch's functions (max_pool2d) don't pickle, but are found by their name."""
        module, name = getattr(self.target, "__module__", None), getattr(self.target, "__name__", None)
        if module and name and getattr(sys.modules.get(module), name, None) is self.target:
            return _call_of, (module, name, self._replace(target=None)[:])
        return Call, tuple(self)


def _call_of(module: str, name: str, rest: tuple[Any, ...]) -> Call:
    return Call(*rest)._replace(target=getattr(importlib.import_module(module), name))


class Program(NamedTuple):
    """A segment's forward: the values that arrive, the calls, the result, and the names of what crosses."""

    inputs: tuple[str, ...]
    calls: tuple[Call, ...]
    result: Any
    crossing: tuple[str, ...]


def is_size(node: fx.Node) -> bool:
    """Whether a node is a number computed from a tensor's shape. It crosses a cut in the tensor's place."""
    if node.op == "call_method":
        return node.target in SIZE_METHODS
    if node.op != "call_function":
        return False
    if node.target is getattr:
        return node.args[1] in SIZE_ATTRIBUTES
    arguments = node.all_input_nodes
    return node.target in SIZE_ARITHMETIC and bool(arguments) and all(is_size(arg) for arg in arguments)


def is_device(node: fx.Node) -> bool:
    """Whether a node is the device of a tensor. Each segment has its own, and none crosses."""
    return node.op == "call_function" and node.target is getattr and bool(node.args[1] == "device")


def check_test(value: Any, answer: bool, told: str) -> None:
    """Do a test of a forward whose outcome tracing took as given. Raises ValueError if it comes out otherwise."""
    if bool(value) is not answer:
        raise ValueError(f"doesn't hold any more: {told}")


def program_of(graph: fx.Graph, places: dict[fx.Node, int], place: int, last: int) -> Program:
    """The program of the segment at `place`: its own nodes, what reaches it, and what crosses after it.

    Constants (see constants.py) have no place: each segment computes those that it uses.
    """
    output = next(node for node in graph.nodes if node.op == "output")
    moving = [node for node in graph.nodes if node in places and node is not output]
    arriving = [n for n in moving if places[n] < place and _needed_from(n, place, places, output, last)]
    inputs = arriving if place else [n for n in moving if n.op == "placeholder"]
    crossing = [
        n for n in moving if places[n] <= place and _needed_from(n, place + 1, places, output, last) and place < last
    ]
    own = {n for n in moving if places[n] == place and n.op != "placeholder"}
    used = own | _constants_of([*own, *([output] if place == last else [])], places)
    result = tuple(Value(n.name) for n in crossing) if place < last else _template(output.args[0])
    kept = {n.name for n in (crossing if place < last else output.all_input_nodes)}
    calls = _calls([n for n in graph.nodes if n in used], kept)
    return Program(tuple(n.name for n in inputs), calls, result, tuple(n.name for n in crossing))


def _needed_from(node: fx.Node, place: int, places: dict[fx.Node, int], output: fx.Node, last: int) -> bool:
    return any((last if user is output else places.get(user, -1)) >= place for user in node.users)


def _constants_of(nodes: list[fx.Node], places: dict[fx.Node, int]) -> set[fx.Node]:
    """The nodes without a place that these nodes need, and those that they need in turn."""
    found: set[fx.Node] = set()
    while nodes:
        nodes = [arg for node in nodes for arg in arguments_of(node) if arg not in places and arg not in found]
        found.update(nodes)
    return found


def arguments_of(node: fx.Node) -> list[fx.Node]:
    """The nodes whose values a call needs."""
    return [] if is_device(node) else node.all_input_nodes


def _calls(nodes: list[fx.Node], kept: set[str]) -> tuple[Call, ...]:
    last_use: dict[str, fx.Node] = {}
    for node in nodes:
        last_use.update({name: node for name in [node.name, *(arg.name for arg in arguments_of(node))]})
    dead: dict[fx.Node, list[str]] = {}
    for name, node in last_use.items():
        if name not in kept:
            dead.setdefault(node, []).append(name)
    return tuple(_call(node, tuple(dead.get(node, ()))) for node in nodes)


def _call(node: fx.Node, dead: tuple[str, ...]) -> Call:
    if is_device(node):
        return Call(node.name, DEVICE, None, (), {}, dead, None)
    return Call(node.name, node.op, node.target, _template(node.args), _template(node.kwargs), dead, _plain(node))


def _plain(node: fx.Node) -> tuple[str, ...] | None:
    names = tuple(arg.name for arg in node.args if isinstance(arg, fx.Node))
    return names if len(names) == len(node.args) and not node.kwargs else None


def _template(argument: Any) -> Any:
    """fx's arguments as plain tuples, lists, dicts and slices, with a Value for every node."""
    return _map(argument, lambda leaf: Value(leaf.name) if isinstance(leaf, fx.Node) else leaf)


def _fill(template: Any, values: dict[str, Any]) -> Any:
    return _map(template, lambda leaf: values[leaf.name] if isinstance(leaf, Value) else leaf)


def _map(tree: Any, function: Callable[[Any], Any]) -> Any:
    if isinstance(tree, Value):
        return function(tree)
    if isinstance(tree, tuple):
        values = [_map(item, function) for item in tree]
        return type(tree)(*values) if hasattr(tree, "_fields") else tuple(values)
    if isinstance(tree, list):
        return [_map(item, function) for item in tree]
    if isinstance(tree, dict):
        return {key: _map(item, function) for key, item in tree.items()}
    if isinstance(tree, slice):
        return slice(_map(tree.start, function), _map(tree.stop, function), _map(tree.step, function))
    return function(tree)


class SegmentModule(nn.Module):
    """A segment of a cut model: `forward` makes the calls of its program, one for train and one for eval mode.

    Its layers keep their names, so it has nothing else by a name that a layer might have.
    """

    def __init__(self, model: nn.Module, programs: dict[bool, Program], modes: dict[bool, dict[str, bool]]) -> None:
        super().__init__()
        self._ray_split_programs = programs
        self._ray_split_modes = modes  # of train and eval mode: the layers that the model keeps in the other one
        for program in programs.values():
            for call in program.calls:
                if call.kind == "call_module":
                    _hold(self, model, model.get_submodule(call.target))
                elif call.kind == "get_attr":
                    adopt(self, model, call.target)

    def train(self, mode: bool = True) -> SegmentModule:
        """Put every layer in the mode that the model's own train() or eval() puts it in."""
        super().train(mode)
        if kept := self._ray_split_modes[mode]:
            for name, module in self.named_modules(remove_duplicate=False):
                if name in kept:
                    module.training = kept[name]
        return self

    def forward(self, *inputs: Any) -> Any:
        """What crosses the next cut, as a tuple; or, of the last segment, the model's output."""
        program = self._ray_split_programs[self.training]
        values: dict[str, Any] = dict(zip(program.inputs, inputs, strict=True))
        for call in program.calls:
            values[call.name] = _run(self, call, values)
            for name in call.dead:
                del values[name]
        return _fill(program.result, values)


def _run(part: SegmentModule, call: Call, values: dict[str, Any]) -> Any:
    if call.plain is not None:  # nearly all calls, and several times faster
        args, kwargs = [values[name] for name in call.plain], {}
    else:
        args, kwargs = _fill(call.args, values), _fill(call.kwargs, values)
    if call.kind == "call_module":
        return functools.reduce(getattr, call.target.split("."), part)(*args, **kwargs)
    if call.kind == "call_function":
        return call.target(*args, **kwargs)
    if call.kind == "call_method":
        return getattr(args[0], call.target)(*args[1:], **kwargs)
    if call.kind == DEVICE:
        return _device(part, values)
    return functools.reduce(getattr, call.target.split("."), part)


def _device(part: SegmentModule, values: dict[str, Any]) -> torch.device:
    """Where a segment computes."""
    tensors = itertools.chain(part.parameters(), part.buffers(), leaves(list(values.values())))
    return next((x.device for x in tensors if isinstance(x, torch.Tensor)), torch.device("cpu"))


def _hold(part: SegmentModule, model: nn.Module, layer: nn.Module) -> None:
    """Take a layer in, under every name that the model has for it."""
    for name, module in model.named_modules(remove_duplicate=False):
        if module is layer:
            parent, _, attribute = name.rpartition(".")
            _container(part, parent).add_module(attribute, layer)


def adopt(part: SegmentModule, model: nn.Module, name: str) -> None:
    """Take in a single parameter or buffer that a model has."""
    parent, _, attribute = name.rpartition(".")
    owner, container = model.get_submodule(parent), _container(part, parent)
    tensor = getattr(owner, attribute)
    if attribute in owner._buffers:
        persistent = attribute not in owner._non_persistent_buffers_set
        container.register_buffer(attribute, tensor, persistent=persistent)
    elif isinstance(tensor, nn.Parameter):
        container.register_parameter(attribute, tensor)
    else:
        setattr(container, attribute, tensor)


def _container(part: SegmentModule, path: str) -> nn.Module:
    module: nn.Module = part
    for name in path.split(".") if path else []:
        if name not in module._modules:
            module.add_module(name, nn.Module())
        module = module._modules[name]  # type: ignore[assignment]
    return module
