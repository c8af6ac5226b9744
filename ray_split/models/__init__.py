"""Models by name."""

from ray_split.models.registry import build, cuts_of

__all__ = ["build", "cuts_of"]
