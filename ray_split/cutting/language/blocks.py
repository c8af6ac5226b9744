"""Models of Hugging Face's transformers that tracing can't open, cut between their blocks.

A segment is the model's own code with its own blocks alone: the first one embeds, the last one has the head. Hidden
states (n, tokens, features) cross, and the mask of padding where there is one. Causal masks and rotary positions are
made by each segment anew, of the same hidden states' shape and mask, so to the same bits. Of DeBERTa a table of
relative positions may cross, too (relative_table.py).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from ray_split.config.user_code.plugins import suggest
from ray_split.cutting.cut_error import CutError
from ray_split.cutting.language.families import Family, has
from ray_split.cutting.language.relative_table import Table, given
from ray_split.errors import SettingsError, shown


def parts_of(model: nn.Module, family: Family, cuts: Sequence[str]) -> list[Blocks]:
    """The model cut after these blocks, or after its embedding. Raises CutError or SettingsError."""
    check_rotary(model)
    may = positions_of(model, family)
    for name in cuts:
        if name not in may:
            there = f"Cut after {may[1]} to {may[-1]}, or after {family.embedding}"
            wrong = f"{shown(name)} is no block of this model, which can be cut between its blocks alone"
            raise CutError(name, suggest(name, may, there), wrong)
    places = [may.index(name) for name in cuts]
    if places != sorted(places):
        raise CutError(list(cuts), f"Write {','.join(reversed(cuts))}", f"{cuts[1]} runs before {cuts[0]}")
    if len(set(places)) < len(places):
        raise CutError(list(cuts), "Name two blocks", "one block is named twice")
    borders = pairwise([0, *places, len(may) - 1])
    ends = len(cuts)
    parts = [Blocks(model, family, *some, place == 0, place == ends) for place, some in enumerate(borders)]
    _keep_ties(model, parts)
    return parts


def positions_of(model: nn.Module, family: Family) -> list[str]:
    """The layers after which it can be cut: its embedding, and each of its blocks."""
    names = [name for name, _ in model.get_submodule(family.blocks).named_children()]
    return [family.embedding, *(f"{family.blocks}.{name}" for name in names)]


def smallest_parts(model: nn.Module, family: Family) -> dict[str, Blocks]:
    """The model in the smallest parts that cuts can make: each by the layer that it ends with, the last one by "".

    They have no weights in common but the base's, whatever is tied in the model.
    """
    ends = [*positions_of(model, family), ""]
    last = len(ends) - 2
    borders = [(0, 0), *pairwise(range(last + 1)), (last, last)]
    return {
        end: Blocks(model, family, *some, end == ends[0], end == ends[-1])
        for end, some in zip(ends, borders, strict=True)
    }


def usual_cuts(model: nn.Module) -> tuple[str, str] | None:
    """After the first block and the last but one; None of a model that has no three blocks in a list."""
    for name, layers in model.named_modules():
        if isinstance(layers, nn.ModuleList) and len(layers) > 2 and len({type(layer) for layer in layers}) == 1:
            return f"{name}.0", f"{name}.{len(layers) - 2}"
    return None


def check_rotary(model: Any) -> None:
    """Rotary positions that follow from the longest sequence seen so far are state that no checkpoint has."""
    told = getattr(model.config, "rope_parameters", None) or {}
    if "dynamic" in {each.get("rope_type") for each in (told, *told.values()) if isinstance(each, Mapping)}:
        wrong = (
            "its rotary positions (rope_type dynamic) depend on the longest sequence so far, which no checkpoint has"
        )
        raise SettingsError("model.name", type(model).__name__, "Set rope_type to linear, yarn or llama3", wrong)


def _keep_ties(model: nn.Module, parts: Sequence[nn.Module]) -> None:
    """A trained weight that the model has once is one in A and C too. Raises CutError if it would be in another two."""
    owners: dict[int, tuple[str, int]] = {}
    own = [dict(part.named_parameters(remove_duplicate=False)) for part in parts]
    for name, weight in model.named_parameters(remove_duplicate=False):
        place = next(number for number, names in enumerate(own) if name in names)
        other, first = owners.setdefault(id(weight), (name, place))
        if first == place or not weight.requires_grad:
            continue
        if {first, place} != {0, 2}:
            wrong = f"the tied weights {other} and {name} would be in both segments {'ABC'[first]} and {'ABC'[place]}"
            do = "Cut so that both stay on the phone, in A or in C, or untie them (tie_word_embeddings=False)"
            raise CutError(f"{other} and {name}", do, wrong)
        _put(parts[place], name, parts[first].get_parameter(other))


def _put(part: nn.Module, name: str, weight: nn.Parameter) -> None:
    layer, _, attribute = name.rpartition(".")
    part.get_submodule(layer).register_parameter(attribute, weight)


class Blocks(nn.Module):
    """The blocks low:high of a model, under the model's own names: what comes before them in the first segment,
    and the head in the last.
    """

    def __init__(self, model: nn.Module, family: Family, low: int, high: int, first: bool, last: bool) -> None:
        super().__init__()
        whole: Any = copy.deepcopy(model)
        blocks = list(whole.get_submodule(family.blocks).named_children())
        self._first, self._last = first, last
        self._table = _table_of(whole, family, low, high, len(blocks))
        self._encoder = (whole.get_submodule(family.relative) if self._table else None,)
        whole.set_submodule(family.blocks, _numbered(blocks[low:high], bool(family.relative)))
        _tell(whole.config, low, high)
        _leave_out(whole, (() if first else family.before) + (() if last else family.after), nn.Identity)
        _leave_out(whole, () if low == 0 < high else family.beside_first, lambda: None)
        if not first:
            whole.set_submodule(family.embedding, _Arrived())
            _leave_out(whole, family.positions, _Nothing)
            if family.scale:
                setattr(whole.base_model, family.scale, 1.0)  # what arrives is multiplied already
        kept = whole if self._last else whole.base_model
        self._called = (kept,)  # in a tuple: its parts are this module's, under the names that the model has for them
        self._more = {"use_cache": False} if hasattr(whole.config, "use_cache") else {}
        for name, child in whole.named_children():
            if self._last or child is kept:
                self.add_module(name, child)

    def forward(self, arrived: Any, *beside: torch.Tensor) -> Any:
        """Tokens (n, tokens), or hidden states, and beside them a mask, and a table; at the end what the model returns.

        In a chain of parts what crosses is one tuple.
        """
        if isinstance(arrived, tuple):
            arrived, *others = arrived
            beside = tuple(others)
        table = None
        if self._table and self._table.arrives:
            *others, table = beside
            beside = tuple(others)
        return self._run(arrived, beside[0] if beside else None, table)

    def _run(self, arrived: torch.Tensor, mask: torch.Tensor | None, table: torch.Tensor | None) -> Any:
        (model,), (encoder,) = self._called, self._encoder
        name = "input_ids" if self._first else "inputs_embeds"
        own = None if self._table is None else self._table.of(encoder, table)
        with nullcontext() if self._table is None else given(encoder, own):
            found = model(**{name: arrived}, attention_mask=mask, **self._more)
        if self._last:
            return found
        sent = (found.last_hidden_state, mask, own if self._table and self._table.leaves else None)
        crossing = tuple(each for each in sent if each is not None)
        return crossing if len(crossing) > 1 else crossing[0]


def _table_of(whole: nn.Module, family: Family, low: int, high: int, count: int) -> Table | None:
    """The table of relative positions, of a model that has one."""
    encoder = whole.get_submodule(family.relative) if family.relative else None
    return Table(encoder, low, high, count) if getattr(encoder, "relative_attention", False) and encoder else None


def _leave_out(whole: nn.Module, names: Sequence[str], instead: Callable[[], nn.Module | None]) -> None:
    """Put something else in the place of layers, where they are."""
    for name in names:
        if has(whole, name):
            layer, _, attribute = name.rpartition(".")
            setattr(whole.get_submodule(layer), attribute, instead())


class _Arrived(nn.Module):
    """In the place of the embedding: the hidden states that arrived."""

    def forward(self, *given: Any, inputs_embeds: torch.Tensor | None = None, **_: Any) -> Any:
        return next(each for each in (inputs_embeds, *given) if each is not None)  # no tokens, then these


class _Same(nn.Module):
    """A block that leaves hidden states as they are, for code that needs to have one."""

    def forward(self, hidden: torch.Tensor, *_: Any, **__: Any) -> tuple[torch.Tensor, None]:
        return hidden, None


class _Nothing(nn.Module):
    """Adds nothing, where positions were added in the first segment."""

    def forward(self, *_: Any, **__: Any) -> torch.Tensor:
        return torch.zeros(())


def without_cache(model: nn.Module) -> None:
    """Have a model of transformers keep no keys and values, which are for generating text."""
    config = getattr(model, "config", None)
    if type(model).__module__.startswith("transformers.") and getattr(config, "use_cache", False):
        config.use_cache = False  # type: ignore[union-attr]


def _tell(config: Any, low: int, high: int) -> None:
    """The segment's own configuration: its code goes through as many blocks, each with its kind of attention."""
    config.num_hidden_layers = high - low
    if getattr(config, "layer_types", None) is not None:
        config.layer_types = config.layer_types[low:high]


def _numbered(blocks: Sequence[tuple[str, nn.Module]], never_empty: bool) -> nn.ModuleList:
    """A list of them that has kept their numbers in the whole model as names."""
    found = nn.ModuleList()
    for name, block in blocks or ([("same", _Same())] if never_empty else []):
        found.add_module(name, block)
    return found
