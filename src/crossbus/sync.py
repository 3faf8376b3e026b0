"""`SyncBus`: the bus for programs without asyncio."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import inspect
import itertools
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from datetime import datetime
from types import SimpleNamespace, TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from crossbus.adapter import Backlog, Change
from crossbus.bus import Bus
from crossbus.delivery import Delivery
from crossbus.errors import CrossbusError
from crossbus.forking import closed_error, is_the_parents
from crossbus.loop_thread import LoopThread, end_loop_thread, loop_thread
from crossbus.publishing import Receipt
from crossbus.stopping import stop_at_signals
from crossbus.subscriptions import SubscriptionHandle
from crossbus.sync_parts import SyncDeadLetters, SyncDelivery
from crossbus.threads import Threads
from crossbus.topology import Topic

if TYPE_CHECKING:
    from crossbus.explain import Explanation
    from crossbus.health import Health

__all__ = ["SyncBus"]

logger = logging.getLogger("crossbus")

P = ParamSpec("P")
T = TypeVar("T")
H = TypeVar("H", bound=Callable[..., Any])

CHUNK = 256
"""How many events of an iterator go to the loop's thread at once."""


def _like(source: Callable[Concatenate[Any, P], Any]) -> Callable[
    [Callable[..., T]], Callable[Concatenate[Any, P], T]
]:  # fmt: skip
    """Give a method the parameters of another, for type checkers and for `help()`."""

    def decorate(function: Callable[..., T]) -> Callable[Concatenate[Any, P], T]:
        function.__signature__ = inspect.signature(source)  # type: ignore[attr-defined]
        return function

    return decorate


class SyncBus:
    """The bus without asyncio: the same arguments, names and errors as `Bus`, and every call waits for its result.

    ::

        with SyncBus("local:", source="/shop") as bus:
            bus.publish("orders", Event(type="com.acme.order.placed", data={"order": "o-1"}))

    Handlers are plain functions, run in threads, or `async def`; middleware is always `async def`. All methods may
    be called from any thread, also from one that runs an event loop of its own (a notebook), which then waits too;
    but not from crossbus's loop thread, where `async def` handlers and hooks run: there, `await sync_bus.bus...`.

    The work is done in one daemon thread per process. After a fork the child has to open its own bus: one that was
    open refuses there, one that was only declared can be opened. What is still open when the program ends is
    closed then: publishes under way finish, within `drain_limit`.

    Args, and what they raise, are those of `Bus`.
    """

    @_like(Bus.__init__)
    def __init__(self, *args: Any, **options: Any) -> None:
        self.bus = Bus(*args, **options)
        """The bus underneath, for asyncio code in handlers and hooks."""
        self._run_task: asyncio.Task[None] | None = None
        self._hook_threads = Threads(1, "crossbus hooks")
        self._has_hooks = False
        self._sending = _UnderWay()

    # --- declaring ----------------------------------------------------------------------------------------------

    @_like(Bus.topic)
    def topic(self, *args: Any, **options: Any) -> Topic:
        """Declare a topic. See `Bus.topic`."""
        return self.bus.topic(*args, **options)

    @_like(Bus.subscribe)
    def subscribe(self, *args: Any, **options: Any) -> SubscriptionHandle:
        """Declare a subscription and its topic. The result is a decorator that adds its handler.

        See `Bus.subscribe`.
        """
        return self.bus.subscribe(*args, **options)

    def on_start(self, hook: H) -> H:
        """Add a function of this bus that runs at the end of opening. Usable as a decorator."""
        self.bus.on_start(self._hook(hook))
        return hook

    def on_stop(self, hook: H) -> H:
        """Add a function of this bus that runs when consuming has ended, before the adapters close."""
        self.bus.on_stop(self._hook(hook))
        return hook

    def _hook(self, hook: Callable[[SyncBus], Any]) -> Callable[[Bus], Coroutine[Any, Any, None]]:
        self._has_hooks = True

        async def call(bus: Bus) -> None:
            if inspect.iscoroutinefunction(hook):
                await hook(self)
            else:  # in a thread, so that it can use the bus
                await self._hook_threads.run(hook, self)

        return call

    @property
    def state(self) -> SimpleNamespace:
        """A place for what handlers need."""
        return self.bus.state

    # --- opening and closing ------------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """True between opening and closing; in a forked child, False until it opens a bus itself."""
        return self.bus.is_open

    def open(self) -> None:
        """Connect, check what is declared, and create it where that is allowed. See `Bus.open`."""
        if self._has_hooks:  # from Python 3.12 on no thread can be started at exit, where stop hooks may run
            self._call("open", self._hook_threads.run, _nothing, None)
        self._call("open", self.bus.open)
        _open[id(self)] = self

    def close(self) -> None:
        """Drain and disconnect. Idempotent; in a forked child it leaves the parent's bus alone."""
        if self._is_the_parents or not self.bus.is_open:
            return
        self._loop("close")
        self._sending.wait(self.bus.drain_limit)
        self._call("close", self._close)
        _open.pop(id(self), None)

    async def _close(self) -> None:
        task = self._run_task
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        await self.bus.close()

    def __enter__(self) -> SyncBus:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # --- publishing ---------------------------------------------------------------------------------------------

    def publish(self, topic: str, event: Any) -> Receipt:
        """Publish one event, and return when the provider has it. See `Bus.publish`.

        The caller's context variables come along, and with them the current span.
        """
        with self._sending.one():
            return self._call("publish", self.bus.publish, topic, event)

    def publish_many(self, topic: str, events: Iterable[Any]) -> list[Receipt]:
        """Publish many events in batches; returns their receipts in order. See `Bus.publish_many`.

        The iterable is read in the caller's thread, as fast as events are sent.
        """
        with self._sending.one():
            if isinstance(events, (list, tuple)):
                return self._call("publish_many", self.bus.publish_many, topic, events)
            loop = self._loop("publish_many")
            feed = _Feed(loop)
            sending = loop.submit(self.bus.publish_many, topic, feed)
            try:
                feed.give(events, until=sending)
            except BaseException:  # interrupted, or nothing that can be iterated: nobody will feed it on
                sending.cancel()
                raise
            return loop.wait(sending)

    # --- consuming ----------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Consume until SIGTERM, SIGINT or `close` from another thread; then drain. See `Bus.run`.

        Signal handlers are installed in the main thread only; the second signal has its usual effect.
        """
        opened_here = not self.is_open
        if opened_here:
            self.open()
        try:
            loop = self._loop("run")
            started = threading.Event()
            running = loop.submit(self._run, started)
            started.wait()
            with stop_at_signals(lambda: self._stop_running(loop)):
                while not concurrent.futures.wait([running], timeout=1.0).done:
                    pass  # in turns, because Windows tells of Ctrl-C only between waits
                running.result()
        finally:
            self._stop_running(self._loop("run"))
            if opened_here:
                self.close()

    async def _run(self, started: threading.Event) -> None:
        task = self._run_task = asyncio.ensure_future(self.bus.run())
        started.set()
        try:
            await asyncio.wait([task])
            if not task.cancelled():
                task.result()
        finally:
            self._run_task = None

    def _stop_running(self, loop: LoopThread) -> None:
        task = self._run_task
        if task is not None:
            loop.loop.call_soon_threadsafe(task.cancel)

    @contextmanager
    def running(self) -> Iterator[SyncBus]:
        """Consume in the background of a `with` block, and drain at its end. Opens the bus if need be."""
        opened_here = not self.is_open
        if opened_here:
            self.open()
        try:
            with self._block("running", self.bus.running):
                yield self
        finally:
            if opened_here:
                self.close()

    @contextmanager
    def deliveries(self, topic: str, name: str, *, max: int = 10) -> Iterator[Iterator[SyncDelivery]]:
        """Pull deliveries instead of handling them. See `Bus.deliveries`.

        ``with bus.deliveries("orders", "billing") as deliveries: for delivery in deliveries: ...``.
        """
        with self._block("deliveries", self.bus.deliveries, topic, name, max=max) as source:
            yield self._each(source)

    def _each(self, source: AsyncIterator[Delivery]) -> Iterator[SyncDelivery]:
        async def following() -> Delivery | None:
            return await anext(source, None)

        while (delivery := self._call("deliveries", following)) is not None:
            yield SyncDelivery(delivery, self)

    def pause(self, topic: str, name: str) -> None:
        """Stop fetching for a subscription in this process. See `Bus.pause`."""
        self._call("pause", self.bus.pause, topic, name)

    def resume(self, topic: str, name: str) -> None:
        """Go on after a pause. See `Bus.resume`."""
        self._call("resume", self.bus.resume, topic, name)

    def health(self) -> Health:
        """Say whether the loops move and every subscription is being consumed."""
        self._refuse_the_parents("health")
        return self.bus.health()

    # --- looking after ------------------------------------------------------------------------------------------

    def provision(self, *, prune: bool = False, dry_run: bool = False) -> list[Change]:
        """Create and update what is declared. See `Bus.provision`."""
        return self._call("provision", self.bus.provision, prune=prune, dry_run=dry_run)

    def dead_letters(self, topic: str, name: str) -> SyncDeadLetters:
        """Return the dead letter of a declared subscription. See `Bus.dead_letters`."""
        return SyncDeadLetters(self._call("dead_letters", _in_loop, self.bus.dead_letters, topic, name), self)

    def replay(
        self, topic: str, name: str, *, time: datetime | None = None, position: str | None = None
    ) -> int | None:
        """Deliver past events again to one subscription. See `Bus.replay`."""
        return self._call("replay", self.bus.replay, topic, name, time=time, position=position)

    def backlog(self, topic: str, name: str) -> Backlog:
        """Count what waits in a subscription, is in hand, and is dead."""
        return self._call("backlog", self.bus.backlog, topic, name)

    def explain(self, topic: str, name: str) -> Explanation:
        """Say which part of a filter the provider evaluates, and what is evaluated here. See `Bus.explain`."""
        return self._call("explain", _in_loop, self.bus.explain, topic, name)

    # --- into the loop's thread ---------------------------------------------------------------------------------

    @property
    def _is_the_parents(self) -> bool:
        return is_the_parents(self.bus)

    def _refuse_the_parents(self, what: str) -> None:
        if self._is_the_parents:
            raise closed_error(self.bus, f"SyncBus.{what}")

    def _loop(self, what: str) -> LoopThread:
        self._refuse_the_parents(what)
        loop = loop_thread()
        if loop.is_current:
            raise CrossbusError(
                f"SyncBus.{what} was called from crossbus's own event loop and would wait for itself; in an async "
                f"handler, hook or middleware use `await sync_bus.bus.{what}(...)`, or make it a plain `def`"
            )
        return loop

    def _call(
        self, what: str, function: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **options: P.kwargs
    ) -> T:
        loop = self._loop(what)
        return loop.wait(loop.submit(function, *args, **options))

    @contextmanager
    def _block(
        self, what: str, make: Callable[P, AbstractAsyncContextManager[T]], *args: P.args, **options: P.kwargs
    ) -> Iterator[T]:
        """Hold an `async with` block open in one task of the loop."""
        loop = self._loop(what)
        entered: concurrent.futures.Future[T] = concurrent.futures.Future()
        leave = asyncio.Event()

        async def hold() -> None:
            async with make(*args, **options) as value:
                entered.set_result(value)
                await leave.wait()

        held = loop.submit(hold)
        either: list[concurrent.futures.Future[Any]] = [entered, held]
        concurrent.futures.wait(either, return_when=concurrent.futures.FIRST_COMPLETED)
        if not entered.done():
            held.result()
        try:
            yield entered.result()
        finally:
            if not loop.ended:
                loop.loop.call_soon_threadsafe(leave.set)
                loop.wait(held)


class _UnderWay:
    """The calls under way in any thread, so that closing can wait for them."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._calls: dict[object, int] = {}

    @contextmanager
    def one(self) -> Iterator[None]:
        """Count a call, from before it is handed to the loop until the caller has its answer."""
        call = object()
        with self._changed:
            self._calls[call] = threading.get_ident()
        try:
            yield
        finally:
            with self._changed:
                del self._calls[call]
                self._changed.notify_all()

    def wait(self, limit: float) -> None:
        """Wait until what other threads have under way now is done, or for `limit` seconds."""
        with self._changed:
            me = threading.get_ident()
            now = {call for call, thread in self._calls.items() if thread != me}
            self._changed.wait_for(lambda: now.isdisjoint(self._calls), max(0.0, limit))


class _Feed:
    """Carries an iterator's items from the caller's thread into the loop, a few chunks ahead of what is sent."""

    def __init__(self, loop: LoopThread) -> None:
        self._loop = loop
        self._chunks: asyncio.Queue[list[Any] | BaseException | None] = asyncio.Queue(2)

    def give(self, events: Iterable[Any], *, until: concurrent.futures.Future[Any]) -> None:
        """Hand over all events, unless sending ended before. What iterating raises is raised by the sending side."""
        iterator = iter(events)
        while not until.done():
            chunk: list[Any] | BaseException | None
            try:
                chunk = list(itertools.islice(iterator, CHUNK)) or None
            except Exception as error:
                chunk = error
            handed = self._loop.submit(self._chunks.put, chunk)
            concurrent.futures.wait([handed, until], return_when=concurrent.futures.FIRST_COMPLETED)
            if not isinstance(chunk, list):
                return

    async def __aiter__(self) -> AsyncIterator[Any]:
        while (chunk := await self._chunks.get()) is not None:
            if isinstance(chunk, BaseException):
                raise chunk
            for item in chunk:
                yield item


def _nothing(_: object) -> None:
    """Do nothing, in a thread that is then there."""


async def _in_loop(function: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
    return function(*args, **options)


_open: dict[int, SyncBus] = {}


@atexit.register
def _close_all() -> None:
    """Close what is open at the end of the program, all at once and within the drain limits."""
    buses = [bus for bus in list(_open.values()) if bus.is_open]
    if buses:
        limit = max(bus.bus.drain_limit for bus in buses)
        end = time.monotonic() + limit
        for bus in buses:
            bus._sending.wait(end - time.monotonic())
        closing = [loop_thread().submit(bus.bus.close) for bus in buses]
        # Consumers drain first, then publishes: each within the limit.
        concurrent.futures.wait(closing, timeout=2 * limit + 1.0)
    end_loop_thread()
