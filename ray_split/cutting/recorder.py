"""While a model is traced: what its forward does with its own parameters and buffers is recorded, not computed.

torch.fx records what happens to the input. `self.scale.exp()` or `self.seen.add_(1)`, before anything of the input is
in it, would be computed once, while tracing, and stay the same for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx
from torch.overrides import TorchFunctionMode, is_tensor_method_or_property

from ray_split.messages.message import leaves

TENSORS = {"data", "T", "H", "mT", "mH", "real", "imag", "grad", "device"}  # attributes that aren't the same for ever
DESCRIBE = {
    "size", "dim", "ndimension", "numel", "nelement", "stride", "element_size", "itemsize", "storage_offset", "__len__",
    "is_floating_point", "is_complex", "is_signed", "is_contiguous", "is_tensor", "is_inference", "is_same_size",
    "__hash__", "__repr__", "__format__", "__str__", "result_type", "can_cast", "is_conj", "is_neg", "is_nonzero_size",
}  # fmt: skip
READ = {
    "item", "tolist", "numpy", "__bool__", "__int__", "__float__", "__index__", "__complex__", "__contains__",
    "__array__", "is_nonzero", "data_ptr", "__reduce_ex__", "__deepcopy__", "equal", "allclose", "storage",
    "untyped_storage", "register_hook", "register_post_accumulate_grad_hook", "requires_grad_", "backward",
    "__dlpack__",
}  # fmt: skip


class Recorder(TorchFunctionMode):
    """Makes a node of every call of torch on a tensor that is the model's own."""

    def __init__(self, tracer: fx.Tracer, own: dict[int, str]) -> None:
        super().__init__()
        self._tracer = tracer
        self._own = own

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        given = leaves((args, kwargs))
        own = [self._own[id(x)] for x in given if isinstance(x, torch.Tensor) and id(x) in self._own]
        if not own or any(isinstance(x, fx.Proxy) for x in given):
            return func(*args, **kwargs)
        name = func.__name__
        if name in ("__get__", "__set__"):
            return self._attribute(func, name, own[0], args)
        if name in DESCRIBE:
            return func(*args, **kwargs)
        if name in READ:
            raise NotImplementedError(f"{name} of {own[0]} while tracing: what it gives would stay the same for ever")
        if name == "__iter__":
            return iter([self._record(torch.Tensor.__getitem__, (args[0], i), {}) for i in range(len(args[0]))])
        return self._record(func, args, kwargs)

    def _attribute(self, func: Any, kind: str, own: str, args: tuple[Any, ...]) -> Any:
        attribute = func.__self__.__name__
        if kind == "__set__":
            raise NotImplementedError(f"{attribute} of {own} is set, which tracing would lose")
        if attribute not in TENSORS:
            return func(*args)
        return self._tracer.create_proxy("call_function", getattr, (args[0], attribute), {})

    def _record(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> fx.Proxy:
        if is_tensor_method_or_property(func):
            return self._tracer.create_proxy("call_method", func.__name__, args, kwargs)
        return self._tracer.create_proxy("call_function", func, args, kwargs)
