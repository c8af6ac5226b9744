"""What labels mean, without torch."""

from __future__ import annotations

IGNORED = -100
"""The label of a position that doesn't count: padding, a border. torch's own choice."""
