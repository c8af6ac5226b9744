"""What roles are made with, where it isn't the run's settings and data as they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from ray_split import config
from ray_split.algorithms import algorithm_of, contrast_of, correct_of, encoder, server_optimizer_of
from ray_split.algorithms.server_side import ServerSide
from ray_split.filesystem import Place
from ray_split.messages.contract import Contract
from ray_split.messages.state import is_statistic
from ray_split.messages.weight_checks import Expected
from ray_split.schedules import schedule_of
from ray_split.segments import aggregators
from ray_split.segments.optimization.correction import Correct


def fed_server_arguments(
    settings: config.Config, contract: Contract
) -> tuple[
    Place,
    int | None,
    int,
    Expected,
    config.Aggregator,
    Callable[[], ServerSide] | None,
    float | None,
    Mapping[str, str],
]:
    """What the fed server is made with."""
    rows = not aggregators.aggregator_of(settings.aggregator).by_sums
    max_norm = settings.phones.max_norm.weights
    expected = Expected(
        contract.learned,
        contract.slots,
        max_norm,
        contract.bounded,
        rows,
        contract.numbers,
        bool(_whole(settings, contract)),
    )
    trained, whole = _trained(settings, contract), _whole(settings, contract)
    side = partial(ServerSide, settings, trained, whole) if _has_side(settings) else None
    folder, keep, phones = settings.run.folder, settings.checkpoint.num_to_keep, settings.phones.count
    return folder, keep, phones, expected, settings.aggregator, side, settings.optimizer.ema_decay, contract.tied


def remember(settings: config.Config) -> frozenset[str]:
    """The segments of which phones remember something for the settings' algorithm."""
    algorithm = algorithm_of(settings.algorithm)
    remembers = algorithm is not None and algorithm.remember is not None
    averaged = schedule_of(settings.schedule).averaged if remembers else frozenset()
    trained = averaged - frozenset(settings.model.freeze)
    return trained if contrast_of(settings.algorithm) is None else encoder(settings, trained)


def corrects(settings: config.Config) -> dict[str, Correct | None]:
    """What the gradients of each segment's copies are corrected by: of those that are averaged, if by anything."""
    averaged = schedule_of(settings.schedule).averaged
    return {name: correct_of(settings.algorithm) if name in averaged else None for name in "abc"}


def _whole(settings: config.Config, contract: Contract) -> dict[str, frozenset[str]]:
    """Of the segments of which phones remember their models all keys, statistics and other buffers too."""
    if contrast_of(settings.algorithm) is None:
        return {}
    return {name: contract.learned[name] for name in remember(settings) & contract.learned.keys()}


def _has_side(settings: config.Config) -> bool:
    return (algorithm_of(settings.algorithm), server_optimizer_of(settings.server_optimizer)) != (None, None)


def _trained(settings: config.Config, contract: Contract) -> dict[str, frozenset[str]]:
    """Of the segments whose copies are averaged the keys of the weights: statistics and other buffers just are."""
    averaged = schedule_of(settings.schedule).averaged & contract.learned.keys()
    return {
        name: frozenset(key for key in contract.learned[name] & contract.bounded if not is_statistic(key))
        for name in averaged
    }
