"""What roles are made with, where it isn't the run's settings and data as they are."""

from __future__ import annotations

from ray_split import config
from ray_split.filesystem import Place
from ray_split.messages.contract import Contract
from ray_split.messages.weight_checks import Expected
from ray_split.segments import aggregators


def fed_server_arguments(
    settings: config.Config, contract: Contract
) -> tuple[Place, int | None, int, Expected, config.Aggregator]:
    """What the fed server is made with."""
    rows = not aggregators.aggregator_of(settings.aggregator).by_sums
    expected = Expected(contract.learned, contract.slots, settings.phones.max_norm.weights, contract.bounded, rows)
    return settings.run.folder, settings.checkpoint.num_to_keep, settings.phones.count, expected, settings.aggregator
