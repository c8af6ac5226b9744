"""Staging buffers, on a device that is only played: what is copied, when a buffer is used again, and how it lies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from ray_split.messages.staging import SMALLEST, Staging


class Event:
    """Of a copy that is under way until somebody waits, or the device is said to have come to it."""

    def __init__(self, device: Device) -> None:
        self._device, self.done, self.waited = device, False, False

    def query(self) -> bool:
        return self.done

    def synchronize(self) -> None:
        self.done = self.waited = True


class Device:
    """Memory of this machine in the place of a GPU's."""

    def __init__(self) -> None:
        self.buffers: list[torch.Tensor] = []
        self.events: list[Event] = []
        self.awaited: list[Event] = []
        self.kept: list[torch.Tensor] = []
        self.after: list[bool] = []
        self.ready: torch.Tensor | None = None  # what lies in pinned memory before

    def pinned(self, size: int) -> torch.Tensor:
        self.buffers.append(torch.zeros(size, dtype=torch.uint8))
        return self.buffers[-1]

    @contextmanager
    def beside(self, after: bool) -> Iterator[None]:
        self.after.append(after)
        yield

    def empty_like(self, tensor: torch.Tensor) -> torch.Tensor:
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)

    def mark(self) -> Event:
        self.events.append(Event(self))
        return self.events[-1]

    def await_on_device(self, event: Event, tensor: torch.Tensor) -> None:
        self.awaited.append(event)

    def is_pinned(self, tensor: torch.Tensor) -> bool:
        return tensor is self.ready

    def keep(self, tensor: torch.Tensor) -> None:
        self.kept.append(tensor)


KINDS = {
    "float32": torch.arange(24.0).reshape(2, 3, 4),
    "bfloat16": torch.arange(24.0).reshape(2, 3, 4).bfloat16(),
    "int64": torch.arange(7),
    "bool": torch.tensor([True, False, True]),
    "complex64": torch.complex(torch.arange(3.0), -torch.arange(3.0)),
    "channels_last": torch.arange(48.0).reshape(2, 3, 2, 4).contiguous(memory_format=torch.channels_last),
    "turned": torch.arange(12.0).reshape(3, 4).T,
    "none": torch.zeros(0, 3),
    "a number": torch.tensor(3.5),
}


@pytest.mark.parametrize("way", ["to_device", "to_host"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_has_the_bits_the_type_and_the_layout(kind: str, way: str) -> None:
    device, tensor = Device(), KINDS[kind]
    found = getattr(Staging(device), way)(tensor)
    assert (found.dtype, found.shape, found.stride()) == (tensor.dtype, tensor.shape, tensor.stride())
    assert torch.equal(found, tensor)
    memories = {buffer.untyped_storage().data_ptr() for buffer in [*device.buffers, tensor]}
    assert not found.numel() or found.untyped_storage().data_ptr() not in memories


def test_a_conjugate_comes_back_as_it_reads() -> None:
    tensor = KINDS["complex64"].conj()
    assert torch.equal(Staging(Device()).to_host(tensor), tensor.resolve_conj())


def test_no_buffer_is_used_again_while_its_copy_is_under_way() -> None:
    device = Device()
    staging = Staging(device)
    for _ in range(3):
        staging.to_device(torch.ones(8))
    assert len(device.buffers) == 3
    device.events[1].done = True
    staging.to_device(torch.zeros(8))
    assert len(device.buffers) == 3
    assert [float(buffer.view(torch.float32)[0]) for buffer in device.buffers] == [1, 0, 1]
    assert not any(event.waited for event in device.events)


def test_a_buffer_whose_copy_is_done_serves_whatever_has_about_its_size() -> None:
    device = Device()
    staging = Staging(device)
    for tensor in (torch.ones(1000), torch.ones(513, dtype=torch.int64), torch.ones(3), torch.ones(900)):
        staging.to_device(tensor)
        device.events[-1].done = True
    assert [len(buffer) for buffer in device.buffers] == [SMALLEST, 2 * SMALLEST]


def test_what_goes_over_is_waited_for_on_the_device_alone_and_what_comes_back_here() -> None:
    device = Device()
    staging, tensor = Staging(device), torch.ones(5)
    staging.to_device(tensor)
    assert (device.awaited, device.events[0].waited, device.after) == (device.events, False, [False])
    staging.to_host(tensor)
    assert (device.events[1].waited, device.after) == (True, [False, True])
    assert [each.data_ptr() for each in device.kept] == [tensor.data_ptr()]


def test_with_no_more_memory_for_buffers_the_oldest_copy_is_waited_for() -> None:
    device = Device()
    staging = Staging(device, most=2 * SMALLEST)
    for _ in range(3):
        staging.to_device(torch.ones(8))
    assert len(device.buffers) == 2
    assert [event.waited for event in device.events] == [True, False, False]


def test_a_tensor_larger_than_all_buffers_may_be_is_staged_all_the_same() -> None:
    device = Device()
    staging, large = Staging(device, most=SMALLEST), torch.arange(5000.0)
    staging.to_device(torch.ones(8))
    assert torch.equal(staging.to_device(large), large)
    assert device.events[0].waited


def test_what_lies_in_pinned_memory_goes_over_from_there_and_is_kept_until_it_is_over() -> None:
    device = Device()
    staging, held = Staging(device), torch.arange(6.0)
    device.ready = held
    there = staging.to_device(held)
    assert torch.equal(there, held) and there.data_ptr() != held.data_ptr()
    assert not device.buffers and [each.memory is held for each in staging._pinned] == [True]
    device.events[0].done, device.ready = True, torch.arange(3.0)
    staging.to_device(device.ready)
    assert [each.memory is device.ready for each in staging._pinned] == [True]
