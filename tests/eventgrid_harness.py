"""The harness of the Event Grid adapter on the strict server, provisioned through an ARM that is played."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from aiohttp import web
from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    ServiceRequestError,
    ServiceRequestTimeoutError,
    ServiceResponseError,
    ServiceResponseTimeoutError,
)
from azure.core.pipeline.policies import SansIOHTTPPolicy
from azure.identity import CredentialUnavailableError
from azure.mgmt.eventgrid.aio import EventGridManagementClient

from arm_eventgrid import Arm
from crossbus.adapter import Adapter
from crossbus.capabilities import Capabilities, LeaseLimits
from crossbus.clock import Clock, SystemClock
from crossbus.conformance import Harness
from crossbus.errors import ErrorCode
from crossbus.profiles import Profile
from crossbus_eventgrid import EventGridAdapter
from crossbus_eventgrid.arm import ArmControl, ArmPlace
from crossbus_eventgrid.control import Control
from crossbus_eventgrid.limits import EVENTGRID
from strict_eventgrid import Namespace, Serving

KEY = "AZURE_EVENTGRID_KEY"
PLACE = ArmPlace("subscription-1", "group-1", "shop")
SHORT = dataclasses.replace(
    EVENTGRID, receive_wait=(1.0, 120.0), lease=LeaseLimits(minimum=2.0, maximum=300.0, fixed=True)
)
"""The capabilities with shorter locks and waits, so that tests may wait for their end."""


class _Token(SansIOHTTPPolicy[Any, Any]):
    """Signs in to the ARM that is played: the SDK sends no token without TLS."""

    def on_request(self, request: Any) -> None:
        request.http_request.headers["Authorization"] = "Bearer a-token"


class ArmAdapter(EventGridAdapter):
    """The adapter, with the control plane of Azure at a server of the tests."""

    arm_place = PLACE
    arm_url = ""

    def control(self) -> Control:
        if self._control is None:
            _ = self.rest  # refuses when it is closed
            client = EventGridManagementClient(
                object(),  # type: ignore[arg-type]
                PLACE.subscription_id,
                base_url=self.arm_url or self.endpoint.url,
                authentication_policy=_Token(),
                retry_total=0,
            )
            self._control = ArmControl(self.arm_place, client)
        return self._control


class World:
    """A strict server and its ARM, behind one port."""

    def __init__(self, **settings: Any) -> None:
        self.namespace = Namespace(**settings)
        self.arm = Arm(self.namespace, shortest_lock=2)
        self.environ = {KEY: self.namespace.key}
        self.serving = Serving(self._answer)

    async def _answer(self, request: web.Request) -> web.Response:
        to_arm = request.path.startswith("/subscriptions/")
        return await (self.arm.answer(request) if to_arm else self.namespace.answer(request))

    @property
    def url(self) -> str:
        return f"eventgrid:?endpoint={self.serving.url}&shortest_lock=2&shortest_wait=1"

    @property
    def profile(self) -> Profile:
        parameters = {"endpoint": self.serving.url, "shortest_lock": "2", "shortest_wait": "1"}
        return Profile(adapter="eventgrid", scheme="eventgrid", parameters=parameters, origin="test")

    def adapter(
        self, clock: Clock | None = None, kind: type[EventGridAdapter] = ArmAdapter
    ) -> EventGridAdapter:
        adapter = kind(self.profile, clock=clock or SystemClock())
        adapter.environ = self.environ
        return adapter


@contextmanager
def strict_world(**settings: Any) -> Iterator[World]:
    world = World(**settings)
    with world.serving:
        yield world


def answered(status: int) -> HttpResponseError:
    """Return the SDK's exception of an answer."""
    error = HttpResponseError(message=f"status {status}")
    error.status_code = status
    return error


PROVIDER_ERRORS: Sequence[tuple[BaseException, ErrorCode, bool]] = (
    (answered(400), ErrorCode.INVALID_REQUEST, False),
    (answered(401), ErrorCode.UNAUTHENTICATED, False),
    (answered(403), ErrorCode.PERMISSION_DENIED, False),
    (answered(404), ErrorCode.NOT_FOUND, False),
    (answered(408), ErrorCode.DEADLINE_EXCEEDED, True),
    (answered(409), ErrorCode.CONFLICT, False),
    (answered(413), ErrorCode.INVALID_REQUEST, False),
    (answered(429), ErrorCode.THROTTLED, True),
    (answered(500), ErrorCode.UNAVAILABLE, True),
    (answered(503), ErrorCode.UNAVAILABLE, True),
    (answered(504), ErrorCode.DEADLINE_EXCEEDED, True),
    (ClientAuthenticationError("no token"), ErrorCode.UNAUTHENTICATED, False),
    (CredentialUnavailableError("nobody is signed in"), ErrorCode.UNAUTHENTICATED, False),
    (ServiceRequestError("no route"), ErrorCode.UNAVAILABLE, True),
    (ServiceResponseError("broken off"), ErrorCode.UNAVAILABLE, True),
    (ServiceRequestTimeoutError("no connection"), ErrorCode.DEADLINE_EXCEEDED, True),
    (ServiceResponseTimeoutError("no answer"), ErrorCode.DEADLINE_EXCEEDED, True),
)


class StrictHarness(Harness):
    """The adapter on the strict server. Locks are from 2 s and waits from 1 s; on Azure they are from 60 and 10."""

    name = "eventgrid on the strict server"
    what_lies_under = "tests/strict_eventgrid.py and tests/arm_eventgrid.py, in another thread"
    scale = 0.1
    patience = 4.0

    def __init__(self) -> None:
        self._worlds: dict[str, World] = {}

    @property
    def capabilities(self) -> Capabilities:
        return SHORT

    def world(self, name: str) -> World:
        if name not in self._worlds:
            self._worlds[name] = world = World(shortest_wait=1)
            world.serving.__enter__()
        return self._worlds[name]

    def make_adapter(self, world: str, clock: Clock) -> Adapter:
        return self.world(world).adapter(clock)

    async def clean(self, world: str, clock: Clock, prefix: str) -> None:
        found = self._worlds.pop(world, None)
        if found is not None:
            found.serving.__exit__()

    def provider_errors(self) -> Sequence[tuple[BaseException, ErrorCode, bool]]:
        return PROVIDER_ERRORS

    async def expire_credentials(self, world: str) -> None:
        found = self.world(world)
        namespace = found.namespace
        namespace.next_key = f"{namespace.key}-next"
        found.environ[KEY] = namespace.next_key
        namespace.key, namespace.next_key = namespace.next_key, None

    def broken_credentials(self, what: str) -> tuple[Adapter, str]:
        broken = self.world(f"broken, {what}")
        adapter, word = broken.adapter(), "AZURE_EVENTGRID_KEY"
        if what == "invalid":
            broken.namespace.key = "another"
        elif what == "permission":
            broken.namespace.forbids = True
            word = "EventGrid Data Sender"
        else:  # neither a key nor anyone who is signed in
            os.environ["AZURE_TOKEN_CREDENTIALS"] = "EnvironmentCredential"
            adapter = EventGridAdapter(
                Profile(target="shop.westeurope-1.eventgrid.azure.net"), clock=SystemClock()
            )
            adapter.environ = {}
        return adapter, word
