"""What an operator's metrics are told of devices."""

from __future__ import annotations

from typing import Any

import pytest

from actors.gateway import figures
from actors.gateway.figures import DeviceFigures


def device(phone: int, answers: int, **changed: Any) -> dict[str, Any]:
    told = {"up": 10 * answers, "down": 20 * answers, "seconds": 0.5 * answers, "lost": 0, "there": True}
    return {"phone": phone, "answers": answers, **told, **changed}


def test_each_look_tells_of_what_came_since_the_one_before() -> None:
    found = DeviceFigures()
    of_run, by_phone = found.of_all([device(3, 4), device(5, 0, there=False, lost=1)])
    assert of_run == {"devices_connected": 1, "devices_lost": 1}
    assert by_phone["3"] == {"device_answer_seconds": 0.5, "device_bytes_up": 40, "device_bytes_down": 80}
    assert by_phone["5"]["device_answer_seconds"] is None
    of_run, by_phone = found.of_all([device(3, 6, seconds=6.0), device(5, 0, lost=1)])
    assert of_run == {"devices_connected": 2, "devices_lost": 0}
    assert by_phone["3"] == {"device_answer_seconds": 2.0, "device_bytes_up": 20, "device_bytes_down": 40}


def test_a_gateway_that_replaces_one_that_died_counts_from_0() -> None:
    found = DeviceFigures()
    found.of_all([device(3, 40)])
    _, by_phone = found.of_all([device(3, 2)])
    assert by_phone["3"]["device_bytes_up"] == 20


def test_phones_beyond_the_most_are_one_series(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "MOST", 2)
    _, by_phone = DeviceFigures().of_all([device(phone, 1) for phone in range(5)])
    assert {label: own["device_bytes_up"] for label, own in by_phone.items()} == {"0": 10, "1": 10, "others": 30}
