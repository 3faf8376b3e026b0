"""How a running `crossbus run` is told something: a socket in a folder that only its user can open.

A question is a line of JSON, and so is its answer: ``{"do": "pause", "subscription": "orders/billing", "bus": ...}``.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import socket
import stat
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from crossbus.bus import Bus
from crossbus.cli.channel import LONGEST, line
from crossbus.cli.exits import note
from crossbus.errors import ConfigurationError, CrossbusError
from crossbus.profiles import Profile
from crossbus.side_loop import side_loop

__all__ = ["PATIENCE", "Handle", "Steering", "ask_all", "beside", "controlled", "identity"]

Handle = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
"""Answers a question."""

PATIENCE: Final = 10.0
"""Seconds that a question may take."""


def identity(profile: Profile) -> str:
    """Return what tells one connection from another: who pauses a subscription means that of his own."""
    parts = [profile.scheme, profile.target, dict(profile.parameters), profile.names, dict(profile.variables)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


class Steering:
    """Pauses and resumes the subscriptions of a bus, from any thread."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._loop: asyncio.AbstractEventLoop | None = None
        bus.on_start(self._began)

    def _began(self, bus: Bus) -> None:
        self._loop = asyncio.get_running_loop()

    def do(self, question: dict[str, Any]) -> dict[str, Any]:
        """Pause or resume a subscription, if this bus consumes it there; say how it was, and how it is.

        Or say of each that it consumes how it is, and on which bus: ``{"do": "look"}``.

        Raises `TimeoutError` if the bus's loop is blocked.
        """
        if question["do"] == "look":
            return {
                name: {"bus": self._identity(handle.declaration.topic.name), **self._state(name)}
                for handle in self._bus.subscriptions
                if handle.handlers
                for name in [str(handle.declaration)]
            }
        topic, _, name = question["subscription"].partition("/")
        handle = self._bus._subscriptions.get((topic, name))
        if handle is None or not handle.handlers or self._identity(topic) != question["bus"]:
            return {}
        before = self._state(question["subscription"])
        change = self._bus.pause if question["do"] == "pause" else self._bus.resume
        if self._loop is None or self._loop.is_closed():  # before it runs: it begins so
            asyncio.run(change(topic, name))
        else:
            asyncio.run_coroutine_threadsafe(change(topic, name), self._loop).result(PATIENCE / 2)
        return {"was": before, "is": self._state(question["subscription"])}

    def _identity(self, topic: str) -> str:
        configuration = self._bus._configuration
        return "" if configuration is None else identity(configuration.profile_for(topic))

    def _state(self, subscription: str) -> dict[str, Any]:
        health = self._bus.health().subscriptions.get(subscription)
        if health is None:
            return {"state": "not running", "why": None, "breaker": None}
        why = health.error if health.state == "paused" else None
        return {"state": health.state, "why": why, "breaker": health.breaker}


def folder() -> Path:
    """Return the folder of the sockets, made if it is not there.

    Raises:
        ConfigurationError: there is none that only this user can open.
    """
    given = os.environ.get("CROSSBUS_RUN_DIR") or os.environ.get("XDG_RUNTIME_DIR")
    path = Path(given, "crossbus") if given else Path(tempfile.gettempdir(), f"crossbus-{os.geteuid()}")
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be made: {error.strerror}; set CROSSBUS_RUN_DIR to a folder that can be written to"
        ) from None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise ConfigurationError(
            f"{path} is not a folder of yours that only you can open; remove it, or set CROSSBUS_RUN_DIR to another"
        )
    return path


@asynccontextmanager
async def controlled(handle: Handle) -> AsyncIterator[None]:
    """Answer questions for the length of a block. Where that is not possible, say so and go on without."""
    if not hasattr(asyncio, "start_unix_server"):
        yield
        return

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            text = await asyncio.wait_for(reader.readline(), PATIENCE)
            writer.write(line(await handle(json.loads(text))))
            await asyncio.wait_for(writer.drain(), PATIENCE)
        except (OSError, ValueError, TimeoutError):
            pass  # it went away, or asks nothing
        finally:
            writer.close()

    server = None
    try:
        path = folder() / f"{os.getpid()}.sock"
        path.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(connected, path, limit=LONGEST)
    except (ConfigurationError, OSError) as error:
        note(f"crossbus pause will not reach this process: {error}")
    try:
        yield
    finally:
        if server is not None:
            server.close()
            path.unlink(missing_ok=True)


@contextmanager
def beside(handle: Handle) -> Iterator[None]:
    """Do the same in a thread of its own."""
    with side_loop("crossbus control") as call:
        block = controlled(handle)
        call(block.__aenter__())
        try:
            yield
        finally:
            call(block.__aexit__(None, None, None))


def ask_all(question: dict[str, Any]) -> list[dict[str, Any]]:
    """Ask every `crossbus run` of this user on this machine; return the answers of those that it concerns.

    Raises:
        ConfigurationError: the folder of the sockets is none.
        CrossbusError: one that runs does not answer.
    """
    if not hasattr(socket, "AF_UNIX"):
        raise ConfigurationError(
            "this system has no unix sockets, by which a crossbus run is told; use bus.pause()"
        )
    found = [_ask(path, question) for path in sorted(folder().glob("*.sock"))]
    return [answer for answer in found if answer and answer["processes"]]


def _ask(path: Path, question: dict[str, Any]) -> dict[str, Any] | None:
    with socket.socket(socket.AF_UNIX) as end:
        end.settimeout(PATIENCE)
        try:
            end.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            with suppress(OSError):  # its process was killed
                path.unlink()
            return None
        try:
            end.sendall(line(question))
            text = end.makefile("rb").readline(LONGEST)
            answer: dict[str, Any] = json.loads(text)
        except (OSError, ValueError):
            raise CrossbusError(
                f"the crossbus run with process id {path.stem} does not answer; what blocks it stands in its log"
            ) from None
        return answer
