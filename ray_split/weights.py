"""Trained weights to begin with: from a file, or by a name that torchvision or timm has for them."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ray_split import config, zoo
from ray_split.failure import SettingsError, told
from ray_split.loading import suggest

Weights = dict[str, torch.Tensor]

HEADS = ("AuxLogits.", "aux1.", "aux2.")  # of torchvision's Inceptions, which a model may leave out


def load(model: nn.Module, settings: config.Model) -> list[str]:
    """Give a model the weights that the settings name, if any. Returns the keys of its head that stay as they were.

    That is where the weights are of another number of classes. Raises SettingsError if they can't be had, or are those
    of another model.
    """
    if settings.weights is None:
        return []
    own = model.state_dict()
    given = {key: tensor for key, tensor in _found(settings).items() if key in own or not key.startswith(HEADS)}
    if missing := sorted(own.keys() ^ given.keys()):
        raise SettingsError("model.weights", settings.weights, f"of this model; not in both: {', '.join(missing[:5])}")
    differ = [key for key in own if own[key].shape != given[key].shape]
    for key in differ:
        if own[key].shape[1:] != given[key].shape[1:] or own[key].shape[0] != settings.num_classes:
            shapes = f"{tuple(given[key].shape)}, the model's {tuple(own[key].shape)}"
            raise SettingsError("model.weights", settings.weights, f"of this model; its {key} has shape {shapes}")
    model.load_state_dict({**given, **{key: own[key] for key in differ}})
    return differ


def _found(settings: config.Model) -> Weights:
    name = str(settings.weights)
    path = Path(name).expanduser()
    if zoo.is_file(name):
        return _read(path)
    model = zoo.lookup(settings.name)
    if model is None:
        raise SettingsError(
            "model.weights", name, f"a file ({', '.join(zoo.FILES)}), for a model that isn't a library's"
        )
    return {"torchvision": _torchvision, "timm": _timm}[model.library](model.name, name)


def _read(path: Path) -> Weights:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise SettingsError("model.weights", str(path), f"a file of weights that can be read: {told(error)}") from error
    found = found.get("state_dict", found) if isinstance(found, dict) else found
    if not isinstance(found, dict) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise SettingsError("model.weights", str(path), "a file with a model's state dict")
    return found


def _torchvision(model: str, name: str) -> Weights:
    known = {each.name: each for each in importlib.import_module("torchvision.models").get_model_weights(model)}
    known |= {"DEFAULT": next(iter(known.values())).__class__.DEFAULT} if known else {}
    if name not in known:
        allowed = f"a file, or one of {', '.join(known) or 'none'}{suggest(name, known)}"
        raise SettingsError("model.weights", name, allowed)
    try:
        return dict(known[name].get_state_dict(progress=False, check_hash=True))
    except Exception as error:
        raise SettingsError("model.weights", name, f"weights that can be downloaded here: {told(error)}") from error


def _timm(model: str, name: str) -> Weights:
    timm = importlib.import_module("timm")
    tags = [each.partition(".")[2] for each in timm.list_pretrained(f"{model}.*")]
    if name not in tags:
        allowed = f"a file, or one of {', '.join(tags) or 'none'}{suggest(name, tags)}"
        raise SettingsError("model.weights", name, allowed)
    try:
        return dict(timm.create_model(f"{model}.{name}", pretrained=True).state_dict())
    except Exception as error:
        raise SettingsError("model.weights", name, f"weights that can be downloaded here: {told(error)}") from error
