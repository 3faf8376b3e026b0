"""The application on an engine that others use too: one event, whichever protocol it came by."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from starlette.applications import Starlette
from tests.support import run

from crossbus.adapter import ReplayFrom
from crossbus.clock import SystemClock
from crossbus.codecs import decode_json, encode_json
from crossbus.errors import ConfigurationError
from crossbus.event import Event
from crossbus.filters import exact
from crossbus.testing import Clock
from crossbus_local.engine import Engine
from crossbus_local.eventgrid_filter import decoded
from crossbus_local.http.app import end_waiting, make_app
from crossbus_local.http.options import ServerOptions, is_loopback
from crossbus_local.queue import QueueSettings
from crossbus_local.records import NO_ATTRIBUTES, LocalWire

BILLING = "/topics/orders/eventsubscriptions/billing"


async def ask(
    app: Starlette, path: str, body: bytes = b"", content_type: str = "", query: str = ""
) -> tuple[int, Any]:
    """Call an ASGI application as a server does."""
    sent: list[Any] = []
    never = asyncio.Event()
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Any:
        if messages:
            return messages.pop()
        await never.wait()
        raise AssertionError

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"host", b"localhost"), (b"content-type", content_type.encode())]
    text = f"api-version=2024-06-01{query}".encode()
    scope = {"type": "http", "method": "POST", "path": path, "query_string": text, "headers": headers}
    await app(scope, receive, send)
    return sent[0]["status"], json.loads(sent[1]["body"])


class Broker:
    """An engine and the server of it."""

    def __init__(self, *, clock: Any = None, settings: QueueSettings | None = None, **options: Any) -> None:
        self.engine = Engine(clock or SystemClock())
        self.app = make_app(self.engine, ServerOptions(shortest_wait=0.0, **options))
        if settings is not None:
            self.engine.create_topic("orders")
            self.engine.put_subscription("orders", "billing", settings)

    async def publish(self, *events: dict[str, Any]) -> None:
        body = json.dumps(events).encode()
        assert (await ask(self.app, "/topics/orders:publish", body, "application/cloudevents-batch+json"))[
            0
        ] == 200

    async def receive(self, most: int = 100, wait: int = 0) -> list[dict[str, Any]]:
        query = f"&maxEvents={most}&maxWaitTime={wait}"
        status, body = await ask(self.app, f"{BILLING}:receive", query=query)
        assert status == 200, body
        return list(body["value"])

    async def settle(self, what: str, *received: dict[str, Any]) -> Any:
        tokens = [one["brokerProperties"]["lockToken"] for one in received]
        body = json.dumps({"lockTokens": tokens}).encode()
        status, answer = await ask(self.app, f"{BILLING}:{what}", body, "application/json")
        assert status == 200, answer
        return answer


def event(id: str = "1", **changes: Any) -> dict[str, Any]:
    return {"specversion": "1.0", "id": id, "source": "/test", "type": "t", **changes}


def wire(made: Event) -> LocalWire:
    body = encode_json(made)
    return LocalWire(body, NO_ATTRIBUTES, len(body), None, made)


def test_what_crossbus_publishes_is_received() -> None:
    async def program() -> None:
        broker = Broker(settings=QueueSettings())
        made = Event(type="t", source="/s", id="1", data={"n": 2**60}, extensions={"tenant": "a", "count": 3})
        broker.engine.publish("orders", [wire(made)])
        (one,) = await broker.receive()
        assert decode_json(json.dumps(one["event"]).encode()) == made
        assert one["event"]["count"] == 3

    run(program())


def test_what_the_protocol_publishes_reaches_crossbus() -> None:
    async def program() -> None:
        broker = Broker(settings=QueueSettings(filter=exact(tenant="a"), ordered=True))
        await broker.publish(event("1", tenant="a", partitionkey="k"), event("2"), event("3", tenant="a"))
        queue = broker.engine.find("orders", "billing")
        taken, _ = broker.engine.receive(queue, 10, 60.0)
        assert sorted((decode_json(one.body).id, one.key) for one in taken) == [("1", "k"), ("3", None)]

    run(program())


def test_a_replayed_event_says_so() -> None:
    async def program() -> None:
        broker = Broker(settings=QueueSettings())
        await broker.publish(event("1", data={}))
        (first,) = await broker.receive()
        await broker.settle("acknowledge", first)
        taken = broker.engine.replay("orders", "billing", ReplayFrom(position=str(position(broker))))
        assert taken == 1
        (again,) = await broker.receive()
        assert set(again["event"]) - set(first["event"]) == {"crossbusreplay"}

    run(program())


def position(broker: Broker) -> int:
    return broker.engine.publish("orders", []) - 1


def test_rejected_and_spent_events_go_to_the_dead_letter() -> None:
    async def program() -> None:
        broker = Broker()
        await broker.receive()
        await broker.publish(event("1"), event("2"))
        first, second = await broker.receive()
        await broker.settle("release", first)
        await broker.settle("reject", second)
        (again,) = await broker.receive()
        assert (await broker.settle("reject", again, second))["failedLockTokens"][0]["error"][
            "code"
        ] == "TokenLost"
        dead = broker.engine.browse("orders--billing--dead", 10)
        assert [(decoded(one.body)["id"], one.attempt) for one in dead] == [("2", 1), ("1", 2)]

    run(program())


def test_without_a_dead_letter_a_rejected_event_is_dropped() -> None:
    async def program() -> None:
        broker = Broker(settings=QueueSettings(dead_letter=""))
        await broker.publish(event("1"))
        await broker.settle("reject", *await broker.receive())
        assert await broker.receive() == []
        assert broker.engine.dead_letters() == {}

    run(program())


def test_a_subscription_made_on_first_use_is_as_azure_makes_it() -> None:
    async def program() -> None:
        broker = Broker()
        await broker.receive()
        settings = broker.engine.topics()["orders"].queues["billing"].settings
        assert (settings.backstop, settings.lease, settings.retention) == (10, 60.0, 7 * 86_400.0)

    run(program())


@pytest.mark.parametrize(
    ("lease", "shortest", "expected"), [(90, 60, 90), (5, 60, 60), (5, 1, 5), (900, 60, 300)]
)
def test_a_lock_lasts_as_long_as_the_subscription_says_within_azures_bounds(
    lease: float, shortest: float, expected: float
) -> None:
    async def program() -> None:
        clock = Clock()
        settings = QueueSettings(lease=lease)
        broker = Broker(clock=clock, settings=settings, shortest_lock=shortest)
        await broker.publish(event("1"))
        (first,) = await broker.receive()
        await clock.advance(expected - 0.1)
        assert await broker.receive() == []
        assert (await broker.settle("renewLock", first))["failedLockTokens"] == []
        await clock.advance(expected - 0.1)
        assert await broker.receive() == []
        await clock.advance(0.2)
        (again,) = await broker.receive()
        assert again["brokerProperties"]["deliveryCount"] == 2

    run(program())


def test_a_large_backlog_is_answered_in_parts() -> None:
    async def program() -> None:
        broker = Broker(settings=QueueSettings())
        for n in range(20):
            await broker.publish(event(str(n), data="x" * 1_000_000))
        first, second = await broker.receive(), await broker.receive()
        assert [one["event"]["id"] for one in (*first, *second)] == [str(n) for n in range(20)]
        assert 10 <= len(first) < 20

    run(program())


def test_polls_that_wait_end_when_the_server_does() -> None:
    async def program() -> None:
        broker = Broker(settings=QueueSettings())
        polls = [asyncio.create_task(broker.receive(wait=120)) for _ in range(3)]
        await asyncio.sleep(0.05)
        await end_waiting(broker.app)
        assert await asyncio.gather(*polls) == [[], [], []]
        assert await broker.receive(wait=120) == [], "and none waits any more"
        await broker.publish(event("1"))
        assert len(await broker.receive()) == 1

    run(program())


def test_a_subscription_deleted_under_a_poll() -> None:
    async def program() -> None:
        broker = Broker(settings=QueueSettings())
        poll = asyncio.create_task(ask(broker.app, f"{BILLING}:receive", query="&maxWaitTime=120"))
        await asyncio.sleep(0.05)
        broker.engine.delete_subscription("orders", "billing")
        status, body = await poll
        assert (status, body["error"]["code"]) == (404, "NotFound")

    run(program())


def test_lock_tokens_of_an_earlier_run_are_lost() -> None:
    """Though leases are numbered anew."""

    async def program() -> None:
        before, after = Broker(settings=QueueSettings()), Broker(settings=QueueSettings())
        for broker in (before, after):
            await broker.publish(event("1"))
        (old,), (new,) = await before.receive(), await after.receive()
        leases = [one["brokerProperties"]["lockToken"].partition("-")[2] for one in (old, new)]
        assert leases[0] == leases[1]
        assert (await after.settle("acknowledge", old))["failedLockTokens"][0]["error"]["code"] == "TokenLost"
        assert (await after.settle("acknowledge", new))["failedLockTokens"] == []

    run(program())


def test_what_is_no_event_at_all_blocks_nobody() -> None:
    """crossbus's own protocol takes any bytes; the other cannot carry them, and others must get their events."""

    async def program() -> None:
        broker = Broker(settings=QueueSettings(dead_letter="dead"))
        bodies = [b"", b"{", b"[]", b'{"a":"\xff"}', b"null", b"[" * 100_000]
        wires = [LocalWire(body, NO_ATTRIBUTES, len(body), None) for body in bodies]
        broker.engine.publish("orders", wires[:3])
        await broker.publish(event("1"))
        broker.engine.publish("orders", wires[3:])
        assert [one["event"]["id"] for one in await broker.receive()] == ["1"]
        broker.engine.publish("orders", wires[:1])
        poll = asyncio.create_task(broker.receive(wait=60))
        await asyncio.sleep(0.05)
        await broker.publish(event("2"))
        assert [one["event"]["id"] for one in await poll] == ["2"], "and the poll goes on"
        assert broker.engine.dead_letters()["dead"] == len(bodies) + 1

    run(program())


# --- options --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost", "LOCALHOST"])
def test_addresses_that_only_this_machine_can_reach(host: str) -> None:
    assert is_loopback(host)
    ServerOptions(host=host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "10.0.0.1", "fe80::1"])
def test_addresses_that_others_can_reach(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(ConfigurationError, match="CROSSBUS_SERVER_KEY"):
        ServerOptions(host=host)
    assert "k3y" not in repr(ServerOptions(host=host, key="k3y"))
