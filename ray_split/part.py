"""The module that a cut makes: the layers of one segment under their own names, and the calls it makes in order."""

from __future__ import annotations

import functools
import importlib
import operator
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import fx, nn

SIZE_METHODS = {"size", "dim", "numel"}
SIZE_ATTRIBUTES = {"shape", "ndim"}
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


def program_of(graph: fx.Graph, places: dict[fx.Node, int], place: int, last: int) -> Program:
    """The program of the segment at `place`: its own nodes, what reaches it, and what crosses after it."""
    output = next(node for node in graph.nodes if node.op == "output")
    attributes = {node for node in graph.nodes if node.op == "get_attr"}
    moving = [node for node in graph.nodes if node not in attributes and node is not output]
    arriving = [n for n in moving if places[n] < place and _needed_from(n, place, places, output, last)]
    inputs = arriving if place else [n for n in moving if n.op == "placeholder"]
    crossing = [
        n for n in moving if places[n] <= place and _needed_from(n, place + 1, places, output, last) and place < last
    ]
    own = [n for n in moving if places[n] == place and n.op != "placeholder"]
    used = {arg for n in [*own, *([output] if place == last else [])] for arg in n.all_input_nodes}
    calls = [n for n in graph.nodes if n in own or (n in attributes and n in used)]
    result = tuple(Value(n.name) for n in crossing) if place < last else _template(output.args[0])
    kept = {n.name for n in (crossing if place < last else output.all_input_nodes)}
    return Program(tuple(n.name for n in inputs), _calls(calls, kept), result, tuple(n.name for n in crossing))


def _needed_from(node: fx.Node, place: int, places: dict[fx.Node, int], output: fx.Node, last: int) -> bool:
    return any((last if user is output else places[user]) >= place for user in node.users)


def _calls(nodes: list[fx.Node], kept: set[str]) -> tuple[Call, ...]:
    last_use: dict[str, fx.Node] = {}
    for node in nodes:
        last_use.update({name: node for name in [node.name, *(arg.name for arg in node.all_input_nodes)]})
    dead: dict[fx.Node, list[str]] = {}
    for name, node in last_use.items():
        if name not in kept:
            dead.setdefault(node, []).append(name)
    return tuple(
        Call(n.name, n.op, n.target, _template(n.args), _template(n.kwargs), tuple(dead.get(n, ())), _plain(n))
        for n in nodes
    )


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
        return tuple([_map(item, function) for item in tree])
    if isinstance(tree, list):
        return [_map(item, function) for item in tree]
    if isinstance(tree, dict):
        return {key: _map(item, function) for key, item in tree.items()}
    if isinstance(tree, slice):
        return slice(_map(tree.start, function), _map(tree.stop, function), _map(tree.step, function))
    return function(tree)


class Part(nn.Module):
    """A segment of a cut model: `forward` makes the calls of its program, one for train and one for eval mode.

    Its layers keep their names, so it has nothing else by a name that a layer might have.
    """

    def __init__(self, model: nn.Module, programs: dict[bool, Program]) -> None:
        super().__init__()
        self._ray_split_programs = programs
        for program in programs.values():
            for call in program.calls:
                if call.kind == "call_module":
                    _hold(self, model, model.get_submodule(call.target))
                elif call.kind == "get_attr":
                    adopt(self, model, call.target)

    def forward(self, *inputs: Any) -> Any:
        """What crosses the next cut, as a tuple; or, of the last segment, the model's output."""
        program = self._ray_split_programs[self.training]
        values: dict[str, Any] = dict(zip(program.inputs, inputs, strict=True))
        for call in program.calls:
            values[call.name] = _run(self, call, values)
            for name in call.dead:
                del values[name]
        return _fill(program.result, values)


def _run(part: Part, call: Call, values: dict[str, Any]) -> Any:
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
    return functools.reduce(getattr, call.target.split("."), part)


def _hold(part: Part, model: nn.Module, layer: nn.Module) -> None:
    """Take a layer in, under every name that the model has for it."""
    for name, module in model.named_modules(remove_duplicate=False):
        if module is layer:
            parent, _, attribute = name.rpartition(".")
            _container(part, parent).add_module(attribute, layer)


def adopt(part: Part, model: nn.Module, name: str) -> None:
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


def _container(part: Part, path: str) -> nn.Module:
    module: nn.Module = part
    for name in path.split(".") if path else []:
        if name not in module._modules:
            module.add_module(name, nn.Module())
        module = module._modules[name]  # type: ignore[assignment]
    return module
