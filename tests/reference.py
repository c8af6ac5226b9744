"""Plain unsplit training on the stream of a run: what split training must equal, bit for bit."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

import ray_split as rs
from ray_split import models, seeds
from ray_split.optimizers import OPTIMIZERS


def unsplit(settings: rs.Config, seeded_at: tuple[str, ...] = ()) -> nn.Module:
    """Train the unsplit model on one thread.

    `seeded_at` names the first layer of A, B and C, where torch is seeded, for models with Dropout.
    """
    torch.set_num_threads(1)
    data = rs.load_data(settings.data)
    model = models.build(settings.model.model_copy(update={"num_classes": data.num_classes}), settings.run.seed)
    optimizer = OPTIMIZERS[settings.optimizer.name](model.parameters(), settings.optimizer)
    at = [0, 0, 0]
    for place, name in enumerate(seeded_at):
        layer = model.get_submodule(name)
        layer.register_forward_pre_hook(lambda *_, place=place: _seed(settings.run.seed, (*at, "abc"[place])))
    for draw in rs.stream(settings):
        at[:] = draw.round, draw.phone, draw.step
        inputs, labels = data.batch("train", draw.indices)
        optimizer.zero_grad()
        loss = functional.cross_entropy(model.train()(torch.from_numpy(inputs)), torch.from_numpy(labels))
        loss.backward()
        optimizer.step()
    return model


def _seed(seed: int, at: tuple[int, int, int, str]) -> None:
    torch.default_generator.manual_seed(seeds.forward_seed(seed, *at))


def assert_same_weights(model: nn.Module, path: str) -> None:
    trained = rs.load_model(path).state_dict()
    expected = model.state_dict()
    assert trained.keys() == expected.keys()
    different = [key for key in expected if not torch.equal(expected[key], trained[key])]
    assert not different
