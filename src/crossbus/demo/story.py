"""What happens in the demo: the calls that a program makes, on a real bus, and what they did."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from crossbus.bus import Bus
from crossbus.cli.exits import ExitCode
from crossbus.deadletter import DeadLetter
from crossbus.delivery import Delivery
from crossbus.demo.cast import Cast
from crossbus.demo.screen import Mark, Screen
from crossbus.event import Event
from crossbus.outcomes import Reject
from crossbus.topology import RetryPolicy

__all__ = ["tell"]

RETRY: Final = RetryPolicy(attempts=5, first_delay=0.4, factor=2.0, jitter=False)
FAILURES: Final = 2
"""How often the handler of the flaky event fails."""
LIMIT: Final = 60.0
"""Seconds after which something is wrong with the machine or with us."""


async def tell(cast: Cast, screen: Screen) -> int:
    """Play from the first scene to the last; return an exit code."""
    screen.title(
        f"crossbus demo: {cast.title}",
        "On the local broker, inside this process: no account, no server, nothing left behind.",
    )
    # The scenes tell what happens; what crossbus logs of it would tell it twice.
    with _silenced(logging.getLogger("crossbus")):
        async with asyncio.timeout(LIMIT):
            await _Play(cast, screen).run()
    return ExitCode.FAILED if cast.problems else ExitCode.OK


class _Play:
    """One performance: the bus, the handlers, and what was seen of them."""

    def __init__(self, cast: Cast, screen: Screen) -> None:
        self._cast = cast
        self._screen = screen
        self._bus = Bus("local:", source="/demo", handle_middleware=[self._watch])
        self._handled: Counter[str] = Counter()
        self._retries = 0
        self._rejected = 0
        self._redriven = 0
        self._repaired = False
        self._ended: asyncio.Queue[None] = asyncio.Queue()
        self._line = asyncio.Lock()

    async def run(self) -> None:
        """Play all scenes."""
        await self._declare()
        async with self._bus:
            await self._publish()
            waiting = await self._filter()
            await self._handle(waiting)
            await self._dead_letter()
            await self._redrive()
            await self._look_back()
        await self._what_next()

    # --- the scenes ---------------------------------------------------------------------------------------------

    async def _declare(self) -> None:
        cast, screen = self._cast, self._screen
        await screen.scene(
            "Declare",
            f'bus = Bus("local:")\nbus.subscribe("{cast.topic}", NAME, filter=FILTER)',
            f"Events are published to a topic; this one is called {cast.topic}. A subscription is a queue on it that "
            "keeps the events its filter lets through until a handler is done with them.",
        )
        for role in cast.roles:
            handler = self._work if role.name == cast.worker else self._quick
            self._bus.subscribe(cast.topic, role.name, filter=role.filter, retry=RETRY)(handler)
            screen.row((role.name, role.why), (self._name_width,))
            screen.aside(
                f"filter={role.written}" if role.filter is not None else "no filter", self._name_width
            )
            await screen.beat(0.08)

    async def _publish(self) -> None:
        cast, screen = self._cast, self._screen
        await screen.scene(
            f"Publish {_count(len(cast.events), 'event')}",
            f'receipt = await bus.publish("{cast.topic}", event)',
            "An event is a CloudEvent. The receipt says that the broker has it; who handles it, and when, is not the "
            "publisher's business. Nobody is handling anything yet.",
        )
        for problem in cast.problems:
            screen.problem(problem)
        if cast.remark:
            screen.say(cast.remark)
        width = min(screen.width // 4, max(len(_what(event)) for event in cast.events))
        for event in cast.events:
            await self._bus.publish(cast.topic, event)
            screen.row((_what(event), event.type), (width,))
            await screen.beat(min(0.06, 1.0 / len(cast.events)))

    async def _filter(self) -> int:
        cast, screen = self._cast, self._screen
        await screen.scene(
            "Filter",
            f'await bus.backlog("{cast.topic}", NAME)',
            "The broker has put a copy into each subscription whose filter matches. A filter sees the attributes of "
            "an event, never its data. This is what waits:",
        )
        total = 0
        for role in cast.roles:
            waiting = (await self._bus.backlog(cast.topic, role.name)).waiting or 0
            total += waiting
            bar = ("█" if screen.unicode else "#") * min(waiting, 20)
            screen.row((role.name, f"{waiting:>3}  {bar}"), (self._name_width,))
            await screen.beat(0.08)
        return total

    async def _handle(self, waiting: int) -> None:
        cast, screen = self._cast, self._screen
        await screen.scene(
            "Handle, and retry what fails",
            "async with bus.running():",
            "Handlers are called now. One that returns acknowledges its event. One that raises has it delivered "
            f"again: after {_seconds(RETRY.delay(1))} s, then {_seconds(RETRY.delay(2))} s, up to {RETRY.attempts} "
            f"attempts, and nothing else waits for it. This is {cast.worker}:",
        )
        async with self._bus.running():
            for _ in range(waiting):
                await self._ended.get()
        others = [f"{name} {count}" for name, count in self._handled.items() if name != cast.worker]
        if others:
            screen.say(f"Meanwhile the others handled theirs: {', '.join(others)}.")

    async def _dead_letter(self) -> None:
        cast, screen = self._cast, self._screen
        await screen.scene(
            "Look into the dead letter",
            f'await bus.dead_letters("{cast.topic}", "{cast.worker}").list()',
            "Raising Reject says that trying again would not help. The event is not lost: crossbus wrote a record of "
            "it, with the reason, before it took it out of the queue. The same happens when the attempts are used up.",
        )
        for letter in await self._bus.dead_letters(cast.topic, cast.worker).list():
            for name, value in _fields(letter):
                screen.row((name, value), (8,))
                await screen.beat(0.08)

    async def _redrive(self) -> None:
        cast, screen = self._cast, self._screen
        await screen.scene(
            "Repair, and redrive",
            f'await bus.dead_letters("{cast.topic}", "{cast.worker}").redrive()',
            f"{cast.repair} The event goes back into {cast.worker}, and into no other subscription, with the id that "
            "it had.",
        )
        self._repaired = True
        self._redriven = await self._bus.dead_letters(cast.topic, cast.worker).redrive()
        async with self._bus.running():
            for _ in range(self._redriven):
                await self._ended.get()

    async def _look_back(self) -> None:
        cast, screen = self._cast, self._screen
        left = [await self._bus.backlog(cast.topic, role.name) for role in cast.roles]
        waiting = sum((each.waiting or 0) + (each.in_hand or 0) for each in left)
        dead = sum(each.dead or 0 for each in left)
        await screen.scene(
            "What became of them",
            "",
            f"{_count(len(cast.events), 'event')} published, {_count(sum(self._handled.values()), 'delivery')} "
            f"handled, {_count(self._retries, 'retry')}, {_count(self._rejected, 'dead letter')}, "
            f"{self._redriven} redriven. Left over: {waiting} waiting, {dead} dead.",
        )

    async def _what_next(self) -> None:
        screen = self._screen
        await screen.scene("What next", "")
        screen.bullet("crossbus demo --code > shop.py", "a shop as a program of yours, to change")
        screen.bullet("CROSSBUS_URL=local: python shop.py", "run it: here now, in a cloud by another URL")
        screen.bullet("crossbus --help", "the other commands; the rest stands in docs/")
        screen.blank()

    # --- the handlers -------------------------------------------------------------------------------------------

    async def _quick(self, event: Event) -> None:
        """Handle at once: returning acknowledges."""

    async def _work(self, event: Event, delivery: Delivery) -> None:
        """Fail as the cast says."""
        cast = self._cast
        if _same(event, cast.flaky) and (delivery.attempt or 1) <= FAILURES and not self._repaired:
            raise ConnectionError(cast.failure)
        if _same(event, cast.poison) and not self._repaired:
            raise Reject(cast.rejection)

    async def _watch(self, delivery: Delivery, call_next: Callable[[Delivery], Awaitable[Any]]) -> Any:
        """See how each handling ends: a middleware around all handlers."""
        try:
            result = await call_next(delivery)
        except Reject as rejection:
            self._rejected += 1
            await self._show(
                delivery, Mark.DEAD, f"raises Reject({rejection.reason!r}): into the dead letter"
            )
            self._ended.put_nowait(None)
            raise
        except Exception as error:
            self._retries += 1
            delay = _seconds(RETRY.delay(delivery.attempt or 1))
            await self._show(
                delivery, Mark.AGAIN, f"raises {type(error).__name__} ({error}): again in {delay} s"
            )
            raise
        self._handled[delivery.subscription] += 1
        await self._show(delivery, Mark.DONE, "returns: acknowledged")
        self._ended.put_nowait(None)
        return result

    async def _show(self, delivery: Delivery, mark: str, text: str) -> None:
        if delivery.subscription != self._cast.worker:
            return
        async with self._line:  # one after the other, at a pace that can be read
            self._screen.row((_what(delivery.event), f"attempt {delivery.attempt}", text), (12, 9), mark=mark)
            await self._screen.beat(0.12)

    @property
    def _name_width(self) -> int:
        return max(len(role.name) for role in self._cast.roles)


@contextmanager
def _silenced(logger: logging.Logger) -> Iterator[None]:
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _fields(letter: DeadLetter) -> list[tuple[str, str]]:
    event = letter.event
    data = "" if event is None else event.data_bytes.decode("utf-8", "replace")
    return [
        ("event", "" if event is None else f"{event.id}, {event.type}"),
        ("reason", letter.reason),
        ("attempts", str(letter.attempts)),
        ("data", data if len(data) <= 120 else f"{data[:120]} ..."),
    ]


def _same(one: Event, other: Event) -> bool:
    return (one.source, one.id) == (other.source, other.id)


def _what(event: Event) -> str:
    return event.subject or event.id


def _seconds(value: float) -> str:
    return f"{value:g}"


def _count(number: int, noun: str) -> str:
    plural = {"retry": "retries", "delivery": "deliveries"}.get(noun, f"{noun}s")
    return f"{number} {noun if number == 1 else plural}"
