"""A bus that is opened, closed and used by several tasks at once."""

from __future__ import annotations

import asyncio
import signal
import threading
from typing import Any

import pytest
from tests.consuming import event, until
from tests.scripted import ScriptedAdapter
from tests.support import run

from crossbus import Bus, BusClosedError, Event, Receipt


def test_opening_waits_for_a_close_under_way() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        adapter.gate = asyncio.Event()
        bus = Bus(adapter=adapter)
        await bus.open()
        publishing = asyncio.ensure_future(bus.publish("orders", event()))
        await asyncio.sleep(0.01)
        closing = asyncio.ensure_future(bus.close())
        await asyncio.sleep(0.01)
        opening = asyncio.ensure_future(bus.open())
        await asyncio.sleep(0.01)
        assert not opening.done()
        adapter.gate.set()
        await asyncio.gather(publishing, closing, opening)
        assert bus.is_open
        assert (adapter.opened, adapter.closed) == (2, 1)
        await bus.close()

    run(scenario())


def test_closing_waits_for_a_close_under_way() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        adapter.gate = asyncio.Event()
        bus = Bus(adapter=adapter)
        await bus.open()
        publishing = asyncio.ensure_future(bus.publish("orders", event()))
        await asyncio.sleep(0.01)
        first, second = asyncio.ensure_future(bus.close()), asyncio.ensure_future(bus.close())
        await asyncio.sleep(0.01)
        assert not second.done()
        adapter.gate.set()
        await second
        assert adapter.closed == 1
        assert first.done()
        await publishing

    run(scenario())


@pytest.mark.parametrize("where", ["hook", "handler"])
def test_closing_from_within_the_close_does_not_wait_for_itself(where: str) -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        bus = Bus(adapter=adapter)
        closing = asyncio.Event()
        begun = asyncio.Event()

        async def handler(event: Event) -> None:
            begun.set()
            await closing.wait()
            await asyncio.sleep(0.01)
            if where == "handler":
                await bus.close()

        @bus.on_stop
        async def stop(bus: Bus) -> None:
            if where == "hook":
                await bus.close()

        bus.subscribe("orders", "billing")(handler)
        async with bus, bus.running():
            adapter.receiver.put(event())
            await begun.wait()
            closing.set()
            await asyncio.wait_for(bus.close(), 5)
        assert adapter.receiver.acked == [1]

    run(scenario())


def test_a_publish_that_began_before_the_close_opens_nothing_after_it() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        gate = asyncio.Event()
        bus = Bus(adapter=adapter)
        await bus.open()
        inspect = adapter.inspect

        async def slow(topology: Any) -> Any:
            await gate.wait()
            return await inspect(topology)

        adapter.inspect = slow  # type: ignore[method-assign]
        bus.topic("orders")
        publishing = asyncio.ensure_future(bus.publish("orders", event()))
        await asyncio.sleep(0.01)
        await bus.close()
        gate.set()
        with pytest.raises(BusClosedError):
            await publishing
        assert (adapter.opened, adapter.closed) == (1, 1)
        assert not adapter.published

    run(scenario())


def test_an_adapter_that_was_being_opened_when_the_bus_closed_is_closed() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        bus = Bus(adapter=adapter)
        await bus.open()
        connections = bus._connections
        await connections.close()
        connections._is_open = True
        gate = asyncio.Event()

        async def slow() -> None:
            await gate.wait()
            adapter.opened += 1

        adapter.open = slow  # type: ignore[method-assign]
        publishing = asyncio.ensure_future(bus.publish("orders", event()))
        await asyncio.sleep(0.01)
        await bus.close()
        gate.set()
        with pytest.raises(BusClosedError):
            await publishing
        assert adapter.opened == adapter.closed == 2

    run(scenario())


def test_every_stop_hook_runs_and_the_first_failure_is_raised(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        bus = Bus(adapter=adapter)
        ran: list[int] = []

        def failing(number: int) -> Any:
            def hook(bus: Bus) -> None:
                ran.append(number)
                raise RuntimeError(f"hook {number}")

            return hook

        for number in (1, 2):
            bus.on_stop(failing(number))
        await bus.open()
        with pytest.raises(RuntimeError, match="hook 1"):
            await bus.close()
        assert ran == [1, 2]
        assert adapter.closed == 1
        assert "hook 2" in caplog.text

    run(scenario())


def test_what_a_start_hook_published_before_opening_failed_is_finished() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        adapter.gate = asyncio.Event()
        bus = Bus(adapter=adapter)
        tasks: list[asyncio.Task[Receipt]] = []

        @bus.on_start
        async def publish(bus: Bus) -> None:
            tasks.append(asyncio.create_task(bus.publish("orders", event())))
            await asyncio.sleep(0.01)

        @bus.on_start
        async def fail(bus: Bus) -> None:
            asyncio.get_running_loop().call_later(0.01, adapter.gate.set)  # type: ignore[union-attr]
            raise RuntimeError("not today")

        with pytest.raises(RuntimeError, match="not today"):
            await bus.open()
        assert (await tasks[0]).event_id == "e-1"
        assert adapter.closed == 1
        assert not bus._publishers

    run(scenario())


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="needs POSIX signals")
def test_run_leaves_the_signal_handlers_as_it_found_them() -> None:
    assert threading.current_thread() is threading.main_thread()
    heard: list[int] = []

    async def scenario() -> None:
        adapter = ScriptedAdapter()
        bus = Bus(adapter=adapter)
        bus.subscribe("orders", "billing")(handle)
        before = signal.getsignal(signal.SIGINT)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, heard.append, 1)
        for round in (1, 2):
            running = asyncio.ensure_future(bus.run())
            adapter.receiver.put(event())
            await until(lambda round=round: len(adapter.receiver.acked) == round)
            if round == 1:
                signal.raise_signal(signal.SIGINT)
            else:
                await bus.close()
            await asyncio.wait_for(running, 5)
            assert signal.getsignal(signal.SIGINT) is before
        signal.raise_signal(signal.SIGTERM)
        await until(lambda: heard == [1])

    run(scenario())


async def handle(event: Event) -> None: ...


def test_openers_wait_for_the_one_that_opens_and_try_themselves_if_it_fails() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        bus = Bus(adapter=adapter)
        tries = 0
        ready = False

        @bus.on_start
        async def start(bus: Bus) -> None:
            nonlocal tries, ready
            tries += 1
            await asyncio.sleep(0.01)
            if tries == 1:
                raise RuntimeError("not yet")
            ready = True

        async def open_and_look() -> None:
            await bus.open()
            assert ready

        outcomes = await asyncio.gather(*(open_and_look() for _ in range(3)), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [RuntimeError, type(None), type(None)]
        assert tries == 2
        await bus.close()

    run(scenario())
