"""How an exchange's messages go from actor to actor: by the driver's calls, or by the client's own."""

from __future__ import annotations

from ray_split import config
from ray_split.config.user_code.by_value import spoken
from ray_split.errors import SettingsError
from ray_split.schedules import schedule_of

DIRECT = "the client that has the phones calls the server itself (cluster.channel: direct)"
CALLS = "the driver submits each call (cluster.channel: calls)"


def check(settings: config.Config) -> None:
    """Raises SettingsError if `cluster.channel` is to be direct, and can't be."""
    reason = why_not_direct(settings)
    if settings.cluster.channel == "direct" and reason is not None:
        raise SettingsError("cluster.channel", "direct", "Set auto or calls", f"can't be direct, because {reason}")


def is_direct(settings: config.Config) -> bool:
    """Whether clients lead exchanges. The settings keep `auto`: config.yaml is then right for another backend, too."""
    asked = settings.cluster.channel
    return asked == "direct" or (asked == "auto" and why_not_direct(settings) is None)


def why_not_direct(settings: config.Config) -> str | None:
    """Why exchanges can't be led by clients; None if they can."""
    if settings.cluster.backend != "ray":
        return f"with cluster.backend {settings.cluster.backend} all actors are in one process"
    if not schedule_of(settings.schedule).direct:
        return f"in {spoken(settings.schedule.name)} an exchange is not one client's with one server"
    if settings.phones.remote_phones:
        return "phones are remote (phones.remote)"
    if settings.server.replicas > 1:
        return "there are several replicas of the server"
    if settings.optimizer.clips_model:
        return "with optimizer.clip model B steps once the norm of all gradients is known"
    return None


def told(settings: config.Config) -> str:
    """How messages go, for people."""
    return f"exchanges: {DIRECT if is_direct(settings) else CALLS}"
