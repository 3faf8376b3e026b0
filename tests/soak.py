"""A soak: many events, two consumers in processes of their own, one killed every few seconds, two cuts of the network.

``python -m tests.soak``                          100,000 events through `crossbus serve`, with SQLite under it
``python -m tests.soak --on eventgrid``           the same with the Event Grid adapter, which is Azure's SDK
``python -m tests.soak --on eventbridge --events 2000 --rate 50``
                                                  the EventBridge adapter on moto's server, with throttling and refused
                                                  entries beside the cuts; ``eventbridge-v2`` is its newer API
``python -m tests.soak --url URL --events 1000``  on what a URL names; it cannot be cut then

It exits with 1 if an event was lost or dead-lettered. Not part of the tests: it takes minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from tests.harnesses import MemoryHarness, SqliteHarness

from crossbus.bus import Bus
from crossbus.conformance import Case, Cut, Harness, ServerHarness, Skipped, Trial, UrlHarness
from crossbus.conformance.children import Child
from crossbus.event import Event


def _eventgrid(folder: Path) -> ServerHarness:
    sys.path.append(str(Path(__file__).parent))  # as under pytest
    from eventgrid_server import EventGridServerHarness

    return EventGridServerHarness(str(folder / "events.db"))


@contextmanager
def _eventbridge(v2: bool) -> Iterator[Harness]:
    from tests.eventbridge_harness import MotoHarness, V2Harness, world
    from tests.moto_world import moto_server

    with moto_server() as server, world(server) as aws:
        harness = (V2Harness if v2 else MotoHarness)(aws)
        harness.faults = {
            "partial": 7,
            "throttle": {
                "PutEvents": 5,
                "PutRawEvents": 5,
                "ReceiveMessage": 3,
                "DeleteMessageBatch": 3,
                "ChangeMessageVisibilityBatch": 3,
            },
        }
        yield harness


SERVERS: dict[str, Callable[[Path], AbstractContextManager[Harness]]] = {
    "memory": lambda folder: MemoryHarness(),
    "sqlite": SqliteHarness,
    "eventgrid": _eventgrid,
    "eventbridge": lambda folder: _eventbridge(v2=False),
    "eventbridge-v2": lambda folder: _eventbridge(v2=True),
}
"""What it can run on: a new server lends its harness here."""
CONSUMERS = 2
LEASE = 10.0
STALLED = 120.0
"""Seconds without any progress after which what has not come is lost."""
SLICE = 100
"""How many events are published at once."""


@dataclass(kw_only=True)
class Soak:
    """What is asked for, and what came of it."""

    harness: Harness
    events: int
    rate: float
    kill_every: float
    cuts: int
    outage: float
    seed: int
    restarts: int = 0
    handled: Counter[str] = field(default_factory=Counter)
    kills: int = 0
    done_cuts: list[str] = field(default_factory=list)
    done_restarts: int = 0
    not_possible: list[str] = field(default_factory=list)
    dead: int = 0
    left: str = ""
    seconds: float = 0.0

    @property
    def lost(self) -> int:
        return self.events - len(self.handled)

    @property
    def ok(self) -> bool:
        return not self.lost and not self.dead

    def report(self) -> str:
        again = self.handled.total() - len(self.handled)
        lines = [
            f"{self.harness.name} ({self.harness.what_lies_under})",
            f"  {self.events:,} events in {self.seconds:.0f} s, up to {self.rate:g} a second; seed {self.seed}",
            f"  {self.kills} kills (SIGKILL) of one of {CONSUMERS} consumers, every {self.kill_every:g} s",
            f"  {len(self.done_cuts)} cuts of {self.outage:g} s each: {', '.join(self.done_cuts) or 'none'}",
            f"  {self.done_restarts} kills of the server",
            *(f"  not possible here: {text}" for text in self.not_possible),
            f"  handled more than once: {again:,} ({again / self.events:.2%})",
            f"  {self.left}",
            f"  LOST: {self.lost:,}   DEAD-LETTERED: {self.dead:,}   -> {'ok' if self.ok else 'FAILED'}",
        ]
        return "\n".join(line for line in lines if line.strip())


async def soak(wanted: Soak, say: Callable[[str], None]) -> None:
    """Run it; the outcome is in `wanted`."""
    case = Case("soak/soak", "none lost, none dead-lettered", _nothing)
    began = time.monotonic()
    async with Trial(wanted.harness, case) as t:
        topic = t.topic()
        bus = t.bus(publish_timeout=600.0)
        bus.subscribe(topic, "soaked", lease=t.lease(LEASE))
        async with bus:
            await _Run(wanted, t, bus, topic, say).run()
            if t.capabilities.has("dead_letters"):
                wanted.dead = len(await bus.dead_letters(topic, "soaked").list(limit=1000))
            if t.capabilities.has("backlog"):
                wanted.left = f"left in the subscription: {await bus.backlog(topic, 'soaked')}"
    wanted.seconds = time.monotonic() - began


async def _nothing(t: Trial) -> None: ...


class _Run:
    """One soak under way."""

    def __init__(self, wanted: Soak, t: Trial, bus: Bus, topic: str, say: Callable[[str], None]) -> None:
        self.wanted = wanted
        self.t = t
        self.bus = bus
        self.topic = topic
        self.say = say
        self.random = random.Random(wanted.seed)
        self.children: list[Child] = []
        self.counted: dict[Child, int] = {}
        self.published = 0

    async def run(self) -> None:
        self.children = [await self._child() for _ in range(CONSUMERS)]
        await self._ready()
        killing = asyncio.create_task(self._kill())
        breaking = asyncio.create_task(self._break())
        publishing = asyncio.create_task(self._publish())
        try:
            await self._watch(publishing, breaking)
        finally:
            for task in (killing, breaking, publishing):
                task.cancel()
            await asyncio.gather(killing, breaking, publishing, return_exceptions=True)
        await self._ready()  # one may have just begun, in another's place
        for child in self.children:
            await child.stop()
        self._count()

    async def _ready(self) -> None:
        for child in self.children:
            await child.until(lambda: child.ready, "it did not open its bus")  # noqa: B023

    async def _child(self) -> Child:
        child = await self.t.child(self.topic, "soaked", work=0.0, lease=self.t.lease(LEASE), concurrency=20)
        self.counted[child] = 0
        return child

    async def _publish(self) -> None:
        began = time.monotonic()
        async for events in self._slices():
            await self.bus.publish_many(self.topic, events)
            self.published += len(events)
            ahead = self.published / self.wanted.rate - (time.monotonic() - began)
            await asyncio.sleep(max(ahead, 0.0))

    async def _slices(self) -> AsyncIterator[list[Event]]:
        for first in range(0, self.wanted.events, SLICE):
            yield [
                Event(type="com.example.soak", source="/soak", id=f"{self.t.id}-{n}", data={"number": n})
                for n in range(first, min(first + SLICE, self.wanted.events))
            ]

    async def _kill(self) -> None:
        while True:
            await asyncio.sleep(self.random.uniform(0.5, 1.5) * self.wanted.kill_every)
            number = self.random.randrange(CONSUMERS)
            killed = self.children[number]
            await killed.kill()
            self.wanted.kills += 1
            self._count()
            del self.counted[killed]
            self.t._children.remove(killed)
            self.children[number] = await self._child()

    async def _break(self) -> None:
        """Cut the network, and kill the server, at even distances."""
        breaks = ["cut"] * self.wanted.cuts + ["restart"] * self.wanted.restarts
        self.random.shuffle(breaks)
        kinds = [how for how in get_args(Cut) if how != "unanswered"]
        for number, what in enumerate(breaks, 1):
            await self._until_published(self.wanted.events * number / (len(breaks) + 1))
            try:
                if what == "restart":
                    await self.wanted.harness.restart(self.t.id, "kill")
                    self.wanted.done_restarts += 1
                else:
                    how = kinds[len(self.wanted.done_cuts) % len(kinds)]
                    async with self.wanted.harness.cut(self.t.id, how):
                        await asyncio.sleep(self.wanted.outage)
                    self.wanted.done_cuts.append(how)
            except Skipped as skipped:
                self.wanted.not_possible.append(skipped.detail)

    async def _until_published(self, count: float) -> None:
        while self.published < count:  # noqa: ASYNC110 (nobody waits for it but this)
            await asyncio.sleep(0.1)

    async def _watch(self, *tasks: asyncio.Task[None]) -> None:
        """Wait until all is handled, or nothing moves any more."""
        moved, before, told = time.monotonic(), 0, 0.0
        while len(self.wanted.handled) < self.wanted.events or not all(task.done() for task in tasks):
            await asyncio.sleep(0.5)
            for task in tasks:
                if task.done():
                    task.result()
            self._count()
            now, done = time.monotonic(), self.wanted.handled.total() + self.published
            if done != before:
                moved, before = now, done
            elif now - moved > STALLED:
                return
            if now - told > 10:
                told = now
                self.say(
                    f"{self.published:,} published, {len(self.wanted.handled):,} handled, {self.wanted.kills} kills"
                )

    def _count(self) -> None:
        for child, counted in self.counted.items():
            self.wanted.handled.update(child.done[counted:])
            self.counted[child] = len(child.done)


def _harness(arguments: argparse.Namespace, folder: Path) -> AbstractContextManager[Harness]:
    return nullcontext(UrlHarness(arguments.url)) if arguments.url else SERVERS[arguments.on](folder)


def main() -> int:
    """Soak, and print the report."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--on", choices=tuple(SERVERS), default="sqlite", help="the server")
    parser.add_argument("--url", help="a broker that runs already, instead of a server of its own")
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--rate", type=float, default=1000.0, help="events published in a second, at most")
    parser.add_argument("--kill-every", type=float, default=4.0, help="seconds between two kills, on average")
    parser.add_argument("--cuts", type=int, default=2)
    parser.add_argument("--outage", type=float, default=3.0, help="seconds of a cut")
    parser.add_argument("--restarts", type=int, default=0, help="how often the server itself is killed")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)  # it provokes what would be logged
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        return _soak(parser, arguments, Path(folder))


def _soak(parser: argparse.ArgumentParser, arguments: argparse.Namespace, folder: Path) -> int:
    asked = {name: value for name, value in vars(arguments).items() if name not in ("on", "url")}
    with _harness(arguments, folder) as harness:
        wanted = Soak(harness=harness, **asked)
        try:
            asyncio.run(soak(wanted, lambda line: print(line, file=sys.stderr, flush=True)))
        except Skipped as skipped:
            parser.error(f"{skipped.detail}: a soak needs it")
    print(wanted.report())
    return 0 if wanted.ok else 1


if __name__ == "__main__":
    sys.exit(main())
