"""`SyncBus`: the bus without asyncio, on the local broker; fork, exit and signals in processes of their own."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from crossbus import (
    Bus,
    BusClosedError,
    CrossbusError,
    DeclarationError,
    Event,
    InvalidEvent,
    PartialPublishError,
    Receipt,
    Reject,
    RetryPolicy,
    SyncBus,
)
from crossbus.loop_thread import loop_thread

POSIX = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")


def event(id: str = "1", **arguments: Any) -> Event:
    return Event(type="com.acme.order.placed", source="/shop", id=id, data={"id": id}, **arguments)


def wait_until(done: Callable[[], Any], limit: float = 20.0) -> None:
    end = time.monotonic() + limit
    while not done():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.005)


def program(text: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            sys.executable,
            "-W",
            "error",
            "-W",
            "ignore:This process:DeprecationWarning",
            "-c",
            textwrap.dedent(text),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def output_of(text: str) -> list[str]:
    process = program(text)
    try:
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0, err
    assert "Traceback" not in err, err
    return out.splitlines()


# --- publishing and handling ---


def test_publish_and_handle_in_threads() -> None:
    bus = SyncBus("local:", source="/shop")
    handled: list[tuple[str, str]] = []

    @bus.subscribe("orders", "billing")
    def bill(event: Event) -> None:
        handled.append((event.id, threading.current_thread().name))

    with bus, bus.running() as same:
        assert same is bus
        assert bus.is_open
        receipt = bus.publish("orders", Event(type="t", id="1"))
        assert isinstance(receipt, Receipt)
        assert (receipt.topic, receipt.event_id) == ("orders", "1")
        wait_until(lambda: handled)
    assert not bus.is_open
    assert handled[0][0] == "1"
    assert handled[0][1] != "crossbus loop"


def test_async_handlers_work_and_handlers_are_told_apart_by_type() -> None:
    bus = SyncBus("local:")
    handled: list[str] = []
    billing = bus.subscribe("orders", "billing")

    @billing.on("a")
    async def first(event: Event) -> None:
        handled.append(f"async {event.id}")

    @billing.on("b")
    def second(event: Event) -> None:
        handled.append(f"plain {event.id}")

    with bus.running():
        assert bus.is_open, "running opens the bus"
        bus.publish("orders", Event(type="a", source="/s", id="1"))
        bus.publish("orders", Event(type="b", source="/s", id="2"))
        wait_until(lambda: len(handled) == 2)
    assert not bus.is_open
    assert sorted(handled) == ["async 1", "plain 2"]


def test_a_handler_publishes() -> None:
    bus = SyncBus("local:", source="/shop")
    got: list[str] = []

    @bus.subscribe("orders", "billing")
    def bill(event: Event) -> None:
        bus.publish("invoices", Event(type="t", id=f"invoice {event.id}"))

    @bus.subscribe("invoices", "mail")
    def mail(event: Event) -> None:
        got.append(event.id)

    with bus, bus.running():
        bus.publish("orders", event())
        wait_until(lambda: got)
    assert got == ["invoice 1"]


def test_errors_are_those_of_the_bus() -> None:
    bus = SyncBus("local:")
    bus.topic("orders")
    with pytest.raises(BusClosedError, match="not open"):
        bus.publish("orders", event())
    with bus:
        with pytest.raises(InvalidEvent, match="source is missing"):
            bus.publish("orders", Event(type="t"))
        with pytest.raises(DeclarationError, match="dict is no event"):
            bus.publish("orders", {"type": "t"})
        with pytest.raises(DeclarationError, match="is not declared"):
            bus.backlog("orders", "billing")
        with pytest.raises(DeclarationError, match="nothing to consume"), bus.running():
            pass
        assert bus.publish("orders", event()).event_id == "1"


def test_many_threads_share_a_bus() -> None:
    bus = SyncBus("local:")
    bus.subscribe("orders", "billing")
    with bus:
        threads = [
            threading.Thread(target=lambda n=n: [bus.publish("orders", event(f"{n}-{i}")) for i in range(20)])
            for n in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert bus.backlog("orders", "billing").waiting == 160


# --- publish_many ---


@pytest.mark.parametrize("kind", [list, tuple, iter])
def test_publish_many_keeps_the_order(kind: Callable[[list[Event]], Any]) -> None:
    bus = SyncBus("local:")
    bus.topic("orders")
    with bus:
        receipts = bus.publish_many("orders", kind([event(str(n)) for n in range(1000)]))
    assert [receipt.event_id for receipt in receipts] == [str(n) for n in range(1000)]


def test_an_iterator_is_read_in_the_callers_thread_and_may_use_the_bus() -> None:
    bus = SyncBus("local:")
    bus.topic("orders")
    bus.topic("invoices")
    readers: set[threading.Thread] = set()

    def events() -> Iterator[Event]:
        for number in range(600):
            readers.add(threading.current_thread())
            if number % 200 == 0:
                bus.publish("invoices", event(str(number)))
            yield event(str(number))

    with bus:
        assert len(bus.publish_many("orders", events())) == 600
    assert readers == {threading.current_thread()}


def test_an_iterator_that_fails_raises_here() -> None:
    bus = SyncBus("local:")
    bus.topic("orders")

    def events() -> Iterator[Event]:
        yield event()
        raise OSError("the file is gone")

    with bus, pytest.raises(OSError, match="the file is gone"):
        bus.publish_many("orders", events())


def test_publish_many_that_cannot_begin_does_not_read_on() -> None:
    bus = SyncBus("local:")
    read = 0

    def endless() -> Iterator[Event]:
        nonlocal read
        while True:
            read += 1
            yield event(str(read))

    with pytest.raises(BusClosedError):
        bus.publish_many("orders", endless())
    assert read < 5000


def test_a_partial_failure_has_a_result_for_each() -> None:
    bus = SyncBus("local:")
    bus.topic("orders")
    with bus, pytest.raises(PartialPublishError) as caught:
        bus.publish_many("orders", (event("1"), Event(type="t"), event("3")))
    assert [result.error is None for result in caught.value.results] == [True, False, True]


# --- the rest of the API ---


def test_pull_form() -> None:
    bus = SyncBus("local:")
    bus.subscribe("orders", "billing", retry=RetryPolicy(first_delay=0, jitter=False))
    with bus:
        for id in "abc":
            bus.publish("orders", event(id))
        seen: list[tuple[str, int | None]] = []
        with bus.deliveries("orders", "billing") as deliveries:
            for delivery in deliveries:
                seen.append((delivery.event.id, delivery.attempt))
                assert (delivery.topic, delivery.subscription) == ("orders", "billing")
                assert delivery.published is not None
                assert delivery.message_id in repr(delivery)
                if delivery.event.id == "a":
                    delivery.extend(30)
                    delivery.ack()
                elif delivery.event.id == "b":
                    delivery.reject("bad")
                elif delivery.attempt == 1:
                    delivery.retry(after=0)
                else:
                    delivery.ack()
                    break
        assert seen == [("a", 1), ("b", 1), ("c", 1), ("c", 2)]
        backlog = bus.backlog("orders", "billing")
        assert (backlog.waiting, backlog.dead) == (0, 1)


def test_dead_letters() -> None:
    bus = SyncBus("local:")
    fail = True
    handled: list[str] = []

    @bus.subscribe("orders", "billing")
    def bill(event: Event) -> None:
        if fail:
            raise Reject("bad")
        handled.append(event.id)

    with bus, bus.running():
        bus.publish("orders", event("a"))
        bus.publish("orders", event("b"))
        letters = bus.dead_letters("orders", "billing")
        wait_until(lambda: len(letters.list()) == 2)
        first = letters.list(limit=1)[0]
        assert letters.list(reason="other") == []
        fail = False
        assert letters.redrive([first.id]) == 1
        wait_until(lambda: handled)
        assert letters.purge() == 1
        assert letters.list() == []


def test_looking_after() -> None:
    bus = SyncBus("local:")

    @bus.subscribe("orders", "billing")
    def bill(event: Event) -> None: ...

    bus.state.pool = "pool"
    with bus:
        assert bus.provision(dry_run=True) == []
        assert str(bus.explain("orders", "billing"))
        assert bus.bus.state.pool == "pool"
        with bus.running():
            bus.publish("orders", event())
            wait_until(lambda: bus.health().ready)
            bus.pause("orders", "billing")
            assert bus.health().subscriptions["orders/billing"].state != "running"
            bus.resume("orders", "billing")
            assert bus.health().subscriptions["orders/billing"].state == "running"


def test_hooks_are_given_this_bus_and_may_use_it() -> None:
    bus = SyncBus("local:", source="/shop")
    bus.subscribe("orders", "billing")
    called: list[str] = []

    @bus.on_start
    def start(given: SyncBus) -> None:
        assert given is bus
        given.publish("orders", Event(type="t"))
        called.append("start")

    @bus.on_start
    async def start_async(given: SyncBus) -> None:
        await given.bus.publish("orders", Event(type="t"))
        called.append("start async")

    @bus.on_stop
    def stop(given: SyncBus) -> None:
        called.append("stop")

    with bus:
        assert called == ["start", "start async"]
        assert bus.backlog("orders", "billing").waiting == 2
    assert called == ["start", "start async", "stop"]


def test_a_hook_that_fails_keeps_the_bus_closed() -> None:
    bus = SyncBus("local:")
    bus.topic("orders")

    @bus.on_start
    def start(given: SyncBus) -> None:
        raise OSError("no database")

    with pytest.raises(OSError, match="no database"):
        bus.open()
    assert not bus.is_open
    bus.close()


def test_open_and_close_again() -> None:
    bus = SyncBus("local:")
    bus.topic("orders")
    for _ in range(2):
        bus.open()
        bus.open()
        assert bus.publish("orders", event())
        bus.close()
        bus.close()


def test_signatures_are_those_of_the_bus() -> None:
    for name in ("__init__", "topic", "subscribe"):
        assert inspect.signature(getattr(SyncBus, name)) == inspect.signature(getattr(Bus, name))
    missing = {name for name in dir(Bus) if not name.startswith("_") and not hasattr(SyncBus, name)} - {
        "adapter_for",
        "subscriptions",
        "topology",
    }  # reached through SyncBus.bus
    assert missing == set()


# --- contexts and loops ---


def test_the_callers_context_reaches_the_publish() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")
    seen: list[str] = []

    async def look(event: Event, call_next: Any) -> Receipt:
        seen.append(variable.get())
        receipt: Receipt = await call_next(event)
        return receipt

    bus = SyncBus("local:", publish_middleware=[look])
    bus.topic("orders")
    with bus:
        variable.set("caller")
        bus.publish("orders", event())
        bus.publish_many("orders", iter([event()]))
    assert seen == ["caller", "caller"]


def test_the_current_span_is_the_parent() -> None:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import format_trace_id

    provider = TracerProvider()
    bus = SyncBus("local:", tracer_provider=provider)
    bus.subscribe("orders", "billing")
    with bus, provider.get_tracer("test").start_as_current_span("request") as span:
        bus.publish("orders", event())
        with bus.deliveries("orders", "billing") as deliveries:
            delivery = next(deliveries)
            delivery.ack()
    trace = format_trace_id(span.get_span_context().trace_id)
    assert str(delivery.event.extensions["traceparent"]).split("-")[1] == trace


def test_inside_a_running_loop_it_works() -> None:
    async def cell() -> Receipt:
        with SyncBus("local:") as bus:
            bus.topic("orders")
            return bus.publish("orders", event())

    assert asyncio.run(cell()).event_id == "1"


def test_on_its_own_loop_it_refuses() -> None:
    bus = SyncBus("local:", source="/shop")
    errors: list[Exception] = []

    @bus.subscribe("orders", "billing")
    async def bill(event: Event) -> None:
        try:
            bus.publish("orders", event)
        except Exception as error:
            errors.append(error)

    with bus, bus.running():
        bus.publish("orders", event())
        wait_until(lambda: errors)
    assert isinstance(errors[0], CrossbusError)
    assert "SyncBus.publish was called from crossbus's own event loop" in str(errors[0])
    assert "await sync_bus.bus.publish(...)" in str(errors[0])


def test_what_is_raised_in_a_running_block_comes_out() -> None:
    bus = SyncBus("local:")
    bus.subscribe("orders", "billing")(lambda event: None)
    with pytest.raises(ZeroDivisionError), bus.running():
        _ = 1 / 0
    assert not bus.is_open


# --- run, signals ---


def test_run_in_another_thread_ends_when_the_bus_is_closed() -> None:
    bus = SyncBus("local:", source="/shop")
    handled: list[str] = []

    @bus.subscribe("orders", "billing")
    def bill(event: Event) -> None:
        handled.append(event.id)

    with bus:
        thread = threading.Thread(target=bus.run)
        thread.start()
        bus.publish("orders", event())
        wait_until(lambda: handled)
        bus.close()
        thread.join(10)
        assert not thread.is_alive()


def test_run_raises_what_makes_consuming_impossible() -> None:
    bus = SyncBus("local:")
    with pytest.raises(DeclarationError, match="nothing to consume"):
        bus.run()
    assert not bus.is_open


SHOP = """
    import time
    from crossbus import Event, SyncBus

    bus = SyncBus("local:", source="/shop")

    @bus.subscribe("orders", "billing")
    def bill(event: Event) -> None:
        print("begun", flush=True)
        time.sleep(0.5)
        print("handled", flush=True)

    @bus.on_stop
    def stop(bus):
        print("stopped", flush=True)

    bus.open()
    bus.publish("orders", Event(type="t"))
    try:
        bus.run()
    finally:
        print("after run", flush=True)
        bus.close()
"""


@POSIX
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains(number: signal.Signals) -> None:
    process = program(SHOP)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
        process.communicate()
    assert out.splitlines() == ["handled", "after run", "stopped"], err
    assert process.returncode == 0
    assert err == ""


@POSIX
def test_ctrl_c_interrupts_a_wait_and_loses_no_delivery() -> None:
    lines = output_of(
        """
        import os, signal, threading
        from crossbus import Event, SyncBus

        bus = SyncBus("local:", source="/shop")
        bus.subscribe("orders", "billing")
        with bus:
            with bus.deliveries("orders", "billing") as deliveries:
                threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
                try:
                    next(deliveries)
                except KeyboardInterrupt:
                    print("interrupted")
            bus.publish("orders", Event(type="t", id="1"))
            with bus.deliveries("orders", "billing") as deliveries:
                print(next(deliveries).event.id)
        """
    )
    assert lines == ["interrupted", "1"]


# --- the end of the program, and forks ---


def test_at_exit_publishes_under_way_finish() -> None:
    lines = output_of(
        """
        import asyncio, threading
        from crossbus import Event, SyncBus

        begun = threading.Event()

        async def slow(event, call_next):
            begun.set()
            await asyncio.sleep(0.5)
            receipt = await call_next(event)
            print("published", flush=True)
            return receipt

        bus = SyncBus("local:", source="/shop", publish_middleware=[slow])

        @bus.on_stop
        def stop(bus):
            print("stopped", flush=True)

        @bus.subscribe("orders", "billing")
        def bill(event: Event) -> None: ...

        bus.open()
        threading.Thread(target=bus.publish, args=("orders", Event(type="t")), daemon=True).start()
        begun.wait()
        """
    )
    assert lines == ["published", "stopped"]


def test_closing_waits_for_what_other_threads_publish() -> None:
    begun = threading.Event()

    async def slow(event: Event, call_next: Any) -> Receipt:
        begun.set()
        await asyncio.sleep(0.3)
        receipt: Receipt = await call_next(event)
        return receipt

    bus = SyncBus("local:", publish_middleware=[slow])
    bus.topic("orders")
    receipts: list[Receipt] = []
    with bus:
        thread = threading.Thread(target=lambda: receipts.append(bus.publish("orders", event())))
        thread.start()
        begun.wait()
    thread.join(10)
    assert len(receipts) == 1


def test_at_exit_a_handler_ends_first() -> None:
    lines = output_of(
        """
        import threading, time
        from crossbus import Event, SyncBus

        bus = SyncBus("local:", source="/shop")
        begun = threading.Event()

        @bus.subscribe("orders", "billing")
        def bill(event: Event) -> None:
            begun.set()
            time.sleep(0.5)
            print("handled", flush=True)

        bus.open()
        running = bus.running()
        running.__enter__()
        bus.publish("orders", Event(type="t"))
        begun.wait()
        """
    )
    assert lines == ["handled"]


def test_at_exit_a_handler_that_hangs_keeps_nobody() -> None:
    begun = time.monotonic()
    lines = output_of(
        """
        import threading, time
        from crossbus import Event, SyncBus

        bus = SyncBus("local:", source="/shop", drain_limit=0.2)
        begun = threading.Event()

        @bus.subscribe("orders", "billing")
        def bill(event: Event) -> None:
            begun.set()
            time.sleep(3600)

        bus.open()
        running = bus.running()
        running.__enter__()
        bus.publish("orders", Event(type="t"))
        begun.wait()
        """
    )
    assert lines == []
    assert time.monotonic() - begun < 30


@POSIX
def test_a_bus_that_was_open_refuses_in_a_forked_child() -> None:
    lines = output_of(
        """
        import os
        from crossbus import BusClosedError, Event, SyncBus

        event = Event(type="t", source="/shop")
        bus = SyncBus("local:")
        bus.subscribe("orders", "billing")
        bus.open()
        bus.publish("orders", event)
        child = os.fork()
        if child == 0:
            print(bus.is_open, flush=True)
            for call in (bus.open, lambda: bus.publish("orders", event), bus.health, bus.run):
                try:
                    call()
                except BusClosedError as error:
                    print(str(error).partition(", ")[0], flush=True)
            bus.close()
            with SyncBus("local:") as own:
                own.topic("orders")
                print(own.publish("orders", event).topic, flush=True)
        else:
            assert os.waitpid(child, 0)[1] == 0
            bus.publish("orders", event)
            print("parent", bus.backlog("orders", "billing").waiting, flush=True)
        """
    )
    was = "this bus was opened in the parent process"
    assert lines == [
        "False",
        *(f"SyncBus.{what}: {was}" for what in ("open", "publish", "health", "open")),
        "orders",
        "parent 2",
    ]


@POSIX
def test_a_bus_that_was_declared_opens_in_every_child() -> None:
    lines = output_of(
        """
        import os
        from crossbus import Event, SyncBus

        with SyncBus("local:") as other:  # the parent's loop runs already
            pass
        bus = SyncBus("local:", source="/shop")
        bus.subscribe("orders", "billing")
        for _ in range(2):
            child = os.fork()
            if child == 0:
                with bus:
                    bus.publish("orders", Event(type="t"))
                    print(bus.backlog("orders", "billing").waiting, flush=True)
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
        with bus:
            print(bus.backlog("orders", "billing").waiting, flush=True)
        """
    )
    assert lines == ["1", "1", "0"]


def test_what_cannot_be_iterated_leaves_nothing_waiting_for_it() -> None:
    with SyncBus("local:", source="/s") as bus:
        bus.topic("orders")
        with pytest.raises(TypeError, match="not iterable"):
            bus.publish_many("orders", 5)  # type: ignore[arg-type]

        async def waiting() -> int:
            await asyncio.sleep(0.01)
            return sum("publish_many" in repr(task) for task in asyncio.all_tasks())

        assert loop_thread().submit(waiting).result(5) == 0
