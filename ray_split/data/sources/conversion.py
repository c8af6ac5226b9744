"""What a person's data function gives, as arrays that torch takes: converted, or refused in a line that says why.

Libraries that a value may be of are looked for among what is imported already: none is imported for it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from numbers import Number
from typing import Any, NamedTuple

import numpy as np

from ray_split.arrays import Array
from ray_split.config.user_code.by_value import spoken
from ray_split.data.sequences import Sequences, axis_of
from ray_split.data.types import LazyInputs
from ray_split.errors import SettingsError, told

TEXT = "UST"  # numpy's kinds of text
HINTS = {
    "M": "return numbers instead of dates, such as the days since the first",
    "m": "return numbers instead of durations, such as x / np.timedelta64(1, 's')",
    "V": "make columns of the fields: np.column_stack([x[name] for name in x.dtype.names])",
}
WIDER = {2: np.int32, 4: np.int64, 8: np.int64}
"""What torch computes with in place of numpy's unsigned numbers, by their bytes."""


AS_STEPS = {"uint8": "int64", "bool": "int64", "float16": "float32"}


class Place(NamedTuple):
    """What of a data set is looked at, for people."""

    name: str  # data.name
    what: str  # such as "inputs"
    text: bool = False  # whether it may be text: labels and ids

    def refused(self, expected: str, found: str, hint: str) -> SettingsError:
        """The one line."""
        wrong = f"the {self.what} of {spoken(self.name)} must be {expected}, but are {found}"
        return SettingsError("data.name", self.name, hint[:1].upper() + hint[1:], wrong)


def as_array(place: Place, value: Any) -> Array:
    """Numbers or text as an array (N, ...) in this machine's byte order; doubles as float32. Raises SettingsError."""
    value = _opened(place, value)
    array = _listed(place, value) if isinstance(value, (list, tuple)) else _made(place, value)
    if not array.ndim:
        raise place.refused("an array (N, ...)", shown(value), "return an array with a row for each sample")
    return _plain(place, _of_objects(place, array) if array.dtype == object else array)


def as_sequences(place: Place, value: Any) -> Sequences:
    """Samples of different lengths, of numbers that torch computes with. Raises SettingsError."""
    found = value if isinstance(value, Sequences) else _sequences(place, [as_array(place, each) for each in value])
    if found.steps.dtype.kind in TEXT:
        raise place.refused("numbers", f"sequences of {found.steps.dtype}", "of words or letters return their numbers")
    steps = as_array(place, found.steps)
    # Of images bytes have a scale, and halves are made singles batch by batch; there are no such steps.
    return replace(found, steps=steps.astype(AS_STEPS.get(steps.dtype.name, steps.dtype)))


def _sequences(place: Place, samples: Sequence[Array]) -> Sequences:
    try:
        return Sequences.of(samples, axis_of(samples))
    except ValueError as error:
        raise place.refused("sequences of one kind", str(error), "change such samples, or leave them out") from error


def shown(value: Any) -> str:
    """What a value is, in a few words."""
    kind = type(value).__name__
    if value is None:
        return "None"
    if isinstance(value, dict):
        return f"a dict of {', '.join(map(repr, list(value)[:5]))}"
    if isinstance(value, (list, tuple)):
        return f"a {kind} of {len(value)}"
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is None or shape == ():
        return f"{kind} {value!r:.40}" if isinstance(value, (str, Number, np.generic)) else f"a {kind}"
    return f"{kind} {tuple(shape)}" + (f" of {dtype}" if dtype is not None else "")


def is_of(value: Any, module: str, *names: str) -> bool:
    """Whether a value is of one of the classes of a module, if that is imported."""
    there = sys.modules.get(module)
    kinds = tuple(getattr(there, name) for name in names if hasattr(there, name))
    return bool(kinds) and isinstance(value, kinds)


def _opened(place: Place, value: Any) -> Any:
    """What other libraries' values hold."""
    if isinstance(value, (LazyInputs, dict)) or value is None:
        hint = "several inputs can be columns of one, which the model takes apart" if isinstance(value, dict) else ""
        raise place.refused("an array (N, ...)", shown(value), hint or "return an array with a row for each sample")
    if is_of(value, "torch", "Tensor"):
        return _tensor(place, value)
    if np.ma.isMaskedArray(value):
        return _unmasked(place, value)
    if is_of(value, "pandas", "DataFrame"):
        return _framed(place, value)
    if is_of(value, "scipy.sparse", "spmatrix", "sparray"):
        raise place.refused("an array", f"sparse, {shown(value)}", "return x.toarray()")
    return value


def _tensor(place: Place, tensor: Any) -> Array:
    torch = sys.modules["torch"]
    if tensor.layout is not torch.strided:
        raise place.refused("an array", f"a sparse tensor {tuple(tensor.shape)}", "return x.to_dense()")
    try:
        plain = tensor.detach().cpu()
        plain = plain.float() if plain.dtype is torch.bfloat16 else plain
        found: Array = plain.resolve_conj().resolve_neg().numpy()
    except (TypeError, RuntimeError) as error:  # on meta, quantized, nested, of eight bits
        kind = f"a tensor of {tensor.dtype} on {tensor.device}"
        raise place.refused("an array", f"{kind}: {told(error)}", "return x.float() of a tensor in memory") from error
    return found


def _unmasked(place: Place, masked: Any) -> Array:
    hidden = np.ma.getmaskarray(masked)
    if hidden.any():
        row = int(np.argwhere(hidden)[0][0])
        raise place.refused(
            "all there", f"masked in row {row}", "fill the gaps (x.filled(...)), or leave such rows out"
        )
    found: Array = np.asarray(masked.data)
    return found


def _framed(place: Place, frame: Any) -> Array:
    """A table's columns side by side; its only one, if these are labels, as it is."""
    columns = [
        as_array(place._replace(what=f"{place.what}, column {name!r},"), frame.iloc[:, i])
        for i, name in enumerate(frame.columns)
    ]
    if len(columns) == 1 and place.text:
        return columns[0]
    for name, column in zip(frame.columns, columns, strict=True):
        if column.dtype.kind in TEXT:
            found = f"text ({str(column[0])!r}) in column {name!r}"
            raise place.refused("numbers", found, "encode it (pandas.get_dummies), or leave the column out")
    return np.column_stack(columns) if columns else np.zeros((len(frame), 0), np.float32)


def _made(place: Place, value: Any) -> Array:
    try:
        return np.asarray(value)
    except Exception as error:  # what turns itself into an array may raise anything
        raise place.refused("an array (N, ...)", shown(value), told(error)) from error


def _listed(place: Place, items: Sequence[Any]) -> Array:
    """A list as an array: of arrays those on top of each other, of values as numpy has it, unless kinds are mixed."""
    if items and _is_array(items[0]):
        return stacked(place, items)
    texts = sum(isinstance(item, (str, bytes)) for item in items)
    if 0 < texts < len(items):
        return _objects(items)
    try:
        return np.asarray(items)
    except (ValueError, TypeError, OverflowError) as error:
        first = next((item for item in items if hasattr(item, "__len__")), None)
        other = next((i for i in items if hasattr(i, "__len__") and first is not None and len(i) != len(first)), None)
        sizes = f"rows of {len(first)} and of {len(other)}" if first is not None and other is not None else told(error)
        hint = "all rows must be of one shape, or else be sequences (rs.Sequences.of)"
        raise place.refused("an array (N, ...)", sizes, hint) from error


def _is_array(item: Any) -> bool:
    there = hasattr(item, "__array__") or hasattr(item, "__array_interface__")
    return there and not isinstance(item, np.generic)


def _objects(items: Sequence[Any]) -> Array:
    array = np.empty(len(items), object)
    array[:] = items
    return array


def stacked(place: Place, items: Sequence[Any]) -> Array:
    """Arrays (or what can be one) of one shape as one (N, ...). Raises SettingsError, which names the two shapes."""
    rows = [_made(place, _opened(place, item)) for item in items]
    for i, row in enumerate(rows):
        if row.shape != rows[0].shape:
            found = f"{rows[0].shape} in row 0 and {row.shape} in row {i}"
            raise place.refused("of one shape", found, "resize them, or crop or pad, to one")
    return np.stack(rows)


def _of_objects(place: Place, array: Array) -> Array:
    """An array of Python's objects as one of numbers, or of text."""
    items = array.ravel().tolist()
    if not items:
        return array.astype(np.float32)
    if all(_has_rows(item) for item in items):
        rows = [_listed(place, item) if isinstance(item, (list, tuple)) else _made(place, item) for item in items]
        rows = [_of_objects(place, row) if row.dtype == object else row for row in rows]
        return stacked(place, rows).reshape(*array.shape, *rows[0].shape)
    kind = (str, bytes) if all(isinstance(x, (str, bytes)) or _is_gap(x) for x in items) else Number
    for i, item in enumerate(items):
        if not isinstance(item, kind) or (_is_gap(item) and kind is not Number):
            raise _odd(place, array.shape, i, item)
    try:
        found = np.array(items)
        return (found.astype(np.float64) if found.dtype == object else found).reshape(array.shape)
    except (TypeError, ValueError, OverflowError) as error:
        raise place.refused("numbers", "an array of objects", told(error)) from error


def _has_rows(item: Any) -> bool:
    return hasattr(item, "__len__") and hasattr(item, "__getitem__") and not isinstance(item, (str, bytes, dict))


def _is_gap(item: Any) -> bool:
    """None, pandas' NA, or what is no number."""
    return item is None or type(item).__name__ in ("NAType", "NaTType") or (isinstance(item, float) and item != item)


def _odd(place: Place, shape: tuple[int, ...], at: int, item: Any) -> SettingsError:
    row, *rest = (int(i) for i in np.unravel_index(at, shape))
    column = f", column {rest[0]}" if len(rest) == 1 else (f", at {tuple(rest)}" if rest else "")
    found = f"mixed, with {item!r:.40} ({type(item).__name__}) in row {row}{column}"
    gap = "fill the gaps, or leave such rows out"
    expected = "all numbers, or all text" if place.text else "numbers"
    return place.refused(expected, found, gap if _is_gap(item) else "encode it, or leave it out")


def _plain(place: Place, array: Array) -> Array:
    """Numbers that torch computes with."""
    if array.dtype.kind in HINTS:
        raise place.refused("numbers", shown(array), HINTS[array.dtype.kind])
    array = array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
    if array.dtype.kind == "f" and array.dtype.itemsize > 4:
        with np.errstate(over="ignore"):  # what is infinite as float32 is told of with the rest
            return array.astype(np.float32)
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        if array.dtype.itemsize == 8 and array.size and array.max() > np.iinfo(np.int64).max:
            raise place.refused("below 2**63", f"up to {array.max()}", "return floats, or number what is there")
        return array.astype(WIDER[array.dtype.itemsize])
    return array
