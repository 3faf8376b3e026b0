"""What `topology export` says is what `provision` makes: the same names and settings, read back from each stand-in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.declared import alone
from tests.support import run
from tests.test_cli_dlq import World

from crossbus import Bus, exact, prefix
from crossbus.exporting import export

NAMES = "{env}-{name}"
TOPIC = "a-topic-with-quite-a-long-name-indeed"


def declared(world: World) -> Bus:
    profile = {"url": world.url, "names": NAMES, "variables": {"env": "parity-test-environment"}}
    bus = Bus(profile="shop", config={"profiles": {"shop": profile}})
    bus.subscribe(TOPIC, "billing", filter=exact(type="com.acme.a") & prefix(source="/x"), lease=61)
    bus.subscribe(TOPIC, "audit-with-quite-a-long-name-too", retention=86_400, backstop=9, lease=70)
    return bus


def exported(bus: Bus, provider: str) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    assert bus._configuration is not None
    topology = export(bus.topology, bus._configuration.default).document["topology"]
    return topology["topics"][TOPIC][provider], topology["subscriptions"]


def test_eventbridge(tmp_path: Path) -> None:
    with alone("eventbridge", tmp_path) as world:
        bus = declared(world)
        topic, subscriptions = exported(bus, "eventbridge")

        async def scenario() -> None:
            async with bus:
                adapter = bus.adapter_for()
                assert await bus.provision() == [], "opening made all of it"
                call = adapter.connection.call  # type: ignore[attr-defined]
                await call("events_control", "DescribeEventBus", "", Name=topic["bus"])
                for one in subscriptions.values():
                    part = one["eventbridge"]
                    rule = await call(
                        "events_control", "DescribeRule", "", Name=part["rule"], EventBusName=topic["bus"]
                    )
                    assert json.loads(rule["EventPattern"]) == json.loads(part["pattern"])
                    dead = await attributes(call, part["dead_letter_queue"])
                    assert int(dead["MessageRetentionPeriod"]) == part["dead_letter_retention_seconds"]
                    queue = await attributes(call, part["queue"])
                    assert int(queue["VisibilityTimeout"]) == one["lease_seconds"]
                    kept = part["retention_seconds"] or 345_600
                    assert int(queue["MessageRetentionPeriod"]) == kept
                    redrive = json.loads(queue["RedrivePolicy"])
                    assert redrive["maxReceiveCount"] == part["backstop"]
                    assert redrive["deadLetterTargetArn"] == dead["QueueArn"]

        run(scenario(), limit=60)


async def attributes(call: Any, queue: str) -> dict[str, str]:
    url = (await call("sqs_control", "GetQueueUrl", "", QueueName=queue))["QueueUrl"]
    found = await call("sqs_control", "GetQueueAttributes", "", QueueUrl=url, AttributeNames=["All"])
    return dict(found["Attributes"])


def test_pubsub(tmp_path: Path) -> None:
    with alone("pubsub", tmp_path) as world:
        bus = declared(world)
        topic, subscriptions = exported(bus, "pubsub")

        async def scenario() -> None:
            async with bus:
                adapter = bus.adapter_for()
                client, project = adapter.client, adapter.names.project  # type: ignore[attr-defined]

                async def get(kind: str, name: str) -> Any:
                    full = f"projects/{project}/{kind.lower()}s/{name}"
                    return await client.call(f"Get{kind}", **{kind.lower(): full})

                await get("Topic", topic["topic"])
                for one in subscriptions.values():
                    part = one["pubsub"]
                    there = await get("Subscription", part["subscription"])
                    assert there.filter == part["filter"]
                    assert there.ack_deadline_seconds == one["lease_seconds"]
                    assert there.message_retention_duration.seconds == part["retention_seconds"]
                    assert there.retain_acked_messages == part["retain_acked"]
                    policy = there.dead_letter_policy
                    assert policy.dead_letter_topic.rpartition("/")[2] == part["dead_letter_topic"]
                    assert policy.max_delivery_attempts == part["backstop"]
                    dead = await get("Subscription", part["dead_letter_subscription"])
                    assert dead.topic.rpartition("/")[2] == part["dead_letter_topic"]

        run(scenario(), limit=60)


def test_eventgrid(tmp_path: Path) -> None:
    with alone("eventgrid", tmp_path) as world:
        bus = declared(world)
        topic, subscriptions = exported(bus, "eventgrid")

        async def scenario() -> None:
            async with bus:
                adapter = bus.adapter_for()
                there = await adapter.control().topics()  # type: ignore[attr-defined]
                for one in subscriptions.values():
                    part = one["eventgrid"]
                    settings = there[topic["topic"]][part["subscription"]].settings
                    native = json.loads(settings.native) if settings.native else {}
                    assert native.get("includedEventTypes", []) == part["included_event_types"]
                    assert [tuple(each.values()) for each in native.get("filters", [])] == [
                        tuple(each[key] for key in ("key", "operator_type", "values"))
                        for each in part["filters"]
                    ]
                    assert settings.lease == one["lease_seconds"]
                    assert settings.receives == part["backstop"]
                    assert settings.retention == (part["retention_seconds"] or 604_800)
                    assert part["dead_letter_subscription"] in there[part["dead_letter_topic"]]

        run(scenario(), limit=60)
