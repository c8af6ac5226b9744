"""The browser's client: in Node, and in headless Chromium, which joins as a person would. Against torch's losses."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from safetensors.numpy import load

from tests.conftest import HANG_SECONDS

WEB = Path(__file__).parents[2] / "web"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SAYS = {
    "hello": {"kind", "version", "token", "device", "samples"},
    "load": {"kind", "id"},
    "forward": {"kind", "id"},
    "loss": {"kind", "id", "loss", "correct"},
    "backward": {"kind", "id"},
    "close": {"kind", "id"},
    "evaluate": {"kind", "id"},
    "evaluate_loss": {"kind", "id", "loss", "correct", "nonfinite"},
    "failed": {"kind", "id", "reason"},  # a page that was loaded again in the midst of a round has nothing loaded
    "bye": {"kind", "reason"},
}
"""All that the header of each kind of frame may say: nothing of the data."""
BRINGS = {"forward": {"activation"}, "evaluate": {"activation"}, "loss": {"gradient"}}
"""The tensors that a frame may bring; `close` brings those of `load`."""
STATE = tuple(f"{side}/{what}/" for side in ("a", "c") for what in ("weights", "optimizer"))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed"),
    pytest.mark.skipif(not (WEB / "node_modules").exists(), reason="web/node_modules is missing: npm install in web/"),
]
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


class Visit(NamedTuple):
    """What the gateway and the browser wrote down."""

    url: str
    browser: dict[str, Any]
    frames: list[bytes]
    steps: list[int]
    """In which step each frame was sent."""
    folder: Path

    @property
    def result(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "result.json").read_text())
        return found


@contextmanager
def gateway(folder: Path, case: str) -> Iterator[str]:
    command = [sys.executable, str(WEB / "test" / "mock_gateway.py"), str(folder), case]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


def visit(folder: Path, backend: str, case: str, *how: str) -> Visit:
    with gateway(folder, case) as url:
        command = ["node", str(WEB / "test" / "browser.mjs"), url, backend, str(folder), *how]
        subprocess.run(command, check=True, timeout=HANG_SECONDS, env={**os.environ, "CHROMIUM": str(CHROMIUM)})
    files = sorted(folder.glob("*.frame"))
    frames, steps = [file.read_bytes() for file in files], [int(file.stem.split("-")[1]) for file in files]
    return Visit(url, json.loads((folder / "browser.json").read_text()), frames, steps, folder)


def opened(frame: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    (length,) = struct.unpack_from("<I", frame)
    payload = frame[4 + length :]
    return json.loads(frame[4 : 4 + length]), load(payload) if payload else {}


def samples(case: str) -> tuple[np.ndarray, np.ndarray, list[list[int]], float]:
    """Inputs as the examples have them, labels, the batches, and the inputs' scale."""
    sys.path.insert(0, str(WEB / "test"))
    from exchanges import CASES, batches

    raw, labels = CASES[case]["data"]()
    train = len(labels) - len(labels) // 5
    return raw.numpy(), labels.numpy(), batches(train, CASES[case]["batch"]), CASES[case]["scale"]


def holds(frame: bytes, things: Sequence[np.ndarray]) -> bool:
    return any(thing.tobytes() in frame for thing in things)


def nothing_of_the_data(frames: Sequence[bytes], steps: Sequence[int], case: str) -> None:
    """No header says, no tensor is, and no bytes anywhere are an input or a batch's labels."""
    raw, labels, plan, scale = samples(case)
    for frame, step in zip(frames, steps, strict=True):
        header, tensors = opened(frame)
        kind = header["kind"]
        assert set(header) <= SAYS[kind], header
        if kind == "close":
            assert all(name.startswith(STATE) for name in tensors)
        else:
            assert set(tensors) == BRINGS.get(kind, set()), kind
        batch = plan[step]
        inputs = raw[batch]
        scaled = (inputs.astype(np.float32) * np.float32(scale)).astype(np.float32)
        assert not holds(frame, list(inputs) + list(scaled)), kind
        # Four labels in a row, in whatever kind of number; of bytes twelve, for four may stand there by chance.
        in_a_row = [labels[batch][:4].astype(number) for number in (np.int32, np.int64, np.float32)]
        assert not holds(frame, [*in_a_row, labels[batch][:12].astype(np.uint8)]), kind
        assert ",".join(map(str, labels[batch][:4])).encode() not in frame


def _the_check_sees_what_it_looks_for(found: Visit, case: str) -> None:
    raw, labels, plan, scale = samples(case)
    sample, own = raw[plan[7][3]], labels[plan[7]]
    secrets = [sample, sample.astype(np.float32) * np.float32(scale), own.astype(np.int32), own.astype(np.int64)]
    place = found.steps.index(7)
    for secret in secrets:
        with pytest.raises(AssertionError):
            nothing_of_the_data([_with(found.frames[place], secret)], [7], case)


def _with(frame: bytes, secret: np.ndarray) -> bytes:
    """The frame, with the secret hidden in the tensor's numbers."""
    return frame[: len(frame) - secret.nbytes] + secret.tobytes()


def only_the_gateway_was_asked(found: Visit) -> None:
    host = found.url.removeprefix("http")
    assert all(address.removeprefix("ws").removeprefix("http").startswith(host) for address in found.browser["asked"])
    assert found.browser["complaints"] == []
    assert not found.browser["scrolls"]  # sideways


def test_layers_optimizers_and_exchanges_in_node() -> None:
    environment = {**os.environ, "PYTHON": sys.executable}
    subprocess.run(["node", str(WEB / "test" / "run.mjs")], check=True, timeout=HANG_SECONDS, env=environment)


@needs_chromium
@pytest.mark.parametrize("case", ["digits", "series"])
@pytest.mark.parametrize("backend", ["cpu", "webgl"])
def test_a_browser_trains_as_torch_does_and_sends_nothing_of_its_data(tmp_path: Path, backend: str, case: str) -> None:
    """100 steps in four rounds; the page is reloaded in the second, which is then begun anew."""
    found = visit(tmp_path, backend, case)
    result = found.result
    assert found.browser["shown"]["Computes with"] == backend
    assert len(result["losses"]) == 100
    np.testing.assert_allclose(result["losses"], result["wanted"], rtol=1e-4)
    print(f"{case}, {backend}: {np.max(np.abs(np.divide(result['losses'], result['wanted']) - 1)):.2e}")
    assert result["attempts"] >= 1
    assert result["accuracy"] >= 0.95
    assert abs(result["accuracy"] - result["wanted_accuracy"]) < 0.005
    only_the_gateway_was_asked(found)
    nothing_of_the_data(found.frames, found.steps, case)
    _the_check_sees_what_it_looks_for(found, case)


@needs_chromium
def test_a_drawn_digit_a_file_and_a_picture_of_the_camera_are_learned(tmp_path: Path) -> None:
    """Three pictures, one drawn by keyboard, one whose label the run doesn't know: the person is asked.

    The person ticked that labels are shared: the first frame says how many there are of each, and no other frame does.
    """
    found = visit(tmp_path, "cpu", "digits", "own")
    assert opened(found.frames[0])[0]["samples"] == 3
    assert opened(found.frames[0])[0]["labels"] == {"1": 1, "3": 1, "page": 1}
    assert found.result["losses"][-1] < 0.05 < found.result["losses"][0]
    assert {name for frame in found.frames[1:] for name in opened(frame)[0]} <= set().union(*SAYS.values())
    only_the_gateway_was_asked(found)


@needs_chromium
def test_leaving_takes_effect_at_once(tmp_path: Path) -> None:
    """The last thing sent is goodbye; after a reload neither data nor token are there."""
    found = visit(tmp_path, "cpu", "digits", "leave")
    assert opened(found.frames[-1])[0] == {"kind": "bye", "reason": "left"}
    assert found.browser["forgotten"]
    only_the_gateway_was_asked(found)
