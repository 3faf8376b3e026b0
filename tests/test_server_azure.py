"""A program that knows nothing but Azure's SDK, against a real server."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from azure.core.credentials import AzureKeyCredential
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ResourceNotFoundError
from azure.core.messaging import CloudEvent
from azure.eventgrid import EventGridConsumerClient, EventGridPublisherClient
from azure.eventgrid import aio as eventgrid_aio
from tests.serving import Server, serving
from tests.support import run
from tests.test_cli import environment

KEY = "a-key-that-nobody-guesses"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving("--shortest-lock", "2", "--shortest-wait", "0", CROSSBUS_SERVER_KEY=KEY) as server:
        yield server


def clients(
    server: Server, topic: str, key: str = KEY
) -> tuple[EventGridPublisherClient, EventGridConsumerClient]:
    credential = AzureKeyCredential(key)
    return (
        EventGridPublisherClient(server.url, credential, namespace_topic=topic),
        EventGridConsumerClient(server.url, credential, namespace_topic=topic, subscription="billing"),
    )


def made(n: int, data: Any = None) -> CloudEvent:
    return CloudEvent(
        source="/shop", type="com.acme.placed", id=f"e-{n}", data={"n": n} if data is None else data
    )


def tokens(received: list[Any]) -> list[str]:
    return [one.broker_properties.lock_token for one in received]


def test_publish_receive_and_every_way_to_settle(server: Server) -> None:
    publisher, consumer = clients(server, "sync")
    with publisher, consumer:
        assert consumer.receive(max_events=1, max_wait_time=0) == []  # makes the subscription
        publisher.send([made(n) for n in range(4)])
        publisher.send(made(4, 2**63))
        received = consumer.receive(max_events=10, max_wait_time=10)
        assert [one.event.id for one in received] == ["e-0", "e-1", "e-2", "e-3", "e-4"]
        assert [one.broker_properties.delivery_count for one in received] == [1] * 5
        assert received[4].event.data == 2**63
        first, second, third, fourth, fifth = tokens(received)
        assert consumer.renew_locks(lock_tokens=[first]).succeeded_lock_tokens == [first]
        assert consumer.acknowledge(lock_tokens=[first, second]).succeeded_lock_tokens == [first, second]
        assert consumer.reject(lock_tokens=[third]).failed_lock_tokens == []
        assert consumer.release(lock_tokens=[fourth]).succeeded_lock_tokens == [fourth]
        assert consumer.release(lock_tokens=[fifth], release_delay=10).succeeded_lock_tokens == [fifth]
        (again,) = consumer.receive(max_events=10, max_wait_time=0)
        assert (again.event.id, again.broker_properties.delivery_count) == ("e-3", 2)
        (lost,) = consumer.acknowledge(lock_tokens=[first]).failed_lock_tokens
        assert (lost.lock_token, lost.error.code) == (first, "TokenLost")


def test_the_same_with_asyncio_and_a_long_poll_that_wakes(server: Server) -> None:
    async def program() -> None:
        credential = AzureKeyCredential(KEY)
        publisher = eventgrid_aio.EventGridPublisherClient(server.url, credential, namespace_topic="aio")
        consumer = eventgrid_aio.EventGridConsumerClient(
            server.url, credential, namespace_topic="aio", subscription="billing"
        )
        async with publisher, consumer:
            assert await consumer.receive(max_events=1, max_wait_time=0) == []
            import asyncio

            poll = asyncio.create_task(consumer.receive(max_events=10, max_wait_time=60))
            await asyncio.sleep(0.3)
            assert not poll.done()
            await publisher.send([made(1), made(2)])
            received = await asyncio.wait_for(poll, 30)
            assert [one.event.id for one in received] == ["e-1", "e-2"]
            done = await consumer.acknowledge(lock_tokens=tokens(received))
            assert done.failed_lock_tokens == []

    run(program(), limit=60)


def test_a_lock_that_expires(server: Server) -> None:
    publisher, consumer = clients(server, "locks")
    with publisher, consumer:
        consumer.receive(max_events=1, max_wait_time=0)
        publisher.send(made(1))
        (first,) = consumer.receive(max_events=1, max_wait_time=10)
        began = time.monotonic()
        (second,) = consumer.receive(max_events=1, max_wait_time=60)
        assert time.monotonic() - began < 30, (
            "the poll wakes when the lock ends, not when its own time is over"
        )
        assert second.broker_properties.delivery_count == 2
        (lost,) = consumer.acknowledge(lock_tokens=tokens([first])).failed_lock_tokens
        assert lost.error.code == "TokenLost"
        assert consumer.acknowledge(lock_tokens=tokens([second])).failed_lock_tokens == []


def test_renewing_keeps_a_lock(server: Server) -> None:
    publisher, consumer = clients(server, "renewing")
    with publisher, consumer:
        consumer.receive(max_events=1, max_wait_time=0)
        publisher.send(made(1))
        kept = any(keep(consumer) for _ in range(5))  # a machine that stands still for seconds loses a lock
        assert kept


def keep(consumer: EventGridConsumerClient) -> bool:
    """Renew the lock of an event for twice as long as it lasts; True if it was kept, and nobody else got the event."""
    received = consumer.receive(max_events=1, max_wait_time=10)
    until = time.monotonic() + 4
    while time.monotonic() < until:
        if consumer.renew_locks(lock_tokens=tokens(received)).failed_lock_tokens:
            return False
        time.sleep(0.2)
    assert consumer.receive(max_events=1, max_wait_time=0) == []
    return consumer.acknowledge(lock_tokens=tokens(received)).failed_lock_tokens == []


def test_errors_are_those_that_the_sdk_knows(server: Server) -> None:
    publisher, consumer = clients(server, "errors", key="wrong")
    with publisher, consumer:
        with pytest.raises(ClientAuthenticationError, match="key is missing or wrong"):
            publisher.send([made(1)])
        with pytest.raises(ClientAuthenticationError):
            consumer.receive(max_events=1, max_wait_time=0)
    publisher, consumer = clients(server, "errors")
    with publisher, consumer:
        with pytest.raises(HttpResponseError) as caught:
            consumer.receive(max_events=101, max_wait_time=0)
        assert caught.value.status_code == 400
        assert caught.value.error
        assert caught.value.error.code == "BadRequest"
        with pytest.raises(HttpResponseError) as caught:
            consumer.release(lock_tokens=["a"], release_delay=7)  # type: ignore[arg-type]
        assert caught.value.status_code == 400
        with pytest.raises(ResourceNotFoundError):
            consumer.acknowledge(lock_tokens=["a"])
        with pytest.raises(HttpResponseError) as caught:
            publisher.send([made(1, "x" * 1_048_576)])
        assert caught.value.status_code == 413


def test_max_delivery_count() -> None:
    """Ten deliveries, as Azure has it by default; then the event goes to the dead letter."""
    with serving("--shortest-wait", "0") as server:
        publisher, consumer = clients(server, "poison")
        with publisher, consumer:
            consumer.receive(max_events=1, max_wait_time=0)
            publisher.send(made(1))
            for count in range(1, 11):
                (one,) = consumer.receive(max_events=1, max_wait_time=0)
                assert one.broker_properties.delivery_count == count
                consumer.release(lock_tokens=tokens([one]))
            assert consumer.receive(max_events=1, max_wait_time=0) == []
        assert any("poison--billing--dead" in line for line in server.errors)


def test_the_example_runs_on_an_empty_server() -> None:
    program = Path(__file__).parent.parent / "examples" / "azure_sdk" / "shop.py"
    with serving() as server:
        done = subprocess.run(
            [sys.executable, "-W", "error", str(program)],
            env=environment(EVENTGRID_ENDPOINT=server.url),
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "o-1: 12.50, delivery 1",
        "o-2: -1.00, delivery 1",
        "o-3: 80.00, delivery 1",
        "acknowledged 2, rejected 1",
    ]
