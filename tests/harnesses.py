"""The harnesses that the project's own tests run the conformance kit on."""

from __future__ import annotations

import dataclasses
import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path

import aiohttp

from crossbus.adapter import Adapter
from crossbus.capabilities import Capabilities
from crossbus.clock import Clock
from crossbus.conformance import Harness, ServerHarness
from crossbus.errors import ErrorCode
from crossbus.profiles import Profile
from crossbus.testing import Clock as MovableClock
from crossbus_local import LocalAdapter
from crossbus_local.adapter import forget


class LocalHarness(Harness):
    """The local broker, in this process, with a clock that moves."""

    name = "local:"
    what_lies_under = "in process, memory"

    @property
    def capabilities(self) -> Capabilities:
        return LocalAdapter.capabilities

    def make_clock(self) -> MovableClock:
        return MovableClock()

    def make_adapter(self, world: str, clock: Clock) -> Adapter:
        return LocalAdapter(Profile(target=world), clock=clock)

    async def clean(self, world: str, clock: Clock, prefix: str) -> None:
        forget(world)


class FileHarness(LocalHarness):
    """The local broker in a file. Each world is one; it is closed and opened again with the adapters that use it."""

    name = "local:?path="
    what_lies_under = f"in process, SQLite {sqlite3.sqlite_version}"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def make_adapter(self, world: str, clock: Clock) -> Adapter:
        return LocalAdapter(Profile(parameters={"path": str(self.folder / f"{world}.db")}), clock=clock)

    async def clean(self, world: str, clock: Clock, prefix: str) -> None:
        for path in self.folder.glob(f"{world}.db*"):
            path.unlink()


class ServedHarness(ServerHarness):
    """The local broker behind a real `crossbus serve`, with a network that can be cut before it."""

    name = "local+http:"
    what_lies_under = "crossbus serve, memory"

    def command(self, port: int) -> Sequence[str]:
        return [sys.executable, "-m", "crossbus", "serve", "--port", str(port)]

    def address(self, host: str, port: int) -> str:
        return f"local+http://{host}:{port}"

    def provider_errors(self) -> Sequence[tuple[BaseException, ErrorCode, bool]]:
        return [
            (aiohttp.ServerDisconnectedError(), ErrorCode.UNAVAILABLE, True),
            (aiohttp.ClientPayloadError(), ErrorCode.UNAVAILABLE, True),
            (aiohttp.ServerTimeoutError(), ErrorCode.DEADLINE_EXCEEDED, True),
            (aiohttp.InvalidURL("no url"), ErrorCode.UNKNOWN, False),
        ]


class MemoryHarness(ServedHarness):
    """In memory: a restart loses everything, so that it has none."""

    name = "local+http: in memory"

    @property
    def capabilities(self) -> Capabilities:
        names = super().capabilities.names - {"restarts"}
        return dataclasses.replace(super().capabilities, names=names)


class SqliteHarness(ServedHarness):
    """In a file, which it is started on again."""

    name = "local+http: on a file"
    what_lies_under = "crossbus serve, SQLite"
    durable = True

    def __init__(self, folder: Path) -> None:
        self._path = folder / "events.db"
        super().__init__()

    def command(self, port: int) -> Sequence[str]:
        return [*super().command(port), "--path", str(self._path)]
