"""What is done against the drift of phones that train apart, and with their average: a short file each, and two tables.

ALGORITHMS: what a phone's gradients are corrected by, and what of it is remembered (algorithm.py: Algorithm).
SERVER_OPTIMIZERS: what a round's average does to the weights (server_optimizer.py: ServerOptimizer).
To add one, write its file and its line here. `package.module:name` of the user's may be a function, or such a record.
No torch: the fed server's process has none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from ray_split import config
from ray_split.algorithms import feddyn, moon, scaffold
from ray_split.algorithms.adaptive import LR
from ray_split.algorithms.algorithm import Algorithm, Tensors
from ray_split.algorithms.fedadagrad import fedadagrad
from ray_split.algorithms.fedadam import fedadam
from ray_split.algorithms.fedavgm import fedavgm
from ray_split.algorithms.fedprox import fedprox
from ray_split.algorithms.fedyogi import fedyogi
from ray_split.algorithms.server_optimizer import ServerOptimizer
from ray_split.config.user_code.plugins import find_record

ALGORITHMS = {
    "fedprox": Algorithm(fedprox, elementwise=True, off="mu"),
    "scaffold": Algorithm(
        scaffold.scaffold, elementwise=True, remember=scaffold.remember, shares=True, optimizer="sgd"
    ),
    "feddyn": Algorithm(feddyn.feddyn, elementwise=True, remember=feddyn.remember, follow=feddyn.follow, off="alpha"),
    "moon": Algorithm(None, elementwise=True, remember=moon.remember, contrast=moon.contrast, off="mu"),
}
SERVER_OPTIMIZERS = {
    "fedavgm": ServerOptimizer(fedavgm),
    "fedadam": ServerOptimizer(fedadam, LR),
    "fedyogi": ServerOptimizer(fedyogi, LR),
    "fedadagrad": ServerOptimizer(fedadagrad, LR),
}


def named_algorithm(settings: config.Algorithm) -> Algorithm | None:
    """The algorithm that the settings name, if any. Raises SettingsError."""
    return None if settings.name is None else find_record("algorithm.name", settings.name, ALGORITHMS, Algorithm)


def algorithm_of(settings: config.Algorithm) -> Algorithm | None:
    """As `named_algorithm`, but None also of one that does nothing with these kwargs. Raises SettingsError."""
    found = named_algorithm(settings)
    return None if found is None or (found.off and settings.kwargs.get(found.off) == 0) else found


def correct_of(settings: config.Algorithm) -> Callable[..., Tensors] | None:
    """What corrects gradients: (gradients, weights, start, own, shared), if anything does. Raises SettingsError."""
    algorithm = algorithm_of(settings)
    correct = None if algorithm is None else algorithm.correct
    if algorithm is None or correct is None:
        return None
    if algorithm.remember is not None:
        return partial(correct, **settings.kwargs)
    return lambda gradients, weights, start, own, shared: correct(gradients, weights, start, **settings.kwargs)


def contrast_of(settings: config.Algorithm) -> Callable[..., Any] | None:
    """What stands beside phones' losses: (z, of_start, of_before), if anything does. Raises SettingsError."""
    algorithm = algorithm_of(settings)
    return None if algorithm is None or algorithm.contrast is None else partial(algorithm.contrast, **settings.kwargs)


def server_optimizer_of(settings: config.ServerOptimizer) -> ServerOptimizer | None:
    """The server optimizer that the settings name, if any. Raises SettingsError."""
    if settings.name is None:
        return None
    return find_record("server_optimizer.name", settings.name, SERVER_OPTIMIZERS, ServerOptimizer)


def encoder(settings: config.Config, names: Iterable[str]) -> frozenset[str]:
    """Of some segments those before the last, which make the representation that it is given."""
    last = "b" if len(settings.model.cuts or ()) == 1 else "c"
    return frozenset(names) - {last}
