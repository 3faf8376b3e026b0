"""Google's Pub/Sub emulator for the tests: one for each process of a run, on a free port; and a harness on it."""

from __future__ import annotations

import atexit
import functools
import os
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from google.api_core import exceptions as api
from google.auth import exceptions as auth

from crossbus.adapter import Adapter
from crossbus.capabilities import Capabilities
from crossbus.clock import Clock, SystemClock
from crossbus.conformance import Harness, Skipped
from crossbus.conformance.harness import Stop
from crossbus.conformance.proxy import Cut, Proxy
from crossbus.errors import ConfigurationError, ErrorCode
from crossbus.profiles import Profile
from crossbus.topology import Subscription
from crossbus_pubsub import PubSubAdapter
from crossbus_pubsub.emulator import Emulator, find_emulator, version
from pubsub_guard import Guard

PROJECT = "crossbus-tests"
SKIP = "the Pub/Sub emulator is not installed"


@functools.cache
def _started() -> Emulator:
    emulator = Emulator().start()
    atexit.register(emulator.stop)
    return emulator


def running() -> Emulator:
    """The emulator of this run. Where it is not installed, tests are skipped at the desk, and fail in CI."""
    try:
        find_emulator()
    except ConfigurationError as error:
        if os.environ.get("CI", "").lower() == "true":
            raise
        pytest.skip(f"{SKIP}: {error}")
    return _started()


def profile(emulator: Emulator, project: str = PROJECT, **parameters: str) -> Profile:
    return Profile(
        adapter="pubsub",
        scheme="pubsub",
        target=project,
        parameters={"endpoint": emulator.address, **parameters},
        origin="the test",
    )


def adapter(emulator: Emulator, project: str = PROJECT, **parameters: str) -> PubSubAdapter:
    return PubSubAdapter(profile(emulator, project, **parameters), clock=SystemClock())


class PubSubHarness(Harness):
    """Pub/Sub on Google's emulator, in real time: a project for each world, behind a guard that asks for tokens."""

    name = "pubsub:"
    scale = 0.1
    lease = 10.0

    def __init__(self, emulator: Emulator) -> None:
        self.emulator = emulator
        self.what_lies_under = f"Google's emulator {version()}, behind a guard"
        self.guards: dict[str, Guard] = {}
        self.proxies: dict[str, Proxy] = {}

    @property
    def capabilities(self) -> Capabilities:
        return PubSubAdapter(profile(self.emulator), clock=SystemClock(), credentials=object()).capabilities

    def guard(self, world: str) -> Guard:
        if world not in self.guards:
            self.guards[world] = Guard(self.emulator.address)
        return self.guards[world]

    def proxy(self, world: str) -> Proxy:
        """The network of one world: other cases, which run beside it, keep theirs."""
        if world not in self.proxies:
            self.proxies[world] = Proxy(("127.0.0.1", self.guard(world).port))
            self.proxies[world].start()
        return self.proxies[world]

    def make_adapter(self, world: str, clock: Clock) -> Adapter:
        guard = self.guard(world)
        place = Profile(
            adapter="pubsub",
            scheme="pubsub",
            target=f"w-{world}"[:30],
            parameters={"endpoint": f"127.0.0.1:{self.proxy(world).port}"},
            origin="the test",
        )
        return PubSubAdapter(place, clock=clock, credentials=guard.credentials())

    async def clean(self, world: str, clock: Clock, prefix: str) -> None:
        await super().clean(world, clock, prefix)
        self.close(world)

    def close(self, *worlds: str) -> None:
        """End what stands before the emulator."""
        for world in worlds or [*self.guards]:
            if world in self.proxies:
                self.proxies.pop(world).close()
            self.guards.pop(world).close()

    def url(self, world: str) -> str:
        return f"pubsub:{f'w-{world}'[:30]}?endpoint={self.emulator.address}"

    async def restart(self, world: str, how: Stop = "terminate") -> None:
        raise Skipped("restarts", "the emulator keeps everything in memory")

    @asynccontextmanager
    async def cut(self, world: str, how: Cut = "refused") -> AsyncIterator[None]:
        proxy = self.proxy(world)
        proxy.cut(how)
        try:
            yield
        finally:
            proxy.restore()

    @asynccontextmanager
    async def slow(
        self, world: str, *, delay: float = 0.0, bytes_per_second: float | None = None
    ) -> AsyncIterator[None]:
        proxy = self.proxy(world)
        proxy.delay(delay)
        proxy.throttle(bytes_per_second)
        try:
            yield
        finally:
            proxy.restore()

    async def expire_credentials(self, world: str) -> None:
        self.guard(world).issuer.revoke()

    async def position(self, adapter: Adapter, subscription: Subscription) -> str:
        assert isinstance(adapter, PubSubAdapter)
        name = adapter.names.snapshot(f"kit-{secrets.token_hex(4)}")
        await adapter.client.call("CreateSnapshot", name=name, subscription=adapter.names.base(subscription))
        return name

    def broken_credentials(self, what: str) -> tuple[Adapter, str]:
        guard = self.guard(f"broken-{what}")
        place = profile(self.emulator, "" if what == "configuration" else PROJECT, endpoint=guard.address)
        broken = PubSubAdapter(place, clock=SystemClock(), credentials=guard.credentials())
        if what == "invalid":
            guard.issuer.down = True
            return broken, "GOOGLE_APPLICATION_CREDENTIALS"
        if what == "permission":
            guard.denied.add("Publish")
            return broken, "roles/pubsub.publisher"
        return broken, "GOOGLE_CLOUD_PROJECT"

    def provider_errors(self) -> Sequence[tuple[BaseException, ErrorCode, bool]]:
        rows: list[tuple[Any, ErrorCode, bool]] = [
            (api.NotFound, ErrorCode.NOT_FOUND, False),
            (api.AlreadyExists, ErrorCode.CONFLICT, False),
            (api.PermissionDenied, ErrorCode.PERMISSION_DENIED, False),
            (api.Unauthenticated, ErrorCode.UNAUTHENTICATED, False),
            (api.InvalidArgument, ErrorCode.INVALID_REQUEST, False),
            (api.FailedPrecondition, ErrorCode.INVALID_REQUEST, False),
            (api.OutOfRange, ErrorCode.INVALID_REQUEST, False),
            (api.MethodNotImplemented, ErrorCode.INVALID_REQUEST, False),
            (api.ResourceExhausted, ErrorCode.THROTTLED, True),
            (api.ServiceUnavailable, ErrorCode.UNAVAILABLE, True),
            (api.InternalServerError, ErrorCode.UNAVAILABLE, True),
            (api.Aborted, ErrorCode.UNAVAILABLE, True),
            (api.Cancelled, ErrorCode.UNAVAILABLE, True),
            (api.DeadlineExceeded, ErrorCode.DEADLINE_EXCEEDED, True),
        ]
        found: list[tuple[BaseException, ErrorCode, bool]] = []
        for kind, code, retryable in rows:
            found += [
                (kind("said"), code, retryable),
                (rpc_error(kind.grpc_status_code), code, retryable),
            ]
        found.append(
            (
                rpc_error(grpc.StatusCode.RESOURCE_EXHAUSTED, "Sent message larger than max (9 vs. 8)"),
                ErrorCode.INVALID_REQUEST,
                False,
            )
        )
        found.append((rpc_error(grpc.StatusCode.UNKNOWN), ErrorCode.UNKNOWN, True))
        found.append((auth.DefaultCredentialsError("none"), ErrorCode.UNAUTHENTICATED, False))
        found.append((auth.RefreshError("revoked"), ErrorCode.UNAUTHENTICATED, False))
        found.append((auth.TransportError("no network", retryable=True), ErrorCode.UNAVAILABLE, True))
        return found


def rpc_error(code: grpc.StatusCode, details: str = "said") -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details)
