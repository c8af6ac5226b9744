"""Checks the weights that phones sent before the fed server takes them. numpy alone, no torch.

What is not like the state at the round's start raises BadPhoneError, which names the phones that it came from.
Shapes: K phones of a cohort.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ray_split.arrays import Array
from ray_split.errors import BadPhoneError, DivergedError
from ray_split.messages import bits
from ray_split.messages.state import Closed, Ends, Rows, State, Terms, is_statistic

Phones = tuple[int, ...]
FINITE = 1e18


class Expected(NamedTuple):
    """What weights may be like, beside the state at the round's start."""

    learned: Mapping[str, frozenset[str]]  # by segment: the keys of what is averaged
    slots: frozenset[str]  # of the optimizer, for each weight
    max_norm: float  # of a segment's weights
    bounded: frozenset[str] = frozenset()  # the keys of those
    rows: bool = False  # whether each phone's weights are sent, and not their sum
    numbers: Mapping[str, np.dtype[Any]] = {"step": np.dtype(np.float32)}  # slots that are one for a whole weight
    models: bool = False  # whether what phones remember are models: buffers too


def check_closed(phones: Phones, closed: Any, start: Mapping[str, State], expected: Expected) -> None:
    """Raises BadPhoneError unless it is what these phones may leave at a round's end that began with `start`."""
    if type(closed) is not Closed or closed.phones != phones:
        raise BadPhoneError(phones, f"what it leaves at the round's end is not its own: {shown(closed)}")
    if not (_are_bytes(closed.bytes_per_phone, len(phones)) and _are_states(closed.sums) and _are_states(closed.own)):
        raise BadPhoneError(phones, "what it leaves at the round's end are no states of segments")
    what = "its weights at the round's end"
    if problem := _averaged_problem(closed, start, expected) or _own_problem(closed, start, expected):
        raise BadPhoneError(phones, f"{what}: {problem}")
    _check_norms(phones, closed.sums, expected, what)
    _check_norms(phones, closed.rows.states if closed.rows else {}, expected, what, of_each=True)
    _check_norms(phones, closed.own, expected, what, of_each=True)
    _check_remembered(phones, closed.remembered, start, expected)


def _check_remembered(phones: Phones, remembered: Any, start: Mapping[str, State], expected: Expected) -> None:
    """Of what an algorithm remembers: by the keys of all weights that are trained, of their shapes, and finite."""
    what = "what it remembers of the round"
    if type(remembered) not in (dict, type(None)):
        raise BadPhoneError(phones, f"{what} is {shown(remembered)}")
    for name, terms in (remembered or {}).items():
        if problem := _terms_problem(name, terms, start, expected, (len(phones),)):
            raise BadPhoneError(phones, f"{what}: {problem}")
        told = [
            a for key, a in terms.own.items() if not expected.models or key in expected.bounded
        ]  # masks may be -inf
        finite = norms(told, of_each=True) <= FINITE
        if terms.own and not finite.all():
            whose = tuple(phones[i] for i in np.flatnonzero(~finite))
            raise BadPhoneError(whose, f"{what} is not finite: broken data, or training that diverged?")


def _terms_problem(
    name: Any, terms: Any, start: Mapping[str, State], expected: Expected, leading: tuple[int, ...]
) -> str | None:
    if type(terms) is not Terms or not _are_states({"own": terms.own, "shared": terms.shared}):
        return f"no terms of a segment, but {shown(terms)}"
    if name not in start or name not in expected.learned:
        return f"{shown(name)} is not averaged"
    like = _as_summed(start[name])
    learned = expected.learned[name]
    wanted = {key for key in learned & expected.bounded if not is_statistic(key)} if not expected.models else learned
    for state, dimensions in ((terms.own, leading), (terms.shared, ())):
        if state.keys() != wanted and (state or state is terms.own):
            return _keys_problem(name, state, wanted)
        if problem := _first(_array_problem(key, state[key], like[key], dimensions) for key in sorted(state)):
            return problem
    return None


def check_ends(phones: Phones, ends: Any, start: Mapping[str, State], expected: Expected) -> None:
    """Raises BadPhoneError unless they are states such as `start`'s, with their optimizers."""
    problem = None if _are_states(ends) else f"no states of segments, but {shown(ends)}"
    for name, state in () if problem else ends.items():
        own = start.get(name)
        problem = f"{name} is no segment of its" if own is None else _state_problem(state, own, expected, ())
        if problem:
            break
    if problem:
        raise BadPhoneError(phones, f"its weights, handed on: {problem}")
    _check_norms(phones, ends, expected, "its weights, handed on")


def check_middle(state: State, expected: Expected) -> None:
    """Raises DivergedError if B is not finite: all phones have trained it, and none can be told apart."""
    if not np.isfinite(norms([array for key, array in state.items() if key in expected.bounded], False)).all():
        raise DivergedError("B's weights are not finite any more: training diverged; try a lower optimizer.lr")


def check_moved(states: Mapping[str, State], expected: Expected) -> None:
    """Raises DivergedError if the server's step led further than any weights may be: phones would be blamed for it."""
    for name, state in states.items():
        found = float(norms([array for key, array in state.items() if key in expected.bounded], False)[0])
        if not found <= expected.max_norm:
            shown_norm = norm_shown(f"part {name.upper()}", found, expected.max_norm)
            raise DivergedError(f"after the server's step {shown_norm}; try a lower server_optimizer.lr")


def _check_norms(
    phones: Phones, states: Mapping[str, State], expected: Expected, what: str, of_each: bool = False
) -> None:
    """Of the weights, and whether what the optimizer remembers is finite. `of_each`: of each phone (K, ...)."""
    for name, state in states.items():
        weights = [array for key, array in state.items() if key in expected.bounded]
        slots = [array for key, array in state.items() if key.startswith("optimizer/")]
        for kind, arrays, bound in ((name, weights, expected.max_norm), (f"{name}'s optimizer", slots, FINITE)):
            found = norms(arrays, of_each)
            bad = np.flatnonzero(~(found <= bound))
            if len(bad):
                whose = tuple(phones[i] for i in bad) if of_each else phones
                raise BadPhoneError(whose, f"{what}: {norm_shown(kind, found[bad[0]], bound)}")


def norm_shown(what: str, norm: float, bound: float) -> str:
    """A norm beyond its bound, for people."""
    if np.isfinite(norm):
        return f"{what} has the norm {norm:.3g}; the bound is {bound:g}"
    return f"{what} is not finite: broken data, or training that diverged?"


def _are_states(ends: Any) -> bool:
    return type(ends) is dict and all(type(state) is dict for state in ends.values())


def _averaged_problem(closed: Closed, start: Mapping[str, State], expected: Expected) -> str | None:
    """Of the phones' sum, or of what each has."""
    if not expected.rows:
        summed = {name: _as_summed(state) for name, state in start.items()}
        return _learned_problem(closed.sums, summed, expected, ()) if closed.rows is None else "not their sum"
    if closed.sums or not (closed.rows is None or _are_rows(closed.rows, len(closed.phones))):
        return "not each phone's, with its share"
    return _learned_problem(closed.rows.states, start, expected, (len(closed.phones),)) if closed.rows else None


def _as_summed(start: State) -> State:
    """What a sum of such states is like: of weights in half precision it is in single."""
    return {
        key: array
        if (dtype := bits.counts_in(array.dtype)) == array.dtype
        else np.broadcast_to(dtype.type(), array.shape)
        for key, array in start.items()
    }


def _are_bytes(found: Any, phones: int) -> bool:
    """A number, of all phones or of each."""
    each = type(found) is np.ndarray and found.dtype == np.int64 and found.shape == (phones,)
    return each or type(found) is int


def _are_rows(rows: Any, phones: int) -> bool:
    if type(rows) is not Rows or not _are_states(rows.states) or type(rows.shares) is not np.ndarray:
        return False
    shares = rows.shares
    return shares.dtype == np.float64 and shares.shape == (phones,) and bool(((shares > 0) & (shares <= 1)).all())


def _learned_problem(
    states: Ends, start: Mapping[str, State], expected: Expected, leading: tuple[int, ...]
) -> str | None:
    for name, state in states.items():
        keys = expected.learned.get(name)
        if keys is None or name not in start:
            return f"{name} is not averaged"
        if state.keys() != keys:
            return _keys_problem(name, state, keys)
        if problem := _first(_array_problem(key, state[key], start[name][key], leading) for key in sorted(keys)):
            return problem
    return None


def _own_problem(closed: Closed, start: Mapping[str, State], expected: Expected) -> str | None:
    """Of what is each phone's own: everything, or the statistics alone."""
    leading = (len(closed.phones),)
    for name, states in closed.own.items():
        if name not in start:
            return f"{name} is no segment of a phone's own"
        statistics = {key for key in start[name] if is_statistic(key)}
        if states.keys() == statistics:
            problem = _first(_array_problem(key, states[key], start[name][key], leading) for key in sorted(statistics))
        else:
            problem = _state_problem(states, start[name], expected, leading)
        if problem:
            return problem
    return None


def _state_problem(state: State, like: State, expected: Expected, leading: tuple[int, ...]) -> str | None:
    """What is wrong with a whole state: weights and buffers as `like` has them, and slots of the optimizer."""
    plain = {key for key in like if not key.startswith("optimizer/")}
    arrived = {key for key in state if not str(key).startswith("optimizer/")}
    if arrived != plain:
        return _keys_problem("the state", arrived, plain)
    for key in sorted(state, key=str):
        if key in plain:
            problem = _array_problem(key, state[key], like[key], leading)
        else:
            problem = _slot_problem(key, state[key], like, expected, leading)
        if problem:
            return problem
    return None


def _slot_problem(key: Any, array: Any, like: State, expected: Expected, leading: tuple[int, ...]) -> str | None:
    name, _, slot = str(key).removeprefix("optimizer/").rpartition("/")
    weight = like.get(f"weights/{name}")
    if weight is None or slot not in expected.slots:
        return f"{shown(key)} is nothing that the optimizer remembers"
    number = expected.numbers.get(slot)
    return _array_problem(key, array, weight if number is None else np.zeros((), number), leading)


def _array_problem(key: str, array: Any, like: Array, leading: tuple[int, ...]) -> str | None:
    if type(array) is not np.ndarray:
        return f"{key} is {shown(array)}, not an array"
    if array.dtype != like.dtype or array.shape != (*leading, *like.shape):
        return f"{key} is {array.shape} of {array.dtype}, not {(*leading, *like.shape)} of {like.dtype}"
    return None


def norms(arrays: Iterable[Array], of_each: bool) -> Array:
    """The L2 norm over all arrays of numbers with a fraction (complex ones too), `of_each` phone where they are
    (K, ...); not finite if one of them isn't, or beyond 1.8e19 (its square is no number of single precision).
    """
    squares: Any = np.zeros(1)
    for array in arrays:
        if bits.is_inexact(array.dtype):
            flat = array.reshape(len(array), -1) if of_each else array.reshape(1, -1)
            squares = squares + bits.squares(flat)
    found: Array = np.sqrt(squares)
    return found


def _keys_problem(name: str, arrived: Iterable[Any], wanted: Iterable[str]) -> str:
    odd = sorted(map(str, set(arrived) ^ set(wanted)))
    return f"{name} has {len(set(arrived))} arrays, not {len(set(wanted))}: {', '.join(odd[:3])}"


def _first(problems: Iterable[str | None]) -> str | None:
    return next((problem for problem in problems if problem), None)


def shown(value: Any) -> str:
    """What came instead, for people: in one line, and however large it is."""
    if isinstance(value, np.ndarray):
        return f"an array {value.shape} of {value.dtype}"
    plain = isinstance(value, (int, float, str, bytes, type(None)))
    if plain or (isinstance(value, tuple) and all(type(item) is int for item in value[:100])):
        return repr(value[:20] if isinstance(value, (str, bytes, tuple)) else value)
    return f"a {type(value).__name__}"
