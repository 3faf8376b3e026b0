"""Running consumers: beginning and end, signals, pausing, health, and the pull form."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from tests.consuming import until
from tests.scripted import ScriptedAdapter
from tests.support import run

from crossbus import Bus, DeclarationError, Event, NotFound, SubscriptionHealth
from crossbus.adapter import Receiver
from crossbus.topology import Subscription


def event(id: str = "e-1", **fields: Any) -> Event:
    return Event(**{"id": id, "type": "t", "source": "/s", **fields})


@contextmanager
def refused(text: str) -> Iterator[None]:
    """Expect a `DeclarationError` with exactly this text."""
    with pytest.raises(DeclarationError) as caught:
        yield
    assert str(caught.value) == text


async def handle(event: Event) -> None: ...


# --- beginning and end --------------------------------------------------------------------------------------------


def test_without_a_handler_there_is_nothing_to_consume() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        bus = Bus(adapter=adapter)
        bus.subscribe("orders", "billing")
        text = (
            "nothing to consume: no subscription has a handler; decorate one with @bus.subscribe(topic, name)"
        )
        with refused(text):
            await bus.run()
        with refused(text):
            async with bus.running():
                raise AssertionError("the block ran")
        assert not bus.is_open
        assert adapter.closed == 2

    run(scenario())


def test_running_opens_a_closed_bus_and_leaves_an_open_one_open() -> None:
    async def scenario() -> None:
        bus = Bus(adapter=ScriptedAdapter())
        bus.subscribe("orders", "billing")(handle)
        async with bus.running() as given:
            assert given is bus
            assert bus.is_open
        assert not bus.is_open
        async with bus:
            async with bus.running():
                pass
            assert bus.is_open

    run(scenario())


def test_only_subscriptions_with_a_handler_are_consumed() -> None:
    async def scenario() -> None:
        bus = Bus(adapter=ScriptedAdapter())
        bus.subscribe("orders", "billing")(handle)
        bus.subscribe("orders", "elsewhere")
        async with bus, bus.running():
            assert list(bus.health().subscriptions) == ["orders/billing"]

    run(scenario())


def test_a_subscription_is_consumed_once_at_a_time() -> None:
    async def scenario() -> None:
        bus = Bus(adapter=ScriptedAdapter())
        bus.subscribe("orders", "billing")(handle)
        text = "subscription orders/billing is being consumed by this bus already"
        async with bus, bus.running():
            with refused(text):
                async with bus.running():
                    raise AssertionError("the block ran")
            with refused(text):
                async with bus.deliveries("orders", "billing"):
                    raise AssertionError("the block ran")
            assert bus.health().subscriptions["orders/billing"].state == "running"

    run(scenario())


def test_a_receiver_that_cannot_be_opened_keeps_nothing_running() -> None:
    class Half(ScriptedAdapter):
        async def open_receiver(self, subscription: Subscription, window: int) -> Receiver:
            if subscription.name == "audit":
                raise NotFound("subscription orders/audit was removed")
            return self.receiver

    async def scenario() -> None:
        adapter = Half()
        bus = Bus(adapter=adapter)
        bus.subscribe("orders", "billing")(handle)
        bus.subscribe("orders", "audit")(handle)
        async with bus:
            with pytest.raises(NotFound, match="was removed"):
                async with bus.running():
                    raise AssertionError("the block ran")
            assert adapter.receiver.closed
            assert bus.health().subscriptions == {}

    run(scenario())


def test_run_raises_what_makes_consuming_impossible_and_closes_the_bus() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        bus = Bus(adapter=adapter)
        bus.subscribe("orders", "billing")(handle)
        running = asyncio.create_task(bus.run())
        await until(lambda: adapter.receiver.receives)
        adapter.receiver.fail(NotFound("the queue was deleted"))
        with pytest.raises(NotFound, match="the queue was deleted"):
            await running
        assert not bus.is_open

    run(scenario())


def test_what_makes_consuming_impossible_is_raised_at_the_end_of_the_block() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        bus = Bus(adapter=adapter)
        bus.subscribe("orders", "billing")(handle)
        seen: list[Any] = []

        async def block() -> None:
            async with bus, bus.running():
                adapter.receiver.fail(NotFound("the queue was deleted"))
                await until(lambda: bus.health().subscriptions["orders/billing"].state == "failed")
                seen.append(bus.health())

        with pytest.raises(NotFound, match="the queue was deleted"):
            await block()
        (health,) = seen
        assert (health.alive, health.ready) == (True, False)
        found = health.subscriptions["orders/billing"]
        assert (found.last_receive_ok, found.error) == (False, "NotFound: the queue was deleted")

    run(scenario())


def test_cancelling_run_drains() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        bus = Bus(adapter=adapter)
        finished = False

        @bus.subscribe("orders", "billing")
        async def bill(event: Event) -> None:
            nonlocal finished
            await asyncio.sleep(0.1)
            finished = True

        adapter.receiver.put(event())
        running = asyncio.create_task(bus.run())
        await until(lambda: bus.is_open and not adapter.receiver.waiting)
        await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert finished
        assert adapter.receiver.acked == [1]
        assert not bus.is_open

    run(scenario())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_ends_run(number: signal.Signals, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        bus = Bus(adapter=adapter)
        before = signal.getsignal(number)
        adapter.receiver.put(event())

        @bus.subscribe("orders", "billing")
        async def bill(event: Event) -> None:
            os.kill(os.getpid(), number)
            await asyncio.sleep(0.1)

        await bus.run()
        assert adapter.receiver.acked == [1], "the handler was waited for"
        assert not bus.is_open
        assert signal.getsignal(number) is before or signal.getsignal(number) is signal.default_int_handler

    with caplog.at_level("INFO", logger="crossbus"):
        run(scenario())
    assert f"{number.name} received: draining" in caplog.messages


def test_a_second_signal_has_its_usual_effect() -> None:
    program = """
        import asyncio, os, signal
        from crossbus import Bus, Event
        bus = Bus("local:")

        @bus.subscribe("orders", "billing")
        async def bill(event: Event) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(0.1)
            print("still here", flush=True)
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(30)

        async def main() -> None:
            async with bus:
                await bus.publish("orders", Event(type="t", source="/s"))
                await bus.run()

        asyncio.run(main())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (done.stdout, done.returncode) == ("still here\n", -signal.SIGTERM), done.stderr


@pytest.mark.parametrize("hook", ["await asyncio.sleep(60)", "pass"])
def test_a_signal_while_it_opens_ends_run_without_harm(hook: str) -> None:
    """Also one that comes when the last hook has just said that it is open."""
    program = f"""
        import asyncio, os, signal
        from crossbus import Bus, Event

        bus = Bus("local:")

        @bus.subscribe("orders", "billing")
        async def handle(event: Event) -> None: ...

        @bus.on_start
        async def opening(bus: Bus) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            {hook}

        @bus.on_stop
        def stopping(bus: Bus) -> None:
            print("stopped", flush=True)

        asyncio.run(bus.run())
        print("ended", bus.is_open, flush=True)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "ended False"


def test_outside_of_the_main_thread_no_signal_is_touched() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    seen: list[Any] = []

    async def scenario() -> None:
        adapter = ScriptedAdapter()
        bus = Bus(adapter=adapter)
        bus.subscribe("orders", "billing")(handle)
        running = asyncio.create_task(bus.run())
        await until(lambda: adapter.receiver.receives)
        seen.append({number: signal.getsignal(number) for number in before})
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    thread = threading.Thread(target=lambda: asyncio.run(scenario()))
    thread.start()
    thread.join(20)
    assert seen == [before]


def test_closing_the_bus_in_the_block_ends_the_consumers() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        bus = Bus(adapter=adapter)
        bus.subscribe("orders", "billing")(handle)
        async with bus.running():
            await bus.close()
            assert adapter.receiver.closed
            assert bus.health().subscriptions == {}

    run(scenario())


# --- pausing and health -------------------------------------------------------------------------------------------


def test_a_subscription_may_be_paused_before_it_runs() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        bus = Bus(adapter=adapter)
        bus.subscribe("orders", "billing")(handle)
        await bus.pause("orders", "billing")
        adapter.receiver.put(event())
        async with bus, bus.running():
            await asyncio.sleep(0.05)
            assert adapter.receiver.receives == []
            health = bus.health()
            assert health.subscriptions["orders/billing"].state == "paused"
            assert (health.alive, health.ready) == (True, False)
            await bus.resume("orders", "billing")
            await until(lambda: adapter.receiver.acked)
            assert bus.health().ready

    run(scenario())


def test_resuming_before_it_runs_undoes_the_pause() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        bus = Bus(adapter=adapter)
        bus.subscribe("orders", "billing")(handle)
        await bus.pause("orders", "billing")
        await bus.resume("orders", "billing")
        adapter.receiver.put(event())
        async with bus, bus.running():
            await until(lambda: adapter.receiver.acked)

    run(scenario())


def test_pausing_what_is_not_declared_is_refused() -> None:
    async def scenario() -> None:
        bus = Bus(adapter=ScriptedAdapter())
        bus.subscribe("orders", "billing")
        for call in (bus.pause, bus.resume):
            with refused("subscription orders/biling is not declared; did you mean 'orders/billing'?"):
                await call("orders", "biling")

    run(scenario())


def test_health_of_a_bus_that_is_not_open_is_alive_and_not_ready() -> None:
    bus = Bus(adapter=ScriptedAdapter())
    health = bus.health()
    assert (health.alive, health.ready, health.subscriptions, health.blocked_by) == (True, False, {}, None)


def test_health_counts_what_is_in_hand_and_buffered() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        bus = Bus(adapter=adapter)
        go_on = asyncio.Event()

        @bus.subscribe("orders", "billing", ordered=True)
        async def bill(event: Event) -> None:
            await go_on.wait()

        for number in range(3):
            adapter.receiver.put(event(f"e-{number}", extensions={"partitionkey": "a"}))
        async with bus, bus.running():
            await until(lambda: bus.health().subscriptions["orders/billing"].in_hand == 3)
            assert bus.health().subscriptions["orders/billing"] == SubscriptionHealth(
                "running", 2, 3, (), True, None
            )
            assert bus.health().ready
            go_on.set()
            await until(lambda: len(adapter.receiver.acked) == 3)
            await until(lambda: bus.health().subscriptions["orders/billing"].in_hand == 0)

    run(scenario())


# --- the pull form ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [0, -1, 1.5, "10"])
def test_the_most_in_hand_is_a_whole_number(most: Any) -> None:
    async def scenario() -> None:
        async with Bus(adapter=ScriptedAdapter()) as bus:
            bus.subscribe("orders", "billing")
            with refused(f"deliveries(max={most!r}): it must be a whole number from 1"):
                async with bus.deliveries("orders", "billing", max=most):
                    raise AssertionError("the block ran")

    run(scenario())


def test_no_more_than_the_most_is_pulled_and_the_rest_given_back() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        bus = Bus(adapter=adapter)
        bus.subscribe("orders", "billing")(handle)
        for number in range(5):
            adapter.receiver.put(event(f"e-{number}"))
        async with bus:
            async with bus.deliveries("orders", "billing", max=2) as deliveries:
                first = await anext(deliveries)
                await anext(deliveries)
                await asyncio.sleep(0.02)
                assert len(adapter.receiver.waiting) == 3
                await first.ack()
                third = await anext(deliveries)
                assert third.event.id == "e-2"
            assert adapter.receiver.acked == [1]
            assert sorted(lease for lease, _ in adapter.receiver.given_back) == [2, 3]

    run(scenario())


def test_deliveries_end_when_the_bus_is_closed() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        bus = Bus(adapter=adapter)
        bus.subscribe("orders", "billing")
        await bus.open()
        async with bus.deliveries("orders", "billing") as deliveries:
            closing = asyncio.create_task(bus.close())
            seen = [delivery async for delivery in deliveries]
            assert seen == []
            await closing

    run(scenario())
