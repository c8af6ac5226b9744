"""Models made from a number: random layers and features, cut at random, as source text that is run.

`--model.name tests.generated.models:model --model.kwargs '{seed: 7}'`; `python -m tests.generated.models 7` shows the
seventh. With `features: [...]` it has these.
"""

from __future__ import annotations

import linecache
import random
import sys
from collections.abc import Sequence
from textwrap import indent
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from tests.generated import layers as generated_layers
from tests.generated.features import EITHER, EQUAL, FEATURES

LAYERS = {  # what makes the layer, and what is done with it
    "linear": ("nn.Linear(8, 8)", "h = torch.relu({0}(h))"),
    "smooth": ("nn.Linear(8, 8)", "h = functional.gelu({0}(h))"),
    "conv": ("nn.Conv1d(4, 4, 3, padding=1)", "h = torch.tanh({0}(h))"),
    "norm": ("nn.LayerNorm(8)", "h = {0}(h)"),
    "group norm": ("nn.GroupNorm(2, 4)", "h = {0}(h)"),
    "attention": ("Attention()", "h = h + {0}(h)"),
    "torch's attention": ("nn.MultiheadAttention(8, 2, batch_first=True)", "h = h + {0}(h, h, h)[0]"),
    "residual": ("nn.Linear(8, 8)", "h = h + 0.5 * {0}(h)"),
    "branches": ("nn.ModuleList([nn.Linear(8, 4), nn.Linear(8, 4)])", "h = torch.cat([{0}[0](h), {0}[1](h)], -1)"),
    "list": ("nn.ModuleList(nn.Linear(8, 8) for _ in range(2))", "for layer in {0}:\n    h = h + torch.tanh(layer(h))"),
    "sequential": ("nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8))", "h = {0}(h)"),
    "block": ("Block()", "h = {0}(h)"),
    "gated": ("nn.Linear(8, 16)", "h = functional.glu({0}(h))"),
}  # fmt: skip
STEMS = {
    "linear": ("nn.Linear(16, 32)", "h = {0}(x.flatten(1)).reshape(-1, 4, 8)"),
    "conv": ("nn.Conv2d(1, 8, 2, stride=2)", "h = {0}(x).flatten(2).transpose(1, 2)"),
}
CUTS = {  # the layer, what is done with it, where it is cut, and whose what is right of that is
    "linear": ("nn.Linear(8, 8)", "h = {0}(h)", "{0}", ""),
    "inside": ("Block()", "h = {0}(h)", "{0}.first", "{0}.second"),
    "sequential": ("nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8))", "h = {0}(h)", "{0}.0", "{0}.2"),
}


class Generated(NamedTuple):
    """A model's source, its features, where it is cut, the names of its B, and what is to become of it."""

    source: str
    features: tuple[str, ...]
    cuts: list[str]
    b: tuple[str, ...]
    right: str | tuple[str, ...]


def generated(seed: int, features: Sequence[str] | None = None, single: bool = False) -> Generated:
    """The model with this number."""
    draw = random.Random(seed)
    chosen = tuple(features) if features is not None else _chosen(draw)
    init, lines, b = [], {"a": [], "b": [], "c": []}, []

    def add(segment: str, name: str, made: str, used: str) -> None:
        init.append(f"self.{segment}_{name} = {made}")
        lines[segment].append(used.format(f"self.{segment}_{name}"))

    add("a", "stem", *STEMS[draw.choice(list(STEMS))])
    for segment in "abc":
        lines[segment] += _of_features(chosen, segment)
        for number in range(draw.randint(segment != "a", 2)):
            add(segment, f"layer{number}", *LAYERS[draw.choice(list(LAYERS))])
    cuts = []
    for segment in "ab":
        made, used, at, rest = CUTS[draw.choice(list(CUTS))]
        add(segment, "cut", made, used)
        cuts.append(at.format(f"{segment}_cut"))
        if segment == "a":
            b += [rest.format("a_cut")] if rest else []
        else:
            b += ["b_cut.first" if "first" in at else "b_cut.0" if rest else "b_cut"]
    add("c", "head", "nn.Linear(8, classes)", "return {0}(h.mean(1))")
    init += [FEATURES[name].init for name in chosen]
    methods = "".join(FEATURES[name].methods for name in chosen)
    begin = "\n".join(["super().__init__()", *(line for line in init if line)])
    forward = "\n".join(line for segment in "abc" for line in lines[segment])
    body = f"def __init__(self, classes):\n{_in(begin)}\ndef forward(self, x):\n{_in(forward)}\n{methods}"
    source = f"class Model(nn.Module):\n{_in(body)}"
    names = [name for name, _ in _made(source, seed).named_children()] + list(_made(source, seed)._parameters)
    b += [name for name in names if name.startswith("b_") and name != "b_cut"]
    if single:  # cut once: C is B's
        cuts = cuts[:1]
        b += ["b_cut", *(name for name in names if name.startswith("c_"))]
    return Generated(source, chosen, cuts, tuple(b), _right(chosen))


def _in(lines: str) -> str:
    return indent(lines, "    ")


def _chosen(draw: random.Random) -> tuple[str, ...]:
    """Up to four features that work; now and then one that may be refused."""
    works = [name for name, feature in FEATURES.items() if feature.right == EQUAL]
    names = draw.sample(works, draw.randint(0, 4))
    if draw.random() < 0.25:
        names.append(draw.choice([name for name in FEATURES if name not in works]))
    return tuple(names)


def _right(chosen: Sequence[str]) -> str | tuple[str, ...]:
    rights = [FEATURES[name].right for name in chosen]
    refused = tuple(right for right in rights if right not in (EQUAL, EITHER))
    return refused or (EITHER if EITHER in rights else EQUAL)


def _of_features(chosen: Sequence[str], segment: str) -> list[str]:
    return [line for name in chosen if (line := getattr(FEATURES[name], segment))]


def _made(source: str, seed: int) -> nn.Module:
    """The model that the source tells of; its lines are found by tracebacks."""
    file = f"<generated {seed}>"
    linecache.cache[file] = (len(source), None, source.splitlines(True), file)
    names: dict[str, Any] = {**vars(generated_layers), "np": np, "random": random, "torch": torch, "nn": nn}
    names |= {"functional": functional, "__name__": __name__}
    exec(compile(source, file, "exec"), names)
    made: nn.Module = names["Model"](4)
    return made


def model(num_classes: int, seed: int, features: Sequence[str] | None = None, single: bool = False) -> nn.Module:
    """For `--model.name tests.generated.models:model`."""
    with torch.random.fork_rng(devices=[]):  # which makes the model to look at its names
        source = generated(seed, features, single).source
    return _made(source, seed)


if __name__ == "__main__":
    shown = generated(int(sys.argv[1]))
    print(shown.source, *shown[1:], sep="\n")
