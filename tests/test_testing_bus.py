"""A test's bus and the program's own: what is borrowed is given back, no cloud is reached, no thread is left."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.support import run

from crossbus import Bus, BusClosedError, DeclarationError, Event, NotFound, Reject, SyncBus, exact
from crossbus.testing import Handled, SyncTestBus, TestBus

PLACED = "com.acme.order.placed"


def placed(order: str = "o-1", **attributes: Any) -> Event:
    return Event(type=PLACED, data={"order": order}, **{"source": "/shop", **attributes})


def outcomes(handled: list[Handled]) -> list[str]:
    return [one.outcome for one in handled]


# --- the program's own Bus ----------------------------------------------------------------------------------------


def test_the_bus_is_given_back_as_it_was() -> None:
    bus = Bus("local:", source="/shop")
    hooks: list[str] = []
    bus.state.kept = "kept"

    @bus.on_start
    def start(of: Bus) -> None:
        hooks.append("start")
        of.state.made = "made"

    @bus.on_stop
    async def stop(of: Bus) -> None:
        hooks.append("stop")

    @bus.subscribe("orders", "billing")
    async def bill(event: Event) -> None: ...

    before = dict(vars(bus))

    class Failed(Exception): ...

    async def use() -> None:
        async with TestBus(bus) as test:
            assert bus.is_open
            assert bus.state.made == "made"
            bus.state.kept = "changed"
            test.subscribe("orders", "more")(bill)
            bus.on_start(start)
            await test.publish("orders", placed())
            await test.wait_idle()
            assert len(test.handled()) == 2
            raise Failed

    async def main() -> None:
        for _ in range(2):
            with pytest.raises(Failed):
                await use()
            assert not bus.is_open
            assert vars(bus) == before
            assert vars(bus.state) == {"kept": "kept"}
            assert [str(handle.declaration) for handle in bus.subscriptions] == ["orders/billing"]

    run(main())
    assert hooks == ["start", "stop"] * 2


def test_what_one_test_leaves_no_other_test_finds() -> None:
    bus = Bus("local:", source="/shop")
    bus.subscribe("orders", "billing")

    async def main() -> None:
        async with bus:
            await bus.publish("orders", placed("mine"))
        async with TestBus(bus) as test:
            assert (await bus.backlog("orders", "billing")).waiting == 0
            await test.publish("orders", placed("of the test"))
        async with TestBus(bus):
            assert (await bus.backlog("orders", "billing")).waiting == 0
        async with bus:
            assert (await bus.backlog("orders", "billing")).waiting == 1

    run(main())


def test_an_open_bus_is_refused_and_left_alone() -> None:
    async def main() -> None:
        async with Bus("local:") as bus:
            with pytest.raises(DeclarationError, match="open already"):
                async with TestBus(bus):
                    pass
            assert bus.is_open

    run(main())


def test_a_bus_that_fails_to_open_is_given_back() -> None:
    bus = Bus("local:")

    @bus.on_start
    def start(of: Bus) -> None:
        raise ValueError("no database")

    before = dict(vars(bus))
    threads = threading.active_count()
    with pytest.raises(ValueError, match="no database"), SyncTestBus(bus):
        pass
    assert vars(bus) == before
    assert threading.active_count() == threads


def test_a_program_that_closes_the_bus_is_told() -> None:
    async def main() -> None:
        async with TestBus() as test:
            await test.bus.close()
            with pytest.raises(BusClosedError, match="is not open"):
                await test.publish("orders", placed())

    run(main())


def test_only_a_bus_can_be_tested() -> None:
    with pytest.raises(DeclarationError, match="takes the program's Bus, not str"):
        TestBus("local:")  # type: ignore[arg-type]


def test_a_topic_that_nobody_declared_is_not_there() -> None:
    with SyncTestBus() as bus, pytest.raises(NotFound, match="ordres"):
        bus.publish("ordres", placed())


def configuration(tmp_path: Path) -> Path:
    path = tmp_path / "crossbus.toml"
    path.write_text(
        """
default_profile = "production"

[profiles.production]
url = "local:production"

[profiles.archive]
url = "local:archive"

[topics.orders]
resource = "arn:aws:events:eu-west-1:123456789012:event-bus/shared"
external = true

[topics.bills]
resource = "arn:aws:events:eu-west-1:123456789012:event-bus/shared"
profile = "archive"

[subscriptions."orders/billing"]
resource = "https://sqs.eu-west-1.amazonaws.com/123456789012/billing"
dead_letter_resource = "https://sqs.eu-west-1.amazonaws.com/123456789012/dead"
external = true
on_mismatch = "drop"
"""
    )
    return path


def test_resources_of_a_cloud_mean_nothing_in_a_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CROSSBUS_URL", raising=False)
    bus = Bus(config=configuration(tmp_path), source="/shop")

    @bus.subscribe("orders", "billing", filter=exact(type=PLACED))
    async def bill(event: Event) -> None:
        if event.data["order"] == "bad":
            raise Reject("bad")
        await bus.publish("bills", event)

    @bus.subscribe("bills", "mail")
    async def mail(event: Event) -> None: ...

    with SyncTestBus(bus) as test:
        other = Event(type="com.acme.other", source="/shop")
        test.publish_many("orders", [placed(), placed("bad"), other])
        test.wait_idle()
        found = {
            (one.event.type, one.subscription): one.outcome
            for one in test.handled()
            if one.event.data != {"order": "bad"}
        }
        assert found == {
            (PLACED, "billing"): "ack",
            (
                "com.acme.other",
                "billing",
            ): "drop",  # the foreign resource has no filter: ours is evaluated here
            (PLACED, "mail"): "ack",
        }
        assert [letter.reason for letter in test.dead_letters("orders", "billing")] == ["bad"]
        assert test.bus.adapter_for("orders") is test.bus.adapter_for("bills")
        assert test.complete(bus.backlog("orders", "billing")).dead == 1
        assert test.complete(bus.replay("bills", "mail", time=datetime(2025, 1, 1, tzinfo=UTC))) == 1
        test.wait_idle()
        assert outcomes(test.handled("bills", "mail")) == ["ack", "ack"]
        assert test.complete(bus.provision(dry_run=True)) == []


def test_a_misspelt_topic_is_refused_as_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CROSSBUS_URL", raising=False)
    bus = Bus(config=configuration(tmp_path), source="/shop")
    with SyncTestBus(bus) as test, pytest.raises(DeclarationError, match="did you mean 'orders'"):
        test.publish("ordres", placed())


# --- a SyncBus ----------------------------------------------------------------------------------------------------


def test_a_sync_bus_is_tested_in_its_own_loop() -> None:
    bus = SyncBus("local:", source="/shop")
    bus.topic("bills")
    opened: list[bool] = []

    @bus.on_start
    def start(of: SyncBus) -> None:
        opened.append(of.is_open)

    @bus.subscribe("orders", "billing")
    def bill(order: dict[str, str]) -> None:
        bus.publish("bills", Event(type="com.acme.bill", data=order))

    def place_order() -> None:
        bus.publish("orders", placed(source="/here"))

    before = dict(vars(bus.bus))
    for _ in range(2):
        with SyncTestBus(bus) as test:
            place_order()
            test.publish("orders", placed("o-2"))
            test.wait_idle()
            assert sorted(event.data["order"] for event in test.published("bills")) == ["o-1", "o-2"]
            assert outcomes(test.handled("orders", "billing")) == ["ack", "ack"]
        assert vars(bus.bus) == before
    assert opened == [True, True]

    with pytest.raises(ValueError, match="in a callback"), SyncTestBus(bus) as test:
        test.complete(_soon(ValueError("in a callback")))
    with bus:  # its loop is as it was
        bus.publish("orders", placed())


def test_the_form_for_asyncio_takes_no_sync_bus() -> None:
    with pytest.raises(DeclarationError, match="not SyncBus; SyncTestBus takes a SyncBus"):
        TestBus(SyncBus("local:"))  # type: ignore[arg-type]


# --- the loop of the plain form -----------------------------------------------------------------------------------


def test_coroutines_of_the_program_run_in_the_loop_of_the_bus() -> None:
    bus = Bus("local:", source="/shop")
    bus.topic("orders")

    async def place_order() -> str:
        return (await bus.publish("orders", Event(type=PLACED, id="e-1"))).event_id

    with SyncTestBus(bus) as test:
        assert test.complete(place_order()) == "e-1"
        assert [event.id for event in test.published("orders")] == ["e-1"]


def test_an_exception_that_nobody_awaits_surfaces_once() -> None:
    with SyncTestBus() as bus:
        with pytest.raises(ValueError, match="in a callback"):
            bus.complete(_soon(ValueError("in a callback")))
        bus.wait_idle()


def test_exceptions_that_nobody_awaits_surface_at_the_end() -> None:
    with pytest.raises(BaseExceptionGroup) as both, SyncTestBus() as bus:
        bus.bus.on_stop(lambda _: _fail_later(ValueError("one"), KeyError("two")))
    assert [repr(error) for error in both.value.exceptions] == ["ValueError('one')", "KeyError('two')"]


def test_a_test_that_fails_already_fails_for_its_own_reason() -> None:
    def use() -> None:
        with SyncTestBus() as bus:
            bus.bus.on_stop(lambda _: _fail_later(ValueError("one")))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        use()


def _fail_later(*errors: Exception) -> None:
    for error in errors:
        asyncio.get_running_loop().call_soon(_raise, error)


async def _soon(error: Exception) -> None:
    _fail_later(error)
    await asyncio.sleep(0)


def _raise(error: BaseException) -> None:
    raise error


def test_a_handler_that_ends_the_loop_ends_the_test_not_the_run() -> None:
    bus = Bus("local:")
    before = dict(vars(bus))

    @bus.subscribe("orders", "billing")
    async def bill(event: Event) -> None:
        raise SystemExit(3)

    threads = threading.active_count()

    def use() -> None:
        with SyncTestBus(bus) as test:
            test.publish("orders", placed())
            test.wait_idle()

    with pytest.raises(RuntimeError, match="ended by SystemExit: 3"):
        use()
    assert bus._connections is before["_connections"]
    assert not bus.is_open
    assert threading.active_count() == threads


def test_a_handler_that_uses_the_plain_form_is_told() -> None:
    with SyncTestBus() as bus:

        @bus.subscribe("orders", "billing")
        async def bill(event: Event) -> None:
            bus.publish("orders", event)

        bus.publish("orders", placed())
        bus.wait_idle()
        (handled,) = bus.handled()
        assert "let it `await` the program's own Bus" in str(handled.error)


def test_outside_of_its_block_the_plain_form_does_nothing() -> None:
    bus = SyncTestBus()
    with pytest.raises(RuntimeError, match="is not open"):
        bus.publish("orders", placed())
    with bus, pytest.raises(RuntimeError, match="open already"), bus:
        pass
    assert bus.handled() == []


def test_a_test_that_ends_early_cancels_its_handlers() -> None:
    cancelled = threading.Event()
    with SyncTestBus() as bus:

        @bus.subscribe("orders", "billing")
        async def bill(event: Event) -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.set()
                raise

        bus.publish("orders", placed())
        before = time.monotonic()
    assert cancelled.is_set()
    assert time.monotonic() - before < 5
    assert outcomes(bus.handled()) == ["release"]
    assert not [thread for thread in threading.enumerate() if thread.name == "crossbus test"]


def test_context_variables_of_the_test_reach_the_loop() -> None:
    tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="none")

    async def current() -> str:
        return tenant.get()

    with SyncTestBus() as bus:
        token = tenant.set("t-1")
        assert bus.complete(current()) == "t-1"
        tenant.reset(token)
