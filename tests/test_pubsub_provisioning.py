"""What provisioning makes, leaves alone, and deletes; generations of a changed filter; the two grants."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest

from crossbus.clock import SystemClock
from crossbus.errors import Conflict, DeclarationError, ErrorCode, InvalidRequest, NotFound, UnsupportedError
from crossbus.event import Event
from crossbus.filters import exact
from crossbus.profiles import Profile
from crossbus.topology import RetryPolicy, Subscription, Topic, Topology
from crossbus_pubsub import PubSubAdapter
from crossbus_pubsub.emulator import Emulator
from crossbus_pubsub.grants import PUBLISHER, SUBSCRIBER, Grants
from crossbus_pubsub.naming import generation
from crossbus_pubsub.provisioning import Provisioner
from crossbus_pubsub.pruning import plan_prune
from crossbus_pubsub.sources import MADE, find_sources, made_of
from pubsub_emulator import adapter
from pubsub_guard import Guard
from support import run

_numbers = itertools.count()


def on(
    emulator: Emulator, test: Callable[[PubSubAdapter], Coroutine[Any, Any, None]], **parameters: str
) -> None:
    """Run a test on an adapter in a project of its own."""

    async def main() -> None:
        made = adapter(emulator, f"provision-{next(_numbers)}", **parameters)
        await made.open()
        try:
            await test(made)
        finally:
            await made.close()

    run(main(), limit=60)


def declared(**fields: Any) -> Subscription:
    return Subscription(topic=fields.pop("topic", Topic("orders")), name="billing", **fields)


def topology(*subscriptions: Subscription) -> Topology:
    return Topology(tuple({one.topic.name: one.topic for one in subscriptions}.values()), subscriptions)


async def provision(made: PubSubAdapter, *subscriptions: Subscription, prune: bool = False) -> list[str]:
    changes = await made.plan(topology(*subscriptions), prune=prune)
    await made.provision(changes)
    await made.provision(changes)  # twice is harmless
    return [f"{change.action} {change.kind} {change.name.rpartition('/')[2]}" for change in changes]


async def there(made: PubSubAdapter, name: str) -> Any:
    return await made.client.call(
        "GetSubscription", subscription=f"projects/{made.names.project}/subscriptions/{name}"
    )


# --- making -------------------------------------------------------------------------------------------------------


def test_everything_that_a_subscription_needs(emulator: Emulator) -> None:
    async def test(made: PubSubAdapter) -> None:
        one = declared(lease=45, ordered=True, retention=3600, backstop=7, options={"exactly_once": True})
        assert await provision(made, one) == [
            "create topic orders",
            "create topic orders--billing--dead",
            "create subscription orders--billing--dead",
            "create subscription orders--billing",
        ]
        found = await there(made, "orders--billing")
        assert found.ack_deadline_seconds == 45
        assert found.enable_message_ordering
        assert found.enable_exactly_once_delivery
        assert found.retain_acked_messages
        assert found.message_retention_duration.seconds == 3600
        assert found.dead_letter_policy.max_delivery_attempts == 7
        assert found.dead_letter_policy.dead_letter_topic.endswith("/topics/orders--billing--dead")
        assert found.labels["crossbus"] == "subscription"
        assert int(found.labels[MADE]) > 1_700_000_000
        assert not found.expiration_policy.ttl.seconds, "it must not remove itself with what waits in it"
        assert await provision(made, one) == []
        (finding, other) = await made.inspect(topology(one))
        assert (finding.state, other.state) == ("ok", "ok")

    on(emulator, test)


def test_what_can_be_changed_is_changed(emulator: Emulator) -> None:
    async def test(made: PubSubAdapter) -> None:
        await provision(made, declared())
        changed = declared(lease=20, retention=86_400, backstop=9, options={"retain_acked": False})
        (_, finding) = await made.inspect(topology(changed))
        assert finding.state == "differs"
        assert "lease 60 s, declared 20 s" in finding.detail
        assert "acknowledged events kept true, declared false" in finding.detail
        assert await provision(made, changed) == ["update subscription orders--billing"]
        assert (await there(made, "orders--billing")).ack_deadline_seconds == 20
        assert await provision(made, changed) == []

    on(emulator, test)


def test_order_cannot_be_changed_and_is_refused(emulator: Emulator) -> None:
    async def test(made: PubSubAdapter) -> None:
        await provision(made, declared())
        with pytest.raises(UnsupportedError, match="without message ordering") as caught:
            await made.plan(topology(declared(ordered=True)))
        assert caught.value.capability == "ordering"
        with pytest.raises(UnsupportedError, match="without message ordering"):
            await made.open_receiver(declared(ordered=True), 10)
        await provision(made, declared(topic=Topic("refunds"), ordered=True))
        with pytest.raises(Conflict, match="declare it ordered"):
            await made.plan(topology(declared(topic=Topic("refunds"))))

    on(emulator, test)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"exactly_onze": True}, "did you mean 'exactly_once'"),
        ({"exactly_once": "yes"}, "must be true"),
        ({"generations": "one"}, "must be a list"),
        ({"dead_letter_subscription": ""}, "must be"),
    ],
)
def test_wrong_options(emulator: Emulator, options: dict[str, Any], said: str) -> None:
    async def test(made: PubSubAdapter) -> None:
        for call in (made.inspect, made.plan):
            with pytest.raises(DeclarationError, match=said):
                await call(topology(declared(options=options)))

    on(emulator, test)


@pytest.mark.parametrize("options", [{"wire": "xml"}, {"retention": 5}, {"retention": True}, {"x": 1}])
def test_wrong_options_of_a_topic(emulator: Emulator, options: dict[str, Any]) -> None:
    async def test(made: PubSubAdapter) -> None:
        with pytest.raises(DeclarationError, match="topic 'orders'"):
            await made.plan(Topology((Topic("orders", options=options),), ()))

    on(emulator, test)


# --- leaving alone ------------------------------------------------------------------------------------------------


def test_adopted_resources_are_never_changed_or_pruned(emulator: Emulator) -> None:
    async def test(made: PubSubAdapter) -> None:
        project = f"projects/{made.names.project}"
        await made.client.call("CreateTopic", name=f"{project}/topics/theirs")
        await made.client.call("CreateTopic", name=f"{project}/topics/their-dead")
        await made.client.call(
            "CreateSubscription",
            name=f"{project}/subscriptions/their-sub",
            topic=f"{project}/topics/theirs",
            ack_deadline_seconds=13,
            dead_letter_policy={
                "dead_letter_topic": f"{project}/topics/their-dead",
                "max_delivery_attempts": 8,
            },
        )
        before = await there(made, "their-sub")
        topic = Topic("orders", resource=f"{project}/topics/theirs")
        one = declared(topic=topic, resource=f"{project}/subscriptions/their-sub", lease=60, backstop=50)
        assert await provision(made, one, prune=True) == [
            "create topic orders--billing--dead",
            "create subscription orders--billing--dead",
        ]
        assert await there(made, "their-sub") == before
        (_, finding) = await made.inspect(topology(one))
        assert finding.state == "differs"
        assert "lease 13 s, declared 60 s" in finding.detail
        receiver = await made.open_receiver(one, 10)
        await made.send(topic, [made.encode(topic, Event(type="t", source="/s"))])
        (received,) = await receiver.receive(10, 5)
        assert received.lease_seconds == 13, "it is theirs that holds"
        await receiver.close()
        await provision(made, prune=True)
        assert await there(made, "their-sub") == before

    on(emulator, test)


def test_external_is_only_checked(emulator: Emulator) -> None:
    async def test(made: PubSubAdapter) -> None:
        topic = Topic("orders", external=True)
        one = declared(topic=topic, external=True, dead_letter_resource="their-dead")
        assert await made.plan(topology(one)) == []
        assert {finding.state for finding in await made.inspect(topology(one))} == {"missing"}

    on(emulator, test)


def test_two_projects(emulator: Emulator) -> None:
    """The topic in one project, its subscription in that of the profile."""

    async def test(made: PubSubAdapter) -> None:
        theirs = "projects/their-project-1/topics/orders"
        await made.client.call("CreateTopic", name=theirs)
        topic = Topic("orders", resource=theirs, external=True)
        one = declared(topic=topic)
        await provision(made, one)
        assert (await there(made, "orders--billing")).topic == theirs
        await made.send(topic, [made.encode(topic, Event(type="t", source="/s", id="e-1"))])
        receiver = await made.open_receiver(one, 10)
        (received,) = await receiver.receive(1, 5)
        assert made.decode(received).id == "e-1"
        await receiver.close()

    on(emulator, test)


def test_subscription_on_another_topic_than_declared(emulator: Emulator) -> None:
    async def test(made: PubSubAdapter) -> None:
        await provision(made, declared(topic=Topic("refunds")), declared())
        wrong = declared(resource="refunds--billing")
        for call in (made.inspect(topology(wrong)), made.plan(topology(wrong)), made.open_receiver(wrong, 1)):
            with pytest.raises(
                Conflict, match=r"refunds--billing is a subscription of .*topics/refunds, but orders/"
            ):
                await call

    on(emulator, test)


def test_subscription_whose_topic_was_deleted(emulator: Emulator) -> None:
    async def test(made: PubSubAdapter) -> None:
        await provision(made, declared())
        await made.client.call("DeleteTopic", topic=made.names.topic(Topic("orders")))
        with pytest.raises(NotFound, match="was deleted"):
            await made.open_receiver(declared(), 1)

    on(emulator, test)


def test_a_limit_of_attempts_needs_a_dead_letter_policy(emulator: Emulator) -> None:
    async def test(made: PubSubAdapter) -> None:
        await provision(made, declared())
        project = f"projects/{made.names.project}"
        await made.client.call(
            "CreateSubscription", name=f"{project}/subscriptions/plain", topic=f"{project}/topics/orders"
        )
        plain = declared(resource="plain")
        for call in (made.inspect(topology(plain)), made.plan(topology(plain)), made.open_receiver(plain, 1)):
            with pytest.raises(
                UnsupportedError, match=r'no dead-letter policy.*attempts="unlimited"'
            ) as caught:
                await call
        assert caught.value.capability == "attempts"
        unlimited = plain.replace(retry=RetryPolicy(attempts="unlimited"))
        receiver = await made.open_receiver(unlimited, 1)
        await made.send(Topic("orders"), [made.encode(Topic("orders"), Event(type="t", source="/s"))])
        (received,) = await receiver.receive(1, 5)
        assert received.attempt is None
        await receiver.close()

    on(emulator, test)


# --- generations --------------------------------------------------------------------------------------------------

ONE, TWO = exact(type="one"), exact(type="two")


def text(name: str) -> str:
    return f'attributes.ce-type = "{name}"'


async def publish(made: PubSubAdapter, *types: str) -> None:
    topic = Topic("orders")
    for type in types:
        (outcome,) = await made.send(topic, [made.encode(topic, Event(type=type, source="/s", id=type))])
        assert outcome.code is None


async def drain(made: PubSubAdapter, one: Subscription) -> list[str]:
    from crossbus.adapter import Settlement

    receiver = await made.open_receiver(one, 10)
    found: list[str] = []
    while received := await receiver.receive(10, 1):
        events = [made.decode(each) for each in received]
        found += [event.type for event in events if one.filter is None or one.filter.matches(event)]
        await receiver.settle([Settlement(each.lease) for each in received])
    await receiver.close()
    return found


def test_a_changed_filter_makes_a_successor_and_both_are_read(emulator: Emulator) -> None:
    async def test(made: PubSubAdapter) -> None:
        await provision(made, declared(filter=ONE))
        await publish(made, "one", "two")
        old = f"orders--billing--{generation(text('one'))}"
        new = f"orders--billing--{generation(text('two'))}"
        assert await provision(made, declared(filter=TWO)) == [f"create subscription {new}"]
        # The emulator filters nothing: both hold everything, as if the old filter had let it through.
        await publish(made, "two", "one")
        found = await drain(made, declared(filter=TWO))
        assert found == ["two", "two", "two"], "the backlog of the old one, then what came since into both"
        assert await provision(made, declared(filter=TWO), prune=True) == [], (
            "the old one may not be empty yet"
        )
        assert (await there(made, old)).filter == text("one")

    on(emulator, test)


def test_what_a_successor_has_too_is_dropped_of_its_predecessor(
    emulator: Emulator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("crossbus_pubsub.sources.OVERLAP", -1.0)

    async def test(made: PubSubAdapter) -> None:
        await provision(made, declared(filter=ONE))
        await asyncio.sleep(2.1)  # labels tell whole seconds
        await provision(made, declared(filter=TWO))
        await publish(made, "two")
        assert await drain(made, declared(filter=TWO)) == ["two"]

    on(emulator, test)


def test_a_newer_generation_is_left_to_the_newer_release(emulator: Emulator) -> None:
    async def test(made: PubSubAdapter) -> None:
        await provision(made, declared(filter=ONE))
        await asyncio.sleep(1.1)
        await provision(made, declared(filter=TWO))
        sources = await find_sources(made.client, made.names, declared(filter=ONE), text("one"))
        assert [source.name.rpartition("--")[2] for source in sources] == [generation(text("one"))]
        sources = await find_sources(made.client, made.names, declared(filter=TWO), text("two"))
        assert [source.name.rpartition("--")[2] for source in sources] == [
            generation(text("two")),
            generation(text("one")),
        ]

    on(emulator, test)


def test_generations_can_be_named(emulator: Emulator) -> None:
    async def test(made: PubSubAdapter) -> None:
        await provision(made, declared(filter=ONE))
        await provision(made, declared())
        named = declared(options={"generations": [f"orders--billing--{generation(text('one'))}"]})
        sources = await find_sources(made.client, made.names, named, "")
        assert len(sources) == 2

    on(emulator, test)


def test_pruning_waits_for_the_retention_or_is_forced(emulator: Emulator) -> None:
    async def test(made: PubSubAdapter) -> None:
        await provision(made, declared(filter=ONE))
        await provision(made, declared(filter=TWO))
        new = topology(declared(filter=TWO))
        topics = {made.names.topic(Topic("orders"))}

        class Later(SystemClock):
            def time(self) -> float:
                return super().time() + 8 * 86_400

        assert await plan_prune(made.client, made.names, SystemClock(), new, topics) == []
        (change,) = await plan_prune(made.client, made.names, Later(), new, topics)
        assert change.name.endswith(generation(text("one")))
        assert change.detail == ""
        forced = PubSubAdapter(
            Profile(target=made.names.project, parameters={**made.profile.parameters, "prune": "force"}),
            clock=SystemClock(),
        )
        await forced.open()
        assert await provision(forced, declared(filter=TWO), prune=True) == [
            f"delete subscription orders--billing--{generation(text('one'))}"
        ]
        assert sorted(await provision(forced, prune=True)) == [
            "delete subscription orders--billing--" + generation(text("two")),
            "delete subscription orders--billing--dead",
            "delete topic orders",
            "delete topic orders--billing--dead",
        ]
        await forced.close()

    on(emulator, test)


def test_pruning_leaves_what_a_program_with_another_template_made(emulator: Emulator) -> None:
    async def test(made: PubSubAdapter) -> None:
        other = PubSubAdapter(
            Profile(
                target=made.names.project,
                parameters=made.profile.parameters,
                names="{Env}.{name}",
                variables={"Env": "Test"},
            ),
            clock=SystemClock(),
        )
        await other.open()
        # The same topic for both: theirs is on ours.
        await provision(made, declared())
        orders = Topic("orders", resource=made.names.topic(Topic("orders")))
        await provision(other, Subscription(topic=orders, name="audit"))
        assert sorted(await provision(made, prune=True)) == [
            "delete subscription orders--billing",
            "delete subscription orders--billing--dead",
            "delete topic orders--billing--dead",
        ], "the topic is in use"
        deleted = await provision(other, prune=True)
        assert len(deleted) == 3, deleted
        assert all("audit" in one for one in deleted)
        assert await provision(made, prune=True) == ["delete topic orders"]
        await other.close()

    on(emulator, test)


# --- the two grants -----------------------------------------------------------------------------------------------


def test_the_service_agent_is_granted_what_the_backstop_needs(emulator: Emulator) -> None:
    guard = Guard(emulator.address)

    async def main() -> None:
        place = Profile(target="granting", parameters={"endpoint": guard.address, "project_number": "4711"})
        made = PubSubAdapter(place, clock=SystemClock(), credentials=guard.credentials())
        await made.open()
        as_cloud = Provisioner(made.client, made.names, SystemClock(), emulator=False)
        as_cloud._grants = Grants(made.client, made.names)

        async def grants() -> list[tuple[str, str]]:
            changes = await as_cloud.plan(topology(declared()), prune=False)
            await made.provision(
                [change for change in changes if change.kind != "subscription" or "dead" not in change.name]
            )
            return [
                (change.name.rpartition("/")[2], change.detail)
                for change in changes
                if change.kind == "grant"
            ]

        agent = "serviceAccount:service-4711@gcp-sa-pubsub.iam.gserviceaccount.com"
        # The emulator has no dead letters for 31 days, so that one is made beforehand.
        await made.provision(await made.plan(topology(declared())))
        dead, billing = (made.names.topic(declared().dead_letter), made.names.base(declared()))
        stolen = [True]

        def another(resource: str) -> None:
            if stolen and resource == dead:  # somebody else changes the policy between our two calls
                stolen.clear()
                guard.policies[resource].etag = b"7"

        guard.before_set_policy = another
        assert await grants() == [
            ("orders--billing--dead", f"{PUBLISHER} to {agent}"),
            ("orders--billing", f"{SUBSCRIBER} to {agent}"),
        ]
        assert [list(one.members) for one in guard.policies[dead].bindings] == [[agent]]
        assert [one.role for one in guard.policies[billing].bindings] == [SUBSCRIBER]
        assert await grants() == []
        guard.denied.add("GetIamPolicy")
        with pytest.raises(Exception, match=r"roles/pubsub\.admin"):
            await grants()
        await made.close()

    try:
        run(main(), limit=60)
    finally:
        guard.close()


def test_an_unknown_project_number_says_what_to_set(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(project: str) -> str:
        raise PermissionError("403 Forbidden")

    monkeypatch.setattr("crossbus_pubsub.grants._project_number", denied)

    async def test(made: PubSubAdapter) -> None:
        await provision(made, declared())
        with pytest.raises(InvalidRequest, match="project_number"):
            await Grants(made.client, made.names).plan(await there(made, "orders--billing"))

    on(emulator, test)


def test_a_permission_to_look_that_is_missing_is_no_failure(emulator: Emulator) -> None:
    guard = Guard(emulator.address)

    async def main() -> None:
        place = Profile(target="looking", parameters={"endpoint": guard.address})
        made = PubSubAdapter(place, clock=SystemClock(), credentials=guard.credentials())
        await made.open()
        await made.provision(await made.plan(topology(declared(filter=ONE))))
        guard.denied |= {"GetTopic", "GetSubscription", "ListTopicSubscriptions"}
        findings = await made.inspect(topology(declared(filter=ONE)))
        assert {finding.state for finding in findings} == {"unknown"}
        assert all("roles/pubsub.viewer" in finding.detail for finding in findings)
        await publish(made, "one")
        receiver = await made.open_receiver(declared(filter=ONE), 10)
        (received,) = await receiver.receive(1, 5)
        assert received.lease_seconds == 10, "the shortest that it can be, for nobody may look it up"
        await receiver.close()
        guard.denied = {"Pull"}
        receiver = await made.open_receiver(declared(filter=ONE), 10)
        with pytest.raises(Exception, match=r"roles/pubsub\.subscriber") as caught:
            await receiver.receive(1, 1)
        assert made.error_code(caught.value) == (ErrorCode.PERMISSION_DENIED, False)
        await receiver.close()
        await made.close()

    try:
        run(main(), limit=60)
    finally:
        guard.close()


@pytest.mark.parametrize(
    ("label", "made"),
    [("1795705200", 1795705200.0), ("20261126t151500z", 1795706100.0), ("", 0.0), ("yesterday", 0.0)],
)
def test_the_label_of_a_generation_is_read_from_the_program_and_from_terraform(
    label: str, made: float
) -> None:
    assert made_of(SimpleNamespace(labels={MADE: label} if label else {})) == made
