"""A model and a data set of one's own, for ray-split train --model.name my_model:net --data.name my_model:rings."""

import numpy as np
from torch import nn


def net(num_classes, width=32):
    return nn.Sequential(
        nn.Linear(2, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, num_classes),
    )


def rings(samples=1200):
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 3, samples)
    angle = draw.uniform(0, 2 * np.pi, samples)
    radius = 1 + labels + draw.normal(0, 0.15, samples)
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return points, labels
