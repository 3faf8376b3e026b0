"""Both protocols on one server: crossbus and a program with Azure's SDK share topics, subscriptions and events."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from azure.core.credentials import AzureKeyCredential
from azure.core.messaging import CloudEvent
from azure.eventgrid.aio import EventGridConsumerClient, EventGridPublisherClient
from tests.serving import Server, serving
from tests.support import run

from crossbus import Bus, Event, Reject, RetryPolicy, exact

KEY = "one-key-for-both"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving("--shortest-wait", "0", CROSSBUS_SERVER_KEY=KEY) as server:
        yield server


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROSSBUS_KEY", KEY)


def bus_of(server: Server) -> Bus:
    return Bus(server.url.replace("http:", "local+http:"), source="/crossbus")


def clients(server: Server, topic: str) -> tuple[EventGridPublisherClient, EventGridConsumerClient]:
    key = AzureKeyCredential(KEY)
    return (
        EventGridPublisherClient(server.url, key, namespace_topic=topic),
        EventGridConsumerClient(server.url, key, namespace_topic=topic, subscription="billing"),
    )


def test_azures_sdk_publishes_and_crossbus_handles(server: Server) -> None:
    async def program() -> None:
        handled: asyncio.Queue[Event] = asyncio.Queue()
        bus = bus_of(server)

        @bus.subscribe("placed", "billing", filter=exact(tenant="a"), retry=RetryPolicy(attempts=1))
        async def bill(event: Event) -> None:
            handled.put_nowait(event)
            if event.id == "poison":
                raise Reject("poison")

        publisher, consumer = clients(server, "placed")
        async with publisher, consumer, bus, bus.running():
            sent = CloudEvent(
                source="/azure", type="t", id="1", data={"n": 2**63}, extensions={"tenant": "a"}
            )
            other = CloudEvent(source="/azure", type="t", id="2", extensions={"tenant": "b"})
            poison = CloudEvent(source="/azure", type="t", id="poison", extensions={"tenant": "a"})
            await publisher.send([other, sent, poison])
            event = await handled.get()
            assert (event.id, event.source, event.data) == ("1", "/azure", {"n": 2**63})
            assert (await handled.get()).id == "poison"
            while (await bus.backlog("placed", "billing")).dead == 0:  # noqa: ASYNC110 - it is another process
                await asyncio.sleep(0.05)
            dead = await bus.dead_letters("placed", "billing").list()
            assert [letter.event.id for letter in dead if letter.event] == ["poison"]
            assert await consumer.receive(max_events=10, max_wait_time=0) == []

    run(program(), limit=60)


def test_crossbus_publishes_and_azures_sdk_receives(server: Server) -> None:
    async def program() -> None:
        bus = bus_of(server)
        bus.subscribe("paid", "billing", filter=exact(type="paid"), lease=120)
        publisher, consumer = clients(server, "paid")
        async with publisher, consumer, bus:
            await bus.publish("paid", Event(type="other"))
            made = Event(type="paid", id="1", data={"n": 1}, extensions={"tenant": "a"})
            await bus.publish("paid", made)
            (received,) = await consumer.receive(max_events=10, max_wait_time=10)
            assert (received.event.id, received.event.source, received.event.data) == (
                "1",
                "/crossbus",
                {"n": 1},
            )
            assert received.event.extensions == {"tenant": "a"}
            token = received.broker_properties.lock_token
            assert (await bus.backlog("paid", "billing")).in_hand == 1
            assert (await consumer.acknowledge(lock_tokens=[token])).failed_lock_tokens == []
            assert (await bus.backlog("paid", "billing")).in_hand == 0

    run(program(), limit=60)


def test_what_azures_sdk_rejects_is_redriven_by_crossbus(server: Server) -> None:
    async def program() -> None:
        bus = bus_of(server)
        bus.subscribe("refused", "billing")
        publisher, consumer = clients(server, "refused")
        async with publisher, consumer, bus:
            await publisher.send(CloudEvent(source="/azure", type="t", id="1"))
            (received,) = await consumer.receive(max_events=10, max_wait_time=10)
            await consumer.reject(lock_tokens=[received.broker_properties.lock_token])
            dead_letters = bus.dead_letters("refused", "billing")
            (dead,) = await dead_letters.list()
            assert dead.reason == "backstop"
            assert await dead_letters.redrive() == 1
            (again,) = await consumer.receive(max_events=10, max_wait_time=10)
            assert again.event.id == "1"

    run(program(), limit=60)
