"""A decoder of transformers as a chain of its smallest parts: it is cut between its blocks, and can't be traced."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn

from ray_split.costs.cut_positions import Position, Trace, first_trained
from ray_split.cutting.language.blocks import check_rotary, smallest_parts
from ray_split.cutting.language.families import Family


def chain_of(model: nn.Module, family: Family) -> tuple[nn.Module, Trace, list[Position]]:
    """Its parts as one module, the order in which they run, and the places between them. Raises SettingsError.

    A cut before the first trained weight, such as after a frozen embedding, can't be the first one: whoever has the
    base reads the tokens off what would cross there.
    """
    check_rotary(model)
    parts = smallest_parts(model, family)
    _share(model, list(parts.values()))
    chain = nn.Sequential(*parts.values())
    trace = _trace(list(parts))
    trained = first_trained(chain, trace)
    ends = {name: trace.places[node] for name, node in trace.ends.items()}
    return chain, trace, [Position((name,), place, trained <= place) for name, place in ends.items()]


def _trace(ends: list[str]) -> Trace:
    graph = fx.Graph()
    node, found = graph.placeholder("tokens"), {}
    for place, name in enumerate(ends):
        node = graph.call_module(str(place), (node,))
        found[name] = node
    del found[ends[-1]]
    graph.output(node)
    return Trace(graph, found, {node: place for place, node in enumerate(graph.nodes)})


def _share(model: nn.Module, parts: list[nn.Module]) -> None:
    """What is one tensor in the model is one in all its parts: a segment has several of them, and it once."""
    originals: dict[str, torch.Tensor] = {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }
    made: dict[int, Any] = {}
    for path, module in ((path, module) for part in parts for path, module in part.named_modules()):
        tables: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
        for table in tables:
            for name in [name for name, tensor in table.items() if tensor is not None]:
                original = originals[f"{path}.{name}".lstrip(".")]
                table[name] = made.setdefault(id(original), table[name])
