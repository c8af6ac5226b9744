"""Trained weights to begin with: from a file, or by a name that torchvision or timm has for them."""

from __future__ import annotations

import copy
import importlib
from collections import OrderedDict
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from ray_split import config
from ray_split.config.user_code.plugins import suggest
from ray_split.errors import SettingsError, brief, first_line, listed, shown, told
from ray_split.models import library as zoo
from ray_split.models.weights_file import what_is

Weights = dict[str, torch.Tensor]

HEADS = ("AuxLogits.", "aux1.", "aux2.")  # of torchvision's Inceptions, which a model may leave out


def load(model: nn.Module, settings: config.Model) -> list[str]:
    """Give a model the weights that the settings name, if any. Returns the keys of its head that stay as they were.

    That is where the weights are of another number of classes. Raises SettingsError if they can't be had, or are those
    of another model.
    """
    if settings.weights is None:
        return []
    own, found = model.state_dict(), _found(settings)
    given = {key: tensor for key, tensor in found.items() if key in own or not key.startswith(HEADS)}
    given = _as_now(model, with_versions(given, found), str(settings.weights))
    if missing := sorted(own.keys() ^ given.keys()):
        keys = listed([*missing[:5], *(["others"] if missing[5:] else [])])
        wrong = f"{shown(settings.weights)} doesn't fit {settings.name}: only one of the two has {keys}"
        raise SettingsError("model.weights", settings.weights, OF_THIS, wrong)
    differ = _differ(own, given)
    for key in differ:
        if own[key].shape[1:] != given[key].shape[1:] or own[key].shape[0] != settings.num_classes:
            shapes = f"{tuple(given[key].shape)} there but {tuple(own[key].shape)} in the model"
            wrong = f"{shown(settings.weights)} doesn't fit {settings.name}: {key} has shape {shapes}"
            raise SettingsError("model.weights", settings.weights, OF_THIS, wrong)
    model.load_state_dict(with_versions({**given, **{key: own[key] for key in differ}}, own))
    return differ


def _differ(own: Weights, given: Weights) -> list[str]:
    """The keys of both whose shapes differ."""
    return [key for key in own if key in given and own[key].shape != given[key].shape]


def with_versions(given: Weights, like: Any) -> Weights:
    """Weights with the versions of the layers that a state dict tells, if it does.

    safetensors and plain dicts have none. Without them some layers take weights for old ones, and change or refuse
    them (torchvision's MNASNet): whoever knows better says it so.
    """
    versions = getattr(like, "_metadata", None)
    if versions is None:
        return given
    told: Any = OrderedDict(given)
    told._metadata = versions
    weights: Weights = told
    return weights


def _as_now(model: nn.Module, given: Weights, name: str) -> Weights:
    """Weights as the model's layers are now: older ones are changed by these, as whenever torch loads them.

    Older are those that say so, or that lack what is new. Those without versions that lack nothing are taken as they
    are. Raises SettingsError where the layers refuse them.
    """
    own = model.state_dict()
    versions = getattr(given, "_metadata", None)
    if versions == getattr(own, "_metadata", None) or (versions is None and own.keys() <= given.keys()):
        return given
    trial, differ = copy.deepcopy(model), _differ(own, given)
    try:
        trial.load_state_dict(with_versions({**given, **{key: own[key] for key in differ}}, given))
    except (RuntimeError, ValueError, KeyError) as error:
        if own.keys() == given.keys():
            raise SettingsError(
                "model.weights", name, OF_THIS, f"loading {shown(name)} failed with {told(error)}"
            ) from error
        return given  # which keys are not in both is told
    return {**trial.state_dict(), **{key: given[key] for key in differ}}


OF_THIS = "Give weights of this model"
READABLE = "Give a file of weights (.pt, .pth or .safetensors)"


def _found(settings: config.Model) -> Weights:
    name = str(settings.weights)
    path = Path(name).expanduser()
    if zoo.is_file(name):
        return _read(path)
    model = zoo.lookup(settings.name)
    if model is None:
        wrong = f"there are no weights {shown(name)}, because {settings.name} is not a model of torchvision or timm"
        raise SettingsError("model.weights", name, f"Give a file of weights ({listed(zoo.FILES, 'or')})", wrong)
    return {"torchvision": _torchvision, "timm": _timm}[model.library](model.name, name)


def _read(path: Path) -> Weights:
    try:
        if not path.is_file():
            raise SettingsError("model.weights", str(path), READABLE, what_is(path))
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        wrong = f"{path} can't be read: {error.strerror or first_line(error)}"
        raise SettingsError("model.weights", str(path), READABLE, wrong) from error
    except SettingsError:
        raise
    except Exception as error:
        raise SettingsError("model.weights", str(path), READABLE, what_is(path)) from error
    found = found.get("state_dict", found) if isinstance(found, dict) else found
    if not isinstance(found, dict) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        wrong = f"{shown(str(path))} is not a state dict: it has {_called(found)}"
        raise SettingsError(
            "model.weights", str(path), "Save the state dict of a model: torch.save(model.state_dict(), FILE)", wrong
        )
    return found


def _called(found: Any) -> str:
    """What is in a file that could be read and has no state dict."""
    if isinstance(found, dict):
        key = next(key for key, value in found.items() if not isinstance(value, torch.Tensor))
        return f"{type(found[key]).__name__} at {brief(key, 60)}"
    return f"a {type(found).__name__}"


def _no_weights(model: str, name: str, known: list[str]) -> SettingsError:
    there = f"Choose {listed(known, 'or')}, or give a file of your own" if known else "Give a file of weights"
    return SettingsError("model.weights", name, suggest(name, known, there), f"{model} has no weights {shown(name)}")


def _not_fetched(name: str, error: Exception) -> SettingsError:
    allowed = "Download them elsewhere, and give the file"
    return SettingsError("model.weights", name, allowed, f"{name} can't be downloaded here: {told(error)}")


def _torchvision(model: str, name: str) -> Weights:
    known = {each.name: each for each in importlib.import_module("torchvision.models").get_model_weights(model)}
    known |= {"DEFAULT": next(iter(known.values())).__class__.DEFAULT} if known else {}
    if name not in known:
        raise _no_weights(model, name, list(known))
    try:
        return cast(Weights, known[name].get_state_dict(progress=False, check_hash=True))
    except Exception as error:
        raise _not_fetched(name, error) from error


def _timm(model: str, name: str) -> Weights:
    timm = importlib.import_module("timm")
    tags = [each.partition(".")[2] for each in timm.list_pretrained(f"{model}.*")]
    if name not in tags:
        raise _no_weights(model, name, tags)
    try:
        return dict(timm.create_model(f"{model}.{name}", pretrained=True).state_dict())
    except Exception as error:
        raise _not_fetched(name, error) from error
