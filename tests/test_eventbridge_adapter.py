"""Publishing and consuming on moto's server, over HTTP, with boto3 as users have it."""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
import time
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from tests.consuming import until
from tests.eventbridge_harness import REGION, World, server, world
from tests.support import run
from tests.traced import Metered, Traced

from crossbus import (
    Bus,
    Event,
    NotFound,
    PartialPublishError,
    PermissionDenied,
    Reject,
    Retry,
    TelemetryOptions,
    Unauthenticated,
    exact,
)
from crossbus.adapter import LeaseOutcome, Settlement
from crossbus.clock import SystemClock
from crossbus.codecs import encode_json
from crossbus.config import load
from crossbus.event import new_id
from crossbus.topology import Subscription, Topic, Topology
from crossbus_eventbridge import EventBridgeAdapter

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(scope="module")
def aws() -> Iterator[World]:
    with world(server()) as made:
        yield made


@pytest.fixture
def name() -> str:
    return f"t{new_id()[:10]}"


@pytest.fixture
def who() -> str:
    """A key of the test's own, for faults."""
    return f"w{new_id()[:10]}"


def placed(id: str = "o-1", **more: Any) -> Event:
    return Event(**{"id": id, "type": "com.acme.placed", "source": "/shop", "data": {"n": 1}, **more})


async def provide(adapter: EventBridgeAdapter, *subscriptions: Subscription) -> None:
    topics = tuple({one.topic.name: one.topic for one in subscriptions}.values())
    await adapter.provision(await adapter.plan(Topology(topics, subscriptions)))


def queue_url(aws: World, name: str) -> str:
    url: str = aws.client("sqs").get_queue_url(QueueName=name)["QueueUrl"]
    return url


# --- publishing -----------------------------------------------------------------------------------------------------


def test_only_what_failed_is_sent_again(aws: World, name: str, who: str) -> None:
    async def scenario() -> None:
        bus = Bus(aws.url(who), provision="always")
        got: list[str] = []

        @bus.subscribe(name, "all")
        async def note(event: Event) -> None:
            got.append(event.id)

        async with bus:
            aws.server.set(aws.key(who), partial=3, throttle={"PutEvents": 2})
            events = [placed(f"o-{n}") for n in range(40)]
            receipts = await bus.publish_many(name, events)
            assert [receipt.event_id for receipt in receipts] == [event.id for event in events]
            assert len({receipt.message_id for receipt in receipts}) == 40
            async with bus.running():
                await until(lambda: len(set(got)) == 40, limit=60)
        assert len(got) == len(set(got)), "an entry that was taken was sent again"
        aws.server.set(aws.key(who))

    run(scenario(), limit=120)


def test_what_is_refused_for_good_is_raised_with_code_and_message(aws: World, name: str, who: str) -> None:
    async def scenario() -> None:
        bus = Bus(aws.url(who), provision="always")
        bus.topic(name)
        async with bus:
            aws.server.set(aws.key(who), errors=[["ValidationException", "PutEvents"]])
            with pytest.raises(PartialPublishError) as caught:
                await bus.publish_many(name, [placed("a"), placed("b")])
            text = str(caught.value.results[0].error)
            assert "ValidationException: put in by the tests" in text
            assert f"on bus {name}" in text
            assert aws.server.counts(aws.key(who))["PutEvents"] == 1, (
                "a request that cannot succeed was tried again"
            )
        aws.server.set(aws.key(who))

    run(scenario(), limit=60)


def test_a_missing_bus_is_noticed_before_the_first_event(aws: World, name: str, who: str) -> None:
    async def scenario() -> None:
        async with Bus(aws.url(who), provision="never") as bus:
            with pytest.raises(NotFound, match=f"{name}.*bus.provision"):
                await bus.publish(name, placed())
            assert "PutEvents" not in aws.server.counts(aws.key(who))
            aws.client("events").create_event_bus(Name=name)
            await bus.publish(name, placed())  # it is there now, and found
            await bus.publish(name, placed())
            assert aws.server.counts(aws.key(who)) == {"DescribeEventBus": 2, "PutEvents": 2}

    run(scenario(), limit=60)


@pytest.mark.parametrize("code", ["AccessDeniedException", "ThrottlingException"])
def test_a_look_that_is_refused_is_one_warning(
    aws: World, name: str, who: str, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    aws.client("events").create_event_bus(Name=name)

    async def scenario() -> None:
        aws.server.set(aws.key(who), errors=[[code, "DescribeEventBus"]])
        async with Bus(aws.url(who), provision="never") as bus:
            await bus.publish_many(name, [placed(f"o-{n}") for n in range(25)])
            await bus.publish(name, placed())

    with caplog.at_level(logging.WARNING, "crossbus"):
        run(scenario(), limit=60)
    found = [
        record.getMessage() for record in caplog.records if "cannot see whether bus" in record.getMessage()
    ]
    assert len(found) == 1
    assert code in found[0]
    if code == "AccessDeniedException":
        assert "grant events:DescribeEventBus" in found[0]


def test_without_verify_nothing_is_looked_at(aws: World, name: str, who: str) -> None:
    aws.client("events").create_event_bus(Name=name)

    async def scenario() -> None:
        async with Bus(aws.url(who, verify="false"), provision="never") as bus:
            await bus.publish(name, placed())
            assert aws.server.counts(aws.key(who)) == {"PutEvents": 1}

    run(scenario(), limit=60)


def test_publishing_needs_the_right_to_publish_only(aws: World, name: str, who: str) -> None:
    aws.client("events").create_event_bus(Name=name)

    async def scenario() -> None:
        aws.server.set(aws.key(who), errors=[["AccessDeniedException", None]])
        async with Bus(aws.url(who), provision="never") as bus:
            with pytest.raises(
                PermissionDenied, match="grant events:PutEvents to the identity that runs this"
            ) as caught:
                await bus.publish(name, placed())
            assert "\n" not in str(caught.value)

    run(scenario(), limit=60)


def test_calls_keep_the_context_of_who_makes_them(aws: World, name: str) -> None:
    aws.client("events").create_event_bus(Name=name)
    who: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")
    seen: list[str] = []
    session = boto3.Session("AKIAGIVEN", "secret", region_name=REGION)
    session.events.register("before-call.events.PutEvents", lambda **_: seen.append(who.get()))

    async def scenario() -> None:
        profile = load(f"eventbridge:?endpoint={aws.server.url}").default
        async with Bus(adapter=EventBridgeAdapter(profile, clock=SystemClock(), session=session)) as bus:
            who.set("the request of a user")
            await bus.publish(name, placed())

    run(scenario(), limit=60)
    assert seen == ["the request of a user"]
    assert aws.server.counts("AKIAGIVEN")["PutEvents"] == 1


def test_a_role_is_taken_on_with_its_external_id(aws: World, name: str, who: str) -> None:
    aws.client("events").create_event_bus(Name=name)

    async def scenario() -> None:
        url = aws.url(
            who, role_arn="arn:aws:iam::123456789012:role/publisher", external_id="ours", verify="false"
        )
        async with Bus(url, provision="never") as bus:
            await bus.publish(name, placed())
            clients = bus.adapter_for(name).connection.clients  # type: ignore[attr-defined]
            assert clients.credentials_key().startswith("ASIA"), "the keys in use are not those of the role"
        assert "PutEvents" not in aws.server.counts(aws.key(who))

    run(scenario(), limit=60)


def test_credentials_that_are_renewed_in_their_file_are_found(aws: World, name: str, who: str) -> None:
    aws.client("events").create_event_bus(Name=name)

    async def scenario() -> None:
        async with Bus(aws.url(who), provision="never") as bus:
            await bus.publish(name, placed())
            first = aws.key(who)
            aws.rotate(who)
            await bus.publish_many(name, [placed(f"o-{n}") for n in range(30)])
            assert aws.server.counts(aws.key(who))["PutEvents"] >= 3
            aws.server.set(aws.key(who), errors=[["ExpiredTokenException", None]])
            with pytest.raises(Unauthenticated, match="aws sts get-caller-identity"):
                await bus.publish(name, placed())
            assert aws.server.counts(first)["PutEvents"] <= 4

    run(scenario(), limit=60)


# --- consuming ------------------------------------------------------------------------------------------------------


def test_what_a_cancelled_receive_takes_comes_again_at_once(aws: World, name: str) -> None:
    async def scenario() -> None:
        adapter = aws.adapter()
        await adapter.open()
        subscription = Subscription(topic=Topic(name), name="cancelled", lease=60.0)
        await provide(adapter, subscription)
        receiver = await adapter.open_receiver(subscription, 10)
        for _ in range(3):
            polling = asyncio.ensure_future(receiver.receive(10, 20))
            await asyncio.sleep(0.5)
            polling.cancel()
            await asyncio.gather(polling, return_exceptions=True)
        await adapter.send(subscription.topic, [adapter.encode(subscription.topic, placed())])
        # Three polls wait for nobody; what they take is given back, far before its lease of a minute ends.
        other = await adapter.open_receiver(subscription, 10)
        began = time.monotonic()
        found: list[Any] = []
        while not found and time.monotonic() - began < 40:
            found = list(await other.receive(10, 5))
        assert found, "what a cancelled receive took is gone until its lease ends"
        assert await other.settle([Settlement(found[0].lease)]) == [LeaseOutcome.OK]
        await adapter.close()

    run(scenario(), limit=90)


def test_a_receive_that_is_cancelled_with_its_answer_in_hand_gives_it_back(aws: World, name: str) -> None:
    async def scenario() -> None:
        adapter = aws.adapter()
        await adapter.open()
        subscription = Subscription(topic=Topic(name), name="racing", lease=60.0)
        await provide(adapter, subscription)
        receiver = await adapter.open_receiver(subscription, 10)
        for number in range(10):
            await adapter.send(
                subscription.topic, [adapter.encode(subscription.topic, placed(f"o-{number}"))]
            )
            polling = asyncio.ensure_future(receiver.receive(10, 20))
            await asyncio.sleep(0.004 * number)
            polling.cancel()
            (result,) = await asyncio.gather(polling, return_exceptions=True)
            if not isinstance(result, BaseException):
                await receiver.settle([Settlement(one.lease, 0.0) for one in result])
        await receiver.close()
        seen: set[str] = set()
        other = await adapter.open_receiver(subscription, 10)
        end = time.monotonic() + 40
        while len(seen) < 10 and time.monotonic() < end:
            for one in await other.receive(10, 2):
                seen.add(one.message_id)
                await other.settle([Settlement(one.lease)])
        assert len(seen) == 10
        await adapter.close()

    run(scenario(), limit=90)


def test_draining_does_not_wait_for_a_long_poll(aws: World, name: str) -> None:
    async def scenario() -> float:
        bus = Bus(aws.url(), provision="always")

        @bus.subscribe(name, "idle")
        async def handle(event: Event) -> None:
            """Nothing comes."""

        await bus.open()
        async with bus.running():
            await asyncio.sleep(1)
            began = time.monotonic()
        await bus.close()
        return time.monotonic() - began

    assert run(scenario(), limit=60) < 10  # of the 19 that are left of the poll


def test_an_idle_subscription_has_one_long_poll_and_a_busy_one_several(
    aws: World, name: str, who: str
) -> None:
    async def scenario() -> None:
        adapter = aws.adapter(who)
        await adapter.open()
        subscription = Subscription(topic=Topic(name), name="bursts", lease=60.0)
        await provide(adapter, subscription)
        receiver = await adapter.open_receiver(subscription, 100)

        def receives() -> int:
            return aws.server.counts(aws.key(who)).get("ReceiveMessage", 0)

        assert await receiver.receive(100, 2) == []
        assert receives() == 1
        wires = [adapter.encode(subscription.topic, placed(f"o-{n}")) for n in range(100)]
        for start in range(0, 100, 10):
            await adapter.send(subscription.topic, wires[start : start + 10])
        bursts = [await receiver.receive(100, 2) for _ in range(4)]
        # moto sometimes gives one message to two polls beside each other.
        assert len({one.message_id for burst in bursts for one in burst}) == 100
        assert [min(len(burst), most) for burst, most in zip(bursts, (10, 20, 40, 30), strict=True)] == [
            10,
            20,
            40,
            30,
        ]
        assert receives() == 1 + 1 + 2 + 4 + 8
        assert await receiver.receive(100, 1) == []
        assert await receiver.receive(5, 1) == []
        await adapter.close()

    run(scenario(), limit=90)


def test_a_lease_that_ended_is_not_taken_from_whoever_has_it_now(aws: World, name: str) -> None:
    async def scenario() -> None:
        adapter = aws.adapter()
        await adapter.open()
        subscription = Subscription(topic=Topic(name), name="late", lease=1.0)
        await provide(adapter, subscription)
        await adapter.send(subscription.topic, [adapter.encode(subscription.topic, placed())])
        receiver, other = [await adapter.open_receiver(subscription, 10) for _ in range(2)]
        (late,) = await receiver.receive(10, 5)
        await asyncio.sleep(1.2)
        (again,) = await other.receive(10, 5)
        assert (late.attempt, again.attempt) == (1, 2)
        # moto, as it is, would change the visibility by the old handle.
        assert await receiver.extend([late.lease], 60) == [LeaseOutcome.LOST]
        assert await receiver.settle([Settlement(late.lease, 0.0)]) == [LeaseOutcome.LOST]
        assert await other.settle([Settlement(again.lease)]) == [LeaseOutcome.OK]
        assert await other.settle([Settlement(again.lease)]) == [LeaseOutcome.OK]
        assert await other.extend([again.lease], 60) == [LeaseOutcome.LOST]
        await adapter.close()

    run(scenario(), limit=60)


def test_a_delay_that_would_be_beyond_twelve_hours_is_shortened(aws: World, name: str) -> None:
    async def scenario() -> None:
        adapter = aws.adapter()
        await adapter.open()
        subscription = Subscription(topic=Topic(name), name="delayed")
        await provide(adapter, subscription)
        await adapter.send(
            subscription.topic, [adapter.encode(subscription.topic, placed(f"o-{n}")) for n in range(2)]
        )
        receiver = await adapter.open_receiver(subscription, 10)
        taken = [*await receiver.receive(10, 5)]
        while len(taken) < 2:
            taken += await receiver.receive(10, 5)
        longest = adapter.capabilities.retry_delays.floor(1e9)
        assert await receiver.settle([Settlement(taken[0].lease, longest)]) == [LeaseOutcome.OK]
        assert await receiver.extend([taken[1].lease], 1e9) == [LeaseOutcome.OK]
        await adapter.close()

    run(scenario(), limit=60)


def test_a_malformed_body_goes_to_the_dead_letter_and_does_not_loop(aws: World, name: str, who: str) -> None:
    async def scenario() -> None:
        bus = Bus(aws.url(who), provision="always")
        got: list[str] = []

        @bus.subscribe(name, "strict")
        async def note(event: Event) -> None:
            got.append(event.id)

        async with bus, bus.running():
            aws.client("sqs").send_message(
                QueueUrl=queue_url(aws, f"{name}--strict"), MessageBody="{no event"
            )
            await bus.publish(name, placed("good"))
            await until(lambda: got == ["good"], limit=30)
            letters: Any = []
            while not letters:
                letters = await bus.dead_letters(name, "strict").list()
            (letter,) = letters
            assert (letter.reason, letter.body, letter.attempts) == ("undecodable", b"{no event", 1)
            await asyncio.sleep(1)
            counts = aws.server.counts(aws.key(who))
            assert counts["SendMessageBatch"] == 1
            assert counts["ReceiveMessage"] < 20, "it hot-loops"

    run(scenario(), limit=60)


def test_a_queue_that_is_deleted_ends_consuming_with_one_error(aws: World, name: str) -> None:
    async def scenario() -> None:
        bus = Bus(aws.url(wait="1"), provision="always")

        @bus.subscribe(name, "deleted")
        async def handle(event: Event) -> None:
            """Nothing comes."""

        running = asyncio.ensure_future(bus.run())
        await until(lambda: bus.is_open and bool(bus.health().subscriptions), limit=30)
        aws.client("sqs").delete_queue(QueueUrl=queue_url(aws, f"{name}--deleted"))
        with pytest.raises(NotFound, match=f"{name}--deleted"):
            await asyncio.wait_for(running, 40)

    run(scenario(), limit=60)


# --- several topics on one bus, and wires ---------------------------------------------------------------------------


def test_several_topics_share_a_bus_and_do_not_mix(aws: World, name: str) -> None:
    async def scenario() -> None:
        bus = Bus(aws.url(bus=name), provision="always")
        got: dict[str, list[str]] = {"orders": [], "returns": [], "gold": []}

        def note(where: str) -> Any:
            async def handler(event: Event) -> None:
                assert not event.extensions or dict(event.extensions) == {"tenant": "gold"}
                got[where].append(event.id)

            return handler

        bus.subscribe("orders", f"{name}-a")(note("orders"))
        bus.subscribe("returns", f"{name}-b")(note("returns"))
        bus.subscribe("returns", f"{name}-c", filter=exact(tenant="gold"))(note("gold"))
        async with bus, bus.running():
            assert [
                one["Name"] for one in aws.client("events").list_event_buses(NamePrefix=name)["EventBuses"]
            ] == [name]
            await bus.publish("orders", placed("o", extensions={"tenant": "gold"}))
            await bus.publish("returns", placed("r"))
            await bus.publish("returns", placed("g", extensions={"tenant": "gold"}))
            await until(
                lambda: len(got["orders"]) >= 1 and len(got["returns"]) >= 2 and len(got["gold"]) >= 1,
                limit=30,
            )
            await asyncio.sleep(1)
        assert {where: sorted(ids) for where, ids in got.items()} == {
            "orders": ["o"],
            "returns": ["g", "r"],
            "gold": ["g"],
        }

    run(scenario(), limit=90)


def test_detail_data_is_written_read_and_redriven(aws: World, name: str) -> None:
    async def scenario() -> None:
        config = {
            "profiles": {"aws": {"url": aws.url()}},
            "topics": {name: {"wire": "detail-data"}},
        }
        bus = Bus(profile="aws", config=config, provision="always")
        got: list[Event] = []

        @bus.subscribe(name, "legacy")
        async def handle(event: Event) -> None:
            got.append(event)
            if len(got) == 1:
                raise Reject("broken")

        # A rule of others that reads a field of the data.
        async with bus, bus.running():
            sqs, events = aws.client("sqs"), aws.client("events")
            url = sqs.create_queue(QueueName=f"{name}-theirs")["QueueUrl"]
            arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"][
                "QueueArn"
            ]
            pattern = json.dumps({"detail": {"orderId": ["o-1"]}})
            events.put_rule(Name="theirs", EventBusName=name, EventPattern=pattern)
            events.put_targets(Rule="theirs", EventBusName=name, Targets=[{"Id": "1", "Arn": arn}])
            await bus.publish(name, placed(data={"orderId": "o-1"}, subject="s"))
            letters: Any = []
            while not letters:
                letters = await bus.dead_letters(name, "legacy").list()
            await bus.dead_letters(name, "legacy").redrive()
            await until(lambda: len(got) == 2, limit=30)
            (theirs,) = sqs.receive_message(QueueUrl=url, WaitTimeSeconds=1)["Messages"]
            assert json.loads(theirs["Body"])["detail"] == {"orderId": "o-1"}
        first, again = got
        assert first.data == {"orderId": "o-1"}
        assert first.type == "com.acme.placed"
        assert first.id != "o-1"
        assert again == first, "what was redriven is not what arrived"

    run(scenario(), limit=90)


# --- the program of the tutorial, unchanged -------------------------------------------------------------------------


def test_one_program_on_the_local_broker_and_here(aws: World, name: str) -> None:
    async def program(url: str) -> list[str]:
        bus = Bus(url)
        seen: list[str] = []

        @bus.subscribe(name, "billing", filter=exact(type="com.acme.order.placed"))
        async def bill(order: dict[str, Any], event: Event) -> None:
            seen.append(f"{event.id} {order['order']} {order['total']}")
            if len(seen) == 1:
                raise Retry(after=0)

        async with bus, bus.running():
            await bus.publish(name, Event(type="com.acme.order.shipped", source="/shop", id="no", data={}))
            await bus.publish(
                name,
                Event(
                    type="com.acme.order.placed",
                    source="/shop",
                    id="yes",
                    data={"order": "o-1", "total": 12.5},
                ),
            )
            await until(lambda: len(seen) == 2, limit=30)
        return seen

    assert run(program("local:"), limit=60) == run(program(aws.url()), limit=60) == ["yes o-1 12.5"] * 2


def test_requests_are_counted_as_aws_bills_them(aws: World, name: str, who: str) -> None:
    metered = Metered()

    async def scenario() -> dict[str, int]:
        got: list[str] = []
        bus = Bus(
            aws.url(who),
            provision="always",
            meter_provider=metered.provider,
            telemetry=TelemetryOptions(backlog=0),
        )

        @bus.subscribe(name, "all", concurrency=50)
        async def note(event: Event) -> None:
            got.append(event.id)

        async with bus:
            before = aws.server.counts(aws.key(who))
            await bus.publish_many(name, [placed(f"o-{n}") for n in range(45)])
            async with bus.running():
                await until(lambda: len(got) == 45)
        after = aws.server.counts(aws.key(who))
        return {operation: count - before.get(operation, 0) for operation, count in after.items()}

    billed = run(scenario())
    counted = metered.values("crossbus.provider.requests", "messaging.operation.name")
    assert billed["PutEvents"] >= 5
    # Before the first event it may have been looked whether the bus is there, which is a request like any other.
    assert counted["send"] == billed["PutEvents"] + billed.get("DescribeEventBus", 0)
    assert counted["ack"] == billed["DeleteMessageBatch"] >= 5
    # What was being polled for when it stopped is billed, and brought nothing that could be counted.
    assert 5 <= counted["receive"] <= billed["ReceiveMessage"]


def test_the_trace_of_xray_is_linked_where_the_event_has_none(aws: World, name: str) -> None:
    traced = Traced()
    root, parent = "5759e988bd862e3fe1be46a994272793", "53995c3f42cd8ad8"
    header = f"Root=1-{root[:8]}-{root[8:]};Parent={parent};Sampled=1"

    async def scenario() -> None:
        bus = Bus(aws.url(), provision="always", tracer_provider=traced.provider)

        @bus.subscribe(name, "all")
        async def note(event: Event) -> None: ...

        async with bus, bus.running():
            aws.client("sqs").send_message(
                QueueUrl=queue_url(aws, f"{name}--all"),
                MessageBody=encode_json(placed()).decode(),
                MessageSystemAttributes={"AWSTraceHeader": {"DataType": "String", "StringValue": header}},
            )
            await until(lambda: [span for span in traced.spans if span.name.startswith("process")], limit=30)

    run(scenario(), limit=60)
    process = traced.named(f"process {name}")
    assert process.parent is None
    assert [(f"{link.context.trace_id:032x}", f"{link.context.span_id:016x}") for link in process.links] == [
        (root, parent)
    ]
