"""The harness of the EventBridge adapter on moto's server: each world has a key of its own, in a credentials file."""

from __future__ import annotations

import asyncio
import atexit
import functools
import os
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    ParamValidationError,
    ReadTimeoutError,
)
from tests.moto_world import MotoServer

from crossbus.adapter import Adapter
from crossbus.capabilities import Capabilities
from crossbus.clock import Clock, SystemClock
from crossbus.config import load
from crossbus.conformance import Harness
from crossbus.conformance.proxy import Cut, Proxy
from crossbus.errors import ErrorCode
from crossbus_eventbridge import EventBridgeAdapter
from crossbus_eventbridge.limits import EVENTBRIDGE, V2

REGION = "us-east-1"
FAULTS_EVERY = 20.0
"""Seconds between two rounds of faults."""
ROLE = "arn:aws:iam::123456789012:role/delivery"


class World:
    """moto's server, and a credentials file whose profiles are its keys."""

    def __init__(self, server: MotoServer, folder: Path) -> None:
        self.server = server
        self._file = folder / "credentials"
        self._keys: dict[str, str] = {}
        self._proxies: dict[str, Proxy] = {}
        self.env = {
            "AWS_SHARED_CREDENTIALS_FILE": str(self._file),
            "AWS_CONFIG_FILE": str(folder / "config"),
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def key(self, profile: str) -> str:
        """Return the access key of a profile, made when it is first asked for."""
        if profile not in self._keys:
            self.rotate(profile)
        return self._keys[profile]

    def rotate(self, profile: str) -> None:
        """Give a profile another key; the old one has expired."""
        old = self._keys.get(profile)
        number = int(old.rpartition("X")[2]) + 1 if old else 1
        self._keys[profile] = f"AKIA{profile.replace('-', '').upper()}X{number}"
        text = "".join(
            f"[{name}]\naws_access_key_id = {key}\naws_secret_access_key = secret\n"
            for name, key in self._keys.items()
        )
        new = self._file.with_suffix(".new")
        new.write_text(text, "utf-8")
        new.replace(self._file)
        if old:
            self.server.set(old, errors=[["ExpiredTokenException", None]])

    def proxy(self, profile: str) -> Proxy:
        """Return the network of a profile, made when it is first asked for."""
        if profile not in self._proxies:
            self._proxies[profile] = Proxy(("127.0.0.1", int(self.server.url.rpartition(":")[2])))
            self._proxies[profile].start()
        return self._proxies[profile]

    def close(self, profile: str | None = None) -> None:
        """End the network of a profile, or of all."""
        for name in list(self._proxies) if profile is None else [profile]:
            if (proxy := self._proxies.pop(name, None)) is not None:
                proxy.close()

    def url(self, profile: str = "tests", *, networked: bool = False, **more: str) -> str:
        """Return the URL of a Bus."""
        self.key(profile)
        endpoint = f"http://127.0.0.1:{self.proxy(profile).port}" if networked else self.server.url
        parameters = {"region": REGION, "endpoint": endpoint, "profile": profile, **more}
        return "eventbridge:?" + "&".join(f"{name}={value}" for name, value in parameters.items() if value)

    def adapter(self, profile: str = "tests", clock: Clock | None = None, **more: Any) -> EventBridgeAdapter:
        """Make an adapter, not opened yet."""
        return EventBridgeAdapter(load(self.url(profile, **more)).default, clock=clock or SystemClock())

    def client(self, service: str) -> Any:
        """Make a client of boto3, as a program without crossbus has it."""
        session = boto3.Session("AKIATESTSBYHAND", "secret", region_name=REGION)
        return session.client(service, endpoint_url=self.server.url)


@contextmanager
def environment(env: Mapping[str, str]) -> Iterator[None]:
    """Set what of the environment boto3 looks at, and nothing else of it."""
    before = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    for name in before:
        del os.environ[name]
    os.environ.update(env)
    try:
        yield
    finally:
        for name in env:
            os.environ.pop(name, None)
        os.environ.update(before)


@contextmanager
def world(server: MotoServer) -> Iterator[World]:
    with tempfile.TemporaryDirectory() as folder:
        made = World(server, Path(folder))
        with environment(made.env):
            try:
                yield made
            finally:
                made.close()


@functools.cache
def server() -> MotoServer:
    """Return the server of this run, started when it is first asked for."""
    made = MotoServer()
    atexit.register(made.close)
    return made


def refused(code: str, status: int = 400) -> ClientError:
    """Return the SDK's exception of an answer."""
    response: Any = {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(response, "PutEvents")


PROVIDER_ERRORS: Sequence[tuple[BaseException, ErrorCode, bool]] = (
    (refused("ResourceNotFoundException"), ErrorCode.NOT_FOUND, False),
    (refused("AWS.SimpleQueueService.NonExistentQueue"), ErrorCode.NOT_FOUND, False),
    (refused("AccessDeniedException"), ErrorCode.PERMISSION_DENIED, False),
    (refused("SomethingForbidden", 403), ErrorCode.PERMISSION_DENIED, False),
    (refused("UnrecognizedClientException"), ErrorCode.UNAUTHENTICATED, False),
    (refused("ExpiredToken", 403), ErrorCode.UNAUTHENTICATED, False),
    (refused("SignatureDoesNotMatch", 403), ErrorCode.UNAUTHENTICATED, False),
    (refused("ThrottlingException"), ErrorCode.THROTTLED, True),
    (refused("RequestThrottled", 403), ErrorCode.THROTTLED, True),
    (refused("SomethingNew", 429), ErrorCode.THROTTLED, True),
    (refused("OverLimit", 403), ErrorCode.THROTTLED, True),
    (refused("InternalFailure", 500), ErrorCode.UNAVAILABLE, True),
    (refused("SomethingNew", 503), ErrorCode.UNAVAILABLE, True),
    (refused("ValidationException"), ErrorCode.INVALID_REQUEST, False),
    (refused("ResourceAlreadyExistsException"), ErrorCode.CONFLICT, False),
    (EndpointConnectionError(endpoint_url="https://x"), ErrorCode.UNAVAILABLE, True),
    (ConnectTimeoutError(endpoint_url="https://x"), ErrorCode.DEADLINE_EXCEEDED, True),
    (ReadTimeoutError(endpoint_url="https://x"), ErrorCode.DEADLINE_EXCEEDED, True),
    (NoCredentialsError(), ErrorCode.UNAUTHENTICATED, False),
    (ParamValidationError(report="x"), ErrorCode.INVALID_REQUEST, False),
)


class MotoHarness(Harness):
    """EventBridge and SQS as moto plays them, over HTTP."""

    name = "eventbridge on moto"
    what_lies_under = "moto's server in a process of its own, mended in its envelopes and replays"
    scale = 0.02
    patience = 3.0
    worlds = False

    def __init__(self, world: World) -> None:
        self.world = world
        self.faults: dict[str, Any] = {}
        """What each key is given, see `MotoServer.set`: when an adapter is made or a consumer is started with it, but
        not so often that whoever backs off meets nothing else."""
        self._faulty: dict[str, float] = {}

    parameters: Mapping[str, str] = {"archive": "1"}
    """What the URL has beside the world's."""
    permission = "events:PutEvents"
    """What the error says that a publisher lacks who may do nothing."""

    @property
    def capabilities(self) -> Capabilities:
        return EVENTBRIDGE

    def make_adapter(self, world: str, clock: Clock) -> Adapter:
        self._put_faults(world)
        return self.world.adapter(world, clock, networked=True, **self.parameters)

    def _put_faults(self, world: str) -> None:
        now = time.monotonic()
        if self.faults and now - self._faulty.get(world, -FAULTS_EVERY) >= FAULTS_EVERY:
            self._faulty[world] = now
            self.world.server.set(self.world.key(world), **self.faults)

    async def clean(self, world: str, clock: Clock, prefix: str) -> None:
        await asyncio.to_thread(self._clean, prefix)
        await asyncio.to_thread(self.world.close, world)

    def _clean(self, prefix: str) -> None:
        sqs, events = self.world.client("sqs"), self.world.client("events")
        for url in sqs.list_queues(QueueNamePrefix=prefix, MaxResults=1000).get("QueueUrls", ()):
            sqs.delete_queue(QueueUrl=url)
        for bus in events.list_event_buses(NamePrefix=prefix)["EventBuses"]:
            for rule in events.list_rules(EventBusName=bus["Name"])["Rules"]:
                if not rule.get("ManagedBy") and not rule["Name"].startswith("Events-Archive"):
                    found = events.list_targets_by_rule(Rule=rule["Name"], EventBusName=bus["Name"])[
                        "Targets"
                    ]
                    ids = [one["Id"] for one in found]
                    if ids:
                        events.remove_targets(Rule=rule["Name"], EventBusName=bus["Name"], Ids=ids)
                    events.delete_rule(Name=rule["Name"], EventBusName=bus["Name"])
            for archive in events.list_archives(EventSourceArn=bus["Arn"])["Archives"]:
                events.delete_archive(ArchiveName=archive["ArchiveName"])
            events.delete_event_bus(Name=bus["Name"])
        sqs.close()
        events.close()

    def provider_errors(self) -> Sequence[tuple[BaseException, ErrorCode, bool]]:
        return PROVIDER_ERRORS

    def url(self, world: str) -> str:
        self._put_faults(world)
        return self.world.url(world, networked=True, **self.parameters)

    def cut(self, world: str, how: Cut = "refused") -> AbstractAsyncContextManager[None]:
        return self._changed(world, lambda proxy: proxy.cut(how))

    def slow(
        self, world: str, *, delay: float = 0.0, bytes_per_second: float | None = None
    ) -> AbstractAsyncContextManager[None]:
        def change(proxy: Proxy) -> None:
            proxy.delay(delay)
            proxy.throttle(bytes_per_second)

        return self._changed(world, change)

    @asynccontextmanager
    async def _changed(self, world: str, change: Callable[[Proxy], None]) -> AsyncIterator[None]:
        proxy = self.world.proxy(world)
        await asyncio.to_thread(change, proxy)
        try:
            yield
        finally:
            await asyncio.to_thread(proxy.restore)

    async def expire_credentials(self, world: str) -> None:
        await asyncio.to_thread(self.world.rotate, world)

    def broken_credentials(self, what: str) -> tuple[Adapter, str]:
        if what == "configuration":
            more = "".join(f"&{name}={value}" for name, value in self.parameters.items())
            profile = load(f"eventbridge:?endpoint={self.world.server.url}&profile=tests{more}").default
            self.world.key("tests")
            return EventBridgeAdapter(profile, clock=SystemClock()), "region"
        key = self.world.key(f"broken{what}")
        code = "UnrecognizedClientException" if what == "invalid" else "AccessDeniedException"
        self.world.server.set(key, errors=[[code, None]])
        word = "credentials" if what == "invalid" else self.permission
        return self.world.adapter(f"broken{what}", **self.parameters), word


class V2Harness(MotoHarness):
    """The newer EventBridge as botocore's model of it has it, in front of moto's SQS."""

    name = "eventbridge, api=v2, on its service model"
    what_lies_under = "botocore's model of eventbridgev2 behind HTTP, delivering to moto's SQS"
    parameters: Mapping[str, str] = {"api": "v2", "delivery_role": ROLE}
    permission = "events:ListEventBuses"

    @property
    def capabilities(self) -> Capabilities:
        return V2

    def _clean(self, prefix: str) -> None:
        buses = self.world.client("eventbridgev2")
        for one in list(buses.get_paginator("list_subscribers").paginate().search("Subscribers[]")):
            if one["Name"].startswith(prefix):
                buses.delete_subscriber(SubscriberArn=one["SubscriberArn"])
        found = buses.get_paginator("list_event_buses").paginate(NamePrefix=prefix)
        for bus in list(found.search("EventBuses[]")):
            buses.delete_event_bus(EventBusArn=bus["EventBusArn"])
        buses.close()
        super()._clean(prefix)
