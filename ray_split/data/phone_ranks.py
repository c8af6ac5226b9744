"""Which rank each phone's adapters have: that of its device, or drawn from the settings' mix by the run's seed."""

from __future__ import annotations

import numpy as np

from ray_split import config
from ray_split.arrays import Array
from ray_split.data.phone_devices import devices_of, drawn


def ranks_of(settings: config.Config) -> Array | None:
    """The rank of each phone's adapters (phones,); None where all phones have those of model.lora.r."""
    ranks, seed, count = settings.model.lora.ranks, settings.run.seed, settings.phones.count
    if ranks is None:
        return None
    if isinstance(ranks, dict):
        devices, chosen = devices_of(settings.phones.device, seed, count)
        return np.array([ranks[device.name] for device in devices])[chosen]
    each, chosen = drawn([(share.of, share.weight) for share in ranks], seed, "ranks", count)
    return np.array(each)[chosen]
