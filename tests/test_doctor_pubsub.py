"""Doctor on Pub/Sub: what it claims to find is broken on Google's emulator; what that lacks, by recorded answers."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from crossbus.checks import State
from crossbus.clock import SystemClock
from crossbus.config import load
from crossbus.filters import exact
from crossbus.profiles import Profile
from crossbus.topology import RetryPolicy, Subscription, Topic
from crossbus_pubsub import PubSubAdapter, wanted
from crossbus_pubsub.checks import CHECKS
from crossbus_pubsub.emulator import Emulator
from crossbus_pubsub.options import native_text
from doctoring import Bad, bad, examined, of, topology_of
from pubsub_emulator import profile
from pubsub_guard import Guard
from support import run

_numbers = itertools.count()
AGENT = "serviceAccount:service-4711@gcp-sa-pubsub.iam.gserviceaccount.com"


class Shop:
    """A subscription that is well, in a project of its own, and a hand to break it."""

    def __init__(self, emulator: Emulator, **fields: Any) -> None:
        self.emulator = emulator
        self.project = f"doctor-{next(_numbers)}"
        self.subscription = Subscription(topic=Topic("orders"), name="billing", **fields)

    def adapter(self) -> PubSubAdapter:
        return PubSubAdapter(profile(self.emulator, self.project), clock=SystemClock())

    def do(self, what: Callable[[PubSubAdapter], Awaitable[None]]) -> None:
        async def main() -> None:
            made = self.adapter()
            await made.open()
            try:
                await what(made)
            finally:
                await made.close()

        run(main(), limit=60)

    def provide(self) -> None:
        async def what(made: PubSubAdapter) -> None:
            await made.provision(await made.plan(topology_of(self.subscription)))

        self.do(what)

    def update(self, field: str, **changes: Any) -> None:
        async def what(made: PubSubAdapter) -> None:
            goal = wanted.subscription(
                made.client, made.names, self.subscription, native_text(self.subscription)
            )
            request = made.client.type("UpdateSubscriptionRequest")(subscription=goal.request)
            for name, value in changes.items():
                setattr(request.subscription, name, value)
            if field in ("dead_letter_policy", "message_retention_duration"):
                request.subscription.ClearField(field)
            if field == "message_retention_duration":
                request.subscription.message_retention_duration.seconds = 3600
            request.update_mask.paths.append(field)
            await made.client.send("UpdateSubscription", request)

        self.do(what)

    def delete(self, method: str, **resource: str) -> None:
        async def what(made: PubSubAdapter) -> None:
            ((kind, name),) = resource.items()
            await made.client.call(method, **{kind: f"projects/{self.project}/{kind}s/{name}"})

        self.do(what)

    def bad(self, *but: str) -> list[Bad]:
        return bad(examined(self.adapter(), self.subscription), *but)

    def wrong(self, check: str, state: State = "wrong") -> list[Bad]:
        return [Bad(state, "orders/billing", check)]


BROKEN: dict[str, tuple[str, State, Callable[[Shop], None]]] = {
    "no subscription": (
        "subscription",
        "wrong",
        lambda shop: shop.delete("DeleteSubscription", subscription="orders--billing"),
    ),
    "no topic of the dead letter": (
        "dead-letter",
        "wrong",
        lambda shop: shop.delete("DeleteTopic", topic="orders--billing--dead"),
    ),
    "no subscription of the dead letter": (
        "dead-letter-subscription",
        "wrong",
        lambda shop: shop.delete("DeleteSubscription", subscription="orders--billing--dead"),
    ),
    "another lease": (
        "lease",
        "warning",
        lambda shop: shop.update("ack_deadline_seconds", ack_deadline_seconds=20),
    ),
    "another retention": ("retention", "wrong", lambda shop: shop.update("message_retention_duration")),
    "acknowledged ones not kept": (
        "acknowledged-kept",
        "warning",
        lambda shop: shop.update("retain_acked_messages", retain_acked_messages=False),
    ),
    "exactly once": (
        "exactly-once",
        "warning",
        lambda shop: shop.update("enable_exactly_once_delivery", enable_exactly_once_delivery=True),
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_broken_is_found_and_mended_by_what_it_says(emulator: Emulator, case: str) -> None:
    check, state, break_it = BROKEN[case]
    shop = Shop(emulator)
    shop.provide()
    assert shop.bad() == []
    break_it(shop)
    found = examined(shop.adapter(), shop.subscription)
    assert bad(found) == shop.wrong(check, state)
    assert of(found, check).mend == "crossbus provision shop:bus"
    shop.provide()
    assert shop.bad() == []


def test_another_backstop_and_none(emulator: Emulator) -> None:
    shop = Shop(emulator, backstop=7)
    shop.provide()
    other = shop.subscription.replace(backstop=9)
    assert bad(examined(shop.adapter(), other)) == shop.wrong("backstop")
    shop.update("dead_letter_policy")
    # Attempts are counted only with one, so that no program could start.
    found = examined(shop.adapter(), shop.subscription)
    assert bad(found) == shop.wrong("declaration")
    assert "no dead-letter policy" in of(found, "declaration").text
    unlimited = shop.subscription.replace(retry=RetryPolicy(attempts="unlimited"))
    assert bad(examined(shop.adapter(), unlimited)) == shop.wrong("backstop")


def test_one_that_google_deletes_when_it_is_idle(emulator: Emulator) -> None:
    shop = Shop(emulator)
    shop.provide()
    shop.delete("DeleteSubscription", subscription="orders--billing")

    async def make(made: PubSubAdapter) -> None:
        goal = wanted.subscription(made.client, made.names, shop.subscription, "").request
        goal.expiration_policy.ttl.seconds = 10 * 86_400
        await made.client.send("CreateSubscription", goal)

    shop.do(make)
    found = examined(shop.adapter(), shop.subscription)
    assert bad(found) == shop.wrong("expiration")
    assert "864000 s without a consumer, declared never" in of(found, "expiration").text
    shop.provide()  # the emulator cannot change it, and is not asked to


def test_a_topic_that_is_missing(emulator: Emulator) -> None:
    shop = Shop(emulator)
    assert {Bad("wrong", "orders", "topic"), Bad("warning", "", "place")} <= set(shop.bad())


def test_a_topic_that_was_deleted_leaves_a_subscription_of_nothing(emulator: Emulator) -> None:
    shop = Shop(emulator)
    shop.provide()
    shop.delete("DeleteTopic", topic="orders")
    found = examined(shop.adapter(), shop.subscription)
    assert set(bad(found)) == {Bad("wrong", "orders", "topic"), *shop.wrong("declaration")}
    assert "was deleted, so that nothing comes into it" in of(found, "declaration").text


def test_ordering_otherwise_than_declared(emulator: Emulator) -> None:
    shop = Shop(emulator)
    shop.provide()
    ordered = shop.subscription.replace(ordered=True)
    found = examined(shop.adapter(), ordered)
    assert bad(found) == shop.wrong("declaration")
    assert "without message ordering" in of(found, "declaration").text
    shop = Shop(emulator, ordered=True)
    shop.provide()
    assert bad(examined(shop.adapter(), shop.subscription.replace(ordered=False))) == shop.wrong("ordering")


def test_one_that_cannot_be_looked_at_hides_no_other(emulator: Emulator) -> None:
    shop = Shop(emulator)
    shop.provide()
    other = Subscription(topic=Topic("orders"), name="audit")
    found = examined(shop.adapter(), shop.subscription.replace(ordered=True), other)
    assert set(bad(found)) == {
        Bad("wrong", "orders/billing", "declaration"),
        Bad("wrong", "orders/audit", "subscription"),
    }


def test_the_filter_of_an_adopted_subscription(emulator: Emulator) -> None:
    shop = Shop(emulator)
    shop.provide()
    adopted = shop.subscription.replace(
        resource="orders--billing", filter=exact(type="a"), external=True, on_mismatch="drop"
    )
    found = examined(shop.adapter(), adopted)
    assert bad(found) == shop.wrong("filter")
    assert of(found, "filter").mend.startswith("it is external")


def test_an_older_generation_of_a_changed_filter(emulator: Emulator) -> None:
    shop = Shop(emulator, filter=exact(type="a"))
    shop.provide()
    shop.subscription = shop.subscription.replace(filter=exact(type="b"))
    assert shop.bad() == [*shop.wrong("subscription"), *shop.wrong("generations", "warning")]
    shop.provide()
    found = examined(shop.adapter(), shop.subscription)
    assert bad(found) == shop.wrong("generations", "warning")
    assert "orders--billing--" in of(found, "generations").text


def test_an_older_generation_that_the_declaration_does_not_name(emulator: Emulator) -> None:
    shop = Shop(emulator, filter=exact(type="a"))
    shop.provide()
    shop.subscription = shop.subscription.replace(
        filter=exact(type="b"), options={"generations": ["orders--billing--0f0f0f0f"]}
    )
    shop.provide()
    assert shop.bad("generations") == shop.wrong("generations-listed")


# --- recorded answers: what the emulator lacks ------------------------------------------------------------------------


class Guarded(Shop):
    """Behind a guard that answers for IAM."""

    def __init__(self, emulator: Emulator, guard: Guard, **parameters: str) -> None:
        super().__init__(emulator)
        self.guard = guard
        self.parameters = {"endpoint": guard.address, "project_number": "4711", **parameters}

    def adapter(self) -> PubSubAdapter:
        place = Profile(
            adapter="pubsub", scheme="pubsub", target=self.project, parameters=self.parameters, origin="test"
        )
        return PubSubAdapter(place, clock=SystemClock(), credentials=self.guard.credentials())

    def grant(self) -> None:
        base = f"projects/{self.project}"
        for resource, role in (
            (f"{base}/topics/orders--billing--dead", "roles/pubsub.publisher"),
            (f"{base}/subscriptions/orders--billing", "roles/pubsub.subscriber"),
        ):
            from google.iam.v1 import policy_pb2

            policy = policy_pb2.Policy(etag=b"0")
            policy.bindings.add(role=role, members=[AGENT])
            self.guard.policies[resource] = policy


@pytest.fixture
def guarded(emulator: Emulator) -> Iterator[Guarded]:
    guard = Guard(emulator.address)
    shop = Guarded(emulator, guard)
    shop.provide()
    shop.grant()
    yield shop
    guard.close()


def test_all_is_well_with_permissions_and_grants(guarded: Guarded) -> None:
    found = examined(guarded.adapter(), guarded.subscription)
    assert bad(found) == []
    permissions = {"publish-permitted", "consume-permitted", "dead-letter-permitted", "agent-granted"}
    assert permissions <= {one.check for one in found}


@pytest.mark.parametrize(
    ("resource", "permission", "expected"),
    [
        ("/topics/orders", "pubsub.topics.publish", Bad("warning", "orders", "publish-permitted")),
        (
            "/subscriptions/orders--billing",
            "pubsub.subscriptions.consume",
            Bad("wrong", "orders/billing", "consume-permitted"),
        ),
        (
            "/topics/orders--billing--dead",
            "pubsub.topics.publish",
            Bad("wrong", "orders/billing", "dead-letter-permitted"),
        ),
    ],
)
def test_a_permission_that_is_missing(
    guarded: Guarded, resource: str, permission: str, expected: Bad
) -> None:
    guarded.guard.lacking.add((resource, permission))
    found = examined(guarded.adapter(), guarded.subscription)
    assert bad(found) == [expected]
    assert permission in of(found, expected.check).text


@pytest.mark.parametrize("resource", ["/topics/orders--billing--dead", "/subscriptions/orders--billing"])
def test_a_grant_that_the_service_agent_lacks(guarded: Guarded, resource: str) -> None:
    del guarded.guard.policies[f"projects/{guarded.project}{resource}"]
    found = examined(guarded.adapter(), guarded.subscription)
    assert bad(found) == guarded.wrong("agent-granted")
    assert AGENT in of(found, "agent-granted").text


def test_what_may_not_be_looked_at_is_unknown(guarded: Guarded) -> None:
    guarded.guard.denied |= {"GetTopic", "GetSubscription", "GetIamPolicy", "ListTopicSubscriptions"}
    found = examined(guarded.adapter(), guarded.subscription)
    assert {(one.state, one.check) for one in bad(found)} == {
        ("unknown", "looked"),
        ("unknown", "agent-granted"),
        ("unknown", "generations"),
    }


def test_a_token_that_is_refused(guarded: Guarded) -> None:
    guarded.guard.issuer.issue = lambda: "another"  # type: ignore[method-assign]
    found = examined(guarded.adapter(), guarded.subscription)
    assert bad(found) == [Bad("wrong", "", "credentials"), Bad("unknown", "", "looked")]


def test_a_subscription_that_was_detached() -> None:
    """The emulator cannot detach: what the service answers, as its API says."""
    from google.pubsub_v1 import types

    there = types.Subscription.pb()(detached=True)
    goal = wanted.Wanted(types.Subscription.pb()())
    assert [one.check for one in goal.differences(there)] == ["detached"]


# --- the connection ---------------------------------------------------------------------------------------------------


def test_nothing_answers() -> None:
    found = examined(
        "pubsub:my-project?endpoint=127.0.0.1:9", Subscription(topic=Topic("orders"), name="billing")
    )
    assert bad(found) == [Bad("wrong", "", "endpoint"), Bad("unknown", "", "looked")]


def test_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    from google.auth import exceptions

    def none(*_: Any, **__: Any) -> Any:
        raise exceptions.DefaultCredentialsError("none were found")

    monkeypatch.setattr("google.auth.default", none)
    found = examined("pubsub:my-project", Subscription(topic=Topic("orders"), name="billing"))
    assert bad(found) == [Bad("wrong", "", "credentials"), Bad("unknown", "", "looked")]


def test_no_project(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOOGLE_CLOUD_PROJECT", raising=False)
    found = examined(
        f"pubsub:?endpoint={emulator.address}", Subscription(topic=Topic("orders"), name="billing")
    )
    assert bad(found) == [Bad("wrong", "", "configuration"), Bad("unknown", "", "looked")]


def test_a_filter_of_more_than_256_bytes_costs(emulator: Emulator) -> None:
    long = {f"k{number}": "v" * 90 for number in range(4)}
    shop = Shop(emulator, filter=exact(long))
    shop.provide()
    found = examined(shop.adapter(), shop.subscription)
    assert bad(found) == shop.wrong("residual", "warning")
    assert "you pay for the delivery" in of(found, "residual").text
    assert load(f"pubsub:{shop.project}").default.target == shop.project


# --- it asks only -----------------------------------------------------------------------------------------------------


def test_it_changes_nothing_and_sends_nothing(guarded: Guarded) -> None:
    guarded.guard.calls.clear()
    guarded.guard.policies.clear()
    examined(guarded.adapter(), guarded.subscription, Subscription(topic=Topic("orders"), name="audit"))
    asked = {method for method, _ in guarded.guard.calls}
    assert asked == {
        "GetTopic",
        "GetSubscription",
        "ListTopicSubscriptions",
        "GetIamPolicy",
        "TestIamPermissions",
    }


def test_every_check_is_broken_by_a_test() -> None:
    broken = {check for check, _, _ in BROKEN.values()}
    elsewhere = {
        *("topic", "filter", "ordering", "detached", "backstop", "expiration"),
        *("generations", "generations-listed"),
    }
    recorded = {"publish-permitted", "consume-permitted", "dead-letter-permitted", "agent-granted"}
    assert broken | elsewhere | recorded == set(CHECKS)


def test_a_name_that_pubsub_does_not_take_hides_no_other(emulator: Emulator) -> None:
    shop = Shop(emulator)
    shop.provide()
    long = Subscription(topic=Topic("orders"), name="audit", resource="x" * 256)
    found = examined(shop.adapter(), shop.subscription, long)
    assert bad(found) == [Bad("wrong", "orders/audit", "declaration")]
    assert "3 to 255" in of(found, "declaration").text
    assert of(found, "generations").state == "ok", "the others are examined whole"
