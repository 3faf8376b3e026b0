"""`/livez` and `/readyz`: what an orchestrator asks a process, as an ASGI application and as a small server.

Alive: the event loop moves, and no handler is stuck beyond its timeout. A process that is not will not heal: start it
anew. The provider has no part in that, or an outage of the provider would restart the whole fleet.
Ready: the bus is open, every subscription that it consumes received well and is not paused, and it is not draining.

The answers are a status and a word: no data, no names, nothing that is secret.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from crossbus.errors import ConfigurationError
from crossbus.side_loop import side_loop

if TYPE_CHECKING:
    from crossbus.bus import Bus
    from crossbus.sync import SyncBus

__all__ = ["Probe", "asgi", "listening", "parse_address", "probe"]

Probe = Callable[[], tuple[bool, bool]]
"""Says whether something is alive, and ready."""
ASGIApp = Callable[
    [
        MutableMapping[str, Any],
        Callable[[], Awaitable[MutableMapping[str, Any]]],
        Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ],
    Awaitable[None],
]

PATIENCE: Final = 5.0
"""Seconds that a client has to send its request."""
LONGEST: Final = 8192
"""Bytes of a request's head."""
AT_ONCE: Final = 64
"""Connections at the same time; beyond that they are closed."""


def probe(bus: Bus | SyncBus) -> Probe:
    """Return what asks a bus how it does. Callable from any thread; in a forked child, nothing is ready."""
    from crossbus.sync import SyncBus

    inner = bus.bus if isinstance(bus, SyncBus) else bus

    def ask() -> tuple[bool, bool]:
        health = inner.health()
        return health.alive, health.ready

    return ask


def asgi(bus: Bus | SyncBus) -> ASGIApp:
    """Return an ASGI application that answers `/livez` and `/readyz` for a bus: 200 or 503.

    ::

        app.mount("/health", crossbus.probes.asgi(bus))  # Starlette, FastAPI

    It does not open, run or close the bus. A handler that blocks the event loop which serves this keeps it from
    answering: that too is an answer, by the orchestrator's timeout.
    """
    ask = probe(bus)

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1000})
            return
        path = str(scope["path"]).removeprefix(scope.get("root_path", ""))
        status, text = answer(scope["method"], path, ask)
        body = text.encode()
        headers = [(name.lower().encode(), value.encode()) for name, value in _headers(status, body)]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    return application


async def _lifespan(receive: Any, send: Any) -> None:
    while (await receive())["type"] != "lifespan.shutdown":
        await send({"type": "lifespan.startup.complete"})
    await send({"type": "lifespan.shutdown.complete"})


def answer(method: str, path: str, ask: Probe) -> tuple[int, str]:
    """Return the status and the text that answer a request."""
    if path not in ("/livez", "/readyz"):
        return 404, "there are /livez and /readyz\n"
    if method not in ("GET", "HEAD"):
        return 405, "only GET and HEAD\n"
    alive, ready = ask()
    if path == "/livez":
        return (200, "alive\n") if alive else (503, "not alive\n")
    return (200, "ready\n") if ready else (503, "not ready\n")


def _headers(status: int, body: bytes) -> list[tuple[str, str]]:
    headers = [
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Content-Length", str(len(body))),
        ("Cache-Control", "no-store"),
    ]
    return [*headers, ("Allow", "GET, HEAD")] if status == 405 else headers


# --- a server of its own --------------------------------------------------------------------------------------------


def parse_address(text: str, what: str) -> tuple[str, int]:
    """Read ``HOST:PORT``, ``:PORT`` or ``PORT``; without a host it is this machine's loopback.

    Raises:
        ConfigurationError: it is none, beginning with `what`.
    """
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") or "127.0.0.1"
    if (
        not (port.isascii() and port.isdecimal())
        or int(port) > 65535
        or any(c.isspace() or c == "/" for c in host)
    ):
        raise ConfigurationError(
            f"{what} {text!r} is no address: write HOST:PORT, such as 127.0.0.1:8080, or 0.0.0.0:8080 for all "
            "interfaces; port 0 is any that is free"
        )
    return host, int(port)


async def serve(host: str, port: int, ask: Probe) -> asyncio.Server:
    """Answer probes in the running loop. Returns the server, which listens.

    Raises:
        ConfigurationError: the address cannot be listened on.
    """
    connections = 0

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        try:
            if connections <= AT_ONCE:
                await asyncio.wait_for(_answer_one(reader, writer, ask), PATIENCE)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # it went away, or says nothing
        finally:
            connections -= 1
            writer.close()

    try:
        return await asyncio.start_server(connected, host, port, limit=LONGEST)
    except OSError as error:
        raise ConfigurationError(
            f"health cannot listen on {host}:{port}: {error.strerror or error}; take another address or port"
        ) from None


async def _answer_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ask: Probe) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    method, _, rest = head.partition(b"\r\n")[0].decode("latin-1").partition(" ")
    target, _, version = rest.partition(" ")
    if version.startswith("HTTP/1."):
        status, text = answer(method, target.partition("?")[0], ask)
    else:
        status, text = 400, "this is no HTTP/1.1 request\n"
    body = text.encode()
    lines = [
        f"HTTP/1.1 {status} {REASONS[status]}",
        *(f"{name}: {value}" for name, value in _headers(status, body)),
    ]
    writer.write(
        "\r\n".join([*lines, "Connection: close", "", ""]).encode() + (b"" if method == "HEAD" else body)
    )
    await writer.drain()


REASONS: Final = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    503: "Service Unavailable",
}


@contextmanager
def listening(host: str, port: int, ask: Probe) -> Iterator[tuple[str, int]]:
    """Answer probes in a thread of its own, so that a loop which is blocked is told. Gives the address.

    Raises:
        ConfigurationError: the address cannot be listened on.
    """
    with side_loop("crossbus probes") as call:
        server: asyncio.Server = call(serve(host, port, ask))
        try:
            yield server.sockets[0].getsockname()[:2]
        finally:
            call(_close(server))


async def _close(server: asyncio.Server) -> None:
    server.close()
