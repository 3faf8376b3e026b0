"""`serve`: the server as a process. It says where it listens, and ends when it is told to, with nothing half done."""

from __future__ import annotations

import logging
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import uvicorn

from crossbus.clock import SystemClock
from crossbus.errors import ConfigurationError
from crossbus_local.engine import Engine
from crossbus_local.http.app import end_waiting, make_app
from crossbus_local.http.measuring import measure
from crossbus_local.http.options import ServerOptions, is_loopback, is_wildcard
from crossbus_local.http.protocol import protocol

__all__ = ["command", "listen", "open_engine", "serve"]

_KEEP_ALIVE = 120
"""Longer than clients keep an idle connection, so that it is they who end it: else a request may meet its end."""


def command(*, host: str, strict: bool | None, access_log: bool, **options: Any) -> None:
    """Serve, as `crossbus serve` asks: strict by default where others can reach it. Raises as `serve`."""
    serve(
        ServerOptions(host=host, strict=not is_loopback(host) if strict is None else strict, **options),
        access_log=access_log,
    )


def serve(options: ServerOptions, *, access_log: bool = False) -> None:
    """Serve until SIGINT or SIGTERM; then end what waits, let the rest finish, and return.

    Raises `ConfigurationError` if the address cannot be had, or the storage cannot be opened.
    """
    with listen(options) as bound:
        engine = open_engine(options)
        end_measuring = measure(engine)
        try:
            app = make_app(engine, options)
            server = _Server(
                _configuration(app, options, access_log),
                started=lambda: _greet(options, bound.getsockname()[1]),
                stopping=lambda: end_waiting(app),
            )
            server.run(sockets=[bound])
        finally:
            end_measuring()
            engine.close()


def open_engine(options: ServerOptions) -> Engine:
    """Return the broker, with what its file holds. Raises `ConfigurationError` if the file cannot be used."""
    if options.path is None:
        return Engine(SystemClock())
    from crossbus_local.sqlite_storage import SqliteStorage

    return Engine(SystemClock(), storage=SqliteStorage(options.path, keep_leases=True))


def listen(options: ServerOptions) -> socket.socket:
    """Return a socket that listens. Raises `ConfigurationError` in one line if that cannot be."""
    host = options.host.strip("[]")
    what = f"{_shown(host)}:{options.port}"
    try:
        family, kind, number, _, address = socket.getaddrinfo(
            host or "0.0.0.0",  # noqa: S104 - asked for, and it has a key
            options.port,
            type=socket.SOCK_STREAM,
            flags=socket.AI_PASSIVE,
        )[0]
    except OSError as error:
        raise ConfigurationError(
            f"host {host}: no address of this machine is known by it ({error})"
        ) from None
    bound = socket.socket(family, kind, number)
    try:
        if sys.platform != "win32":  # where it would let another program take the same port
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(1024)
    except OSError as error:
        bound.close()
        reason = error.strerror or str(error)
        raise ConfigurationError(
            f"cannot listen on {what}: {reason}; is another server running there? --port 0 takes any that is free"
        ) from None
    return bound


def _configuration(app: Any, options: ServerOptions, access_log: bool) -> uvicorn.Config:
    if access_log:
        _log_access()
    return uvicorn.Config(
        app,
        http=protocol(options),
        ws="none",
        lifespan="off",
        loop="asyncio",
        log_config=None,
        access_log=access_log,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=max(1, round(options.drain_seconds)),
    )


def _log_access() -> None:
    logger = logging.getLogger("uvicorn.access")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _greet(options: ServerOptions, port: int) -> None:
    """Say where it listens and how to use it: what a program reads is on the first line."""
    host = options.host.strip("[]")
    reached = f"{_shown('127.0.0.1' if is_wildcard(host) else host)}:{port}"
    key = "any key" if options.key is None else "the server's key"
    crossbus_key = "" if options.key is None else " and CROSSBUS_KEY, the server's key"
    data = "in memory: gone when the server ends" if options.path is None else f"in {options.path}"
    made = "must be declared (--strict)" if options.strict else "made on first use"
    print(
        f"listening on http://{_shown(host or '0.0.0.0')}:{port}\n"  # noqa: S104 - printed, not bound
        f"  crossbus programs    CROSSBUS_URL=local+http://{reached}{crossbus_key}\n"
        f"  Azure's SDK          endpoint http://{reached}, AzureKeyCredential with {key}\n"
        f"  topics               {made}\n"
        f"  events               {data}\n"
        "Ctrl-C stops it",
        flush=True,
    )


class _Server(uvicorn.Server):
    """uvicorn's server, which ends by itself after a signal instead of being killed by it once more."""

    def __init__(
        self, config: uvicorn.Config, *, started: Callable[[], None], stopping: Callable[[], Awaitable[None]]
    ) -> None:
        super().__init__(config)
        self._say_started = started
        self._stopping = stopping

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._say_started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        await self._stopping()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        signals = (signal.SIGINT, signal.SIGTERM)
        before = {each: signal.signal(each, self.handle_exit) for each in signals}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop; at the second signal without waiting for anybody."""
        self.force_exit = self.should_exit
        self.should_exit = True
