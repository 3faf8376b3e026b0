"""Provisioning a namespace: through an ARM that is played, against the models of Azure's SDK."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from azure.mgmt.eventgrid.models import DeadLetterWithResourceIdentity, StorageBlobDeadLetterDestination

from crossbus import Bus
from crossbus.clock import SystemClock
from crossbus.errors import (
    ConfigurationError,
    DeclarationError,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    UnsupportedError,
)
from crossbus.filters import exact
from crossbus.profiles import Profile
from crossbus.topology import Subscription, Topic, Topology
from crossbus_eventgrid import EventGridAdapter
from crossbus_eventgrid.arm import ArmPlace, _model
from crossbus_eventgrid.settings import Owned, settings_of
from eventgrid_harness import ArmAdapter, World, strict_world
from support import run

BASE = "/subscriptions/subscription-1/resourceGroups/group-1/providers/Microsoft.EventGrid/namespaces/shop/topics"
BILLING = Subscription(
    topic=Topic("orders"), name="billing", lease=90.0, retention=3600.0, filter=exact(type="com.acme.order")
)
ALL = Topology((Topic("orders"), Topic("invoices")), (BILLING,))


@pytest.fixture
def world() -> Iterator[World]:
    with strict_world(shortest_wait=1) as found:
        yield found


def actions(changes: Any) -> list[str]:
    return [f"{change.action} {change.kind} {change.name}" for change in changes]


async def provision(world: World, topology: Topology, *, prune: bool = False) -> list[str]:
    adapter = world.adapter()
    await adapter.open()
    try:
        changes = await adapter.plan(topology, prune=prune)
        await adapter.provision(changes)
        return actions(changes)
    finally:
        await adapter.close()


def test_what_is_made(world: World) -> None:
    assert run(provision(world, ALL)) == [
        "create topic orders",
        "create topic invoices",
        "create dead-letter topic orders--billing--dead",
        "create event subscription orders--billing--dead/dead-letters",
        "create event subscription orders/billing",
    ]
    assert world.arm.bodies[f"{BASE}/orders"] == {
        "properties": {
            "publisherType": "Custom",
            "inputSchema": "CloudEventSchemaV1_0",
            "eventRetentionInDays": 7,
        }
    }
    assert world.arm.bodies[f"{BASE}/orders/eventSubscriptions/billing"] == {
        "properties": {
            "deliveryConfiguration": {
                "deliveryMode": "Queue",
                "queue": {
                    "receiveLockDurationInSeconds": 90,
                    "maxDeliveryCount": 10,
                    "eventTimeToLive": "PT1H",
                },
            },
            "eventDeliverySchema": "CloudEventSchemaV1_0",
            "filtersConfiguration": {
                "includedEventTypes": ["com.acme.order"],
                "filters": [
                    {
                        "operatorType": "StringNotIn",
                        "key": "crossbuswire",
                        "values": ["provisioned-with-topic"],
                    }
                ],
            },
        }
    }


def test_twice_is_once(world: World) -> None:
    run(provision(world, ALL))
    assert run(provision(world, ALL)) == []


def test_what_differs_is_changed_and_said(world: World) -> None:
    run(provision(world, ALL))
    other = BILLING.replace(filter=exact(type="com.acme.other"), lease=60.0, retention=None)

    async def main() -> None:
        adapter = world.adapter()
        await adapter.open()
        try:
            topology = Topology(ALL.topics, (other,))
            (finding,) = [one for one in await adapter.inspect(topology) if one.kind == "subscription"]
            assert finding.state == "differs"
            assert finding.detail == (
                'lease 90, declared 60; native {"includedEventTypes":["com.acme.order"]}, declared '
                '{"includedEventTypes":["com.acme.other"]}'
            )
            (change,) = await adapter.plan(topology)
            assert actions([change]) == ["update event subscription orders/billing"]
            assert change.detail == finding.detail
            await adapter.provision([change])
            assert await adapter.plan(topology) == []
        finally:
            await adapter.close()

    run(main())


def test_a_change_keeps_what_others_have_set(world: World) -> None:
    world.namespace.add("orders", "billing")
    queue = world.namespace.topics["orders"]["billing"]
    queue.blob = DeadLetterWithResourceIdentity(
        dead_letter_destination=StorageBlobDeadLetterDestination(
            resource_id="/theirs", blob_container_name="dead"
        )
    )
    queue.expires = datetime.now(UTC) + timedelta(days=30)
    assert "update event subscription orders/billing" in run(provision(world, ALL))
    assert queue.native["includedEventTypes"] == ["com.acme.order"]
    assert queue.blob.dead_letter_destination.resource_id == "/theirs"
    assert queue.expires > datetime.now(UTC) + timedelta(days=29)


def test_a_subscription_that_pushes_is_not_made_a_queue(world: World) -> None:
    world.namespace.add("orders", "billing")
    world.namespace.topics["orders"]["billing"].mode = "Push"
    with pytest.raises(InvalidRequest, match="orders/billing is there and delivers by Push"):
        run(provision(world, ALL))


def test_prune_deletes_what_crossbus_made_and_nothing_else(world: World) -> None:
    world.namespace.add("theirs", "their-sub")
    world.namespace.add("orders", "their-sub-too")
    run(provision(world, ALL))
    assert run(provision(world, Topology(), prune=True)) == [
        "delete event subscription orders/billing",
        "delete dead-letter topic orders--billing--dead",
    ]
    assert {name: set(queues) for name, queues in world.namespace.topics.items()} == {
        "theirs": {"their-sub"},
        "orders": {"their-sub-too"},
        "invoices": set(),
    }


def test_prune_deletes_a_topic_that_crossbus_made_with_its_subscription(world: World) -> None:
    run(provision(world, Topology((), (BILLING,))))
    run(provision(world, Topology((), (BILLING.replace(lease=60.0), BILLING.replace(name="late")))))
    assert run(provision(world, Topology((Topic("invoices"),)), prune=True)) == [
        "create topic invoices",
        "delete topic orders",
        "delete dead-letter topic orders--billing--dead",
        "delete dead-letter topic orders--late--dead",
    ]
    assert set(world.namespace.topics) == {"invoices"}


def test_a_topic_and_a_subscription_of_others_stay_theirs_when_they_are_adopted(world: World) -> None:
    world.namespace.add("orders", "billing")
    run(provision(world, Topology((), (BILLING, BILLING.replace(name="ours")))))
    assert run(provision(world, Topology(), prune=True)) == [
        "delete event subscription orders/ours",
        "delete dead-letter topic orders--billing--dead",
        "delete dead-letter topic orders--ours--dead",
    ]
    assert set(world.namespace.topics["orders"]) == {"billing"}


def test_prune_leaves_what_is_declared(world: World) -> None:
    run(provision(world, ALL))
    assert run(provision(world, ALL, prune=True)) == []


def test_external_things_are_looked_for_and_never_made(world: World) -> None:
    mapped = Subscription(
        topic=Topic("orders", resource="their-topic", external=True),
        name="billing",
        resource="their-sub",
        external=True,
    )
    assert run(provision(world, Topology((), (mapped,)))) == [
        "create dead-letter topic orders--billing--dead",
        "create event subscription orders--billing--dead/dead-letters",
    ]
    world.namespace.add("their-topic", "their-sub")

    async def main() -> None:
        adapter = world.adapter()
        await adapter.open()
        try:
            (finding,) = await adapter.inspect(Topology((), (mapped,)))
            assert (finding.resource, finding.state) == ("their-topic/their-sub", "ok")
        finally:
            await adapter.close()

    run(main())


def test_a_bus_on_azure_looks_and_creates_nothing(world: World) -> None:
    class Azure(ArmAdapter):
        is_local = False  # type: ignore[assignment]

    async def main() -> None:
        bus = Bus(adapter=world.adapter(kind=Azure))
        bus.subscribe("orders", "billing")
        with pytest.raises(NotFound, match=r"topic 'orders' does not exist on eventgrid"):
            await bus.open()

    run(main())
    assert {method for method, _ in world.arm.requests} == {"GET"}
    assert not world.namespace.topics


def test_what_a_permission_forbids_to_look_at_is_one_warning(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    class Azure(ArmAdapter):
        is_local = False  # type: ignore[assignment]

    world.arm.forbidden.add("GET")

    async def main() -> None:
        bus = Bus(adapter=world.adapter(kind=Azure))
        bus.subscribe("orders", "billing")
        bus.topic("invoices")
        async with bus:
            pass

    with caplog.at_level(logging.WARNING, "crossbus"):
        run(main())
    (record,) = [one for one in caplog.records if one.name == "crossbus"]
    assert "Microsoft.EventGrid/namespaces/topics/read" in record.getMessage()
    assert "EventGrid Contributor" in record.getMessage()


def test_provisioning_without_the_permission_says_which(world: World) -> None:
    world.arm.forbidden.add("PUT")
    with pytest.raises(PermissionDenied, match=r"Microsoft\.EventGrid/namespaces/topics/write") as raised:
        run(provision(world, ALL))
    assert "\n" not in str(raised.value)


def test_a_namespace_that_is_elsewhere_and_an_arm_out_of_reach_are_said(world: World) -> None:
    class Elsewhere(ArmAdapter):
        arm_place = ArmPlace("subscription-1", "another-group", "shop")

    class OutOfReach(ArmAdapter):
        arm_url = "http://127.0.0.1:9"

    async def main(kind: type[ArmAdapter], says: str) -> None:
        adapter = world.adapter(kind=kind)
        await adapter.open()
        try:
            findings = await adapter.inspect(ALL)
            assert {one.state for one in findings} == {"unknown"}
            assert says in findings[0].detail
            with pytest.raises(PermissionDenied, match="cannot be provisioned"):
                await adapter.plan(ALL)
        finally:
            await adapter.close()

    run(main(Elsewhere, "namespace shop is not in resource group another-group"))
    run(main(OutOfReach, "Azure Resource Manager cannot be reached"))


def test_without_the_ids_nothing_is_known_and_provisioning_says_what_to_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("AZURE_SUBSCRIPTION_ID", raising=False)

    async def main() -> None:
        adapter = EventGridAdapter(
            Profile(target="shop.westeurope-1.eventgrid.azure.net"), clock=SystemClock()
        )
        adapter.environ = {"AZURE_EVENTGRID_KEY": "k"}
        await adapter.open()
        try:
            findings = await adapter.inspect(ALL)
            assert {one.state for one in findings} == {"unknown"}
            assert findings[0].detail.startswith(
                "set subscription_id (or AZURE_SUBSCRIPTION_ID) and resource_group"
            )
            with pytest.raises(ConfigurationError, match="cannot be provisioned: set subscription_id"):
                await adapter.plan(ALL)
        finally:
            await adapter.close()

    run(main())


def test_the_place_in_arm_is_read_from_profile_and_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_SUBSCRIPTION_ID", "from-environment")
    profile = Profile(target="shop.westeurope-1.eventgrid.azure.net", parameters={"resource_group": "g"})
    endpoint = EventGridAdapter(profile, clock=SystemClock()).endpoint
    assert ArmPlace.of(profile, endpoint) == ("from-environment", "g", "shop", "", "")


def test_the_backstop_writes_to_a_blob() -> None:
    """As the SDK's models have it. Never proved on Azure."""
    place = ArmPlace("s", "g", "shop", "/subscriptions/s/.../storageAccounts/acc", "dead")
    body = _model(settings_of(BILLING), place, Owned.NO, None).serialize()
    assert body["properties"]["deliveryConfiguration"]["queue"][
        "deadLetterDestinationWithResourceIdentity"
    ] == {
        "identity": {"type": "SystemAssigned"},
        "deadLetterDestination": {
            "endpointType": "StorageBlob",
            "properties": {
                "resourceId": "/subscriptions/s/.../storageAccounts/acc",
                "blobContainerName": "dead",
            },
        },
    }


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"retention": 30.0}, UnsupportedError, "a retention of 30 s; eventgrid allows 60 to 604800 s"),
        ({"retention": 8 * 86400.0}, UnsupportedError, "7 days"),
        ({"lease": 60.5}, UnsupportedError, "whole seconds"),
        ({"native_filter": {"eventgrid": "x"}}, DeclarationError, "must be a dict"),
        ({"native_filter": {"eventgrid": {"filter": []}}}, DeclarationError, "did you mean 'filters'"),
        ({"backstop": 3}, UnsupportedError, r"use RetryPolicy\(attempts=3\)"),
    ],
)
def test_what_event_grid_cannot_be_is_refused(
    changes: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        settings_of(BILLING.replace(**changes))


def test_a_native_filter_of_the_user_is_taken_as_it_is() -> None:
    native = {"filters": [{"operatorType": "NumberIn", "key": "data.n", "values": [1]}]}
    wanted = settings_of(BILLING.replace(native_filter={"eventgrid": native}))
    assert wanted.native == '{"filters":[{"key":"data.n","operatorType":"NumberIn","values":[1]}]}'


def test_long_names_are_cut_by_the_rule_that_all_share(world: World) -> None:
    adapter = world.adapter()
    subscription = Subscription(topic=Topic("a" * 40), name="b" * 40)
    dead = adapter.topic_name(subscription.dead_letter)
    assert len(dead) <= 50
    assert dead.startswith("a" * 40 + "-")


def test_a_temporary_subscription_is_gone_afterwards_and_expires_by_itself(world: World) -> None:
    world.namespace.add("orders")

    async def main() -> None:
        adapter = world.adapter()
        await adapter.open()
        try:
            async with adapter.temporary_subscription(Topic("orders"), exact(type="a")) as temporary:
                queue = world.namespace.topics["orders"][temporary.name]
                assert timedelta(hours=23) < queue.expires - datetime.now(UTC) <= timedelta(days=1)
                assert await adapter.plan(Topology(), prune=True) == []
                assert queue.native["includedEventTypes"] == ["a"]
            assert world.namespace.topics["orders"] == {}
        finally:
            await adapter.close()

    run(main())


def test_a_server_of_this_machine_without_a_control_plane_is_gone_on_with(world: World) -> None:
    world.namespace.add("orders", "billing")

    async def main() -> None:
        bus = Bus(adapter=world.adapter(kind=EventGridAdapter))
        bus.subscribe("orders", "billing")
        async with bus:
            pass

    run(main())
    assert world.namespace.requests == [("GET", "/crossbus/v1/topics")]
