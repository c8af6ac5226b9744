"""Be a phone of a run that is somewhere else: a Raspberry Pi, or the machine of a hospital.

    ray-split device --url http://gateway:8484/#TOKEN --data my_data:samples
    ray-split device --url http://gateway:8484/ --token TOKEN --examples

--data names a function, as package.module:function, that returns (inputs, labels): arrays with a class for each sample.
Data and labels stay here. What is sent: activations, gradients, the weights of A and C, and in an evaluation how many
samples come out right; with --share-labels also how many samples there are of each class.

Exit status: 0 once the run is over, 1 if the gateway refuses the device, 2 for a bad argument.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import numpy as np
from safetensors.numpy import load

from ray_split.config.user_code.plugins import FIX, find
from ray_split.devices.client import AGAIN_SECONDS, RefusedError, take_part
from ray_split.devices.phone import DeviceError, Samples
from ray_split.errors import BROKEN, SettingsError, failed
from ray_split.experiments.command import exit_status, parser_of

SCHEMES = ("http", "https", "ws", "wss")


@exit_status
def main(arguments: Sequence[str]) -> int:
    """Take part in a run; returns the exit status."""
    parser = parser_of("device", __doc__)
    parser.add_argument("--url", required=True, help="the gateway's address, as in the invitation")
    parser.add_argument("--token", help="the device's token (default: what stands after # in --url)")
    parser.add_argument("--data", metavar="MODULE:FUNCTION", help="function that returns this device's samples")
    parser.add_argument("--examples", action="store_true", help="train on examples that the gateway offers")
    parser.add_argument(
        "--share-labels", action="store_true", help="tell the run's owner how many samples of each class are here"
    )
    parser.add_argument("--name", default=socket.gethostname(), help="what the device is called (default: the host)")
    given = parser.parse_args(arguments)
    url, token = _address(given.url, given.token)
    if (given.data is None) is not given.examples:
        raise SettingsError("--data", given.data, "Name a function of yours, or say --examples", "is one of two ways")
    samples = asyncio.run(_examples(url, token)) if given.examples else _samples(given.data)
    try:
        goodbye = asyncio.run(take_part(url, token, samples, given.name, _say, given.share_labels))
    except (RefusedError, DeviceError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(goodbye)
    return 0


def _address(url: str, token: str | None) -> tuple[str, str]:
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES or not parts.netloc:
        raise SettingsError("--url", url, "an address such as http://gateway:8484/")
    found = token or parts.fragment
    if not found:
        raise SettingsError("--token", None, "Give the invitation's whole address, or --token", "is not set")
    return url.partition("#")[0], found


def _samples(name: str) -> Samples:
    """What a function of the user's returns. Raises SettingsError."""
    function = find("--data", name, {})
    try:
        inputs, labels = function()
        arrays = np.asarray(inputs), np.asarray(labels)
    except BROKEN as error:
        raise SettingsError("--data", name, FIX, failed(name, error)) from error
    return _checked("--data", name, *arrays)


def _checked(flag: str, name: str, inputs: Any, labels: Any) -> Samples:
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or len(inputs) != len(labels) or not len(labels):
        wrong = f"gave inputs {inputs.shape} and labels {labels.shape} of {labels.dtype}"
        raise SettingsError(flag, name, "Return an array of samples, and the class of each as a whole number", wrong)
    if inputs.dtype == np.float64:
        inputs = inputs.astype(np.float32)
    if inputs.dtype not in (np.uint8, np.float32, np.int64):
        wrong = f"gave inputs of {inputs.dtype}"
        raise SettingsError(flag, name, "Return bytes (uint8), float32, or whole numbers (int64)", wrong)
    return Samples(inputs, labels)


async def _examples(url: str, token: str) -> Samples:
    """The gateway's examples for this device, once it is there. Raises SettingsError if it has none."""
    parts = urlsplit(url)
    where = f"{'https' if parts.scheme in ('https', 'wss') else 'http'}://{parts.netloc}/examples.safetensors"
    headers = {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.get(where, headers=headers) as answer:
                    body = await answer.read()
                break
            except aiohttp.ClientConnectionError as error:
                print(f"no answer from {where} ({error}): trying again", flush=True)
                await asyncio.sleep(AGAIN_SECONDS[1])
    if answer.status != 200:
        raise SettingsError("--examples", None, "Name your own --data", f"there are none: {body.decode()}")
    found = load(body)
    return Samples(found["inputs"], found["labels"])


def _say(header: Mapping[str, Any]) -> None:
    if header["kind"] == "welcome":
        print(f"phone {header['phone']} of run {header['run']}, {header['samples']} samples", flush=True)
    else:
        print(header.get("text", ""), flush=True)
