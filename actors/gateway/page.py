"""What the gateway serves beside the WebSocket: the page for browsers, examples, and who is connected."""

from __future__ import annotations

import hmac
import ssl
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from aiohttp import web
from safetensors.numpy import save

from actors.gateway.connections import Connections
from ray_split import config, devices
from ray_split.arrays import Array
from ray_split.errors import RunFailedError

PAGE = Path(devices.__file__).parent / "page"
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; connect-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self' blob:; style-src 'self' 'unsafe-inline'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
Examples = Callable[[int], tuple[Array, Array]]
"""A phone's inputs and labels, of the run's data."""


def application(connections: Connections, examples: Examples | None, operator: str) -> web.Application:
    """All that the gateway answers. `operator`: the token by which one is told who is connected."""

    async def device(request: web.Request) -> web.StreamResponse:
        if not _is_own_page(request):
            raise web.HTTPForbidden(text="this page is not the gateway's own")
        return await connections.serve(request)

    async def example(request: web.Request) -> web.Response:
        phone = connections.phone_of(_bearer(request))
        if phone is None:
            raise web.HTTPUnauthorized(text="the token is unknown")
        if examples is None:
            raise web.HTTPNotFound(text="the run has no examples (gateway.examples)")
        inputs, labels = examples(phone)
        body = save({"inputs": np.ascontiguousarray(inputs), "labels": labels.astype(np.int64)})
        return web.Response(body=body, content_type="application/octet-stream", headers=HEADERS)

    async def connected(request: web.Request) -> web.Response:
        if not operator or not hmac.compare_digest(_bearer(request).encode(), operator.encode()):
            raise web.HTTPUnauthorized(text="this is for the run's owner")
        return web.json_response(connections.devices())

    made = web.Application(client_max_size=1024)  # nothing is posted here
    made.router.add_get("/device", device)
    made.router.add_get("/examples.safetensors", example)
    made.router.add_get("/devices.json", connected)
    for path, file in _files().items():
        made.router.add_get(path, _served(file))
    return made


def _files() -> Mapping[str, Path]:
    """The page's files, by what they are asked for as: no other file can be."""
    found = {f"/{file.name}": file for file in sorted(PAGE.glob("*")) if file.suffix in TYPES}
    return found | ({"/": PAGE / "index.html"} if "/index.html" in found else {})


def _served(file: Path) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def serve(request: web.Request) -> web.StreamResponse:
        return web.Response(body=file.read_bytes(), content_type=TYPES[file.suffix], headers=HEADERS)

    return serve


def _bearer(request: web.Request) -> str:
    return request.headers.get("Authorization", "").removeprefix("Bearer ").strip()


def _is_own_page(request: web.Request) -> bool:
    """Whether it is a page of this gateway's, or no browser: these name the page that a WebSocket comes from."""
    origin = request.headers.get("Origin")
    return origin is None or urlsplit(origin).netloc == request.host


def tls(settings: config.Gateway) -> ssl.SSLContext | None:
    """The TLS that the settings ask for. Raises RunFailedError if the files are of no use."""
    if settings.certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(settings.certificate, settings.key)
    except (OSError, ssl.SSLError) as error:
        raise RunFailedError(f"gateway.certificate or gateway.key can't be used: {error}") from error
    return context
