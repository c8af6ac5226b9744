"""What an actor's process says of itself. Pickled by name, so what this file imports comes into every actor's process.

No torch: in the fed server's it would take some 330 MB. ray is there in any case.
"""

from __future__ import annotations

import ray

from actors.ray_backend import own_code, software_versions


def software(_: object) -> software_versions.Found:
    """The node that an actor is on, and what it runs there."""
    here = {**software_versions.here(), software_versions.PLACE: own_code.place()}
    return software_versions.Found(ray.get_runtime_context().get_node_id(), ray.util.get_node_ip_address(), here)
