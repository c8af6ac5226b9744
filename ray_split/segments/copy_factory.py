"""Makes the copies of one segment, stacked or looped as the settings say."""

from __future__ import annotations

import copy
from dataclasses import replace

from torch import nn

from ray_split import config
from ray_split.messages.state import State
from ray_split.segments.base_weight import with_own_base
from ray_split.segments.copies import Copies
from ray_split.segments.device.computing import Computing, compiled, computing_of
from ray_split.segments.looped_copies import LoopedCopies
from ray_split.segments.optimization.correction import Correct, Correction
from ray_split.segments.parameter_hooks import copied
from ray_split.segments.segment import Segment
from ray_split.segments.stacked_copies import StackedCopies


class CopyFactory:
    """One segment of the cut model: 'a', 'b' or 'c'."""

    def __init__(
        self,
        name: str,
        module: nn.Module,
        settings: config.Config,
        device: str = "cpu",
        correct: Correct | None = None,
        computing: Computing | None = None,
    ) -> None:
        """`correct`: what copies' gradients are corrected by before they step, if by anything.

        `computing`: how, if not as the settings say of the segment wherever it is.
        """
        self.computing = computing or computing_of(settings, name)
        self._run = compiled() if self.computing.compiled else None
        self._correct = correct
        self._module = module
        self._optimizer = settings.optimizer.of(name)
        self._device = device
        self._backprop = settings.model.backprop
        self.frozen = name in settings.model.freeze
        self.trains = not self.frozen and any(parameter.requires_grad for parameter in module.parameters())
        self.stacked = name in (settings.phones.stacked or ())

    def like(self, optimizer: config.Optimizer, double: bool = False) -> CopyFactory:
        """A maker of the same with another optimizer, and in double precision if asked."""
        made = copy.copy(self)
        made._optimizer = optimizer
        made.computing, made._run = replace(self.computing, compiled=False), None
        made._module = with_own_base(copied(self._module)).double() if double else self._module
        return made

    def segment(self) -> Segment:
        """One segment."""
        module = copied(self._module)
        return Segment(module, self._optimizer, self._device, self.frozen, self._backprop, self.computing, self._run)

    def first_state(self) -> State:
        """The state before the first round."""
        return self.segment().state()

    def __call__(self, count: int) -> Copies:
        """Copies for a cohort of `count` phones. One phone is always looped."""
        return self.stack() if count > 1 and self.stacked else self.looped()

    def stack(self) -> StackedCopies:
        """Copies as one."""
        return StackedCopies(
            self._module,
            self._optimizer,
            self._device,
            self.frozen,
            self._backprop,
            self._correction(),
            self.computing,
        )

    def looped(self) -> LoopedCopies:
        """Copies one after the other."""
        return LoopedCopies(self.segment, self._correction())

    def _correction(self) -> Correction | None:
        return None if self._correct is None else Correction(self._correct)
