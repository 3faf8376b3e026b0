"""Doctor on the local broker: on a server all is looked at; in a program's memory there is nothing to look at."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from crossbus.adapter import Change
from crossbus.checks import State
from crossbus.clock import SystemClock
from crossbus.config import load
from crossbus.event import new_id
from crossbus.filters import exact
from crossbus.topology import Subscription, Topic
from crossbus_local.provisioning import CHECKS, Step
from crossbus_local.queue import QueueSettings
from crossbus_local.remote import RemoteAdapter
from doctoring import Bad, bad, examined, of, topology_of
from server_process import Server
from support import run


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


class Shop:
    """A subscription that is well, and a hand to break it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.topic = f"orders-{new_id()[:8]}"
        self.subscription = Subscription(
            topic=Topic(self.topic), name="billing", filter=exact(type="a"), retention=3600.0
        )
        self.dead = f"{self.topic}--billing--dead"

    def do(self, what: Callable[[RemoteAdapter], Awaitable[None]]) -> None:
        async def main() -> None:
            made = RemoteAdapter(load(self.url).default, clock=SystemClock())
            await made.open()
            try:
                await what(made)
            finally:
                await made.close()

        run(main(), limit=60)

    def provide(self) -> None:
        async def what(made: RemoteAdapter) -> None:
            await made.provision(await made.plan(topology_of(self.subscription)))

        self.do(what)

    def step(self, method: str, *arguments: Any) -> None:
        change = Change("update", "it", "it", payload=Step(method, arguments))
        self.do(lambda made: made.provision([change]))

    def put(self, **changes: Any) -> None:
        wanted = {
            "filter": self.subscription.filter,
            "retention": 3600.0,
            "dead_letter": self.dead,
            "backstop": 100,
            **changes,
        }
        self.step("put_subscription", self.topic, "billing", QueueSettings(**wanted))

    def wrong(self, check: str, state: State = "wrong") -> list[Bad]:
        return [Bad(state, f"{self.topic}/billing", check)]


BROKEN: dict[str, tuple[str, State, Callable[[Shop], None]]] = {
    "no subscription": (
        "subscription",
        "wrong",
        lambda shop: shop.step("delete_subscription", shop.topic, "billing"),
    ),
    "no dead letter": ("dead-letter", "wrong", lambda shop: shop.step("delete_dead_letter", shop.dead)),
    "another dead letter": ("dead-letter", "wrong", lambda shop: shop.put(dead_letter="other")),
    "another filter": ("filter", "wrong", lambda shop: shop.put(filter=exact(type="b"))),
    "order": ("ordering", "wrong", lambda shop: shop.put(ordered=True)),
    "another lease": ("lease", "warning", lambda shop: shop.put(lease=30.0)),
    "another retention": ("retention", "wrong", lambda shop: shop.put(retention=60.0)),
    "another backstop": ("backstop", "wrong", lambda shop: shop.put(backstop=3)),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_broken_is_found_and_mended_by_what_it_says(server: Server, case: str) -> None:
    check, state, break_it = BROKEN[case]
    shop = Shop(server.url)
    shop.provide()
    assert bad(examined(shop.url, shop.subscription)) == []
    break_it(shop)
    found = examined(shop.url, shop.subscription)
    assert bad(found) == shop.wrong(check, state)
    assert of(found, check).mend == "crossbus provision shop:bus"
    shop.provide()
    assert bad(examined(shop.url, shop.subscription)) == []


def test_nothing_is_there_and_looking_makes_nothing(server: Server) -> None:
    shop = Shop(server.url)
    expected = {
        Bad("warning", "", "place"),
        Bad("wrong", shop.topic, "topic"),
        Bad("wrong", f"{shop.topic}/billing", "subscription"),
    }
    for _ in range(2):
        assert set(bad(examined(shop.url, shop.subscription))) == expected

    async def look(made: RemoteAdapter) -> None:
        found = await made._found()
        assert shop.topic not in found.topics

    shop.do(look)


def test_nothing_answers() -> None:
    found = examined("local+http://127.0.0.1:9", Subscription(topic=Topic("orders"), name="billing"))
    assert bad(found) == [Bad("wrong", "", "endpoint"), Bad("unknown", "", "looked")]


def test_a_key_that_is_wrong_or_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    with Server(CROSSBUS_SERVER_KEY="the-right-one") as guarded:
        shop = Shop(guarded.url)
        for key in ("", "a-wrong-one"):
            monkeypatch.setenv("CROSSBUS_KEY", key)
            found = examined(shop.url, shop.subscription)
            assert bad(found) == [Bad("wrong", "", "credentials"), Bad("unknown", "", "looked")]
            assert "CROSSBUS_KEY" in of(found, "credentials").text
            assert "one" not in of(found, "credentials").text.replace("none", "").split()
        monkeypatch.setenv("CROSSBUS_KEY", "the-right-one")
        shop.provide()
        assert bad(examined(shop.url, shop.subscription)) == []


def test_in_memory_there_is_nothing_to_look_at(tmp_path: Path) -> None:
    subscription = Subscription(topic=Topic("orders"), name="billing", backstop=2)
    found = examined("local:", subscription)
    assert bad(found) == [Bad("wrong", "orders/billing", "attempts")]
    assert "opening the bus makes all" in of(found, "endpoint").text
    file = tmp_path / "events.db"
    found = examined(f"local:?path={file}", subscription.replace(backstop=None))
    assert bad(found) == []
    assert not file.exists(), "looking made it"


def test_every_check_is_broken_by_a_test() -> None:
    assert {check for check, _, _ in BROKEN.values()} | {"topic"} == set(CHECKS)
