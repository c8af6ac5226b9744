"""When B steps: with its backward, or once the norm of all segments' gradients is known, by which they are clipped."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ray_split.arrays import Array
from ray_split.errors import BadPhoneError
from ray_split.messages.turn import Turn
from ray_split.segments.copies import Copies


class Stepping:
    """Steps copies of B after their backward; `waits`: at the call that brings the phones' norms."""

    def __init__(self, waits: bool) -> None:
        self._waits = waits
        self._waiting: dict[tuple[int, ...], tuple[Turn, Copies]] = {}

    def forget(self) -> None:
        """A round begins: drop what waits."""
        self._waiting = {}

    def after_backward(self, turn: Turn, copies: Copies) -> None:
        """The gradients of a turn are there; if they are still accumulated, nothing steps."""
        if not turn.updates_any:
            return
        if self._waits:
            self._waiting[turn.phones] = turn, copies
        else:
            copies.step(turn)

    def norms(self, turn: Turn) -> Mapping[str, Array] | None:
        """Of the gradients of a turn that waits for its step, by parameter, each phone's (k,); None if none does."""
        found = self._waiting.get(turn.phones)
        return found[1].gradient_norms() if found else None

    def step(self, turn: Turn, norms: Array | None) -> None:
        """The step of a turn, whose phones' whole gradients have these norms (k,).

        Raises RuntimeError if it doesn't wait for one, BadPhoneError for what are no norms.
        """
        at, copies = self._waiting.pop(turn.phones, (None, None))
        if copies is None or at != turn:
            raise RuntimeError(f"server.step: step {turn.step} of phones {turn.phones} doesn't wait for one")
        _check(turn, norms, copies.gradient_norms())
        copies.step(turn, norms)

    def check(self, phones: tuple[int, ...] | None = None) -> None:
        """Raises RuntimeError if B, or these phones' copies of it, have yet to step."""
        for at, _ in self._waiting.values():
            if phones in (None, at.phones):
                waits = f"step {at.step} of phones {at.phones} waits for the norm of their gradients"
                raise RuntimeError(f"{waits}: server.step is missing")


def _check(turn: Turn, norms: Array | None, own: Mapping[str, Array]) -> None:
    """A phone could send any number. Of gradients that are not finite there is no step either."""
    count = max((len(each) for each in own.values()), default=None)
    right = type(norms) is np.ndarray and norms.dtype.kind == "f" and norms.ndim == 1 and count in (None, len(norms))
    if norms is None or not right:
        raise BadPhoneError(turn.phones, "the norm of its gradients is none")
    bad = np.flatnonzero(~(np.isfinite(norms) & (norms >= 0)))
    if len(bad):
        stepping = turn.updating(len(turn.phones))
        whose = tuple(turn.phones[stepping[i]] for i in bad)
        raise BadPhoneError(whose, "the norm of its gradients is not finite: broken data, or training that diverged?")
