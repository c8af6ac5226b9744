"""The adapters of a run as peft keeps them: PeftModel.from_pretrained(base, folder) reads what is written here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from safetensors.torch import load, save

from ray_split import config
from ray_split.filesystem import Place, make_folder, read_with_time, write
from ray_split.results.left_behind import MODEL

FOLDER = "adapter"
CONFIGURATION, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
OURS, THEIRS = ".default", "base_model.model."
"""A model that has adapters calls them by a name; in peft's files the model has a prefix, and they have no name."""


def write_adapter_of(run: Place, settings: config.Model) -> None:
    """Write the adapters of the model in a run's folder into that folder."""
    write_adapter(run / FOLDER, settings, load(read_with_time(run / MODEL)[0]))


def write_adapter(folder: Place, settings: config.Model, weights: Mapping[str, torch.Tensor]) -> None:
    """Write the adapters among a model's weights, and the layers that were trained as they are."""
    make_folder(folder)
    adapters = {key: tensor for key, tensor in weights.items() if ".lora_" in key}
    whole = {key: tensor for key, tensor in weights.items() if _is_of(key, settings.lora.modules_to_save)}
    found = {f"{THEIRS}{key.replace(OURS, '')}": tensor for key, tensor in adapters.items()}
    found |= {f"{THEIRS}{key}": tensor for key, tensor in whole.items()}
    write(folder / WEIGHTS, save(found, {"format": "pt"}))
    layers = sorted({key.partition(".lora_")[0] for key in adapters})
    write(folder / CONFIGURATION, json.dumps(_configuration(settings, layers), indent=2).encode())


def _configuration(settings: config.Model, layers: list[str]) -> dict[str, Any]:
    """What peft needs to know; the rest is as peft has it. Layers by their whole names: no other has an adapter."""
    lora = settings.lora
    return {
        "peft_type": "LORA",
        "base_model_name_or_path": settings.name.removeprefix("hf:") if settings.name.startswith("hf:") else None,
        "r": lora.r,
        "lora_alpha": lora.scale,
        "lora_dropout": lora.dropout,
        "target_modules": layers,
        "modules_to_save": lora.modules_to_save or None,
        "inference_mode": True,
    }


def _is_of(key: str, layers: list[str]) -> bool:
    """Whether a weight is of one of these layers, which are named as a whole or by their ends."""
    layer = key.rpartition(".")[0]
    return any(f".{name}." in f".{layer}." for name in layers)
