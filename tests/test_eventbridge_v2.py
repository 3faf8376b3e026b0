"""The newer EventBridge (api=v2), on botocore's own model of it: what is sent, what is made, what is refused."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from tests.consuming import until
from tests.event_pattern import matches
from tests.eventbridge_harness import REGION, ROLE, V2Harness, World, environment, server, world
from tests.support import run as run_limited

from crossbus import Bus, Event, NotFound, PartialPublishError, UnsupportedError, exact, not_, prefix, suffix
from crossbus.adapter import Change, Finding
from crossbus.clock import SystemClock
from crossbus.codecs import encode_json
from crossbus.config import load
from crossbus.conformance import Report, all_cases, run
from crossbus.errors import ConfigurationError, Conflict, DeclarationError, InvalidRequest, PermissionDenied
from crossbus.event import new_id
from crossbus.topology import Subscription, Topic, Topology
from crossbus_eventbridge import EventBridgeAdapter
from crossbus_eventbridge.encoding import encode_raw, group_of
from crossbus_eventbridge.filters import raw_pattern_of
from crossbus_eventbridge.v2 import EXPERIMENTAL, V2Api
from crossbus_eventbridge.v2_making import Subscribers

pytestmark = pytest.mark.filterwarnings("error")
ACCOUNT = "123456789012"
ARN = f"arn:aws:events:{REGION}:{ACCOUNT}:event-busv2/shop/abcdefghijklmnopqrstuvwxy"
V2 = {"api": "v2", "delivery_role": ROLE}
LACKS = {"replay_time", "replay_position", "restarts"}
GROUPS = ("basic", "envelope", "order", "batch", "filters", "retry", "errors")
"""Where the two APIs differ; all else is SQS, which is tried with the other one."""
CASES = [case.name for case in all_cases() if case.group in GROUPS and not case.exclusive]


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


def keyed(id: str, key: str) -> Event:
    return placed(id, extensions={"partitionkey": key})


async def opened(aws: World, profile: str = "tests", **more: Any) -> EventBridgeAdapter:
    adapter = aws.adapter(profile, **{**V2, **more})
    await adapter.open()
    return adapter


async def planned(
    adapter: EventBridgeAdapter, *subscriptions: Subscription, prune: bool = False
) -> list[Change]:
    return [*await adapter.plan(Topology((), subscriptions), prune=prune)]


async def provide(adapter: EventBridgeAdapter, *subscriptions: Subscription) -> None:
    await adapter.provision(await planned(adapter, *subscriptions))


async def inspected(adapter: EventBridgeAdapter, *subscriptions: Subscription) -> dict[str, Finding]:
    topics = tuple({one.topic.name: one.topic for one in subscriptions}.values())
    return {found.name: found for found in await adapter.inspect(Topology(topics, subscriptions))}


def subscriber(aws: World, name: str) -> dict[str, Any]:
    client = aws.client("eventbridgev2")
    (one,) = client.list_subscribers(NamePrefix=name)["Subscribers"]
    found: dict[str, Any] = client.describe_subscriber(SubscriberArn=one["SubscriberArn"])
    return found


def queued(aws: World, queue: str) -> list[dict[str, Any]]:
    sqs = aws.client("sqs")
    url = sqs.get_queue_url(QueueName=queue)["QueueUrl"]
    answer = sqs.receive_message(
        QueueUrl=url, MaxNumberOfMessages=10, MessageSystemAttributeNames=["All"], VisibilityTimeout=0
    )
    return answer.get("Messages", [])  # type: ignore[no-any-return]


# --- the kit --------------------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("part", range(2))
def test_the_kit(aws: World, part: int) -> None:
    logging.disable(logging.CRITICAL)
    try:
        report: Report = run_limited(run(V2Harness(aws), select=CASES[part::2], parallel=8), limit=900)
    finally:
        logging.disable(logging.NOTSET)
    assert not report.failed, f"\n{report.table()}\n{report.failed[0].error}"
    for result in report.skipped:
        assert result.case.waits_for or LACKS & set(result.case.requires), result.detail
    assert any(result.case.group == "order" and result.status == "passed" for result in report.results)


# --- the stand-in ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"Data": b"{}", "SystemMetadata": {"ContentType": "text/plain"}}, "must satisfy the pattern"),
        (
            {"Data": b"{}", "SystemMetadata": {"ContentType": "application/json", "EventGroupId": "x" * 129}},
            "EventGroupId has 129, must be from 1 to 128",
        ),
        (
            {
                "Data": b"{}",
                "SystemMetadata": {"ContentType": "application/json"},
                "Metadata": {"a/b": "c"},
            },
            "Metadata key 'a/b' must satisfy the pattern",
        ),
    ],
)
def test_the_stand_in_refuses_what_the_model_does_not_allow(
    aws: World, entry: dict[str, Any], says: str
) -> None:
    client = aws.client("eventbridgev2")
    with pytest.raises(ClientError, match=re.escape(says)):
        client.put_raw_events(EventBusArn=ARN, Entries=[entry])
    with pytest.raises(ClientError, match="Entries has 101, must be from 1 to 100"):
        client.put_raw_events(
            EventBusArn=ARN,
            Entries=[{"Data": b"{}", "SystemMetadata": {"ContentType": "application/json"}}] * 101,
        )


# --- publishing -----------------------------------------------------------------------------------------------------


def test_an_event_is_sent_and_delivered_as_it_is(aws: World, name: str) -> None:
    event = placed(subject="s", extensions={"partitionkey": "k"}, data={"text": "Grüße \x00 \uffff"})

    async def scenario() -> None:
        adapter = await opened(aws)
        ordered = Subscription(topic=Topic(name), name="ordered", ordered=True)
        await provide(adapter, ordered, Subscription(topic=Topic(name), name="plain"))
        (outcome,) = await adapter.send(Topic(name), [adapter.encode(Topic(name), event)])
        assert outcome.message_id
        await adapter.close()

    run_limited(scenario(), limit=60)
    (plain,) = queued(aws, f"{name}--plain")
    (ordered,) = queued(aws, f"{name}--ordered.fifo")
    assert plain["Body"] == ordered["Body"] == encode_json(event).decode().replace("\uffff", "\\uffff")
    assert ordered["Attributes"]["MessageGroupId"] == "k"
    assert "MessageGroupId" not in plain["Attributes"]


def test_what_is_sent_again_is_published_once_and_what_is_published_twice_twice(
    aws: World, name: str
) -> None:
    async def scenario() -> None:
        adapter = await opened(aws)
        topic = Topic(name)
        await provide(adapter, Subscription(topic=topic, name="all"))
        wire = adapter.encode(topic, placed())
        first, again = await adapter.send(topic, [wire]), await adapter.send(topic, [wire])
        assert first[0].code is again[0].code is None
        await adapter.send(topic, [adapter.encode(topic, placed())])
        await adapter.close()

    run_limited(scenario(), limit=60)
    assert len(queued(aws, f"{name}--all")) == 2


def test_only_what_failed_is_sent_again_a_hundred_at_once(aws: World, name: str, who: str) -> None:
    async def scenario() -> None:
        bus = Bus(aws.url(who, **V2), provision="always")
        got: list[str] = []

        @bus.subscribe(name, "all")
        async def note(event: Event) -> None:
            got.append(event.id)

        events = [placed(f"o-{n}") for n in range(200)]
        async with bus:
            await bus.publish_many(name, events)
            assert aws.server.counts(aws.key(who))["PutRawEvents"] <= 4, "not a hundred of one request"
            aws.server.set(aws.key(who), partial=3, throttle={"PutRawEvents": 2})
            await bus.publish_many(name, [placed(f"again-{n}") for n in range(40)])
            async with bus.running():
                await until(lambda: len(set(got)) == 240, limit=60)
        assert len(got) == 240, "an entry that was taken was sent again"
        aws.server.set(aws.key(who))

    run_limited(scenario(), limit=120)


def test_what_is_refused_for_good_is_raised_with_code_and_message(aws: World, name: str, who: str) -> None:
    async def scenario() -> None:
        bus = Bus(aws.url(who, **V2), provision="always")
        bus.topic(name)
        async with bus:
            aws.server.set(aws.key(who), errors=[["InvalidInputException", "PutRawEvents"]])
            with pytest.raises(PartialPublishError) as caught:
                await bus.publish_many(name, [placed("a"), placed("b")])
            error = caught.value.results[0].error
            assert isinstance(error, InvalidRequest)
            assert "InvalidInputException: put in by the tests" in str(error)
            aws.server.set(aws.key(who), errors=[["AccessDeniedException", "PutRawEvents"]])
            with pytest.raises(PermissionDenied, match="grant events:PutRawEvents"):
                await bus.publish(name, placed())
        aws.server.set(aws.key(who))

    run_limited(scenario(), limit=60)


def test_a_bus_that_is_not_there_is_said(aws: World, name: str) -> None:
    async def scenario() -> None:
        async with Bus(aws.url(**V2), provision="never") as bus:
            with pytest.raises(NotFound, match=f"no Custom Event Bus '{name}'.*bus.provision"):
                await bus.publish(name, placed())
        config = {"profiles": {"aws": {"url": aws.url(**V2)}}, "topics": {"orders": {"resource": ARN}}}
        async with Bus(profile="aws", config=config, provision="never") as bus:
            with pytest.raises(NotFound, match="there is no bus"):
                await bus.publish("orders", placed())

    run_limited(scenario(), limit=60)


def test_a_bus_that_was_made_anew_is_found(aws: World, name: str) -> None:
    client = aws.client("eventbridgev2")

    def made() -> str:
        arn: str = client.create_event_bus(Name=name)["EventBusArn"]
        client.get_waiter("event_bus_active").wait(EventBusArn=arn, WaiterConfig={"Delay": 1})
        return arn

    async def scenario() -> None:
        async with Bus(aws.url(**V2), provision="never") as bus:
            first = made()
            await bus.publish(name, placed("o-1"))
            client.delete_event_bus(EventBusArn=first)
            made()
            with pytest.raises(NotFound):
                await bus.publish(name, placed("o-2"))
            await bus.publish(name, placed("o-2"))

    run_limited(scenario(), limit=60)


def test_topics_that_share_a_bus_do_not_mix(aws: World, name: str) -> None:
    async def scenario() -> None:
        bus = Bus(aws.url(bus=name, **V2), provision="always")
        got: list[tuple[str, str]] = []

        @bus.subscribe("orders", f"all-{name}")
        async def note_order(event: Event) -> None:
            got.append(("orders", event.id))

        @bus.subscribe("invoices", f"all-{name}")
        async def note_invoice(event: Event) -> None:
            got.append(("invoices", event.id))

        async with bus, bus.running():
            await bus.publish("orders", placed("o"))
            await bus.publish("invoices", placed("i"))
            await until(lambda: len(got) == 2, limit=30)
        assert sorted(got) == [("invoices", "i"), ("orders", "o")]

    run_limited(scenario(), limit=60)


def test_event_groups() -> None:
    assert group_of("order-1/a=b") == "order-1/a=b"
    for key in ("with space", "größe", "x" * 129, "tab\t"):
        assert re.fullmatch("[0-9a-f]{64}", group_of(key)), key
    wire = encode_raw(keyed("o-1", "a key"), None)
    assert wire.key == "a key"
    assert wire.attributes["EventGroupId"] == group_of("a key")
    plain = encode_raw(placed(), None)
    assert plain.key is None
    assert "EventGroupId" not in plain.attributes
    assert plain.size >= len(plain.body) + len(plain.attributes["DeduplicationId"])


# --- filters --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("filter", "pattern"),
    [
        (exact(type="a"), {"type": ["a"]}),
        (not_(exact(source="/x")), {"source": [{"anything-but": "/x"}]}),
        (exact(type="a", tenant="7"), {"specversion": ["1.0"], "tenant": ["7", 7], "type": ["a"]}),
        (
            exact(type="a") | prefix(subject="b"),
            {"$or": [{"type": ["a"]}, {"specversion": ["1.0"], "subject": [{"prefix": "b"}]}]},
        ),
        (exact(id="7"), None),
    ],
)
def test_a_filter_is_a_pattern_of_the_event_itself(filter: Any, pattern: Any) -> None:
    subscription = Subscription(topic=Topic("orders"), name="billing", filter=filter)
    assert raw_pattern_of(subscription, None) == pattern
    assert V2Api(aws_adapter()).compile(filter).native == pattern
    assert raw_pattern_of(subscription, "orders") == {**(pattern or {}), "crossbustopic": ["orders"]}


def aws_adapter(**more: Any) -> EventBridgeAdapter:
    url = f"eventbridge:?region={REGION}&api=v2"
    return EventBridgeAdapter(load(url).default, clock=SystemClock(), **more)


def test_what_the_pattern_takes_is_no_less_than_the_filter() -> None:
    events = [placed(), placed(type="a"), placed(subject="bc"), placed(extensions={"tenant": 7})]
    for filter in (exact(type="a") | prefix(subject="b"), exact(tenant="7"), not_(suffix(type="placed"))):
        pattern = raw_pattern_of(Subscription(topic=Topic("t1"), name="s", filter=filter), None)
        assert pattern is not None
        for event in events:
            assert matches(pattern, json.loads(encode_json(event))) or not filter.matches(event)


def test_a_native_filter_is_taken_as_it_is() -> None:
    native = {"eventbridge": {"data": {"total": [{"numeric": [">", 100]}]}}}
    subscription = Subscription(topic=Topic("orders"), name="billing", native_filter=native)
    assert raw_pattern_of(subscription, None) == native["eventbridge"]


# --- provisioning ---------------------------------------------------------------------------------------------------


def test_everything_that_a_subscription_needs_is_made_and_nothing_twice(aws: World, name: str) -> None:
    async def scenario() -> None:
        adapter = await opened(aws)
        topic = Topic(name)
        plain = Subscription(topic=topic, name="plain", filter=exact(type="a"))
        ordered = Subscription(topic=topic, name="ordered", ordered=True)
        changes = await planned(adapter, plain, ordered)
        assert [(one.action, one.kind, one.name) for one in changes] == [
            ("create", "bus", name),
            ("create", "queue", f"{name}--plain--dead"),
            ("create", "queue", f"{name}--plain"),
            ("create", "subscriber", f"{name}--plain"),
            ("create", "queue", f"{name}--ordered--dead.fifo"),
            ("create", "queue", f"{name}--ordered.fifo"),
            ("create", "subscriber", f"{name}--ordered"),
        ]
        await adapter.provision(changes)
        await adapter.provision(changes)
        assert await planned(adapter, plain, ordered) == []
        assert {one.state for one in (await inspected(adapter, plain, ordered)).values()} == {"ok"}
        await adapter.close()

    run_limited(scenario(), limit=90)
    found = subscriber(aws, f"{name}--plain")
    assert found["Type"] == "UNORDERED"
    assert found["Transformer"] == {"Type": "RAW"}
    assert found["RetryPolicy"] == {"MaxRetryAttempts": 185, "MaxEventAgeInSeconds": 86400}
    assert found["OnFailureConfiguration"] == {"Arn": f"arn:aws:sqs:{REGION}:{ACCOUNT}:{name}--plain--dead"}
    assert found["FilterConfiguration"] == {"Filters": [{"Scope": "DATA", "Pattern": '{"type":["a"]}'}]}
    assert found["InvokeConfiguration"] == {
        "TargetArn": f"arn:aws:sqs:{REGION}:{ACCOUNT}:{name}--plain",
        "RoleArn": ROLE,
    }
    ordered = subscriber(aws, f"{name}--ordered")
    assert ordered["Type"] == "FIFO"
    assert ordered["InvokeConfiguration"]["SqsParameters"] == {
        "MessageGroupId": "{% $exists($events.SystemMetadata.EventGroupId) ? $events.SystemMetadata.EventGroupId : "
        '$events.SystemMetadata."aws:EventId" %}',
        "MessageDeduplicationId": '{% $events.SystemMetadata."aws:EventId" %}',
    }
    assert not ordered.get("FilterConfiguration")


def test_what_differs_is_seen_and_mended(aws: World, name: str) -> None:
    async def scenario() -> None:
        adapter = await opened(aws)
        one = Subscription(topic=Topic(name), name="billing")
        await provide(adapter, one)
        client = aws.client("eventbridgev2")
        arn = subscriber(aws, f"{name}--billing")["SubscriberArn"]
        client.update_subscriber(SubscriberArn=arn, State="STOPPED", Transformer={"Type": "WITH_METADATA"})
        detail = (await inspected(adapter, one))[f"{name}/billing"].detail
        assert f"subscriber {name}--billing is stopped" in detail
        assert "crossbus reads RAW" in detail
        narrowed = one.replace(filter=exact(type="a"))
        (change,) = await planned(adapter, narrowed)
        assert (change.action, change.kind) == ("update", "subscriber")
        await adapter.provision([change])
        assert await planned(adapter, narrowed) == []
        found = subscriber(aws, f"{name}--billing")
        assert (found["State"], found["SubscriberArn"]) == ("RUNNING", arn)
        await provide(adapter, one)
        assert not subscriber(aws, f"{name}--billing").get("FilterConfiguration")
        await adapter.close()

    run_limited(scenario(), limit=90)


def test_changes_on_one_bus_wait_for_each_other(aws: World, name: str) -> None:
    async def scenario() -> None:
        adapter = await opened(aws)
        topic = Topic(name)
        subscriptions = [Subscription(topic=topic, name=f"sub-{n}") for n in range(4)]
        changes = await planned(adapter, *subscriptions)
        await adapter.provision([one for one in changes if one.kind != "subscriber"])
        await asyncio.gather(*(one.payload() for one in changes if one.kind == "subscriber"))
        assert await planned(adapter, *subscriptions) == []
        await adapter.close()

    run_limited(scenario(), limit=90)


def test_a_set_made_by_hand_is_adopted_as_it_is(aws: World, name: str) -> None:
    sqs, client = aws.client("sqs"), aws.client("eventbridgev2")
    bus = client.create_event_bus(Name=name)["EventBusArn"]
    client.get_waiter("event_bus_active").wait(EventBusArn=bus, WaiterConfig={"Delay": 1})
    url = sqs.create_queue(QueueName=f"{name}-jobs")["QueueUrl"]
    queue = f"arn:aws:sqs:{REGION}:{ACCOUNT}:{name}-jobs"
    sqs.create_queue(QueueName=f"{name}-failed")
    theirs = client.create_subscriber(
        Name=f"{name}-theirs", EventBusArn=bus, InvokeConfiguration={"TargetArn": queue, "RoleArn": ROLE}
    )
    config = {
        "profiles": {"aws": {"url": aws.url(api="v2")}},
        "topics": {"orders": {"resource": bus, "external": True}},
        "subscriptions": {
            "orders/billing": {"resource": url, "dead_letter_resource": f"{name}-failed", "external": True}
        },
    }

    async def scenario() -> None:
        program = Bus(profile="aws", config=config, provision="always")
        got: list[tuple[str, str]] = []

        @program.subscribe("orders", "billing")
        async def note(event: Event) -> None:
            got.append((event.source, event.id))

        async with program, program.running():
            await program.publish("orders", placed())
            raw = encode_json(placed("by hand")).decode()
            system = {"ContentType": "application/json"}
            client.put_raw_events(EventBusArn=bus, Entries=[{"Data": raw, "SystemMetadata": system}])
            await until(lambda: len(got) == 2, limit=30)
            assert await program.provision(dry_run=True) == []
        assert sorted(got) == [("/shop", "by hand"), ("/shop", "o-1")]

    run_limited(scenario(), limit=60)
    after = client.describe_subscriber(SubscriberArn=theirs["SubscriberArn"])
    assert "LastModifiedTime" not in after


def test_a_queue_that_no_subscriber_delivers_to_is_one_clear_error(aws: World, name: str) -> None:
    client = aws.client("eventbridgev2")
    client.create_event_bus(Name=name)
    aws.client("sqs").create_queue(QueueName=f"{name}-jobs")
    config = {
        "profiles": {"aws": {"url": aws.url(api="v2")}},
        "topics": {"orders": {"resource": name, "external": True}},
        "subscriptions": {"orders/billing": {"resource": f"{name}-jobs", "external": True}},
    }

    async def scenario() -> None:
        bus = Bus(profile="aws", config=config, provision="never")
        bus.subscribe("orders", "billing")
        with pytest.raises(NotFound, match=rf"a subscriber of bus {name} with the target .*{name}-jobs"):
            await bus.open()

    run_limited(scenario(), limit=30)


def test_pruning_removes_what_crossbus_made_and_nothing_else(aws: World, name: str) -> None:
    client = aws.client("eventbridgev2")
    theirs = client.create_event_bus(Name=f"{name}-theirs")["EventBusArn"]
    profile = load(aws.url(**V2)).default

    async def scenario() -> None:
        import dataclasses

        own = dataclasses.replace(profile, names=f"{name}-{{name}}")
        adapter = EventBridgeAdapter(own, clock=SystemClock())
        await adapter.open()
        kept = Subscription(topic=Topic("orders"), name="kept")
        await provide(adapter, kept, Subscription(topic=Topic("other"), name="gone", ordered=True))
        gone = await planned(adapter, kept, prune=True)
        assert {(one.action, one.kind, one.name) for one in gone} == {
            ("delete", "subscriber", f"{name}-other--gone"),
            ("delete", "queue", f"{name}-other--gone.fifo"),
            ("delete", "queue", f"{name}-other--gone--dead.fifo"),
            ("delete", "bus", f"{name}-other"),
        }
        await adapter.provision(gone)
        assert await planned(adapter, kept, prune=True) == []
        await adapter.close()

    run_limited(scenario(), limit=90)
    assert client.describe_event_bus(EventBusArn=theirs)["Name"] == f"{name}-theirs"


def test_a_temporary_subscription_is_gone_when_its_block_ends(aws: World, name: str) -> None:
    async def scenario() -> None:
        adapter = await opened(aws)
        kept = Subscription(topic=Topic(name), name="kept")
        await provide(adapter, kept)
        async with adapter.temporary_subscription(Topic(name)) as made:
            found = await Subscribers(adapter, adapter.api.buses).of(made)  # type: ignore[attr-defined]
            assert found is not None
            assert "OnFailureConfiguration" not in found.settings
        assert len(aws.client("eventbridgev2").list_subscribers(NamePrefix=name)["Subscribers"]) == 1
        assert aws.client("sqs").list_queues(QueueNamePrefix=f"{name}--temp").get("QueueUrls", []) == []
        await adapter.close()

    run_limited(scenario(), limit=60)


def test_what_a_process_left_that_died_can_be_removed_and_again(aws: World, name: str) -> None:
    async def scenario() -> None:
        adapter = await opened(aws)
        await provide(adapter, Subscription(topic=Topic(name), name="kept"))
        left = adapter.temporary_subscription(Topic(name))
        made = await left.__aenter__()  # and no end, as after a kill
        other = await opened(aws)
        for _ in range(2):
            await other.remove_temporary(made)
            subscribers = aws.client("eventbridgev2").list_subscribers(NamePrefix=name)["Subscribers"]
            assert [one["Name"] for one in subscribers] == [f"{name}--kept"]
            assert aws.client("sqs").list_queues(QueueNamePrefix=f"{name}--temp").get("QueueUrls", []) == []
        await left.__aexit__(None, None, None)  # harmless, too
        await adapter.close()
        await other.close()

    run_limited(scenario(), limit=60)


def test_what_a_temporary_subscription_needs_is_said_for_each_api() -> None:
    classic, newer = (
        EventBridgeAdapter(load(f"eventbridge:?api={api}").default, clock=SystemClock()).permissions
        for api in ("classic", "v2")
    )
    assert "events:PutRule" in classic["temporary_subscriptions"]
    assert "events:CreateSubscriber" in newer["temporary_subscriptions"]
    assert "sqs:DeleteQueue" in classic["temporary_subscriptions"]
    assert "sqs:DeleteQueue" in newer["temporary_subscriptions"]


# --- what is said and refused ---------------------------------------------------------------------------------------


def test_opening_says_that_it_is_an_experiment(aws: World, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        adapter = await opened(aws)
        await adapter.close()

    run_limited(scenario(), limit=30)
    assert [record.getMessage() for record in caplog.records if record.name == "crossbus"] == [EXPERIMENTAL]
    assert "\n" not in EXPERIMENTAL


def test_provisioning_without_a_delivery_role_says_what_to_do(aws: World, name: str) -> None:
    async def scenario() -> None:
        bus = Bus(aws.url(api="v2"), provision="always")
        bus.subscribe(name, "billing")
        with pytest.raises(ConfigurationError, match=r"delivery_role.*trusts events\.amazonaws\.com"):
            await bus.open()

    run_limited(scenario(), limit=30)
    assert not aws.client("sqs").list_queues(QueueNamePrefix=name).get("QueueUrls")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("eventbridge:?api=v3", "api=v3: it must be classic or v2"),
        ("eventbridge:?delivery_role=" + ROLE, "delivery_role belongs to api=v2"),
        ("eventbridge:?api=v2&delivery_role=me", "delivery_role must be as in arn:aws:iam::"),
        ("eventbridge:?api=v2&archive=7", "archive belongs to api=classic"),
    ],
)
def test_a_url_that_cannot_be_right_is_refused(url: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(says)):
        EventBridgeAdapter(load(url).default, clock=SystemClock())


def test_a_profile_and_the_variables_of_aws_say_it_too() -> None:
    config = {
        "profiles": {"aws": {"url": f"eventbridge:?region={REGION}", "api": "v2", "delivery_role": ROLE}}
    }
    profile = load(profile="aws", config=config).default
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}

    async def endpoints(variables: dict[str, str]) -> tuple[tuple[str, str], bool]:
        with environment({**keys, **variables}):
            adapter = EventBridgeAdapter(profile, clock=SystemClock())
            assert adapter.options.delivery_role == ROLE
            await adapter.open()
            found = adapter.connection.clients.endpoints(), adapter.is_local
            await adapter.close()
            return found

    here = "http://127.0.0.1:5000"
    (events, _), local = run_limited(endpoints({"AWS_ENDPOINT_URL_EVENTBRIDGEV2": here}), limit=30)
    assert (events, local) == (here, False), "SQS is still AWS's"
    assert run_limited(endpoints({"AWS_ENDPOINT_URL": here}), limit=30) == ((here, here), True)
    (events, _), _ = run_limited(endpoints({}), limit=30)
    assert events.startswith(f"https://eventsv2.{REGION}.")


def test_what_belongs_to_the_other_api_is_refused() -> None:
    adapter = aws_adapter()
    with pytest.raises(DeclarationError, match="wire='detail-data' belongs to api=classic"):
        adapter.encode(Topic("orders", options={"wire": "detail-data"}), placed())
    with pytest.raises(ConfigurationError, match="something else than an event bus of api=v2"):
        adapter.names.bus(Topic("orders", resource=f"arn:aws:events:{REGION}:{ACCOUNT}:event-bus/shop"))
    standard = Subscription(topic=Topic("orders"), name="s", ordered=True, resource="jobs")
    with pytest.raises(ConfigurationError, match=r"'jobs' is a standard queue.* ordered, which only a FIFO"):
        adapter.names.queue(standard)
    with pytest.raises(ConfigurationError, match=r"'jobs.fifo' is a FIFO queue.*ordered=True"):
        adapter.names.queue(standard.replace(ordered=False, resource="jobs.fifo"))
    assert not adapter.capabilities.has("replay_time")
    with pytest.raises(UnsupportedError, match="POINT_IN_TIME"):
        adapter.capabilities.require("replay_time", "eventbridge", "a replay")


def test_a_boto3_that_does_not_know_it_is_said() -> None:
    class Older(boto3.Session):
        def get_available_services(self) -> list[str]:
            return ["events", "sqs"]

    session = Older("AKIAOLD", "secret", region_name=REGION)

    async def scenario() -> None:
        adapter = aws_adapter(session=session)
        with pytest.raises(
            ConfigurationError, match=r"api=v2 needs a boto3 that knows eventbridgev2.*update"
        ):
            await adapter.open()

    run_limited(scenario(), limit=30)


def test_two_shared_buses_of_one_name_are_not_guessed_between(aws: World, name: str) -> None:
    """Summaries of buses that others share have a name, an ARN and an account, and no more."""

    async def scenario() -> None:
        adapter = await opened(aws)
        buses = adapter.api.buses  # type: ignore[attr-defined]
        listed = [
            {"Name": name, "EventBusArn": ARN.replace(ACCOUNT, account), "EventBusAccountId": account}
            for account in ("111111111111", "222222222222")
        ]
        assert buses.chosen(name, listed[:1]) == listed[0]
        own = {"Name": name, "EventBusArn": ARN, "State": "ACTIVE"}
        assert buses.chosen(name, [*listed, own]) == own
        with pytest.raises(Conflict, match="2 accounts share a bus"):
            buses.chosen(name, listed)
        await adapter.close()

    run_limited(scenario(), limit=30)
