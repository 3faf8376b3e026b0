"""The harness of the Event Grid adapter, with Azure's SDK, on `crossbus serve` in a process of its own."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence

from crossbus.adapter import Adapter
from crossbus.capabilities import Capabilities
from crossbus.clock import Clock, SystemClock
from crossbus.config import load
from crossbus.conformance import ServerHarness
from crossbus.errors import ErrorCode
from crossbus.profiles import Profile
from crossbus_eventgrid import EventGridAdapter
from eventgrid_harness import KEY, PROVIDER_ERRORS, SHORT

_SERVE = (
    sys.executable,
    "-m",
    "crossbus",
    "serve",
    "--strict",
    "--shortest-lock",
    "2",
    "--shortest-wait",
    "1",
)


class EventGridServerHarness(ServerHarness):
    """Locks are from 2 s and waits from 1 s; on Azure they are from 60 and 10."""

    name = "eventgrid on crossbus serve"
    scale = 0.2
    patience = 4.0

    def __init__(self, path: str = "") -> None:
        self.what_lies_under = f"crossbus serve, {'SQLite' if path else 'memory'}, in a process of its own"
        self.durable = bool(path)
        self._path = path
        self._keys = 1
        super().__init__()

    @property
    def capabilities(self) -> Capabilities:
        return SHORT

    def command(self, port: int) -> Sequence[str]:
        path = ["--path", self._path] if self._path else []
        return [*_SERVE, "--port", str(port), *path]

    def address(self, host: str, port: int) -> str:
        return f"eventgrid:?endpoint=http://{host}:{port}&shortest_lock=2&shortest_wait=1"

    def variables(self, host: str, port: int) -> Mapping[str, str]:
        return {KEY: f"the-key-{self._keys}"}

    def server_environment(self) -> Mapping[str, str]:
        return {"CROSSBUS_SERVER_KEY": "the-key-1"}

    def make_adapter(self, world: str, clock: Clock) -> Adapter:
        return EventGridAdapter(load(self.url(world)).default, clock=clock)

    def provider_errors(self) -> Sequence[tuple[BaseException, ErrorCode, bool]]:
        return PROVIDER_ERRORS

    async def expire_credentials(self, world: str) -> None:
        if not self.durable:
            await super().expire_credentials(world)
        # As on Azure: the program has the next key before the namespace forgets the last. Two keys are never replaced
        # within the seconds in which a program may not have noticed the first.
        await asyncio.sleep(3)
        self._keys += 1
        os.environ[KEY] = self.server.environment["CROSSBUS_SERVER_KEY"] = f"the-key-{self._keys}"
        await self.restart(world)

    def broken_credentials(self, what: str) -> tuple[Adapter, str]:
        adapter = EventGridAdapter(load(self.url("")).default, clock=SystemClock())
        adapter.environ = {KEY: "another"}
        if what == "configuration":  # neither a key nor anyone who is signed in
            os.environ["AZURE_TOKEN_CREDENTIALS"] = "EnvironmentCredential"
            adapter = EventGridAdapter(Profile(target="shop.eventgrid.azure.net"), clock=SystemClock())
            adapter.environ = {}
        return adapter, KEY
