"""Invite devices to runs, and see which are there.

    ray-split devices invite --count 3 --url http://gateway:8484/
    ray-split devices list --url http://gateway:8484/
    ray-split devices forget

invite prints an address for each device, and a picture of it that a telephone's camera reads. Whoever has the address
may be that phone, so hand it to one person. list asks the gateway of a run. forget makes all tokens void for the runs
that begin from now on.

Exit status: 0, 1 if the gateway doesn't answer, or 2 for a bad argument.
"""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp

from ray_split import config
from ray_split.devices.own_address import own_address
from ray_split.devices.tokens import forget, operator_of, path_of, tokens_of
from ray_split.errors import SettingsError, first_line
from ray_split.experiments.command import exit_status, parser_of

MOST = 10_000
SHOWN_LABELS = 20


@exit_status
def main(arguments: Sequence[str]) -> int:
    """Invite, list or forget; returns the exit status."""
    parser = parser_of("devices", __doc__)
    parser.add_argument("what", choices=("invite", "list", "forget"))
    parser.add_argument("--count", type=int, default=1, help="how many devices (default: 1)")
    url = f"http://{own_address()}:{config.Gateway().port}/"
    parser.add_argument("--url", default=url, help=f"the gateway's address (default: {url})")
    parser.add_argument("--tokens", type=Path, help="the file of the tokens (default: ~/.ray_split/devices.json)")
    parser.add_argument("--no-picture", action="store_true", help="print the addresses without a picture")
    given = parser.parse_args(arguments)
    path = path_of(given.tokens)
    if given.what == "invite":
        if not 1 <= given.count <= MOST:
            raise SettingsError("--count", given.count, f"a number from 1 to {MOST}")
        print("\n".join(invitations(tokens_of(path, given.count), given.url, not given.no_picture)))
    elif given.what == "list":
        print("\n".join(table(asyncio.run(_connected(given.url, operator_of(path))))))
    else:
        forget(path)
        print(f"all tokens in {path} are void for runs that begin from now on")
    return 0


def invitations(tokens: Sequence[str], url: str, pictures: bool) -> Iterator[str]:
    """The lines of each device's invitation."""
    for number, token in enumerate(tokens):
        address = f"{url.rstrip('/')}/#{token}"
        yield f"device {number}: {address}"
        if pictures:
            yield qr_code(address)


def qr_code(text: str) -> str:
    """A picture of a text for a terminal. Raises SettingsError if the package that draws it is not installed."""
    try:
        import segno
    except ImportError as error:
        do = "Run: pip install 'ray-split[devices]', or say --no-picture"
        raise SettingsError(
            "", None, do, f"pictures need a package that is not installed: {first_line(error)}"
        ) from error
    out = io.StringIO()
    segno.make(text, error="m").terminal(out, compact=True, border=2)
    return out.getvalue()


async def _connected(url: str, operator: str) -> list[dict[str, Any]]:
    """What the gateway says of its devices. Raises OSError if it says nothing."""
    headers, where = {"Authorization": f"Bearer {operator}"}, f"{url.rstrip('/')}/devices.json"
    try:
        async with aiohttp.ClientSession() as session, session.get(where, headers=headers) as answer:
            if answer.status != 200:
                raise SettingsError("--url", url, "Name the tokens' file of that run", await answer.text())
            found: list[dict[str, Any]] = await answer.json()
            return found
    except aiohttp.ClientError as error:
        raise OSError(f"no answer from a gateway at {url}: {error}") from error


def table(devices: Sequence[dict[str, Any]]) -> Iterator[str]:
    """A line for each device."""
    head = f"{'phone':>5}  {'device':<32}  {'connected':<9}  {'lost':>4}  {'answers in':>10}  {'up':>10}  {'down':>10}"
    yield f"{head}  labels"
    for each in devices:
        mean = 1000 * each["seconds"] / max(1, each["answers"])
        since = time.strftime("%H:%M:%S", time.localtime(each["connected"])) if each["there"] else "gone"
        sizes = f"{each['up'] / 1e6:>7.2f} MB  {each['down'] / 1e6:>7.2f} MB"
        link = f"{since:<9}  {each['lost']:>4}  {mean:>7.0f} ms  {sizes}"
        yield f"{each['phone']:>5}  {each['device'][:32]:<32}  {link}  {_histogram(each['labels'])}"
    if not any(each["there"] for each in devices):
        yield "no device is connected"


def _histogram(labels: dict[str, int] | None) -> str:
    """How many of each class, if the device says; of many classes the first ones."""
    if labels is None:
        return "-"
    told = [f"{name}: {count}" for name, count in sorted(labels.items(), key=lambda each: (len(each[0]), each[0]))]
    return ", ".join(told[:SHOWN_LABELS]) + ", ..." * (len(told) > SHOWN_LABELS)
