"""`Bus`: making, opening, checking, publishing, looking after, closing."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from cloudevents.core.v1.event import CloudEvent
from tests.consuming import until
from tests.scripted import ScriptedAdapter
from tests.support import run

from crossbus import (
    Backlog,
    Bus,
    BusClosedError,
    Change,
    ConfigurationError,
    DeclarationError,
    Event,
    EventTooLarge,
    InvalidEvent,
    PartialPublishError,
    PermissionDenied,
    Receipt,
    Subscription,
    UnsupportedError,
    event_type,
    exact,
)
from crossbus.adapter import Adapter, ReplayFrom
from crossbus.testing import Clock
from crossbus.topology import Topology


def event(id: str = "e-1", **fields: Any) -> Event:
    return Event(**{"id": id, "type": "t", "source": "/s", **fields})


@contextmanager
def refused(kind: type[Exception], text: str) -> Iterator[None]:
    """Expect exactly this text."""
    with pytest.raises(kind) as caught:
        yield
    assert str(caught.value) == text


# --- making -------------------------------------------------------------------------------------------------------


def test_nothing_configured_is_refused_and_says_what_to_set(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for variable in ("CROSSBUS_URL", "CROSSBUS_PROFILE", "CROSSBUS_CONFIG"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(ConfigurationError, match=r"^no bus is configured: .*CROSSBUS_URL=local: to try it"):
        Bus()


def test_an_adapter_takes_no_url_beside_it() -> None:
    for arguments in ({"url": "local:"}, {"profile": "production"}):
        with refused(
            ConfigurationError, "Bus(adapter=...) takes no url and no profile: the adapter has its own"
        ):
            Bus(adapter=ScriptedAdapter(), **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"provision": "yes"}, "provision='yes' is not allowed; one of 'auto', 'always', 'never'"),
        ({"validate": "none"}, "validate='none' is not allowed; one of 'portable', 'provider'"),
    ],
)
def test_a_choice_that_there_is_not_is_refused(arguments: dict[str, Any], text: str) -> None:
    with refused(DeclarationError, text):
        Bus("local:", **arguments)


# --- opening and closing ------------------------------------------------------------------------------------------


def test_opening_and_closing_twice_is_harmless_and_a_closed_bus_opens_again() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        bus = Bus(adapter=adapter)
        assert not bus.is_open
        await bus.close()
        await bus.open()
        await bus.open()
        assert bus.is_open
        assert (adapter.opened, adapter.closed) == (1, 0)
        await bus.close()
        await bus.close()
        assert not bus.is_open
        assert (adapter.opened, adapter.closed) == (1, 1)
        async with bus:
            await bus.publish("orders", event())
        assert (adapter.opened, adapter.closed) == (2, 2)

    run(scenario())


def test_a_bus_opens_again_in_another_event_loop() -> None:
    bus = Bus("local:")
    bus.subscribe("orders", "billing")

    async def publish(id: str) -> int | None:
        async with bus:
            await bus.publish("orders", event(id))
            return (await bus.backlog("orders", "billing")).waiting

    assert [asyncio.run(publish("e-1")), asyncio.run(publish("e-2"))] == [1, 2], (
        "a private broker keeps its events"
    )


def test_hooks_run_in_order_plain_and_async_and_may_use_the_bus() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        bus = Bus(adapter=adapter)
        steps: list[str] = []

        @bus.on_start
        def connect(given: Bus) -> None:
            given.state.database = "open"
            steps.append("start")

        @bus.on_start
        async def announce(given: Bus) -> None:
            await given.publish("orders", event("hello"))
            steps.append("start async")

        @bus.on_stop
        async def say_goodbye(given: Bus) -> None:
            await given.publish("orders", event("goodbye"))
            assert adapter.closed == 0
            steps.append(f"stop {given.state.database}")

        async with bus:
            steps.append("block")
        assert steps == ["start", "start async", "block", "stop open"]
        assert adapter.published == ["hello", "goodbye"]

    run(scenario())


def test_a_start_hook_that_fails_keeps_the_bus_closed() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        bus = Bus(adapter=adapter)

        @bus.on_start
        def connect(bus: Bus) -> None:
            raise OSError("no database")

        with pytest.raises(OSError, match="no database"):
            await bus.open()
        assert not bus.is_open
        assert adapter.closed == 1

    run(scenario())


def test_a_stop_hook_that_fails_still_closes_the_bus() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        bus = Bus(adapter=adapter)

        @bus.on_stop
        def disconnect(bus: Bus) -> None:
            raise OSError("no database")

        await bus.open()
        with pytest.raises(OSError, match="no database"):
            await bus.close()
        assert not bus.is_open
        assert adapter.closed == 1

    run(scenario())


def test_an_adapter_that_fails_to_close_is_logged_and_the_bus_closed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Stubborn(ScriptedAdapter):
        async def close(self) -> None:
            raise OSError("will not")

    async def scenario() -> None:
        bus = Bus(adapter=Stubborn())
        await bus.open()
        await bus.close()
        assert not bus.is_open

    run(scenario())
    assert "closing scripted failed" in caplog.text
    assert "will not" in caplog.text


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (lambda bus: bus.publish("orders", event()), "publishing to 'orders'"),
        (lambda bus: bus.publish_many("orders", [event()]), "publishing to 'orders'"),
        (lambda bus: bus.provision(), "provisioning"),
        (lambda bus: bus.replay("orders", "billing", position="1"), "replay of orders/billing"),
        (lambda bus: bus.backlog("orders", "billing"), "backlog of orders/billing"),
        (lambda bus: bus.dead_letters("orders", "billing"), "dead letters of orders/billing"),
        (lambda bus: bus.explain("orders", "billing"), "explain of orders/billing"),
        (lambda bus: bus.adapter_for("orders"), "adapter_for"),
        (lambda bus: bus.deliveries("orders", "billing").__aenter__(), "deliveries of orders/billing"),
    ],
)
def test_a_closed_bus_says_so(call: Any, what: str) -> None:
    async def scenario() -> None:
        bus = Bus(adapter=ScriptedAdapter())
        bus.subscribe("orders", "billing")
        with refused(
            BusClosedError, f"{what}: the bus is not open; use `async with bus:` or await bus.open()"
        ):
            answer = call(bus)
            if asyncio.iscoroutine(answer):
                await answer

    run(scenario())


# --- publishing ---------------------------------------------------------------------------------------------------


def test_events_of_every_kind_are_published() -> None:
    @event_type("com.acme.order.placed", source="/shop")
    @dataclass
    class Placed:
        order: str

    foreign = CloudEvent({"id": "e-1", "type": "t", "source": "/theirs", "specversion": "1.0"}, None)

    async def scenario() -> None:
        adapter = ScriptedAdapter()
        async with Bus(adapter=adapter) as bus:
            assert await bus.publish("orders", foreign) == Receipt("orders", "e-1", "p-0")
            await bus.publish("orders", event("e-2"))
            receipts = await bus.publish_many("orders", [Placed("o-1"), event("e-3"), foreign])
            assert [receipt.event_id for receipt in receipts][1:] == ["e-3", "e-1"]
        assert [e.source for _, events in adapter.sent for e in events] == [
            "/theirs",
            "/s",
            "/shop",
            "/s",
            "/theirs",
        ]
        assert adapter.sent[2][1][0].data == {"order": "o-1"}

    run(scenario())


def test_what_is_no_event_is_refused() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        async with Bus(adapter=adapter) as bus:
            for nonsense, name in (({"type": "t"}, "dict"), ("text", "str"), (None, "NoneType")):
                with refused(
                    DeclarationError,
                    f"{name} is no event: publish an Event, an event of the cloudevents package, or an instance of a "
                    "class with @event_type",
                ):
                    await bus.publish("orders", nonsense)
            with refused(DeclarationError, "Event is a class: publish an instance of it"):
                await bus.publish("orders", Event)
        assert adapter.sent == []

    run(scenario())


def test_an_event_without_source_is_refused_unless_the_bus_has_one() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        async with Bus(adapter=adapter) as bus:
            with pytest.raises(InvalidEvent, match="source") as caught:
                await bus.publish("orders", Event(type="t"))
            assert caught.value.attribute == "source"
            bus.source = "/shop"
            await bus.publish("orders", Event(type="t"))
            bus.source = None
            with pytest.raises(PartialPublishError) as partial:
                await bus.publish_many("orders", [Event(type="t"), event()])
        assert [result.error is None for result in partial.value.results] == [False, True]

    run(scenario())


def test_a_topic_name_that_is_none_is_refused_before_the_network() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        async with Bus(adapter=adapter) as bus:
            with pytest.raises(DeclarationError, match=r"^topic name 'Orders' is not allowed: "):
                await bus.publish("Orders", event())

    run(scenario())


def test_publishing_to_a_topic_that_the_configuration_does_not_list_is_refused() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        async with Bus(adapter=adapter, config={"topics": {"orders": {"resource": "arn:orders"}}}) as bus:
            with pytest.raises(DeclarationError, match="did you mean 'orders'"):
                await bus.publish("ordres", event())
            await bus.publish("orders", event())
        assert adapter.published == ["e-1"]

    run(scenario())


@pytest.mark.parametrize("where", ["the bus", "the topic"])
def test_validation_may_be_widened_to_what_the_provider_takes(where: str) -> None:
    async def scenario() -> None:
        long_type = event(type="t" * 200)
        adapter = ScriptedAdapter(event_bytes=5000)
        async with Bus(adapter=adapter) as bus:
            with pytest.raises(InvalidEvent, match="128"):
                await bus.publish("orders", long_type)
        if where == "the bus":
            bus = Bus(adapter=adapter, validate="provider")
        else:
            bus = Bus(adapter=adapter, config={"topics": {"orders": {"validate": "provider"}}})
        async with bus:
            await bus.publish("orders", long_type)
            with pytest.raises(EventTooLarge, match="5,000"):
                await bus.publish("orders", event(data="x" * 6000))
            with pytest.raises(InvalidEvent, match="crossbus"):
                await bus.publish("orders", event(extensions={"crossbussub": "x"}))

    run(scenario())


def test_topics_of_other_profiles_are_published_there() -> None:
    config = {
        "profiles": {"here": {"url": "local:"}, "there": {"url": "local:"}},
        "topics": {"orders": {}, "invoices": {"profile": "there"}},
    }

    async def scenario() -> None:
        bus = Bus(profile="here", config=config)
        bus.subscribe("orders", "billing")
        bus.subscribe("invoices", "archive")
        async with bus:
            await bus.publish("orders", event())
            await bus.publish("invoices", event())
            assert (await bus.backlog("orders", "billing")).waiting == 1
            assert (await bus.backlog("invoices", "archive")).waiting == 1
            here, there = bus.adapter_for(), bus.adapter_for("invoices")
            assert here is bus.adapter_for("orders")
            assert here is not there
            assert [adapter.profile.name for adapter in (here, there)] == ["here", "there"]

    run(scenario())


# --- looking after ------------------------------------------------------------------------------------------------


def test_provision_plans_and_carries_out() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        bus = Bus(adapter=adapter)
        bus.topic("orders")
        async with bus:
            planned = [Change("create", "topic", "orders")]
            assert await bus.provision(dry_run=True) == planned
            assert adapter.provisioned == []
            assert await bus.provision() == planned
            assert adapter.provisioned == planned

    run(scenario())


def test_prune_deletes_what_is_declared_no_more() -> None:
    async def scenario() -> None:
        first = Bus("local:shared-by-prune")
        first.subscribe("orders", "billing")
        first.subscribe("orders", "audit")
        async with first:
            pass
        second = Bus("local:shared-by-prune")
        second.subscribe("orders", "billing")
        async with second:
            assert await second.provision() == []
            changes = await second.provision(prune=True, dry_run=True)
            assert [change[:3] for change in changes] == [
                ("delete", "subscription", "orders/audit"),
                ("delete", "dead letter", "orders--audit--dead"),
            ]
            await second.provision(prune=True)
            assert await second.provision(prune=True) == []

    run(scenario())


def test_explain_says_who_evaluates_what() -> None:
    async def scenario() -> None:
        bus = Bus(adapter=ScriptedAdapter())
        bus.subscribe("orders", "billing", filter=exact(type="t"))
        bus.subscribe("orders", "audit")
        async with bus:
            explained = bus.explain("orders", "billing")
            assert explained.residual is not None
            assert "scripted delivers every event; you pay" in str(explained)
            assert "every event of the topic is delivered" in str(bus.explain("orders", "audit"))

    run(scenario())


def test_replay_and_backlog_are_the_adapters() -> None:
    class Replaying(ScriptedAdapter):
        async def replay(self, subscription: Subscription, start: ReplayFrom) -> int | None:
            starts.append((str(subscription), start))
            return 7

        async def backlog(self, subscription: Subscription) -> Backlog:
            return Backlog(waiting=3)

    starts: list[Any] = []

    async def scenario() -> None:
        bus = Bus(adapter=Replaying(without=["replay_position"]))
        bus.subscribe("orders", "billing")
        since = datetime(2025, 1, 1, tzinfo=UTC)
        async with bus:
            assert await bus.replay("orders", "billing", time=since) == 7
            assert starts == [("orders/billing", ReplayFrom(time=since))]
            assert (await bus.backlog("orders", "billing")).waiting == 3
            with pytest.raises(
                UnsupportedError, match=r"^replay of orders/billing: scripted cannot"
            ) as caught:
                await bus.replay("orders", "billing", position="5")
            assert caught.value.capability == "replay_position"
            for nonsense in ({}, {"time": since, "position": "5"}):
                with refused(ValueError, "ReplayFrom takes a time or a position, one of the two"):
                    await bus.replay("orders", "billing", **nonsense)  # type: ignore[arg-type]
            with refused(ValueError, "ReplayFrom(time=...) has no time zone; make it aware"):
                await bus.replay("orders", "billing", time=datetime(2025, 1, 1))

    run(scenario())


def test_optional_parts_that_an_adapter_lacks_say_so() -> None:
    async def scenario() -> None:
        bus = Bus(adapter=ScriptedAdapter())
        bus.subscribe("orders", "billing")
        async with bus:
            with pytest.raises(
                UnsupportedError, match=r"^backlog of orders/billing: scripted has no backlog \("
            ):
                await bus.backlog("orders", "billing")
            with pytest.raises(UnsupportedError, match=r"^dead letters of orders/billing: scripted has no "):
                bus.dead_letters("orders", "billing")
            with pytest.raises(
                UnsupportedError, match=r"^replay of orders/billing: scripted has no replay_pos"
            ):
                await bus.replay("orders", "billing", position="1")
            adapter, declared = bus.adapter_for("orders"), bus.subscriptions[0].declaration
            for lacking in (
                lambda: adapter.temporary_subscription(declared.topic),
                lambda: adapter.push_decoder(declared),
            ):
                with pytest.raises(UnsupportedError, match="scripted has no"):
                    lacking()
            for coroutine in (Adapter.plan(adapter, Topology()), Adapter.provision(adapter, [])):
                with pytest.raises(UnsupportedError, match="scripted has no provision"):
                    await coroutine
            assert list(await Adapter.inspect(adapter, Topology())) == []
            assert not Adapter.is_local.fget(adapter)  # type: ignore[attr-defined]

    run(scenario())


def test_a_subscription_declared_while_open_is_looked_after_once_its_adapter_is_open() -> None:
    config = {
        "profiles": {"here": {"url": "local:"}, "there": {"url": "local:"}},
        "topics": {"orders": {}, "invoices": {"profile": "there"}},
    }

    async def scenario() -> None:
        async with Bus(profile="here", config=config) as bus:
            bus.subscribe("invoices", "archive")
            with refused(
                DeclarationError, "subscription invoices/archive was declared after the bus was opened"
            ):
                await bus.backlog("invoices", "archive")
            with refused(
                DeclarationError,
                "no adapter is open for topic 'invoices'; declare it before opening the bus",
            ):
                bus.adapter_for("invoices")
            await bus.publish("invoices", event())
            assert bus.adapter_for("invoices").profile.name == "there"

    run(scenario())


def test_the_clock_is_the_adapters_unless_another_is_given() -> None:
    clock, other = Clock(), Clock()
    adapter = ScriptedAdapter(clock=clock)
    assert Bus(adapter=adapter).clock is clock
    assert Bus(adapter=adapter, clock=other).clock is other


def test_an_event_published_nowhere_is_dropped_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        bus = Bus("local:")
        bus.topic("orders")
        async with bus:
            for number in range(3):
                await bus.publish("orders", event(f"e-{number}"))

    with caplog.at_level(logging.WARNING):
        run(scenario())
    assert caplog.text.count("no subscription") == 1


def test_who_may_not_publish_is_told_by_the_portable_error() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()

        def deny(wires: Any) -> Exception:
            return PermissionError("events:PutEvents")

        adapter.answers.append(deny)
        async with Bus(adapter=adapter) as bus:
            with refused(
                PermissionDenied, "publishing to 'orders' failed: PermissionError: events:PutEvents"
            ):
                await bus.publish("orders", event())
            await until(lambda: not adapter.under_way)

    run(scenario())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_bus_that_was_open_refuses_in_a_forked_child() -> None:
    program = """
        import asyncio, os
        from crossbus import Bus, CrossbusError, Event

        bus = Bus("local:", source="/shop")
        other = Bus("local:", source="/shop")
        for each in (bus, other):
            each.topic("orders")

        async def use(what):
            try:
                if what == "publish":
                    await bus.publish("orders", Event(type="t"))
                elif what == "open":
                    await bus.open()
                elif what == "other":
                    async with other:
                        await other.publish("orders", Event(type="t"))
                    await bus.close()
                print(what, "went well", flush=True)
            except CrossbusError as error:
                print(type(error).__name__, error, flush=True)

        async def parent():
            async with bus:
                await bus.publish("orders", Event(type="t"))
                child = os.fork()
                if child == 0:
                    asyncio._set_running_loop(None)
                    for what in ("publish", "open", "other"):
                        asyncio.run(use(what))
                    os._exit(0)
                os.waitpid(child, 0)
                await bus.publish("orders", Event(type="t"))
                print("the parent goes on", flush=True)

        asyncio.run(parent())
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    said = "this bus was opened in the parent process, before a fork; make and open one in this process"
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"BusClosedError publishing to 'orders': {said}"), done.stderr
    assert lines[1].startswith(f"BusClosedError opening: {said}")
    assert lines[2:] == ["other went well", "the parent goes on"]
