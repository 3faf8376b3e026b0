"""`Trial`: one run of one case on one harness; what the cases work with."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

from crossbus.adapter import Adapter, Received, Receiver, Wire
from crossbus.bus import Bus
from crossbus.capabilities import Capabilities
from crossbus.clock import Clock, SystemClock, sleep
from crossbus.conformance.cases import Case, Skipped
from crossbus.conformance.children import Child
from crossbus.conformance.faults import FaultyAdapter
from crossbus.conformance.harness import Harness
from crossbus.conformance.inbox import Inbox
from crossbus.conformance.wrap import WrappedAdapter
from crossbus.deadletter import DeadLetter
from crossbus.delivery import Delivery
from crossbus.event import Event
from crossbus.topology import Subscription, Topic

__all__ = ["Trial"]

SPINS: Final = 200
"""Turns of the event loop that others get before a movable clock moves although they are still busy."""
STEPS: Final = (0.01, 0.05, 0.25)
"""How far a movable clock moves at once, in seconds: further, the longer nothing happens."""
CLOSE_LIMIT: Final = 20.0
"""Real seconds that a Bus may take to close when the case is over."""

T = TypeVar("T")
Do = Callable[[Delivery], Awaitable[object] | object]


class Trial:
    """One run of one case: makes buses, names, events; waits; and clears up.

    Times are seconds of `clock`, which runs as fast as the work is done where the harness has a clock that moves.
    """

    def __init__(self, harness: Harness, case: Case, scale: float = 1.0) -> None:
        self.harness = harness
        self.case = case
        self.scale = harness.scale * scale
        self.id = harness.names()
        """Begins every name of this run, so that logs can be searched for it."""
        self.capabilities: Capabilities = harness.capabilities
        self.notes: list[str] = []
        """What the report shall say of a case that passed, such as how many duplicates came."""
        self._movable = harness.make_clock()
        self.clock: Clock = SystemClock() if self._movable is None else self._movable
        self._pump: asyncio.Task[None] | None = None
        self._buses: list[Bus] = []
        self._opened: list[Adapter | Receiver] = []
        self._children: list[Child] = []
        self._worlds: set[str] = {self.id}
        self._topics = 0

    # --- beginning and end ----------------------------------------------------------------------------------------

    async def __aenter__(self) -> Trial:
        if self._movable is not None:
            self._pump = asyncio.create_task(self._flow(), name=f"clock of {self.id}")
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            for child in self._children:
                await child.kill()
            for bus in self._buses:
                with contextlib.suppress(Exception):
                    await asyncio.wait_for(bus.close(), CLOSE_LIMIT)
            for opened in reversed(self._opened):
                with contextlib.suppress(Exception):
                    await asyncio.wait_for(opened.close(), CLOSE_LIMIT)
            for world in sorted(self._worlds):
                await self.harness.clean(world, self.clock, self.id)
        finally:
            if self._pump is not None:
                self._pump.cancel()
                await asyncio.gather(self._pump, return_exceptions=True)

    async def _flow(self) -> None:
        """Let time pass on a movable clock: in small steps while there is work, in larger ones while there is none."""
        loop = asyncio.get_running_loop()
        idle = 0
        before = loop.time()
        while True:
            _pumps.add(self)
            try:
                idle = 0 if await _is_busy(loop) else idle + 1
                now = loop.time()
                step = STEPS[min(idle // 4, len(STEPS) - 1)]
                if not idle:
                    step = max(step, min(now - before, STEPS[-1]))
                before = now
                moved = self._movable.advance(step)  # type: ignore[union-attr]
                if inspect.isawaitable(moved):
                    await moved
            finally:
                _pumps.discard(self)
            await asyncio.sleep(0.001)

    # --- making things --------------------------------------------------------------------------------------------

    def size(self, full: int, least: int = 10) -> int:
        """Return a size of a case at this scale."""
        return max(min(least, full), round(full * self.scale))

    def lease(self, seconds: float | None = None) -> float:
        """Return a lease short enough to let it end, and allowed."""
        limits = self.capabilities.lease
        return min(max(seconds or self.harness.lease, limits.minimum), limits.maximum)

    def topic(self) -> str:
        """Return the name of a topic of this run's own."""
        self._topics += 1
        return f"{self.id}-t{self._topics}"

    def bus(
        self, *, world: str = "", wrap: Callable[[Adapter], Adapter] | None = None, **options: Any
    ) -> Bus:
        """Make a Bus, not opened yet, and close it at the end. Buses of one `world` meet at one broker.

        `wrap` puts something between the Bus and its adapter.
        """
        self._worlds.add(self.id + world)
        adapter = self.harness.make_adapter(self.id + world, self.clock)
        if wrap is not None:
            adapter = wrap(adapter)
        options.setdefault("source", "/conformance")
        options.setdefault("provision", "always")
        options.setdefault("clock", self.clock)
        bus = Bus(adapter=adapter, **options)
        self._buses.append(bus)
        return bus

    async def adapter(self) -> Adapter:
        """Make and open an adapter, for cases below the Bus: without faults that the kit itself put in."""
        adapter = without_faults(self.harness.make_adapter(self.id, self.clock))
        await adapter.open()
        self._opened.append(adapter)
        return adapter

    async def receiver(self, adapter: Adapter, subscription: Subscription, window: int = 100) -> Receiver:
        """Open a receiver, for cases below the Bus."""
        receiver = await adapter.open_receiver(subscription, window)
        self._opened.append(receiver)
        return receiver

    async def send(self, adapter: Adapter, topic: Topic, events: Sequence[Event]) -> None:
        """Publish through an adapter, for cases below the Bus."""
        outcomes = await adapter.send(topic, [adapter.encode(topic, event) for event in events])
        refused = [outcome for outcome in outcomes if outcome.code is not None]
        assert not refused, (
            f"publishing {len(events)} events: {len(refused)} refused, such as {refused[0].message!r}"
        )

    async def child(self, topic: str, name: str, *, work: float | None = None, **options: Any) -> Child:
        """Start a consumer in another process, of a subscription that is there, and kill it at the end if need be.

        `work` is how many seconds its handler takes for an event; None for one that never ends. Returns at once.
        """
        told = {"url": self.harness.url(self.id), "topic": topic, "name": name, "work": work, **options}
        child = Child(self, f"process {len(self._children) + 1} on {topic}/{name}", told)
        self._children.append(child)
        await child.start()
        return child

    async def within(self, call: Awaitable[T], what: str, seconds: float = 60.0) -> T:
        """Await something for so long at most, or fail."""
        task = asyncio.ensure_future(call)
        try:
            await self._until(task.done, seconds)
        except TimeoutError:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            raise AssertionError(f"{what}: nothing within {seconds * self.harness.patience:g} s") from None
        return task.result()

    async def take(self, receiver: Receiver, count: int, within: float = 30.0) -> list[Received]:
        """Receive `count` deliveries, or fail."""
        found: list[Received] = []
        end = self.now() + within * self.harness.patience
        while len(found) < count:
            wait = min(max(1.0, self.capabilities.receive_wait[0]), self.capabilities.receive_wait[1])
            found += await receiver.receive(count - len(found), wait)
            if len(found) < count and self.now() >= end:
                raise AssertionError(f"received {len(found)} of {count} deliveries within {within:g} s")
        return found

    async def nothing(self, receiver: Receiver, seconds: float, why: str) -> None:
        """Fail if anything is received within so many seconds."""
        end = self.now() + seconds
        while self.now() < end:
            wait = max(
                min(end - self.now(), self.capabilities.receive_wait[1]), self.capabilities.receive_wait[0]
            )
            found = await receiver.receive(10, wait)
            if found:
                raise AssertionError(f"message {found[0].message_id!r} was received, but {why}")

    def events(self, count: int, *, type: str = "com.example.conformance", **more: Any) -> list[Event]:
        """Make events with ids of their own, data ``{"number": n}``, numbered from 0."""
        return [
            Event(type=type, source="/conformance", id=f"{self.id}-{n}", data={"number": n}, **more)
            for n in range(count)
        ]

    def inbox(self, bus: Bus, topic: str, name: str, do: Do | None = None, **options: Any) -> Inbox:
        """Declare a subscription whose handler notes each delivery and then does `do` with it."""
        options.setdefault("concurrency", 10)
        inbox = Inbox(f"{topic}/{name}", self.clock, do)
        inbox.handle_for(bus.subscribe(topic, name, **options))
        return inbox

    @contextlib.asynccontextmanager
    async def consuming(self, *buses: Bus) -> AsyncIterator[None]:
        """Open buses and consume for the time of the block."""
        async with contextlib.AsyncExitStack() as stack:
            for bus in buses:
                await stack.enter_async_context(bus)
                await stack.enter_async_context(bus.running())
            yield

    async def provide(self, *subscriptions: tuple[str, str], **options: Any) -> list[Subscription]:
        """Create subscriptions with their topics, and return their declarations."""
        bus = self.bus()
        handles = [bus.subscribe(topic, name, **options) for topic, name in subscriptions]
        async with bus:
            return [handle.declaration for handle in handles]

    async def round_trip(self, events: Sequence[Event]) -> list[Event]:
        """Publish events one by one, and return what the handler was given, in the order of publishing."""
        bus, topic = self.bus(), self.topic()
        inbox = self.inbox(bus, topic, "round-trip")
        async with self.consuming(bus):
            for event in events:
                await bus.publish(topic, event)
            wanted = {(event.id, event.source) for event in events}
            found: dict[tuple[str, str], Event] = {}

            def arrived() -> bool:
                found.update({(event.id, event.source): event for event in inbox.events})
                return wanted <= found.keys() or len(inbox) > 4 * len(events)

            with contextlib.suppress(TimeoutError):
                await self._until(arrived, 30.0)
            missing = [key for key in wanted if key not in found]
            if missing:
                other = [event for key, event in found.items() if key not in wanted]
                came = f"; what came instead: {other[0]!r}" if other else ""
                dead = await self._dead_text(bus, topic, "round-trip")
                raise AssertionError(
                    f"the event with id and source {missing[0]!r} did not arrive{came}{dead}"
                )
        return [found[event.id, event.source] for event in events]

    async def _dead_text(self, bus: Bus, topic: str, name: str) -> str:
        if not self.capabilities.has("dead_letters"):
            return ""
        letters = await bus.dead_letters(topic, name).list(limit=1)
        return f"; in the dead letter: {letters[0].reason} ({letters[0].error})" if letters else ""

    async def dead(
        self, bus: Bus, topic: str, name: str, count: int, within: float = 60.0
    ) -> Sequence[DeadLetter]:
        """Wait until a dead letter holds so many records, and return them."""
        where = f"the dead letter of {topic}/{name}"
        end = self.now() + within * self.harness.patience
        while True:
            letters = await bus.dead_letters(topic, name).list(limit=10_000)
            if len(_first_of_each(letters)) >= count:
                return self.distinct(where, letters, count)
            assert self.now() < end, f"{where} holds {len(letters)} records after {within:g} s, not {count}"
            await sleep(self.clock, 0.1)

    def distinct(self, where: str, letters: Sequence[DeadLetter], count: int) -> Sequence[DeadLetter]:
        """Return the records, one for each event; fail if there are not `count` of them."""
        first = _first_of_each(letters)
        self.duplicates(where, len(letters) - len(first))
        assert len(first) == count, (
            f"{where} holds {len(first)} events, not {count}; reasons: {sorted({letter.reason for letter in letters})}"
        )
        return first

    async def send_raw(
        self, bus: Bus, topic: str, body: bytes, attributes: Mapping[str, Any] | None = None
    ) -> None:
        """Put a message that is no CloudEvent into a topic."""
        await self.harness.send_raw(_bare(bus.adapter_for(topic)), Topic(topic), body, attributes or {})

    async def send_wire(self, bus: Bus, topic: str, event: Event) -> None:
        """Put an event on the wire as it is, past what the Bus would check."""
        adapter = _bare(bus.adapter_for(topic))
        wire: Wire = adapter.encode(Topic(topic), event)
        outcome = (await adapter.send(Topic(topic), [wire]))[0]
        assert outcome.code is None, f"the provider refused a wire: {outcome.message}"

    # --- time and waiting -----------------------------------------------------------------------------------------

    def now(self) -> float:
        """Return the clock's time, for measuring."""
        return self.clock.monotonic()

    async def elapse(self, seconds: float) -> None:
        """Let time pass."""
        await sleep(self.clock, seconds)

    async def _until(self, condition: Callable[[], object], within: float) -> None:
        end = self.now() + within * self.harness.patience
        while not condition():
            if self.now() >= end:
                raise TimeoutError
            await sleep(self.clock, 0.02)

    async def until(
        self, condition: Callable[[], object], what: str | Callable[[], str], within: float = 60.0
    ) -> None:
        """Wait until something is so, or fail saying `what` was not so."""
        try:
            await self._until(condition, within)
        except TimeoutError:
            text = what if isinstance(what, str) else what()
            raise AssertionError(f"{text}: not so after {within * self.harness.patience:g} s") from None

    async def arrive(
        self, inbox: Inbox, events: Iterable[Event], within: float = 60.0, times: int = 1
    ) -> None:
        """Wait until each event was handed to the handler at least `times` times."""
        wanted = {event.id for event in events}
        await self.until(
            lambda: all(inbox.counts.get(id, 0) >= times for id in wanted),
            lambda: inbox.missing_text(wanted, times),
            within,
        )

    async def once(
        self, inbox: Inbox, events: Iterable[Event], within: float = 60.0, quiet: float = 1.0
    ) -> None:
        """Wait until each event was handled; fail for any other, and for a duplicate that is not declared."""
        wanted = [event.id for event in events]
        await self.until(lambda: inbox.has(wanted), lambda: inbox.missing_text(wanted), within)
        await self.elapse(quiet)
        self.check_once(inbox, wanted)

    def check_once(self, inbox: Inbox, wanted: Iterable[str]) -> None:
        """Fail for an event that is not wanted, and for a duplicate unless the adapter declares them."""
        strangers = inbox.counts.keys() - set(wanted)
        assert not strangers, (
            f"{inbox.name} was given {len(strangers)} events it should not: {sorted(strangers)[:3]}"
        )
        twice = {id: count for id, count in inbox.counts.items() if count > 1}
        self.duplicates(inbox.name, sum(twice.values()) - len(twice), example=next(iter(twice), ""))

    def duplicates(self, where: str, count: int, example: str = "") -> None:
        """Note duplicates where the adapter declares that there may be some; fail where it does not."""
        if not count:
            return
        assert self.capabilities.duplicates, (
            f"{where}: {count} duplicates, such as event {example!r}, but the adapter declares that there are none"
        )
        self.notes.append(f"{count} duplicates")

    async def stays(
        self, condition: Callable[[], object], seconds: float, what: str | Callable[[], str]
    ) -> None:
        """Fail as soon as something ceases to be so within some seconds."""
        end = self.now() + seconds
        while self.now() < end:
            if not condition():
                raise AssertionError(what if isinstance(what, str) else what())
            await sleep(self.clock, 0.05)

    def need(self, *capabilities: str) -> None:
        """Skip the case unless the adapter has these."""
        for name in capabilities:
            if not self.capabilities.has(name):
                raise Skipped(name)


_pumps: set[Trial] = set()
"""Whose clock is just being moved: each has one callback among those that are ready."""


async def _is_busy(loop: asyncio.AbstractEventLoop) -> bool:
    """Give others their turn until none has anything left to do but wait; True if they are not done by then."""
    for _ in range(SPINS):
        await asyncio.sleep(0)
        # Where the loop shows what is ready. Elsewhere everyone counts as busy, and time passes more slowly.
        ready = getattr(loop, "_ready", None)
        if ready is not None and len(ready) < len(_pumps):
            return False
    return True


def without_faults(adapter: Adapter) -> Adapter:
    """Return what a `FaultyAdapter` wraps; any other adapter as it is."""
    while isinstance(adapter, FaultyAdapter):
        adapter = adapter.inner
    return adapter


def _bare(adapter: Adapter) -> Adapter:
    """Return the adapter below whatever the kit wrapped around it, to act as another program would."""
    while isinstance(adapter, WrappedAdapter):
        adapter = adapter.inner
    return adapter


def _first_of_each(letters: Sequence[DeadLetter]) -> list[DeadLetter]:
    first: dict[object, DeadLetter] = {}
    for letter in letters:
        first.setdefault(letter.body if letter.event is None else letter.event.id, letter)
    return list(first.values())
