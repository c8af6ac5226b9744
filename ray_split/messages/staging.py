"""Between a GPU and what crosses: pinned buffers, used again and again, and a stream of their own.

From pageable memory a copy to a GPU waits for the GPU, and goes at half the rate. Here what arrives is laid into a
pinned buffer and goes over while the GPU computes; whoever computes next waits for it on the GPU alone. What comes back
is waited for, as it is wanted at once. Nothing on a CPU comes by here.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import numpy as np
import torch

SMALLEST = 1 << 12  # bytes of a buffer: sizes are powers of two, so that batches of about a size share them
MOST = 1 << 30  # bytes of buffers that copies may be under way from; with more, the oldest is waited for


class Event(Protocol):
    """Torch's torch.cuda.Event, as far as it is needed here."""

    def query(self) -> bool: ...

    def synchronize(self) -> None: ...


class Copier(Protocol):
    """What a GPU is asked for."""

    def pinned(self, size: int) -> torch.Tensor:
        """A buffer of so many bytes, which the GPU can read by itself."""

    def beside(self, after: bool) -> AbstractContextManager[Any]:
        """On the stream for copies; `after` all that was submitted to the current one, or at once."""

    def empty_like(self, tensor: torch.Tensor) -> torch.Tensor:
        """Memory on the GPU, laid out as the tensor."""

    def mark(self) -> Event:
        """An event that is done when all is that was submitted to the stream for copies."""

    def await_on_device(self, event: Event, tensor: torch.Tensor) -> None:
        """Let the current stream wait for the event before it uses the tensor."""

    def is_pinned(self, tensor: torch.Tensor) -> bool:
        """Whether the GPU can read the tensor by itself."""

    def keep(self, tensor: torch.Tensor) -> None:
        """The stream for copies reads the tensor: its memory is nobody else's before that is done."""


@dataclass
class _Buffer:
    memory: torch.Tensor
    event: Event | None = None  # of the copy that uses it


class Staging:
    """The way to one device, and back."""

    def __init__(self, copier: Copier, most: int = MOST) -> None:
        self._copier, self._most = copier, most
        self._buffers: list[_Buffer] = []  # the one that has waited longest first
        self._pinned: list[_Buffer] = []  # others' memory, from which copies are under way

    def to_device(self, tensor: torch.Tensor) -> torch.Tensor:
        """A copy on the device, laid out as the tensor; it may still be under way, which the device knows."""
        buffer, staged = self._lent(tensor) if self._is_ready(tensor) else self._taken(tensor)
        if staged is not tensor:
            staged.copy_(tensor)
        with self._copier.beside(after=False):
            there = self._copier.empty_like(staged)
            there.copy_(staged, non_blocking=True)
            event = buffer.event = self._copier.mark()
        self._copier.await_on_device(event, there)
        return there

    def to_host(self, tensor: torch.Tensor) -> torch.Tensor:
        """A copy in memory of its own, laid out as the tensor; waits for it."""
        tensor = tensor.detach().resolve_conj().resolve_neg()
        buffer, staged = self._taken(tensor)
        with self._copier.beside(after=True):
            staged.copy_(tensor, non_blocking=True)
            self._copier.keep(tensor)
            event = buffer.event = self._copier.mark()
        event.synchronize()
        return torch.empty_strided(staged.shape, staged.stride(), dtype=staged.dtype).copy_(staged)

    def _is_ready(self, tensor: torch.Tensor) -> bool:
        return tensor.is_contiguous() and self._copier.is_pinned(tensor)

    def _lent(self, tensor: torch.Tensor) -> tuple[_Buffer, torch.Tensor]:
        """A tensor that is pinned as it is. It is kept until its copy is through: its memory may be used again then."""
        self._pinned = [each for each in self._pinned if each.event is not None and not each.event.query()]
        self._pinned.append(_Buffer(tensor))
        return self._pinned[-1], tensor

    def _taken(self, like: torch.Tensor) -> tuple[_Buffer, torch.Tensor]:
        """A buffer from which no copy is under way, and the part of it that lies as a copy of the tensor would."""
        strides = torch.empty_like(like, device="meta").stride()
        size = max(SMALLEST, 1 << max(0, like.numel() * like.itemsize - 1).bit_length())
        buffer = self._free(size) or _Buffer(self._copier.pinned(size))
        self._buffers.append(buffer)
        flat = buffer.memory[: like.numel() * like.itemsize].view(like.dtype)
        return buffer, flat.as_strided(like.shape, strides)

    def _free(self, size: int) -> _Buffer | None:
        """A buffer of this size that nothing uses; None if a new one may be made."""
        own = [buffer for buffer in self._buffers if len(buffer.memory) == size]
        found = next((buffer for buffer in own if buffer.event is None or buffer.event.query()), None)
        while found is None and sum(len(buffer.memory) for buffer in self._buffers) + size > self._most:
            oldest = self._buffers.pop(0) if self._buffers else None
            if oldest is None:
                return None  # one that is larger than all together may be
            if oldest.event is not None:
                oldest.event.synchronize()
            if len(oldest.memory) == size:
                return oldest
        if found is not None:
            # By identity: buffers of tensors can't be compared.
            self._buffers = [buffer for buffer in self._buffers if buffer is not found]
        return found


class CudaCopier:
    """A CUDA device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def pinned(self, size: int) -> torch.Tensor:
        """As Copier.pinned."""
        return torch.empty(size, dtype=torch.uint8, pin_memory=True)

    def beside(self, after: bool) -> AbstractContextManager[Any]:
        """As Copier.beside."""
        if after:
            self._stream.wait_stream(torch.cuda.current_stream(self._device))
        return torch.cuda.stream(self._stream)

    def empty_like(self, tensor: torch.Tensor) -> torch.Tensor:
        """As Copier.empty_like."""
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=self._device)

    def mark(self) -> Event:
        """As Copier.mark."""
        event: Event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(self._stream)  # type: ignore[attr-defined]  # a method that torch's types leave out
        return event

    def await_on_device(self, event: Any, tensor: torch.Tensor) -> None:
        """As Copier.await_on_device."""
        current = torch.cuda.current_stream(self._device)
        current.wait_event(event)
        tensor.record_stream(current)

    def is_pinned(self, tensor: torch.Tensor) -> bool:
        """As Copier.is_pinned."""
        return tensor.is_pinned()

    def keep(self, tensor: torch.Tensor) -> None:
        """As Copier.keep."""
        tensor.record_stream(self._stream)


def pinned(value: Any) -> Any:
    """An array in memory that a GPU reads by itself, copied; what isn't one as it is."""
    return torch.from_numpy(value).pin_memory().numpy() if isinstance(value, np.ndarray) else value


@cache
def staging_of(device: torch.device) -> Staging:
    """The way to a CUDA device: one for all of this process."""
    return Staging(CudaCopier(device))
