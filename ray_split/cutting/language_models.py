"""Decoders of Hugging Face's transformers, which tracing can't open, cut between their blocks.

A segment is the model's own code with its own blocks alone: the first one embeds, the last one has the head. Hidden
states (n, tokens, features) cross, and the mask of padding where there is one. Causal masks and rotary positions are
made by each segment anew, of the same hidden states' shape and mask, so to the same bits.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import nn

from ray_split.config.user_code.plugins import suggest
from ray_split.cutting.cut_error import CutError
from ray_split.errors import shown


class Family(NamedTuple):
    """Where the models of a type have what, by the names of `named_modules()`."""

    blocks: str
    embedding: str
    after: tuple[str, ...] = ()
    """Between the last block and the head."""
    before: tuple[str, ...] = ()
    """Between the embedding and the first block."""
    positions: tuple[str, ...] = ()
    """What is added to the embedding."""


LLAMA = Family("model.layers", "model.embed_tokens", ("model.norm",))
FAMILIES = {
    **dict.fromkeys(("llama", "qwen2", "qwen3", "mistral", "gemma", "gemma2"), LLAMA),
    "gpt2": Family(
        "transformer.h", "transformer.wte", ("transformer.ln_f",), ("transformer.drop",), ("transformer.wpe",)
    ),
    "phi": Family("model.layers", "model.embed_tokens", ("model.final_layernorm",), ("model.embed_dropout",)),
    "gpt_neox": Family(
        "gpt_neox.layers", "gpt_neox.embed_in", ("gpt_neox.final_layer_norm",), ("gpt_neox.emb_dropout",)
    ),
    "opt": Family(
        "model.decoder.layers",
        "model.decoder.embed_tokens",
        ("model.decoder.final_layer_norm", "model.decoder.project_out"),
        ("model.decoder.project_in",),
        ("model.decoder.embed_positions",),
    ),
}
"""By `config.model_type`; a family is of all its models that have the blocks there, with whatever head."""


def family_of(model: nn.Module) -> Family | None:
    """Where a model of transformers has its blocks, if it is a decoder that is known here."""
    if not type(model).__module__.startswith("transformers."):
        return None
    family = FAMILIES.get(str(getattr(getattr(model, "config", None), "model_type", "")))
    there = family is not None and _has(model, family.blocks) and _has(model, family.embedding)
    return family if there else None


def parts_of(model: nn.Module, family: Family, cuts: Sequence[str]) -> list[Blocks]:
    """The model cut after these blocks, or after its embedding. Raises CutError."""
    names = [name for name, _ in model.get_submodule(family.blocks).named_children()]
    may = [family.embedding, *(f"{family.blocks}.{name}" for name in names)]
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
    borders = pairwise([0, *places, len(names)])
    ends = len(cuts)
    parts = [Blocks(model, family, *some, place == 0, place == ends) for place, some in enumerate(borders)]
    _keep_ties(model, parts)
    return parts


def smallest_parts(model: nn.Module, family: Family) -> dict[str, Blocks]:
    """The model in the smallest parts that cuts can make: each by the layer that it ends with, the last one by "".

    They have no weights in common but the base's, whatever is tied in the model.
    """
    names = [name for name, _ in model.get_submodule(family.blocks).named_children()]
    last = len(names)
    ends = [family.embedding, *(f"{family.blocks}.{name}" for name in names), ""]
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
    """The blocks low:high of a decoder, under the model's own names: what comes before them in the first segment,
    and the head in the last.
    """

    def __init__(self, model: nn.Module, family: Family, low: int, high: int, first: bool, last: bool) -> None:
        super().__init__()
        whole: Any = copy.deepcopy(model)
        blocks = list(whole.get_submodule(family.blocks).named_children())
        self._first, self._last = first, last
        whole.set_submodule(family.blocks, _numbered(blocks[low:high]))
        _tell(whole.config, low, high)
        for name in (*(() if self._first else family.before), *(() if self._last else family.after)):
            if _has(whole, name):
                whole.set_submodule(name, nn.Identity())
        if not self._first:
            whole.set_submodule(family.embedding, nn.Identity())
            for name in family.positions:
                whole.set_submodule(name, _Nothing())
        kept = whole if self._last else whole.base_model
        self._called = (kept,)  # in a tuple: its parts are this module's, under the names that the model has for them
        for name, child in whole.named_children():
            if self._last or child is kept:
                self.add_module(name, child)

    def forward(self, arrived: torch.Tensor, mask: torch.Tensor | None = None) -> Any:
        """Tokens (n, tokens), or hidden states; at the end what the model returns."""
        (model,) = self._called
        name = "input_ids" if self._first else "inputs_embeds"
        found = model(**{name: arrived}, attention_mask=mask, use_cache=False)
        if self._last:
            return found
        hidden = found.last_hidden_state
        return hidden if mask is None else (hidden, mask)


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


def _numbered(blocks: Sequence[tuple[str, nn.Module]]) -> nn.ModuleList:
    """A list of them that has kept their numbers in the whole model as names."""
    found = nn.ModuleList()
    for name, block in blocks:
        found.add_module(name, block)
    return found


def _has(model: nn.Module, name: str) -> bool:
    return any(name == each for each, _ in model.named_modules())
