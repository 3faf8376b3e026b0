"""What is made, asserted piece by piece, because moto delivers without it; what is adopted, pruned and said."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from tests.consuming import until
from tests.eventbridge_harness import World, server, world
from tests.support import run

from crossbus import Bus, Delivery, Event, NotFound, Reject, exact
from crossbus.adapter import Change, Finding, ReplayFrom
from crossbus.checks import Difference
from crossbus.clock import SystemClock
from crossbus.codecs import encode_json
from crossbus.config import load
from crossbus.errors import ConfigurationError, UnsupportedError
from crossbus.event import new_id
from crossbus.topology import Subscription, Topic, Topology
from crossbus_eventbridge import EventBridgeAdapter, policies

pytestmark = pytest.mark.filterwarnings("error")
ACCOUNT = "123456789012"


@pytest.fixture(scope="module")
def aws() -> Iterator[World]:
    with world(server()) as made:
        yield made


@pytest.fixture
def name() -> str:
    return f"t{new_id()[:10]}"


def placed(id: str = "o-1", **more: Any) -> Event:
    return Event(**{"id": id, "type": "com.acme.placed", "source": "/shop", "data": {"n": 1}, **more})


async def inspected(adapter: EventBridgeAdapter, *subscriptions: Subscription) -> dict[str, Finding]:
    topics = tuple({one.topic.name: one.topic for one in subscriptions}.values())
    return {found.name: found for found in await adapter.inspect(Topology(topics, subscriptions))}


async def planned(
    adapter: EventBridgeAdapter, *subscriptions: Subscription, prune: bool = False
) -> list[Change]:
    return [*await adapter.plan(Topology((), subscriptions), prune=prune)]


async def provide(adapter: EventBridgeAdapter, *subscriptions: Subscription) -> None:
    await adapter.provision(await planned(adapter, *subscriptions))


def attributes(aws: World, name: str) -> dict[str, Any]:
    sqs = aws.client("sqs")
    url = sqs.get_queue_url(QueueName=name)["QueueUrl"]
    found: dict[str, Any] = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    return {**found, "QueueUrl": url}


def set_attributes(aws: World, queue: str, **changes: str) -> None:
    url = attributes(aws, queue)["QueueUrl"]
    aws.client("sqs").set_queue_attributes(QueueUrl=url, Attributes=changes)


# --- what is made ---------------------------------------------------------------------------------------------------


def test_everything_that_a_subscription_needs_is_made(aws: World, name: str) -> None:
    async def scenario() -> None:
        adapter = aws.adapter()
        await adapter.open()
        wanted = Subscription(
            topic=Topic(name), name="billing", filter=exact(type="a"), lease=45, retention=3600, backstop=7
        )
        changes = await planned(adapter, wanted)
        assert [(one.action, one.kind, one.name) for one in changes] == [
            ("create", "bus", name),
            ("create", "queue", f"{name}--billing--dead"),
            ("create", "queue", f"{name}--billing"),
            ("create", "rule", f"{name}--billing"),
        ]
        assert changes[-1].detail == 'pattern {"detail-type":["a"]}'
        await adapter.provision(changes)
        assert await planned(adapter, wanted) == []
        await adapter.provision(changes)  # twice is harmless
        assert await planned(adapter, wanted) == []
        found = await inspected(adapter, wanted)
        assert {finding.state for finding in found.values()} == {"ok"}, found
        await adapter.close()

    run(scenario(), limit=60)
    queue, dead = attributes(aws, f"{name}--billing"), attributes(aws, f"{name}--billing--dead")
    rule_arn = f"arn:aws:events:us-east-1:{ACCOUNT}:rule/{name}/{name}--billing"
    tags = aws.client("sqs").list_queue_tags(QueueUrl=queue["QueueUrl"])["Tags"]
    assert tags == {"crossbus:names": "@"}
    # What AWS allows in a tag; moto allows more.
    assert all(re.fullmatch(r"[\w .:/=+\-@]*", text) for tag in tags.items() for text in tag)
    assert (queue["VisibilityTimeout"], queue["MessageRetentionPeriod"]) == ("45", "3600")
    assert json.loads(queue["RedrivePolicy"]) == {
        "deadLetterTargetArn": dead["QueueArn"],
        "maxReceiveCount": 7,
    }
    assert dead["MessageRetentionPeriod"] == str(14 * 86_400)
    for one in (queue, dead):
        assert one["MaximumMessageSize"] == "1048576"
        assert one["SqsManagedSseEnabled"] == "true"
        # Both policies, statement by statement: EventBridge may send, from this rule, into this queue; nobody else may.
        policy = json.loads(one["Policy"])
        assert policy["Version"] == "2012-10-17"
        (statement,) = policy["Statement"]
        assert statement.pop("Sid").startswith("crossbus-")
        assert statement == {
            "Effect": "Allow",
            "Principal": {"Service": "events.amazonaws.com"},
            "Action": "sqs:SendMessage",
            "Resource": one["QueueArn"],
            "Condition": {"ArnEquals": {"aws:SourceArn": rule_arn}},
        }
    events = aws.client("events")
    rule = events.describe_rule(Name=f"{name}--billing", EventBusName=name)
    assert (rule["Arn"], rule["State"], rule["EventPattern"]) == (
        rule_arn,
        "ENABLED",
        '{"detail-type":["a"]}',
    )
    (target,) = events.list_targets_by_rule(Rule=f"{name}--billing", EventBusName=name)["Targets"]
    assert target == {
        "Id": "crossbus",
        "Arn": queue["QueueArn"],
        "DeadLetterConfig": {"Arn": dead["QueueArn"]},
    }


def test_a_kms_key_is_used_for_both_queues(aws: World, name: str) -> None:
    async def scenario() -> None:
        adapter = aws.adapter()
        await adapter.open()
        await provide(
            adapter, Subscription(topic=Topic(name), name="secret", options={"kms_key": "alias/ours"})
        )
        await adapter.close()

    run(scenario(), limit=60)
    for queue in (f"{name}--secret", f"{name}--secret--dead"):
        assert attributes(aws, queue)["KmsMasterKeyId"] == "alias/ours"


def test_only_what_differs_is_changed(aws: World, name: str) -> None:
    async def scenario() -> None:
        adapter = aws.adapter()
        await adapter.open()
        first = Subscription(topic=Topic(name), name="billing", filter=exact(type="a"))
        await provide(adapter, first)
        longer = first.replace(lease=90.0)
        (change,) = await planned(adapter, longer)
        assert (change.action, change.kind, change.detail) == ("update", "queue", "lease 60, declared 90")
        wider = first.replace(filter=exact(type=["a", "b"]))
        (change,) = await planned(adapter, wider)
        assert (change.action, change.kind) == ("update", "rule")
        assert 'has the pattern {"detail-type":["a"]}, declared {"detail-type":["a","b"]}' in change.detail
        await adapter.provision([change])
        assert await planned(adapter, wider) == []
        await adapter.close()

    run(scenario(), limit=60)


def test_an_archive_is_made_where_the_profile_says_so(aws: World, name: str) -> None:
    async def scenario() -> None:
        adapter = aws.adapter(archive="7")
        await adapter.open()
        wanted = Subscription(topic=Topic(name), name="billing")
        assert ("archive", "keeps events for 7 days") in [
            (one.kind, one.detail) for one in await planned(adapter, wanted)
        ]
        await provide(adapter, wanted)
        assert await planned(adapter, wanted) == []
        longer = aws.adapter(archive="30")
        await longer.open()
        (change,) = await planned(longer, wanted)
        assert (change.action, change.kind, change.detail) == (
            "update",
            "archive",
            "keeps events for 30 days",
        )
        await longer.provision([change])
        assert await planned(longer, wanted) == []
        await longer.close()
        await adapter.close()

    run(scenario(), limit=60)


def test_a_replay_without_an_archive_says_what_to_do(aws: World, name: str) -> None:
    async def scenario() -> None:
        adapter = aws.adapter()
        await adapter.open()
        wanted = Subscription(topic=Topic(name), name="billing")
        await provide(adapter, wanted)
        start = ReplayFrom(time=placed().time)
        with pytest.raises(NotFound, match=r"has no archive.*set archive=DAYS.*bus.provision"):
            await adapter.replay(wanted, start)
        archived = aws.adapter(archive="7")
        await archived.open()
        found = await inspected(archived, wanted)
        assert found[name].state == "differs"
        assert "no archive" in found[name].detail
        await archived.close()
        await adapter.close()

    run(scenario(), limit=60)


# --- what is looked at ------------------------------------------------------------------------------------------------


def _no_policy(aws: World, name: str) -> None:
    set_attributes(aws, f"{name}--billing", Policy="")


def _no_dead_policy(aws: World, name: str) -> None:
    set_attributes(aws, f"{name}--billing--dead", Policy="")


def _small(aws: World, name: str) -> None:
    set_attributes(aws, f"{name}--billing", MaximumMessageSize="262144")


def _aws_key(aws: World, name: str) -> None:
    set_attributes(aws, f"{name}--billing", KmsMasterKeyId="alias/aws/sqs")


def _no_redrive(aws: World, name: str) -> None:
    set_attributes(aws, f"{name}--billing", RedrivePolicy="")


def _disabled(aws: World, name: str) -> None:
    aws.client("events").disable_rule(Name=f"{name}--billing", EventBusName=name)


def _no_target(aws: World, name: str) -> None:
    aws.client("events").remove_targets(Rule=f"{name}--billing", EventBusName=name, Ids=["crossbus"])


def _no_target_dead_letter(aws: World, name: str) -> None:
    arn = attributes(aws, f"{name}--billing")["QueueArn"]
    targets = [{"Id": "crossbus", "Arn": arn}]
    aws.client("events").put_targets(Rule=f"{name}--billing", EventBusName=name, Targets=targets)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (_no_policy, "the policy of queue {}--billing does not let rule {}--billing send"),
        (_no_dead_policy, "the policy of queue {}--billing--dead does not let rule"),
        (_small, "takes messages of 262,144 bytes; EventBridge drops a larger one in silence"),
        (_aws_key, "encrypted with alias/aws/sqs, which EventBridge may not use"),
        (_no_redrive, "backstop none, declared 100 receives into"),
        (_disabled, "rule {}--billing is disabled"),
        (_no_target, "does not deliver to queue {}--billing"),
        (_no_target_dead_letter, "has no dead letter for what it cannot deliver"),
    ],
)
def test_what_would_lose_events_is_seen_at_open_and_mended(
    aws: World, name: str, damage: Any, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        adapter = aws.adapter()
        await adapter.open()
        wanted = Subscription(topic=Topic(name), name="billing")
        await provide(adapter, wanted)
        damage(aws, name)
        found = (await inspected(adapter, wanted))[f"{name}/billing"]
        assert found.state == "differs"
        assert says.replace("{}", name) in found.detail
        user = Bus(aws.url(), provision="never")
        user.subscribe(name, "billing")
        async with user:
            pass
        if damage is _aws_key:  # which of two keys is right nobody can tell
            await adapter.close()
            return
        await provide(adapter, wanted)
        assert (await inspected(adapter, wanted))[f"{name}/billing"].state == "ok"
        assert await planned(adapter, wanted) == []
        await adapter.close()

    with caplog.at_level(logging.WARNING, "crossbus"):
        run(scenario(), limit=60)
    assert says.replace("{}", name) in caplog.text


def test_what_is_missing_is_named(aws: World, name: str) -> None:
    async def scenario() -> None:
        adapter = aws.adapter()
        await adapter.open()
        wanted = Subscription(topic=Topic(name), name="billing")
        assert (await inspected(adapter, wanted))[name].state == "missing"
        absent = Difference("queue", f"queue {name}--billing is missing")
        assert (await inspected(adapter, wanted))[f"{name}/billing"] == Finding(
            "subscription",
            f"{name}/billing",
            f"queue {name}--billing",
            "missing",
            differences=(absent,),
        )
        await provide(adapter, wanted)
        aws.client("events").remove_targets(Rule=f"{name}--billing", EventBusName=name, Ids=["crossbus"])
        aws.client("events").delete_rule(Name=f"{name}--billing", EventBusName=name)
        found = (await inspected(adapter, wanted))[f"{name}/billing"]
        assert (found.state, found.resource) == ("missing", f"rule {name}--billing of bus {name}")
        aws.client("sqs").delete_queue(QueueUrl=attributes(aws, f"{name}--billing--dead")["QueueUrl"])
        await provide(adapter, wanted)
        assert (await inspected(adapter, wanted))[f"{name}/billing"].state == "ok"
        await adapter.close()

    run(scenario(), limit=60)


def test_what_may_not_be_looked_at_is_one_warning_that_names_the_permission(
    aws: World, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    who = f"w{name}"

    async def scenario() -> None:
        adapter = aws.adapter()
        await adapter.open()
        await provide(adapter, Subscription(topic=Topic(name), name="billing"))
        await adapter.close()
        data_plane = ("DescribeRule", "GetQueueAttributes", "DescribeEventBus", "ListTargetsByRule")
        aws.server.set(aws.key(who), errors=[["AccessDenied", operation] for operation in data_plane])
        bus = Bus(aws.url(who), provision="never")
        got: list[str] = []

        @bus.subscribe(name, "billing")
        async def note(event: Event) -> None:
            got.append(event.id)

        async with bus, bus.running():
            await bus.publish(name, placed())
            await until(lambda: got == ["o-1"], limit=30)

    with caplog.at_level(logging.WARNING, "crossbus"):
        run(scenario(), limit=60)
    assert "going on: eventbridge: " in caplog.text
    assert "grant events:DescribeEventBus to the identity that runs this" in caplog.text
    assert "grant sqs:GetQueueAttributes" in caplog.text or "grant events:DescribeRule" in caplog.text


# --- what others made -----------------------------------------------------------------------------------------------


class ByHand:
    """A bus, a rule, a queue and a dead-letter queue as a program without crossbus has them."""

    def __init__(self, aws: World, name: str, *, rule: bool = True) -> None:
        events, sqs = aws.client("events"), aws.client("sqs")
        self.bus_arn = events.create_event_bus(Name=f"{name}-bus")["EventBusArn"]
        dead = {"MaximumMessageSize": "1048576"}
        sqs.create_queue(QueueName=f"{name}-failed", Attributes=dead)
        self.dead_arn = attributes(aws, f"{name}-failed")["QueueArn"]
        redrive = json.dumps({"deadLetterTargetArn": self.dead_arn, "maxReceiveCount": "3"})
        made = {"RedrivePolicy": redrive, "VisibilityTimeout": "7", "MaximumMessageSize": "1048576"}
        self.url = sqs.create_queue(QueueName=f"{name}-jobs", Attributes=made)["QueueUrl"]
        self.arn = attributes(aws, f"{name}-jobs")["QueueArn"]
        policy = {
            "Version": "2012-10-17",
            "Statement": {
                "Effect": "Allow",
                "Principal": {"Service": ["events.amazonaws.com"]},
                "Action": ["SQS:SendMessage"],
                "Resource": "*",
                "Condition": {"ArnLike": {"aws:SourceArn": f"arn:aws:events:*:{ACCOUNT}:rule/{name}-*"}},
            },
        }
        sqs.set_queue_attributes(QueueUrl=self.url, Attributes={"Policy": json.dumps(policy)})
        if rule:
            events.put_rule(
                Name=f"{name}-rule", EventBusName=f"{name}-bus", EventPattern='{"source":["/shop"]}'
            )
            events.put_targets(
                Rule=f"{name}-rule", EventBusName=f"{name}-bus", Targets=[{"Id": "jobs", "Arn": self.arn}]
            )
        self._aws = aws

    def snapshot(self, name: str) -> Any:
        """Return all that crossbus might have changed."""
        events, sqs = self._aws.client("events"), self._aws.client("sqs")
        rules = events.list_rules(EventBusName=f"{name}-bus")["Rules"]
        ignored = (
            "ApproximateNumberOfMessages",
            "ApproximateNumberOfMessagesNotVisible",
            "LastModifiedTimestamp",
        )
        queues = {
            url: {
                key: value
                for key, value in sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])[
                    "Attributes"
                ].items()
                if key not in ignored
            }
            for url in sqs.list_queues(QueueNamePrefix=name).get("QueueUrls", ())
        }
        targets = [
            events.list_targets_by_rule(Rule=rule["Name"], EventBusName=f"{name}-bus")["Targets"]
            for rule in rules
        ]
        return rules, targets, queues


@pytest.mark.parametrize("form", ["arn", "url", "name"])
def test_a_set_made_by_hand_is_adopted_as_it_is(aws: World, name: str, form: str) -> None:
    hand = ByHand(aws, name)
    before = hand.snapshot(name)
    queue = {"arn": hand.arn, "url": hand.url, "name": f"{name}-jobs"}[form]
    topic = {"resource": hand.bus_arn if form == "arn" else f"{name}-bus", "external": True}
    mapped = {"resource": queue, "dead_letter_resource": hand.dead_arn, "external": True}
    config = {
        "profiles": {"aws": {"url": aws.url()}},
        "topics": {"orders": topic},
        "subscriptions": {"orders/billing": mapped},
    }

    async def scenario() -> None:
        bus = Bus(profile="aws", config=config, provision="always")
        got: list[tuple[str, str]] = []

        @bus.subscribe("orders", "billing")
        async def note(event: Event) -> None:
            got.append((event.source, event.id))

        async with bus, bus.running():
            await bus.publish("orders", placed("through the bus"))
            await bus.publish("orders", placed("not theirs", source="/other"))
            # moto ignores InputPath, so what rules with and without one would write is put there by hand.
            sqs = aws.client("sqs")
            alone = encode_json(placed("InputPath $.detail")).decode()
            native = {
                "version": "0",
                "id": "native",
                "detail-type": "Object Created",
                "source": "aws.s3",
                "account": ACCOUNT,
                "time": "2026-11-12T13:14:15Z",
                "region": "us-east-1",
                "resources": [],
                "detail": {"bucket": {"name": "b"}},
            }
            enveloped = {
                **native,
                "id": "x",
                "source": "/shop",
                "detail": json.loads(encode_json(placed("enveloped"))),
            }
            for body in (alone, json.dumps(native), json.dumps(enveloped)):
                sqs.send_message(QueueUrl=hand.url, MessageBody=body)
            await until(lambda: len(got) == 4, limit=30)
            assert await bus.provision(dry_run=True) == []
        assert sorted(got) == [
            ("/shop", "InputPath $.detail"),
            ("/shop", "enveloped"),
            ("/shop", "through the bus"),
            ("aws.s3", "native"),
        ]

    run(scenario(), limit=90)
    assert hand.snapshot(name) == before


def test_a_replay_reaches_the_rule_that_others_made_and_no_other(aws: World, name: str) -> None:
    hand = ByHand(aws, name)
    aws.client("events").create_archive(ArchiveName=f"{name}-theirs", EventSourceArn=hand.bus_arn)
    config = {
        "profiles": {"aws": {"url": aws.url()}},
        "topics": {"orders": {"resource": hand.bus_arn, "external": True}},
        "subscriptions": {"orders/billing": {"resource": hand.url, "external": True}},
    }

    async def scenario() -> None:
        bus = Bus(profile="aws", config=config, provision="always")
        got: list[tuple[str, str | None]] = []

        @bus.subscribe("orders", "billing")
        async def note(delivery: Delivery) -> None:
            got.append((delivery.event.id, delivery.replay))

        async with bus, bus.running():
            await bus.publish("orders", placed())
            await until(lambda: len(got) == 1, limit=30)
            await asyncio.sleep(1.1)
            event = placed()
            assert event.time is not None
            await bus.replay("orders", "billing", time=event.time - timedelta(seconds=30))
            await until(lambda: len(got) == 2, limit=30)
        assert got[0] == ("o-1", None)
        assert got[1][0] == "o-1"
        assert str(got[1][1]).startswith("crossbus-")

    run(scenario(), limit=60)


def test_a_queue_that_belongs_to_no_rule_is_one_clear_error(aws: World, name: str) -> None:
    hand = ByHand(aws, name, rule=False)
    config = {
        "profiles": {"aws": {"url": aws.url()}},
        "topics": {"orders": {"resource": f"{name}-bus", "external": True}},
        "subscriptions": {"orders/billing": {"resource": hand.url, "external": True}},
    }

    async def scenario() -> None:
        bus = Bus(profile="aws", config=config, provision="never")
        bus.subscribe("orders", "billing")
        with pytest.raises(NotFound, match=f"a rule of bus {name}-bus with the target {hand.arn}"):
            await bus.open()

    run(scenario(), limit=60)


@pytest.mark.parametrize("what", ["resource", "dead_letter_resource"])
def test_a_queue_of_another_account_is_not_made_in_ours(aws: World, name: str, what: str) -> None:
    theirs = f"arn:aws:sqs:us-east-1:999999999999:{name}-theirs"
    config = {
        "profiles": {"aws": {"url": aws.url()}},
        "topics": {name: {}},
        "subscriptions": {f"{name}/billing": {what: theirs}},
    }

    async def scenario() -> None:
        bus = Bus(profile="aws", config=config, provision="always")
        bus.subscribe(name, "billing")
        said = f"{name}-theirs belongs to account 999999999999 and is not there.* own account {ACCOUNT} only.*external"
        with pytest.raises(ConfigurationError, match=said):
            await bus.open()

    run(scenario(), limit=30)
    assert not aws.client("sqs").list_queues(QueueNamePrefix=name).get("QueueUrls")


def test_a_queue_of_another_region_is_not_looked_for_in_ours(aws: World, name: str) -> None:
    async def scenario() -> None:
        adapter = aws.adapter()
        await adapter.open()
        topic = Topic(name)
        elsewhere = f"arn:aws:sqs:eu-west-1:{ACCOUNT}:{name}-jobs"
        try:
            with pytest.raises(ConfigurationError, match=f"{name}-jobs is in region eu-west-1, .* us-east-1"):
                await inspected(adapter, Subscription(topic=topic, name="billing", resource=elsewhere))
        finally:
            await adapter.close()

    run(scenario(), limit=30)


def test_statements_of_others_stay(aws: World, name: str) -> None:
    async def scenario() -> None:
        adapter = aws.adapter()
        await adapter.open()
        wanted = Subscription(topic=Topic(name), name="billing")
        await provide(adapter, wanted)
        theirs = {
            "Sid": "theirs",
            "Effect": "Allow",
            "Principal": {"AWS": "*"},
            "Action": "sqs:ReceiveMessage",
        }
        policy = {"Version": "2012-10-17", "Statement": [{**theirs, "Resource": "*"}]}
        set_attributes(aws, f"{name}--billing", Policy=json.dumps(policy))
        await provide(adapter, wanted)
        statements = json.loads(attributes(aws, f"{name}--billing")["Policy"])["Statement"]
        assert [one["Sid"][:8] for one in statements] == ["theirs", "crossbus"]
        await adapter.close()

    run(scenario(), limit=60)


RULE, QUEUE = f"arn:aws:events:us-east-1:{ACCOUNT}:rule/b/r", f"arn:aws:sqs:us-east-1:{ACCOUNT}:q"


@pytest.mark.parametrize(
    ("changes", "allowed"),
    [
        ({}, True),
        ({"Action": "sqs:*"}, True),
        ({"Action": "*", "Principal": "*"}, True),
        ({"Principal": {"AWS": "*"}}, True),
        ({"Principal": {"Service": "sns.amazonaws.com"}}, False),
        ({"Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}}, False),
        ({"Action": "sqs:ReceiveMessage"}, False),
        ({"Resource": "arn:aws:sqs:us-east-1:123456789012:other"}, False),
        ({"Resource": "arn:aws:sqs:*:*:q"}, True),
        ({"Effect": "Deny"}, False),
        ({"Condition": {}}, True),
        ({"Condition": {"ArnEquals": {"aws:SourceArn": RULE + "2"}}}, False),
        ({"Condition": {"ArnLike": {"AWS:SourceArn": "arn:aws:events:*:*:rule/b/*"}}}, True),
        ({"Condition": {"StringEquals": {"aws:SourceAccount": ACCOUNT}}}, True),
        ({"Condition": {"StringEquals": {"aws:SourceAccount": "1"}}}, False),
        ({"Condition": {"ArnNotEquals": {"aws:SourceArn": RULE}}}, False),
        ({"Condition": {"Bool": {"aws:SecureTransport": "true"}}}, False),
    ],
)
def test_what_a_policy_allows(changes: Any, allowed: bool) -> None:
    statement = {**policies.statement(QUEUE, RULE), **changes}
    assert policies.allows(json.dumps({"Statement": [statement]}), QUEUE, RULE) is allowed
    assert policies.allows(json.dumps({"Statement": statement}), QUEUE, RULE) is allowed
    assert not policies.allows(None, QUEUE, RULE)
    both = policies.with_statement(json.dumps({"Statement": [statement]}), QUEUE, RULE)
    denied = changes.get("Effect") == "Deny"
    assert policies.allows(both, QUEUE, RULE) is not denied or statement["Sid"].startswith("crossbus")
    assert policies.without_statement(both, RULE) == ""


# --- what is removed --------------------------------------------------------------------------------------------------


def test_pruning_removes_what_crossbus_made_and_nothing_else(aws: World, name: str) -> None:
    hand = ByHand(aws, name)
    before = hand.snapshot(name)

    # Another project in the account, with a template of its own.
    async def scenario() -> None:
        mine = {"profiles": {"aws": {"url": aws.url(archive="1"), "names": f"{name}-{{name}}"}}}
        theirs = {"profiles": {"aws": {"url": aws.url(), "names": f"{name}x-{{name}}"}}}
        other = Bus(profile="aws", config=theirs, provision="always")
        other.subscribe("orders", "billing")
        async with other:
            pass
        bus = Bus(profile="aws", config=mine, provision="always")
        bus.subscribe("orders", "billing")
        bus.subscribe("orders", "shipping")
        async with bus:
            await bus.publish("orders", placed())
        after = Bus(profile="aws", config=mine, provision="never")
        after.subscribe("orders", "billing")
        async with after:
            changes = await after.provision(prune=True, dry_run=True)
            found = [(one.action, one.kind, one.name.removeprefix(f"{name}-"), one.detail) for one in changes]
            assert found == [
                ("delete", "rule", "orders--shipping", ""),
                ("delete", "queue", "orders--shipping", "loses about 1 message"),
                ("delete", "queue", "orders--shipping--dead", ""),
            ]
            await after.provision(prune=True)
            assert await after.provision(prune=True, dry_run=True) == []
        adapter = EventBridgeAdapter(load(profile="aws", config=mine).default, clock=SystemClock())
        await adapter.open()
        changes = [*await adapter.plan(Topology(), prune=True)]
        assert [one.kind for one in changes] == ["rule", "queue", "queue", "bus"]
        await adapter.provision(changes)
        assert await adapter.plan(Topology(), prune=True) == []
        await adapter.close()
        async with other:
            assert await other.provision(dry_run=True) == []

    run(scenario(), limit=120)
    rules, targets, queues = hand.snapshot(name)
    assert (rules, targets) == before[:2]
    assert {url: queues[url] for url in before[2]} == before[2]
    assert not aws.client("events").list_archives(NamePrefix=f"{name}-orders")["Archives"]


def test_a_temporary_subscription_is_gone_when_its_block_ends(aws: World, name: str) -> None:
    async def scenario() -> None:
        adapter = aws.adapter()
        await adapter.open()
        topic = Topic(name)
        await provide(adapter, Subscription(topic=topic, name="billing"))
        async with adapter.temporary_subscription(topic, exact(type="com.acme.placed")) as temporary:
            await adapter.send(topic, [adapter.encode(topic, placed("no", type="other"))])
            await adapter.send(topic, [adapter.encode(topic, placed("yes"))])
            receiver = await adapter.open_receiver(temporary, 10)
            (one,) = await receiver.receive(10, 10)
            assert adapter.decode(one).id == "yes"
            queue = f"{name}--{temporary.name}"
            assert "RedrivePolicy" not in attributes(aws, queue)
            assert policies.allows(
                attributes(aws, queue)["Policy"],
                attributes(aws, queue)["QueueArn"],
                aws.client("events").describe_rule(Name=queue, EventBusName=name)["Arn"],
            )
            # While it lives nobody prunes it.
            kept = await planned(adapter, Subscription(topic=topic, name="billing"), prune=True)
            assert queue not in {change.name for change in kept}
            await receiver.close()
        left = aws.client("sqs").list_queues(QueueNamePrefix=f"{name}--temp")
        assert "QueueUrls" not in left
        assert [rule["Name"] for rule in aws.client("events").list_rules(EventBusName=name)["Rules"]] == [
            f"{name}--billing"
        ]
        with pytest.raises(NotFound):
            async with adapter.temporary_subscription(Topic(f"{name}-none")):
                raise AssertionError("there is no bus")
        await adapter.close()

    run(scenario(), limit=60)


def test_backlogs_are_counted(aws: World, name: str) -> None:
    async def scenario() -> None:
        adapter = aws.adapter()
        await adapter.open()
        wanted = Subscription(topic=Topic(name), name="billing")
        await provide(adapter, wanted)
        await adapter.send(wanted.topic, [adapter.encode(wanted.topic, placed(f"o-{n}")) for n in range(5)])
        receiver = await adapter.open_receiver(wanted, 10)
        assert len(await receiver.receive(2, 5)) == 2
        await adapter.send(wanted.dead_letter, [adapter.encode(wanted.dead_letter, placed("dead"))])
        found = await adapter.backlog(wanted)
        assert (found.waiting, found.in_hand, found.dead, found.oldest_age) == (3, 2, 1, None)
        await adapter.close()

    run(scenario(), limit=60)


def test_a_mapped_resource_that_is_none_is_refused_before_anything_is_asked(aws: World, name: str) -> None:
    async def scenario() -> None:
        bus = Bus(
            profile="aws",
            config={
                "profiles": {"aws": {"url": aws.url()}},
                "subscriptions": {f"{name}/billing": {"resource": "https://example.com/x", "external": True}},
            },
            provision="never",
        )
        bus.subscribe(name, "billing")
        with pytest.raises(ConfigurationError, match="is no queue"):
            await bus.open()

    run(scenario(), limit=60)


def test_what_an_operator_asks_of_a_dead_letter_is_tried_again(aws: World, name: str) -> None:
    who = f"w{new_id()[:10]}"

    async def scenario() -> None:
        bus = Bus(aws.url(who), provision="always")

        @bus.subscribe(name, "billing")
        async def refuse(event: Event) -> None:
            raise Reject("poison")

        async with bus:
            letters = bus.dead_letters(name, "billing")
            async with bus.running():
                await bus.publish_many(name, [placed("o-1"), placed("o-2")])
                dead = f"{name}--billing--dead"
                await until(lambda: attributes(aws, dead)["ApproximateNumberOfMessages"] == "2", limit=30)
            calls = (
                "ReceiveMessage",
                "DeleteMessageBatch",
                "SendMessageBatch",
                "ChangeMessageVisibilityBatch",
            )
            aws.server.set(aws.key(who), throttle=dict.fromkeys(calls, 1))
            found = await letters.list()
            assert len(found) == 2
            assert await letters.redrive([found[0].id]) == 1
            aws.server.set(aws.key(who), throttle=dict.fromkeys(calls, 1))
            assert await letters.purge() == 1
        aws.server.set(aws.key(who))

    run(scenario(), limit=60)


def test_dead_letters_are_listed_oldest_first_and_stay_for_others(aws: World, name: str) -> None:
    async def scenario() -> None:
        adapter, other = aws.adapter(), aws.adapter()
        await adapter.open()
        await other.open()
        wanted = Subscription(topic=Topic(name), name="billing")
        await provide(adapter, wanted)
        for number in range(25):
            await adapter.send(
                wanted.dead_letter, [adapter.encode(wanted.dead_letter, placed(f"d-{number}"))]
            )
        letters = adapter.dead_letters(wanted)
        found = await letters.browse(100)
        assert [adapter.decode(one).id for one in found] == [f"d-{number}" for number in range(25)]
        assert [one.message_id for one in await letters.browse(3)] == [one.message_id for one in found[:3]]
        await asyncio.sleep(1.5)  # they are visible again now
        theirs = other.dead_letters(wanted)
        seen = await theirs.browse(100)
        assert {one.message_id for one in seen} == {one.message_id for one in found}
        await theirs.delete([one.lease for one in seen[:20]])
        await other.close()
        assert len(await letters.browse(100)) == 5
        await adapter.close()

    run(scenario(), limit=60)


def test_a_mapped_dead_letter_that_counts_receives_is_not_looked_into(aws: World, name: str) -> None:
    async def scenario() -> None:
        sqs = aws.client("sqs")
        last = sqs.create_queue(QueueName=f"{name}-last")["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=last, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 3})
        theirs = sqs.create_queue(QueueName=f"{name}-theirs", Attributes={"RedrivePolicy": policy})[
            "QueueUrl"
        ]
        sqs.send_message(QueueUrl=theirs, MessageBody="{}")
        adapter = aws.adapter()
        await adapter.open()
        mapped = Subscription(topic=Topic(name), name="billing", dead_letter_resource=f"{name}-theirs")
        for _ in range(5):
            with pytest.raises(UnsupportedError, match="redrive policy of its own"):
                await adapter.dead_letters(mapped).browse(10)
        sqs.set_queue_attributes(QueueUrl=theirs, Attributes={"RedrivePolicy": ""})
        assert len(await adapter.dead_letters(mapped).browse(10)) == 1
        await adapter.close()

    run(scenario(), limit=60)
