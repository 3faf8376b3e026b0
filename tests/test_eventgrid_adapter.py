"""The Event Grid adapter, on the strict server: requests, limits, errors, leases, credentials."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from crossbus import Bus, Delivery, Event
from crossbus.adapter import LeaseOutcome, Settlement, Wire
from crossbus.capabilities import Capabilities
from crossbus.clock import SystemClock
from crossbus.errors import (
    AdapterNotInstalled,
    BusClosedError,
    ConfigurationError,
    DecodeError,
    ErrorCode,
    EventTooLarge,
    NotFound,
    UnsupportedError,
)
from crossbus.profiles import Profile
from crossbus.topology import Subscription, Topic, Topology
from crossbus.urls import parse_url
from crossbus_eventgrid import EventGridAdapter
from crossbus_eventgrid.credentials import Credentials
from crossbus_eventgrid.endpoint import read_endpoint
from crossbus_eventgrid.failures import outcome_of_code
from crossbus_eventgrid.identity import message_id
from eventgrid_harness import KEY, PROVIDER_ERRORS, SHORT, World, strict_world
from strict_eventgrid import LIMIT, Message, Queue, Serving
from support import run

ORDERS = Topic("orders")
BILLING = Subscription(topic=ORDERS, name="billing", lease=2.0)


@pytest.fixture
def world() -> Iterator[World]:
    with strict_world(shortest_wait=1) as found:
        found.namespace.add("orders", "billing", lock=2.0)
        yield found


def queue(world: World) -> Queue:
    return world.namespace.topics["orders"]["billing"]


@asynccontextmanager
async def opened(world: World, **more: Any) -> Any:
    adapter = world.adapter(**more)
    await adapter.open()
    try:
        yield adapter
    finally:
        await adapter.close()


def event(**more: Any) -> Event:
    return Event(**{"type": "com.acme.order", "source": "/shop", "data": {"order": "o-1"}} | more)


# --- the profile ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "reads"),
    [
        ("eventgrid://shop.westeurope-1.eventgrid.azure.net", ("shop", 443, False, False)),
        ("eventgrid:?endpoint=http://127.0.0.1:8787", ("127", 8787, True, True)),
        ("eventgrid:?endpoint=http://[::1]:8787", ("::1", 8787, True, True)),
        ("eventgrid:?endpoint=https://localhost", ("localhost", 443, True, False)),
    ],
)
def test_endpoint(url: str, reads: tuple[str, int, bool, bool]) -> None:
    endpoint = EventGridAdapter(parse_url(url, "CROSSBUS_URL"), clock=SystemClock()).endpoint
    assert (
        endpoint.namespace,
        endpoint.port,
        endpoint.is_loopback,
        endpoint.url.startswith("http:"),
    ) == reads


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("eventgrid:", "no endpoint"),
        ("eventgrid:shop", "'shop' is not the host name of a namespace"),
        ("eventgrid://a.b?endpoint=https://a.b", "two endpoints"),
        ("eventgrid:?endpoint=http://shop.eventgrid.azure.net", "has no TLS"),
        ("eventgrid:?endpoint=ftp://a.b", "must begin with https://"),
        ("eventgrid:?endpoint=https://a.b/api/events", "belongs to a Basic topic"),
        ("eventgrid:?endpoint=https://a.b:port", "is no URL"),
        ("eventgrid://a.b?shortest_lock=2", "Azure's is 60 s"),
        ("eventgrid:?endpoint=http://[::1]&shortest_wait=0", "whole seconds from 1 to 10"),
        ("eventgrid://a.b?backstop_storage=x", "backstop_storage and backstop_container belong together"),
    ],
)
def test_wrong_endpoint(url: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match="CROSSBUS_URL") as raised:
        EventGridAdapter(parse_url(url, "CROSSBUS_URL"), clock=SystemClock())
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)


def test_capabilities_are_read_without_the_sdk() -> None:
    script = (
        "import sys; from crossbus.registry import capabilities_of; c = capabilities_of('eventgrid'); "
        "assert c.publish_batch == 1000 and not c.has('ordering'); "
        "print([m for m in sys.modules if m.partition('.')[0] in ('azure', 'aiohttp')])"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_ordering_is_refused_by_its_name(world: World) -> None:
    bus = Bus(adapter=world.adapter(), provision="never")
    bus.subscribe("orders", "billing", ordered=True)
    with pytest.raises(UnsupportedError, match="no ordering") as raised:
        run(bus.open())
    assert raised.value.capability == "ordering"


@pytest.mark.parametrize("attempts", [11, "unlimited"])
def test_more_attempts_than_receives_are_refused(world: World, attempts: Any) -> None:
    from crossbus import RetryPolicy

    bus = Bus(adapter=world.adapter(), provision="never")
    bus.subscribe("orders", "billing", lease=2, retry=RetryPolicy(attempts=attempts))
    with pytest.raises(UnsupportedError, match=r"after 10 receives .* use RetryPolicy\(attempts=10\)"):
        run(bus.open())


# --- publishing -----------------------------------------------------------------------------------------------------


def test_opening_sends_nothing(world: World) -> None:
    async def main() -> None:
        async with opened(world):
            pass

    run(main())
    assert not world.namespace.requests
    assert not world.arm.requests


@pytest.mark.filterwarnings("ignore:Sending a large body")  # aiohttp's, of what no limit of ours lets through
def test_a_batch_of_the_largest_size_passes_and_one_byte_more_is_refused_here(world: World) -> None:
    async def main() -> None:
        async with opened(world) as adapter:
            empty = len(adapter.encode(ORDERS, event(data="")).body)
            large = adapter.encode(ORDERS, event(data="x" * (LIMIT - 2 - empty)))
            assert large.size == adapter.capabilities.event_bytes
            (outcome,) = await adapter.send(ORDERS, [large])
            assert outcome.code is None, outcome
            sizes = [adapter.encode(ORDERS, event(data="y" * 1000)) for _ in range(1000)]
            room = adapter.capabilities.publish_batch_bytes
            fitting = sizes[: room // sizes[0].size]
            assert (await adapter.send(ORDERS, fitting))[0].code is None
            (refused,) = await adapter.send(ORDERS, [adapter.encode(ORDERS, event(data="x" * LIMIT))])
            assert (refused.code, refused.retryable) == (ErrorCode.INVALID_REQUEST, False)
            assert "413" in refused.message

    run(main())


def test_an_event_that_is_too_large_never_leaves(world: World) -> None:
    async def main() -> None:
        async with Bus(adapter=world.adapter(), provision="never") as bus:
            with pytest.raises((EventTooLarge, ValueError), match="1,0"):
                await bus.publish("orders", event(data="x" * LIMIT))

    run(main())
    assert not world.namespace.requests


def test_1001_events_are_two_requests(world: World) -> None:
    async def main() -> None:
        async with Bus(adapter=world.adapter(), provision="never") as bus:
            receipts = await bus.publish_many("orders", [event() for _ in range(1001)])
            assert len({receipt.message_id for receipt in receipts}) == 1001

    run(main())
    assert len(world.namespace.requests) == 2
    assert len(queue(world).ready) == 1001


def test_one_bad_event_refuses_its_batch_and_nothing_is_published(world: World) -> None:
    async def main() -> None:
        async with opened(world) as adapter:
            good, bad = adapter.encode(ORDERS, event()), Wire(b'{"specversion":"1.0"}', {}, 22)
            outcomes = await adapter.send(ORDERS, [good, bad])
            assert [outcome.code for outcome in outcomes] == [ErrorCode.INVALID_REQUEST] * 2
            assert "The event has no id" in outcomes[0].message

    run(main())
    assert not queue(world).ready


@pytest.mark.parametrize(
    ("status", "code", "retryable"),
    [
        (400, ErrorCode.INVALID_REQUEST, False),
        (403, ErrorCode.PERMISSION_DENIED, False),
        (404, ErrorCode.NOT_FOUND, False),
        (409, ErrorCode.CONFLICT, False),
        (429, ErrorCode.THROTTLED, True),
        (500, ErrorCode.UNAVAILABLE, True),
        (502, ErrorCode.UNAVAILABLE, True),
        (503, ErrorCode.UNAVAILABLE, True),
    ],
)
def test_an_answer_becomes_an_outcome_after_one_request(
    world: World, status: int, code: ErrorCode, retryable: bool
) -> None:
    async def main() -> None:
        async with opened(world) as adapter:
            world.namespace.fail_next.append((status, {}))
            (outcome,) = await adapter.send(ORDERS, [adapter.encode(ORDERS, event())])
            assert (outcome.code, outcome.retryable) == (code, retryable), outcome
            assert outcome.cause is not None
            assert "\n" not in outcome.message

    run(main())
    assert len(world.namespace.requests) == 1, "the SDK retried, though the portable layer does"


def test_a_retry_after_is_waited_for(world: World) -> None:
    async def main() -> float:
        async with Bus(adapter=world.adapter(), provision="never") as bus:
            world.namespace.fail_next.append((429, {"Retry-After": "2"}))
            began = asyncio.get_running_loop().time()
            await bus.publish("orders", event())
            return asyncio.get_running_loop().time() - began

    assert run(main()) >= 1.9
    assert len(world.namespace.requests) == 2


def test_a_server_that_is_not_there_is_unavailable(world: World) -> None:
    async def main() -> None:
        adapter = EventGridAdapter(
            Profile(parameters={"endpoint": "http://127.0.0.1:9"}), clock=SystemClock()
        )
        await adapter.open()
        try:
            (outcome,) = await adapter.send(ORDERS, [adapter.encode(ORDERS, event())])
            assert (outcome.code, outcome.retryable) == (ErrorCode.UNAVAILABLE, True)
            assert (
                outcome.message
                == "nothing listens on http://127.0.0.1:9; start it with: crossbus serve --port 9"
            )
        finally:
            await adapter.close()

    run(main())


def test_a_server_that_takes_anything_is_not_taken_for_a_namespace() -> None:
    async def anything(request: web.Request) -> web.Response:
        return web.Response(text="<html>welcome</html>")

    async def main(url: str) -> None:
        adapter = EventGridAdapter(Profile(parameters={"endpoint": url}), clock=SystemClock())
        await adapter.open()
        try:
            (outcome,) = await adapter.send(ORDERS, [adapter.encode(ORDERS, event())])
            assert (outcome.code, outcome.retryable) == (ErrorCode.UNKNOWN, False)
        finally:
            await adapter.close()

    with Serving(anything) as serving:
        run(main(serving.url))


@pytest.mark.parametrize("module", ["aiohttp", "azure.eventgrid.aio", "azure.core.credentials"])
def test_without_the_sdk_opening_says_what_to_install(
    world: World, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # type: ignore[arg-type]
    with pytest.raises(AdapterNotInstalled, match=r"pip install 'crossbus\[azure\]'"):
        run(world.adapter().open())


def test_codes_of_the_sdk() -> None:
    adapter = EventGridAdapter(Profile(target="a.b"), clock=SystemClock())
    for error, code, retryable in PROVIDER_ERRORS:
        assert adapter.error_code(error) == (code, retryable), error
    assert adapter.error_code(ValueError()) is None


# --- consuming ------------------------------------------------------------------------------------------------------


def put(world: World, *bodies: str) -> None:
    """Put what no publisher of ours would send into the queue, as other publishers and releases of Azure might."""
    found = queue(world)
    messages = [Message(body, {}) for body in bodies]
    world.serving.loop.call_soon_threadsafe(lambda: [found.put(message) for message in messages])


def test_one_bad_event_does_not_poison_a_batch(world: World) -> None:
    good = '{"specversion":"1.0","id":"1","source":"/s","type":"t","data":null}'
    capitals = '{"specversion":"1.0","id":"2","source":"/s","type":"t","insertId":"x","data":1}'
    both = '{"specversion":"1.0","id":"3","source":"/s","type":"t","data":1,"data_base64":"AA=="}'
    nothing = '{"value":1}'
    digits = (
        '{"specversion":"1.0","id":"4","source":"/s","type":"t","time":"2026-01-01T00:00:00.123456789+02:00"}'
    )
    surrogate = '{"specversion":"1.0","id":"5","source":"/s","type":"t","data":"\\ud800"}'
    deep = '{"specversion":"1.0","id":"6","source":"/s","type":"t","data":' + "[" * 3000 + "]" * 3000 + "}"
    huge = '{"specversion":"1.0","id":"7","source":"/s","type":"t","data":' + "9" * 5000 + "}"

    async def main() -> None:
        async with opened(world) as adapter:
            put(world, good, capitals, both, nothing, digits, surrogate, deep, huge)
            receiver = await adapter.open_receiver(BILLING, 10)
            taken: list[Any] = []
            while len(taken) < 8:
                taken += await receiver.receive(100, 5)
            read: list[Event | None] = []
            for one in taken:
                try:
                    read.append(adapter.decode(one))
                except DecodeError:
                    read.append(None)
            found = {one.id: one for one in read if one is not None}
            assert found["1"].data is None
            assert found["1"].data_bytes == b"null"
            assert found["2"].extensions["insertid"] == "x"
            assert str(found["4"].attributes()["time"]) == "2026-01-01T00:00:00.123456789+02:00"
            assert found.keys() >= {"1", "2", "4", "5"}
            assert sum(one is None for one in read) >= 2
            outcomes = await receiver.settle([Settlement(one.lease) for one in taken])
            assert outcomes == [LeaseOutcome.OK] * 8
            await receiver.close()

    run(main())
    assert not queue(world).locked


def test_settling_answers_for_each_and_lost_is_an_answer(world: World) -> None:
    async def main() -> None:
        async with opened(world) as adapter:
            await adapter.send(ORDERS, [adapter.encode(ORDERS, event()) for _ in range(4)])
            receiver = await adapter.open_receiver(BILLING, 10)
            one, two, three, four = await receiver.receive(10, 1)
            outcomes = await receiver.settle(
                [
                    Settlement(one.lease),
                    Settlement("no such token"),
                    Settlement(two.lease, 0.0),
                    Settlement(three.lease, 10.0),
                    Settlement(one.lease),
                ]
            )
            assert outcomes[1:4] == [LeaseOutcome.LOST, LeaseOutcome.OK, LeaseOutcome.OK]
            assert outcomes[0] is outcomes[4], (
                "one token, settled twice in one request, is answered in two ways"
            )
            assert await receiver.extend([four.lease, "nor this"], 2) == [LeaseOutcome.OK, LeaseOutcome.LOST]
            (again,) = await receiver.receive(10, 1)
            assert (again.message_id, again.attempt) == (two.message_id, 2)
            await receiver.close()

    run(main())
    operations = [path.rpartition(":")[2].partition("?")[0] for _, path in world.namespace.requests]
    assert operations.count("acknowledge") == 1
    assert operations.count("release") == 2


def test_a_release_that_fails_leaves_the_acknowledged_as_they_are(world: World) -> None:
    async def main() -> None:
        async with opened(world) as adapter:
            await adapter.send(ORDERS, [adapter.encode(ORDERS, event()) for _ in range(2)])
            receiver = await adapter.open_receiver(BILLING, 10)
            one, two = await receiver.receive(10, 1)
            outcomes = await receiver.settle([Settlement(one.lease), Settlement(two.lease, 7.0)])
            assert outcomes == [LeaseOutcome.OK, LeaseOutcome.FAILED]
            await receiver.close()

    run(main())


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        ("TokenLost", LeaseOutcome.LOST),
        ("BadToken", LeaseOutcome.LOST),
        ("", LeaseOutcome.LOST),
        ("InternalServerError", LeaseOutcome.FAILED),
        ("ServiceUnavailable", LeaseOutcome.FAILED),
        ("TooManyRequests", LeaseOutcome.FAILED),
        ("RequestTimeout", LeaseOutcome.FAILED),
    ],
)
def test_codes_of_single_tokens(code: str, outcome: LeaseOutcome) -> None:
    assert outcome_of_code(code) is outcome


@pytest.mark.parametrize(
    ("external", "looked", "seconds"),
    [(True, True, 7.0), (True, False, 2.0), (False, True, 7.0), (False, False, 60.0)],
)
def test_a_lock_lasts_as_the_subscription_says_and_not_as_it_is_declared(
    world: World, external: bool, looked: bool, seconds: float
) -> None:
    world.namespace.add("orders", "theirs", lock=7.0)
    declared = Subscription(topic=ORDERS, name="theirs", lease=60.0, external=external)

    async def main() -> None:
        async with opened(world) as adapter:
            if looked:
                await adapter.inspect(Topology((ORDERS,), (declared,)))
            await adapter.send(ORDERS, [adapter.encode(ORDERS, event())])
            receiver = await adapter.open_receiver(declared, 1)
            (one,) = await receiver.receive(1, 5)
            assert one.lease_seconds == seconds
            await receiver.close()

    run(main())


def test_a_subscription_of_others_with_a_shorter_lock_is_kept(world: World) -> None:
    config = {
        "topics": {"orders": {"external": True}},
        "subscriptions": {"orders/billing": {"external": True}},
    }

    async def main() -> None:
        bus = Bus(adapter=world.adapter(), config=config)
        attempts: list[int | None] = []
        done = asyncio.Event()

        @bus.subscribe("orders", "billing", lease=60)
        async def slow(delivery: Delivery) -> None:
            attempts.append(delivery.attempt)
            await asyncio.sleep(5)
            done.set()

        async with bus, bus.running():
            await bus.publish("orders", event())
            await done.wait()
        assert attempts == [1], "its lock of 2 s ended while the handler ran"

    run(main())


def test_a_receive_that_is_cancelled_gives_back_what_was_on_the_way(world: World) -> None:
    world.namespace.topics["orders"]["billing"].lock = 60.0

    async def main() -> None:
        async with opened(world) as adapter:
            receiver = await adapter.open_receiver(BILLING, 10)
            receiving = asyncio.ensure_future(receiver.receive(10, 20))
            await asyncio.sleep(0.3)
            receiving.cancel()  # the answer comes after that
            await asyncio.gather(receiving, return_exceptions=True)
            await adapter.send(ORDERS, [adapter.encode(ORDERS, event())])
            await receiver.close()
            other = await adapter.open_receiver(BILLING, 10)
            (again,) = await other.receive(10, 5)
            assert again.attempt in (1, 2)
            await other.close()

    run(main())


def test_an_answer_that_is_there_when_the_cancellation_comes_is_released(world: World) -> None:
    world.namespace.topics["orders"]["billing"].lock = 60.0

    async def main() -> None:
        async with opened(world) as adapter:
            await adapter.send(ORDERS, [adapter.encode(ORDERS, event()) for _ in range(50)])
            receiver = await adapter.open_receiver(BILLING, 10)
            for turns in range(40):  # at another moment of the call each time
                receiving = asyncio.ensure_future(receiver.receive(10, 1))
                for _ in range(turns):
                    await asyncio.sleep(0.0005)
                receiving.cancel()
                (taken,) = await asyncio.gather(receiving, return_exceptions=True)
                if isinstance(taken, BaseException):
                    continue
                await receiver.settle([Settlement(one.lease, 0.0) for one in taken])
            await receiver.close()

    world.namespace.topics["orders"]["billing"].most = 1000
    run(main())
    found = queue(world)
    world.serving.loop.call_soon_threadsafe(found.next_due)
    assert not found.locked, f"{len(found.locked)} events are locked though nobody has them"


def test_closing_ends_a_receive_that_waits(world: World) -> None:
    async def main() -> None:
        async with opened(world) as adapter:
            receiver = await adapter.open_receiver(BILLING, 10)
            receiving = asyncio.ensure_future(receiver.receive(10, 60))
            await asyncio.sleep(0.2)
            await receiver.close()
            assert await asyncio.wait_for(receiving, 5) == []
            assert await receiver.receive(10, 60) == []

    run(main())


def test_a_subscription_that_is_not_there_is_not_found(world: World) -> None:
    async def main() -> None:
        async with opened(world) as adapter:
            receiver = await adapter.open_receiver(BILLING.replace(name="biling"), 10)
            with pytest.raises(NotFound, match="subscription 'orders/biling': there is no such"):
                await receiver.receive(1, 1)
            await receiver.close()

    run(main())


def test_150_subscriptions_poll_at_once(world: World) -> None:
    names = [f"sub-{n}" for n in range(150)]
    world.namespace.add("orders", *names)

    async def main() -> None:
        async with opened(world) as adapter:
            receivers = [await adapter.open_receiver(BILLING.replace(name=name), 1) for name in names]
            polls = [asyncio.ensure_future(one.receive(1, 20)) for one in receivers]
            await asyncio.sleep(1.0)
            await adapter.send(ORDERS, [adapter.encode(ORDERS, event())])
            found = await asyncio.wait_for(asyncio.gather(*polls), 20)
            assert all(len(taken) == 1 for taken in found)

    run(main())


# --- credentials ----------------------------------------------------------------------------------------------------


def test_a_key_that_was_rotated_is_read_again(world: World) -> None:
    async def main() -> None:
        async with opened(world) as adapter:
            world.environ[KEY] = world.namespace.key = "key-2"
            wires = [adapter.encode(ORDERS, event())]
            sent = await asyncio.gather(*(adapter.send(ORDERS, wires) for _ in range(5)))
            assert all(outcome.code is None for (outcome,) in sent)

    run(main())


class Rotating(dict[str, str]):
    """An environment whose key is the next one each time that it is read, and the last one in the end."""

    def __init__(self, *keys: str) -> None:
        super().__init__()
        self.keys_to_come = list(keys)

    def get(self, name: str, default: Any = None) -> Any:
        if name != KEY:
            return default
        return self.keys_to_come.pop(0) if len(self.keys_to_come) > 1 else self.keys_to_come[0]


def test_a_key_that_was_rotated_again_meanwhile_is_read_again(world: World) -> None:
    async def main() -> None:
        world.environ = Rotating("k1", "key-2", "key-3")
        async with opened(world) as adapter:
            world.namespace.key = "key-3"
            (outcome,) = await adapter.send(ORDERS, [adapter.encode(ORDERS, event())])
            assert outcome.code is None, outcome.message
            world.namespace.key = "key-4"
            (outcome,) = await adapter.send(ORDERS, [adapter.encode(ORDERS, event())])
            assert outcome.code is ErrorCode.UNAUTHENTICATED

    run(main())


def test_a_wrong_key_is_one_line_and_no_secret(world: World, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        caplog.set_level(logging.DEBUG)
        world.environ[KEY] = "s3cret-but-wrong"
        async with opened(world) as adapter:
            (outcome,) = await adapter.send(ORDERS, [adapter.encode(ORDERS, event())])
            assert (outcome.code, outcome.retryable) == (ErrorCode.UNAUTHENTICATED, False)
            assert "refused the key for " in outcome.message
            assert "s3cret" not in outcome.message + str(outcome.cause) + repr(outcome)

    run(main())
    assert "s3cret" not in caplog.text


def test_a_key_that_azure_refuses_names_both_ways_in() -> None:
    endpoint = read_endpoint(Profile(target="shop.westeurope-1.eventgrid.azure.net"))
    credentials = Credentials(endpoint, {KEY: "s3cret-but-wrong"})
    credentials.open()
    text = str(credentials.refused("for topic 'orders'"))
    assert text.startswith("shop.westeurope-1.eventgrid.azure.net refused the key of AZURE_EVENTGRID_KEY for")
    assert "one of its access keys" in text
    assert "Microsoft Entra" in text
    assert "s3cret" not in text


def test_a_server_on_this_machine_without_a_key_takes_any(world: World) -> None:
    async def main() -> None:
        world.namespace.key = "local"
        del world.environ[KEY]
        async with opened(world) as adapter:
            assert (await adapter.send(ORDERS, [adapter.encode(ORDERS, event())]))[0].code is None
            world.namespace.key = "started with one"
            (outcome,) = await adapter.send(ORDERS, [adapter.encode(ORDERS, event())])
            assert "wants a key" in outcome.message
            assert "the key that the server was started with" in outcome.message

    run(main())


def test_nobody_signed_in_is_one_line_that_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "EnvironmentCredential")
    for name in ("AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_CLIENT_SECRET"):
        monkeypatch.delenv(name, raising=False)

    async def main() -> None:
        adapter = EventGridAdapter(
            Profile(target="shop.westeurope-1.eventgrid.azure.net"), clock=SystemClock()
        )
        adapter.environ = {}
        await adapter.open()
        try:
            (outcome,) = await adapter.send(ORDERS, [adapter.encode(ORDERS, event())])
            assert outcome.code is ErrorCode.UNAUTHENTICATED
            assert "set AZURE_EVENTGRID_KEY" in outcome.message
            assert "\n" not in outcome.message
        finally:
            await adapter.close()

    run(main())


def test_a_key_with_a_line_break_is_refused_when_opening(world: World) -> None:
    world.environ[KEY] = "a\nb"
    with pytest.raises(ConfigurationError, match="AZURE_EVENTGRID_KEY holds characters"):
        run(world.adapter().open())


# --- life -----------------------------------------------------------------------------------------------------------


def test_a_closed_adapter_says_so_and_can_be_opened_again(world: World) -> None:
    async def main() -> None:
        adapter = world.adapter()
        wire = adapter.encode(ORDERS, event())
        for _ in range(2):
            with pytest.raises(BusClosedError):
                await adapter.send(ORDERS, [wire])
            await adapter.open()
            assert (await adapter.send(ORDERS, [wire]))[0].code is None
            await adapter.close()
            await adapter.close()

    run(main())


def test_message_ids_tell_sources_apart() -> None:
    one = b'{"id":"o-1","source":"/a","data":{"id":"x"}}'
    two = b'{"source":"/b","id":"o-1"}'
    assert message_id(one).startswith("o-1~")
    assert message_id(one) != message_id(two)
    assert message_id(one) == message_id(b'{"source":"/a","id":"o-1"}')
    assert message_id(b"no event").startswith("~")


def test_capabilities_of_the_tests_differ_in_locks_and_waits_only(world: World) -> None:
    assert world.adapter().capabilities == SHORT
    own: Mapping[str, Any] = {name: getattr(SHORT, name) for name in Capabilities.__dataclass_fields__}
    azure = {name: getattr(EventGridAdapter.capabilities, name) for name in own}
    assert {name for name in own if own[name] != azure[name]} == {"receive_wait", "lease"}


def test_json_of_a_request(world: World) -> None:
    """What is sent, word for word: the strict server would refuse what differs, but not what is missing."""

    async def main() -> None:
        async with opened(world) as adapter:
            await adapter.send(ORDERS, [adapter.encode(ORDERS, event(id="1"))])
            receiver = await adapter.open_receiver(BILLING, 1)
            await receiver.receive(7, 3.2)
            await receiver.close()

    run(main())
    assert world.namespace.requests == [
        ("POST", "/topics/orders:publish?api-version=2024-06-01"),
        (
            "POST",
            "/topics/orders/eventsubscriptions/billing:receive?api-version=2024-06-01&maxEvents=7&maxWaitTime=4",
        ),
    ]
    assert json.loads(next(iter(queue(world).locked.values())).body)["id"] == "1"
