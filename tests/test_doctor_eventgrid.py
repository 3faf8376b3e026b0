"""Doctor on Event Grid: broken on `crossbus serve`, and by recorded answers of Azure's control plane."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from arm_eventgrid import OWNER
from crossbus.checks import State
from crossbus.clock import SystemClock
from crossbus.config import load
from crossbus.event import new_id
from crossbus.filters import exact, not_
from crossbus.topology import Subscription, Topic
from crossbus_eventgrid import EventGridAdapter
from crossbus_eventgrid.checks import CHECKS
from crossbus_eventgrid.dead_letters import DEAD_SUBSCRIPTION
from crossbus_eventgrid.rest import Rest
from crossbus_eventgrid.settings import settings_of
from doctoring import Bad, Moved, bad, examined, of, topology_of
from eventgrid_harness import World, strict_world
from server_process import Server
from support import run


class Shop:
    """A subscription that is well, and a hand to break it."""

    def __init__(self, url: str, topic: str, adapter: Callable[[], EventGridAdapter] | None = None) -> None:
        self.url = url
        self.topic = topic
        self.adapter = adapter or (lambda: EventGridAdapter(load(url).default, clock=SystemClock()))
        self.subscription = Subscription(
            topic=Topic(topic), name="billing", filter=exact(type="com.acme.placed"), retention=3600.0
        )
        self.dead = f"{topic}--billing--dead"

    def do(self, what: Callable[[EventGridAdapter], Awaitable[None]]) -> None:
        async def main() -> None:
            made = self.adapter()
            await made.open()
            try:
                await what(made)
            finally:
                await made.close()

        run(main(), limit=60)

    def provide(self) -> None:
        async def what(made: EventGridAdapter) -> None:
            await made.provision(await made.plan(topology_of(self.subscription)))

        self.do(what)

    def put(self, **changes: Any) -> None:
        settings = settings_of(self.subscription)._replace(**changes)
        self.do(lambda made: made.control().put_subscription(self.topic, "billing", settings))

    def delete_topic(self, name: str) -> None:
        self.do(lambda made: made.control().delete_topic(name))

    def delete_subscription(self, topic: str, name: str) -> None:
        self.do(lambda made: made.control().delete_subscription(topic, name))

    def bad(self, *but: str) -> list[Bad]:
        return bad(examined(self.adapter(), self.subscription), *but)

    def wrong(self, check: str, state: State = "wrong") -> list[Bad]:
        return [Bad(state, f"{self.topic}/billing", check)]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


@pytest.fixture(scope="module")
def azure() -> Iterator[World]:
    with strict_world(shortest_wait=1) as found:
        yield found


@pytest.fixture(params=["local server", "recorded answers"])
def shop(request: pytest.FixtureRequest) -> Shop:
    topic = f"orders-{new_id()[:8]}"
    if request.param == "local server":
        server: Server = request.getfixturevalue("server")
        return Shop(f"eventgrid:?endpoint=http://127.0.0.1:{server.port}", topic)
    azure: World = request.getfixturevalue("azure")
    return Shop(azure.url, topic, lambda: azure.adapter())


BROKEN: dict[str, tuple[str, State, Callable[[Shop], None]]] = {
    "no subscription": (
        "subscription",
        "wrong",
        lambda shop: shop.delete_subscription(shop.topic, "billing"),
    ),
    "no topic of the dead letter": ("dead-letter", "wrong", lambda shop: shop.delete_topic(shop.dead)),
    "no subscription of the dead letter": (
        "dead-letter",
        "wrong",
        lambda shop: shop.delete_subscription(shop.dead, DEAD_SUBSCRIPTION),
    ),
    "another filter": (
        "filter",
        "wrong",
        lambda shop: shop.put(native='{"includedEventTypes":["com.acme.other"]}'),
    ),
    "another lock": ("lease", "warning", lambda shop: shop.put(lease=90)),
    "another delivery count": ("backstop", "wrong", lambda shop: shop.put(receives=3)),
    "another time to live": ("retention", "wrong", lambda shop: shop.put(retention=600)),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_broken_is_found_and_mended_by_what_it_says(shop: Shop, case: str) -> None:
    check, state, break_it = BROKEN[case]
    shop.provide()
    assert shop.bad() == []
    break_it(shop)
    found = examined(shop.adapter(), shop.subscription)
    assert bad(found) == shop.wrong(check, state)
    assert of(found, check).mend == "crossbus provision shop:bus"
    shop.provide()
    assert shop.bad() == []


def test_nothing_is_there(shop: Shop) -> None:
    assert {
        Bad("warning", "", "place"),
        Bad("wrong", shop.topic, "topic"),
        Bad("wrong", f"{shop.topic}/billing", "subscription"),
    } == set(shop.bad())


# --- recorded answers -------------------------------------------------------------------------------------------------


@pytest.fixture
def entra(azure: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """Signed in with Entra, where roles count and no key."""
    monkeypatch.setattr(Rest, "has_key", False)
    shop = Shop(azure.url, f"orders-{new_id()[:8]}", lambda: azure.adapter())
    shop.provide()
    before = dict(azure.arm.roles)
    yield shop
    azure.arm.roles.clear()
    azure.arm.roles.update(before)
    azure.arm.forbidden.clear()


def test_a_role_assignment_that_is_missing(entra: Shop, azure: World) -> None:
    assert entra.bad() == []
    azure.arm.roles[entra.topic] = [OWNER]  # who owns it may not send: that is a data action
    assert entra.bad() == [Bad("warning", entra.topic, "publish-permitted")]
    azure.arm.roles[entra.topic] = azure.arm.roles["*"]
    azure.arm.roles[entra.dead] = []
    found = examined(entra.adapter(), entra.subscription)
    assert bad(found) == entra.wrong("dead-letter-permitted")
    assert "Microsoft.EventGrid/events/send/action" in of(found, "dead-letter-permitted").text
    assert "EventGrid Data Sender" in of(found, "dead-letter-permitted").mend


def test_a_data_action_that_is_excluded_is_none(entra: Shop, azure: World) -> None:
    everything = {"dataActions": ["*"], "notDataActions": []}
    azure.arm.roles[entra.topic] = [everything]
    assert entra.bad() == []
    azure.arm.roles[entra.topic] = [{**everything, "notDataActions": ["Microsoft.EventGrid/events/*"]}]
    assert entra.bad() == [Bad("warning", entra.topic, "publish-permitted")]


def test_receiving_that_is_not_permitted(azure: World) -> None:
    shop = Shop(azure.url, f"orders-{new_id()[:8]}", lambda: azure.adapter())
    shop.provide()
    azure.namespace.forbids = True
    try:
        found = examined(shop.adapter(), shop.subscription)
    finally:
        azure.namespace.forbids = False
    assert bad(found) == shop.wrong("consume-permitted")
    assert "EventGrid Data Receiver" in of(found, "consume-permitted").text


def test_a_control_plane_that_forbids_is_unknown(entra: Shop, azure: World) -> None:
    azure.arm.forbidden.add("GET")
    found = examined(entra.adapter(), entra.subscription)
    assert {(one.state, one.check) for one in bad(found)} == {
        ("unknown", "publish-permitted"),
        ("unknown", "dead-letter-permitted"),
        ("unknown", "looked"),
    }
    assert any("Microsoft.EventGrid/namespaces/topics/read" in one.text for one in found)


# --- the connection ---------------------------------------------------------------------------------------------------


def test_a_key_that_is_refused(azure: World) -> None:
    shop = Shop(azure.url, f"orders-{new_id()[:8]}", lambda: azure.adapter())
    shop.provide()
    right = azure.namespace.key
    azure.namespace.key = "another"
    try:
        found = examined(shop.adapter(), shop.subscription)
    finally:
        azure.namespace.key = right
    assert bad(found) == [Bad("wrong", "", "credentials"), Bad("unknown", "", "looked")]
    assert right not in str(found)


def test_nothing_answers() -> None:
    shop = Shop("eventgrid:?endpoint=http://127.0.0.1:9", "orders")
    found = examined(shop.adapter(), shop.subscription)
    assert bad(found) == [Bad("wrong", "", "endpoint"), Bad("unknown", "", "looked")]
    assert "crossbus serve" in of(found, "endpoint").text


def test_a_clock_that_is_off(server: Server) -> None:
    shop = Shop(f"eventgrid:?endpoint=http://127.0.0.1:{server.port}", f"orders-{new_id()[:8]}")
    shop.provide()
    adapter = EventGridAdapter(load(shop.url).default, clock=Moved(-900))
    found = examined(adapter, shop.subscription)
    assert bad(found) == [Bad("wrong", "", "clock")]


def test_what_event_grid_cannot_hold_is_said_as_at_start(server: Server) -> None:
    shop = Shop(f"eventgrid:?endpoint=http://127.0.0.1:{server.port}", f"orders-{new_id()[:8]}")
    shop.provide()
    shop.subscription = shop.subscription.replace(ordered=True)
    found = examined(shop.adapter(), shop.subscription)
    assert bad(found) == shop.wrong("capability")
    assert "is ordered: eventgrid cannot do that" in of(found, "capability").text
    shop.subscription = shop.subscription.replace(ordered=False, retention=8 * 86_400.0)
    found = examined(shop.adapter(), shop.subscription)
    assert bad(found) == shop.wrong("declaration")
    assert "eventgrid allows" in of(found, "declaration").text


def test_a_filter_that_event_grid_has_nothing_of_costs(server: Server) -> None:
    shop = Shop(f"eventgrid:?endpoint=http://127.0.0.1:{server.port}", f"orders-{new_id()[:8]}")
    shop.subscription = shop.subscription.replace(filter=not_(exact(type="a")))
    shop.provide()
    assert shop.bad() == shop.wrong("residual", "warning")


# --- it asks only -----------------------------------------------------------------------------------------------------


def test_it_changes_nothing_and_sends_nothing(entra: Shop, azure: World) -> None:
    azure.arm.requests.clear()
    azure.namespace.requests.clear()
    before = {topic: sorted(queues) for topic, queues in azure.namespace.topics.items()}
    examined(entra.adapter(), entra.subscription, Subscription(topic=Topic(entra.topic), name="audit"))
    assert {method for method, _ in azure.arm.requests} == {"GET"}
    asked = {path.partition("?")[0].rpartition(":")[2] for _, path in azure.namespace.requests}
    assert asked == {"renewLock"}
    assert {topic: sorted(queues) for topic, queues in azure.namespace.topics.items()} == before


def test_every_check_is_broken_by_a_test() -> None:
    broken = {check for check, _, _ in BROKEN.values()}
    permissions = {"publish-permitted", "consume-permitted", "dead-letter-permitted"}
    assert broken | {"topic"} | permissions == set(CHECKS)
