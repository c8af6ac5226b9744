"""How far rounding alone carries a training: measured with float64, so that a check holds on any kind of CPU.

Other kinds of CPU add in another order. Most of that stays below 1e-6; but where a value comes within rounding of a
kink (a ReLU at zero, two of a max-pooling's equals), one CPU takes one side and another the other, and the weights
differ by a hundred times that, or more. A reference in float64 from weights that are changed by a little more than
rounding does goes to both sides, on every CPU alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

Train = Callable[[], Mapping[str, Any]]  # trains a reference as `precise` says, and returns its tensors by name

CHANGES = 6  # how often a reference is trained from changed weights
CHANGE = 2.0**-20  # of a weight: sixteen times the rounding of one
MULTIPLE = 2.0
MULTIPLE_OF_HALVES = 4.0  # their rounding is drawn once, by how the model's own numbers lie, and not by the changes
LARGEST = 1e-4  # more is not taken for rounding: a fault in what is computed differs by 1e-3 or so
WIDER = {
    torch.bfloat16: torch.float64,
    torch.float16: torch.float64,
    torch.float32: torch.float64,
    torch.complex64: torch.complex128,
}


class Precision(NamedTuple):
    """What a reference is computed in: single or double (`wide`) precision, from weights changed by draw `change`."""

    wide: bool = False
    change: int = 0


SINGLE = Precision()
_PRECISION: ContextVar[Precision] = ContextVar("precision", default=SINGLE)


@contextmanager
def computed(*precision: Any) -> Iterator[None]:
    """References that are trained in this block are trained so."""
    token = _PRECISION.set(Precision(*precision))
    try:
        yield
    finally:
        _PRECISION.reset(token)


def computed_in() -> Precision:
    """How references are trained now."""
    return _PRECISION.get()


def in_precision(model: nn.Module) -> nn.Module:
    """A new model as its training begins: in place."""
    wide, change = _PRECISION.get()
    if wide:
        model._apply(widened)
    if change:
        draw = torch.Generator().manual_seed(change)
        with torch.no_grad():
            for parameter in model.parameters():
                drawn = torch.rand(parameter.shape, generator=draw, dtype=torch.float64)
                parameter.mul_(1 + (2 * drawn - 1) * CHANGE)
    return model


def widened(tensor: torch.Tensor) -> torch.Tensor:
    """In double precision, if it is in single or half."""
    return tensor.to(WIDER.get(tensor.dtype, tensor.dtype))


def of_batch(array: Any) -> Any:
    """Inputs or labels of a reference's step; of sequences the values and their mask."""
    if isinstance(array, tuple):
        return tuple(map(of_batch, array))
    tensor = torch.from_numpy(array)
    return widened(tensor) if _PRECISION.get().wide else tensor


@contextmanager
def of_forward() -> Iterator[None]:
    """A reference's forward: tensors that it makes have the precision, too, and those that it casts."""
    if not _PRECISION.get().wide:
        yield
        return
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with _WideCasts():
            yield
    finally:
        torch.set_default_dtype(before)


class _WideCasts(TorchFunctionMode):
    """A cast to less than double precision is one to double precision."""

    CASTS = (torch.Tensor.bfloat16, torch.Tensor.half, torch.Tensor.float)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in self.CASTS:
            return args[0].double()
        wide = {key: self._wide(value) for key, value in (kwargs or {}).items()}
        return func(*map(self._wide, args), **wide)

    def _wide(self, value: Any) -> Any:
        return WIDER.get(value, value) if isinstance(value, torch.dtype) else value


def carried(train: Train) -> dict[str, float]:
    """How far apart each tensor comes: in single precision, and from weights that are changed a little."""
    with computed(True):
        exact = train()
    others = [train()]
    for change in range(1, 1 + CHANGES):
        with computed(True, change):
            others.append(train())
    return {key: max(_apart(other[key], value) for other in others) for key, value in exact.items()}


def assert_close(train: Train, found: Mapping[str, Any], tolerance: float = 1e-6, like: Train | None = None) -> None:
    """What was found is what `train` gives, within a tolerance, or else within what rounding carries `like`.

    The latter is `train` itself unless said otherwise; it is measured only if it is needed.
    """
    expected = train()
    beyond = {key: _beyond(found[key], value, tolerance) for key, value in expected.items()}
    if all(excess <= 0 for excess in beyond.values()):
        return
    limits = carried(like or train)
    halves = any(value.dtype in (torch.bfloat16, torch.float16) for value in map(torch.as_tensor, expected.values()))
    multiple = MULTIPLE_OF_HALVES if halves else MULTIPLE
    for key, excess in sorted(beyond.items(), key=lambda item: -item[1]):
        limit = min(multiple * limits[key], LARGEST)
        assert excess <= limit, f"{key} differs by {excess:.3g}, where rounding carries {limits[key]:.3g}"


def _beyond(found: Any, expected: Any, tolerance: float) -> float:
    """How far it is beyond a tolerance, relative and absolute; infinitely if it is not a number."""
    found, expected = torch.as_tensor(found), torch.as_tensor(expected)
    assert found.shape == expected.shape
    if not expected.is_floating_point() and not expected.is_complex():
        return 0.0 if torch.equal(found, expected) else float("inf")
    if not expected.numel():
        return 0.0
    same = found == expected  # infinities, too
    relative = max(tolerance, torch.finfo(expected.dtype).eps)  # of halves one unit in the last place
    excess = (found - expected).abs() - tolerance - relative * expected.abs()
    return float(excess.masked_fill(same, -tolerance).nan_to_num(float("inf")).max())


def _apart(one: Any, other: Any) -> float:
    one, other = torch.as_tensor(one), torch.as_tensor(other)
    differences = (one.to(other.dtype) - other).abs().double() if other.dtype is not torch.bool else one != other
    return float(differences.max()) if differences.numel() else 0.0
