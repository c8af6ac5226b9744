"""Traces a model's forward by torch.fx: opens some of its modules, and keeps all others as one call."""

from __future__ import annotations

import builtins
import copy
import inspect
import operator
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn

from ray_split.cutting import conditions
from ray_split.cutting.constants import writes
from ray_split.cutting.recorder import Recorder
from ray_split.cutting.references import HOOKS
from ray_split.cutting.segment_module import check_test, is_device, is_size
from ray_split.messages.message import leaves, tree_map

STATE_HOOKS = (
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)
UNTRACEABLE = (
    fx.proxy.TraceError, TypeError, NotImplementedError, RuntimeError, ValueError, AttributeError, KeyError, IndexError,
    NameError, AssertionError,
)  # fmt: skip
DESCRIBING = {
    "shape", "ndim", "dtype", "layout", "is_sparse", "requires_grad", "is_leaf", "is_meta", "names", "nbytes",
    "itemsize",
    "size", "dim", "ndimension", "numel", "nelement", "stride", "element_size", "is_floating_point", "is_complex",
    "is_contiguous",
}  # fmt: skip
MADE = "_made_in_forward"  # the names of layers that a forward makes where it calls them


class Like:
    """A dict without its values; torch.fx would take the dict itself apart."""

    def __init__(self, empty: dict[Any, Any]) -> None:
        self.empty = empty


def made_like(like: Like, values: list[Any]) -> dict[Any, Any]:
    """One of the same class and keys, with these values."""
    made = copy.copy(like.empty)
    for key, value in zip(like.empty, values, strict=True):
        made[key] = value
    return made


class Traced(fx.Proxy):
    """Stands for a value of a forward."""

    def __setitem__(self, key: Any, value: Any) -> None:
        self.tracer.create_proxy("call_function", operator.setitem, (self, key, value), {})


class Held(Traced):
    """Stands for a parameter or a buffer: what describes it is known, and what is computed from it is recorded."""

    def __init__(self, node: fx.Node, tracer: fx.Tracer, tensor: torch.Tensor) -> None:
        super().__init__(node, tracer)
        self.tensor = tensor

    def __getattr__(self, k: str) -> Any:
        return getattr(self.tensor, k) if k in DESCRIBING else super().__getattr__(k)

    def __len__(self) -> int:
        return len(self.tensor)

    def __iadd__(self, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", operator.iadd, (self, other), {})

    def __isub__(self, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", operator.isub, (self, other), {})

    def __imul__(self, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", operator.imul, (self, other), {})

    def __itruediv__(self, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", operator.itruediv, (self, other), {})

    def __iter__(self) -> Iterator[fx.Proxy]:
        return iter([self[i] for i in range(len(self.tensor))])  # type: ignore[index]


class Tracer(fx.Tracer):
    """Opens the modules in `opened`, keeps all others as one call, and notes where each call ended."""

    def __init__(self, opened: set[str], first: int = 0, mask: str | None = None) -> None:
        """`mask`: the argument of forward that is its second input, if it has two."""
        super().__init__()
        self._mask = mask
        self.opened = opened
        self.made: dict[str, nn.Module] = {}  # the layers that are none of the model's, numbered from `first`
        self._first = first
        self.ends: dict[str, fx.Node] = {}
        self.modes: dict[str, bool] = {}  # of each module in a layer that is called: whether it is in train mode then

    def trace(self, root: Any, concrete_args: dict[str, Any] | None = None) -> fx.Graph:
        """The graph of a module's forward. What it does with its own parameters and buffers is in it."""
        self.own = {id(t): f"{path}.{n}".strip(".") for path, m in root.named_modules() for n, t in _tensors(m)}
        with _answering_isinstance(root), _recording_buffers(self), _making_tensors(self), Recorder(self, self.own):
            return super().trace(root, concrete_args)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return Traced(node, self)

    def create_arg(self, a: Any) -> Any:
        """As torch.fx, which makes a plain dict of any; one of another class (ModelOutput) is made again as it is."""
        if not isinstance(a, dict) or type(a) is dict or not any(isinstance(x, fx.Proxy) for x in leaves(a)):
            return super().create_arg(a)
        values = [self.create_arg(value) for value in a.values()]
        return self.create_node("call_function", made_like, (Like(tree_map(lambda _: None, a)), values), {})

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, fx.Proxy]) -> Any:
        """What stands for a parameter or a buffer of the model, made at its first use."""
        name = self.own.get(id(attr_val))
        if name is None:
            return attr_val
        if name not in parameter_proxy_cache:
            node = self.create_node("get_attr", name, (), {})
            parameter_proxy_cache[name] = Held(node, self, attr_val)
        return parameter_proxy_cache[name]

    def assign(self, buffer: str, held: Any, value: fx.Proxy) -> None:
        """A buffer that is assigned is written to: a segment's buffers stay the ones that its state is of."""
        if value.node.target not in INPLACE or value.node.args[0] is not held.node:
            detached = self.create_proxy("call_method", "detach", (value,), {})
            self.create_proxy("call_method", "copy_", (held, detached), {})

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name not in self.opened

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        if self.submodule_paths is not None and m not in self.submodule_paths:
            self._take_in(m)
        name = self.path_of_module(m)
        if name not in self.opened:
            self._note_modes(name, m)
        output = super().call_module(m, forward, args, kwargs)
        if not name.startswith(MADE):
            self.ends[name] = next(iter(reversed(self.graph.nodes)))
        return output

    def _take_in(self, m: nn.Module) -> None:
        """A layer that was made where it is called becomes one of the model's, under a name of its own."""
        kind = type(m).__name__
        if any(True for _ in m.parameters()) or any(True for _ in m.buffers()):
            raise NotImplementedError(f"{kind} has weights and is not one of the model's layers: make it in __init__")
        name = f"{MADE}_{self._first + len(self.made)}"
        self.made[name] = m
        for path, module in m.named_modules(prefix=name):
            self.submodule_paths[module] = path  # type: ignore[index]

    def _note_modes(self, name: str, m: nn.Module) -> None:
        for path, module in m.named_modules(prefix=name):
            if self.modes.setdefault(path, module.training) != module.training:
                raise NotImplementedError(f"{path} is called in train mode and in eval mode")

    def to_bool(self, obj: fx.Proxy) -> bool:
        """Where the code says how a test must come out, that, and the test is done at each forward."""
        frame = sys._getframe(2)
        answer = conditions.wanted(frame)
        if answer is None:
            answer = _usual(obj.node)
        if answer is None:
            return super().to_bool(obj)
        told = "".join(traceback.format_stack(frame, limit=1)).strip().splitlines()[-1].strip()
        self.create_proxy("call_function", check_test, (obj, answer, told), {})
        return answer

    def create_args_for_root(
        self, root_fn: Any, is_module: bool, concrete_args: dict[str, Any] | tuple[Any, ...] | None = None
    ) -> tuple[Any, list[Any]]:
        """One input, and perhaps its mask; arguments that have defaults keep them."""
        parameters = inspect.signature(self.root.forward).parameters.values()
        places = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        needed = [
            p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        ]
        needed = [name for name in needed if name != self._mask]
        if not places or len(needed) > 1 or needed not in ([], [places[0].name]):
            several = [f"*{p.name}" for p in parameters if p.kind is p.VAR_POSITIONAL]
            raise TypeError(f"forward takes {', '.join(needed + several) or 'nothing'}, and should take one input")
        inputs = [self.create_proxy("placeholder", places[0].name, (), {})]
        if self._mask is None:
            return root_fn, [self.root, *inputs]
        mask, name = self.create_proxy("placeholder", self._mask, (), {}), self._mask
        return (lambda root, values, own: root_fn(root, values, **{name: own})), [self.root, *inputs, mask]

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        if not torch.is_grad_enabled() or any(torch.is_autocast_enabled(kind) for kind in ("cpu", "cuda")):
            raise NotImplementedError("a no_grad or autocast block around a cut is lost by tracing")
        node = super().create_node(*args, **kwargs)
        if any(str(arg.target).startswith("_tensor_constant") for arg in node.all_input_nodes[:1]) and writes(node):
            raise NotImplementedError("a tensor is made here and then written to: it would be made once, while tracing")
        return node


def _usual(node: fx.Node) -> bool | None:
    """How a test whether the input is of a type comes out: images are numbers with a fraction. Done at each forward."""
    if node.target not in (operator.eq, operator.ne):
        return None
    tested = [each for each in node.args if isinstance(each, fx.Node)]
    types = [each for each in node.args if isinstance(each, torch.dtype)]
    if len(tested) != 1 or len(types) != 1 or tested[0].target is not getattr or tested[0].args[1] != "dtype":
        return None
    of, is_it = tested[0].args[0], types[0].is_floating_point
    if not isinstance(of, fx.Node) or of.op != "placeholder":
        return None
    return is_it if node.target is operator.eq else not is_it


def _tensors(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """A module's own parameters, buffers and plain tensors."""
    for group in (module._parameters, module._buffers, vars(module)):
        yield from ((name, value) for name, value in group.items() if isinstance(value, torch.Tensor))


def lost_by_opening(model: nn.Module, name: str) -> str:
    """What a module has that is not in its forward's trace, or nothing."""
    module = model.get_submodule(name)
    if any(getattr(module, hooks) for hooks in HOOKS):
        return "hooks would be lost"
    if any(getattr(module, hooks) for hooks in STATE_HOOKS):
        return "hooks on its state dict would be lost"
    if type(module).__call__ is not nn.Module.__call__:
        return "own __call__ would not be called"
    return "forward is set on the object, and should be of its class" if "forward" in vars(module) else ""


@contextmanager
def _making_tensors(tracer: Tracer) -> Iterator[None]:
    """torch's functions that take sizes one by one don't know what stands for one."""
    theirs = {name: getattr(torch, name) for name in MAKING}

    def recording(make: Any) -> Any:
        def record(*args: Any, **kwargs: Any) -> Any:
            given = any(isinstance(x, fx.Proxy) for x in leaves((args, kwargs)))
            return tracer.create_proxy("call_function", make, args, kwargs) if given else make(*args, **kwargs)

        return record

    for name, make in theirs.items():
        setattr(torch, name, recording(make))
    torch.is_tensor = lambda value: _isinstance(value, torch.Tensor)  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.is_tensor = is_tensor
        for name, make in theirs.items():
            setattr(torch, name, make)


MAKING = ("zeros", "ones", "empty", "rand", "randn")
is_tensor = torch.is_tensor
INPLACE = {operator.iadd, operator.isub, operator.imul, operator.itruediv}


@contextmanager
def _recording_buffers(tracer: Tracer) -> Iterator[None]:
    set_attribute = nn.Module.__setattr__

    def assign(module: nn.Module, name: str, value: Any) -> None:
        if isinstance(value, fx.Proxy) and name in module._buffers and id(module._buffers[name]) in tracer.own:
            tracer.assign(name, getattr(module, name), value)
        else:
            set_attribute(module, name, value)

    nn.Module.__setattr__ = assign  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        nn.Module.__setattr__ = set_attribute  # type: ignore[method-assign]


@contextmanager
def _answering_isinstance(root: nn.Module) -> Iterator[None]:
    """What is traced stands for a tensor, and says so where the modules' code asks."""
    places = {id(d): d for d in (_globals(type(m)) for m in root.modules()) if d is not None}
    theirs = [d for d in places.values() if "isinstance" not in d]
    for namespace in theirs:
        namespace["isinstance"] = _isinstance
    try:
        yield
    finally:
        for namespace in theirs:
            del namespace["isinstance"]


def _globals(kind: type) -> dict[str, Any] | None:
    forward = inspect.unwrap(getattr(kind, "forward", None))  # type: ignore[arg-type]  # a scripted layer's has none
    namespace: dict[str, Any] | None = getattr(forward, "__globals__", None)
    return (
        None if namespace is None or str(namespace.get("__name__")).startswith(("torch.", "ray_split.")) else namespace
    )


def _isinstance(value: Any, classes: Any) -> bool:
    if not builtins.isinstance(value, fx.Proxy):
        return builtins.isinstance(value, classes)
    if builtins.isinstance(value, Held):
        return builtins.isinstance(value.tensor, classes)
    return issubclass(_kind(value.node), classes) or builtins.isinstance(value, classes)


def _kind(node: fx.Node) -> type:
    """What a node gives; of a layer's or a function's result a tensor is the best guess, and is tried afterwards."""
    if is_device(node):
        return torch.device
    if not is_size(node):
        return torch.Tensor
    whole = node.target == "size" and len(node.args) == 1 and not node.kwargs
    return torch.Size if whole or (node.target is getattr and node.args[1] == "shape") else int


def line_of(error: BaseException) -> str:
    """An error of tracing, and the line of the model's code that it came from."""
    here = (str(Path(torch.__file__).parent), str(Path(__file__).parent.parent))
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(here)]
    line = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}: {frames[-1].line}: " if frames else ""
    return line + (str(error) or type(error).__name__)
