"""At random, by a seed: publishing with keys through a faulty adapter, while consumers start, stop and pause."""

from __future__ import annotations

import asyncio
import random
import time
from collections import defaultdict
from typing import Any

from tests.support import run

from crossbus import Bus, Event, Reject, Retry, RetryPolicy
from crossbus.clock import SystemClock
from crossbus.conformance.faults import Faults, FaultyAdapter
from crossbus.profiles import Profile
from crossbus_local.adapter import LocalAdapter, forget

KEYS = 12
EVENTS = 240


class World:
    """Two buses on one broker, and what their handlers saw."""

    def __init__(self, seed: int, *, ordered: bool, fails: bool, several: bool) -> None:
        self.random = random.Random(seed)
        self.fails = fails
        self.done: list[Event] = []
        self.failed: set[str] = set()
        self.wrong: list[str] = []
        self.running: dict[str, int] = defaultdict(int)
        self.ordered = ordered
        self.buses = [self._bus(f"stress-{seed}", seed * 10 + i, several) for i in range(2)]

    def _bus(self, name: str, seed: int, several: bool) -> Bus:
        inner = LocalAdapter(
            Profile(name="stress", adapter="local", scheme="local", target=name), clock=SystemClock()
        )
        faults = Faults(seed=seed, slow_receive=0.01)
        bus = Bus(adapter=FaultyAdapter(inner, faults), drain_limit=self.random.choice([0.0, 0.01, 5.0]))
        handle = bus.subscribe(
            "orders",
            "billing",
            ordered=self.ordered,
            concurrency=4,
            batch=7,
            retry=RetryPolicy(attempts=6, first_delay=0.01, max_delay=0.02),
        )
        handle(self.handle_several if several else self.handle)
        return bus

    async def handle(self, event: Event) -> None:
        key = event.extensions["partitionkey"]
        assert isinstance(key, str)
        self.running[key] += 1
        try:
            if self.ordered and self.running[key] > 1:
                self.wrong.append(f"two events of key {key} at once")
            await asyncio.sleep(self.random.choice([0, 0, 0.001, 0.003]))
            if self.fails and self.random.random() < 0.1:
                self.failed.add(event.id)
                raise self.random.choice([Reject("no"), Retry(after=0.005), ValueError("no")])
            self.done.append(event)
        finally:
            self.running[key] -= 1

    async def handle_several(self, events: list[Event]) -> list[Any]:
        outcomes: list[Any] = []
        for event in events:
            try:
                await self.handle(event)
            except ValueError:
                outcomes.append(Retry())
            except (Retry, Reject) as outcome:
                outcomes.append(outcome)
            else:
                outcomes.append(None)
        return outcomes

    async def publish(self, bus: Bus) -> None:
        """Publish the events of each key in order: some alone, some in batches."""
        left = {f"k{key}": list(range(EVENTS // KEYS)) for key in range(KEYS)}
        while left:
            batch = []
            for _ in range(self.random.choice([1, 1, 30])):
                if left:
                    key = self.random.choice(list(left))
                    number = left[key].pop(0)
                    extensions = {"partitionkey": key}
                    batch.append(
                        Event(id=f"{key}-{number}", type="t", source="/s", data=number, extensions=extensions)
                    )
                    left = {name: numbers for name, numbers in left.items() if numbers}
            if len(batch) == 1:
                await bus.publish("orders", batch[0])
            else:
                await bus.publish_many("orders", batch)

    async def consume(self, bus: Bus, until: Any) -> None:
        """Consume with interruptions."""
        while not until():
            async with bus.running():
                for _ in range(self.random.randrange(1, 4)):
                    await asyncio.sleep(self.random.random() * 0.1)
                    if self.random.random() < 0.5:
                        await bus.pause("orders", "billing")
                        await asyncio.sleep(self.random.random() * 0.02)
                        await bus.resume("orders", "billing")

    def check_order(self) -> None:
        """Look at the first success of each event: those of a key in order."""
        last: dict[object, int] = {}
        seen: set[str] = set()
        for event in self.done:
            if event.id in seen:
                continue
            seen.add(event.id)
            key, number = event.extensions["partitionkey"], int(event.id.split("-")[1])
            if event.id not in self.failed:
                assert number > last.get(key, -1), f"{event.id} came after {key}-{last[key]}"
                last[key] = number


async def stress(seed: int, *, ordered: bool, fails: bool, several: bool) -> None:
    world = World(seed, ordered=ordered, fails=fails, several=several)
    publishing, consuming = world.buses
    end = time.monotonic() + 20

    async def dead() -> set[str]:
        letters = await publishing.dead_letters("orders", "billing").list(limit=EVENTS * 2)
        return {letter.event.id for letter in letters if letter.event is not None}

    async with publishing, consuming:
        published = {f"k{key}-{number}" for key in range(KEYS) for number in range(EVENTS // KEYS)}
        finished = False
        tasks = [asyncio.ensure_future(world.consume(bus, lambda: finished)) for bus in world.buses]
        tasks.append(asyncio.ensure_future(world.publish(publishing)))
        try:
            while not finished:
                assert time.monotonic() < end, "lost: " + str(
                    published - {e.id for e in world.done} - await dead()
                )
                for task in tasks:
                    if task.done():
                        task.result()
                await asyncio.sleep(0.02)
                finished = {event.id for event in world.done} | await dead() == published
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        assert not world.wrong
        assert await dead() <= world.failed, "given up without a failure"
        if ordered:
            world.check_order()


def test_nothing_is_lost_reordered_or_given_up_without_a_failure() -> None:
    async def scenario() -> None:
        await asyncio.gather(
            stress(1, ordered=True, fails=False, several=False),
            stress(2, ordered=True, fails=True, several=False),
            stress(3, ordered=False, fails=True, several=False),
            stress(4, ordered=True, fails=True, several=True),
        )

    try:
        run(scenario())
    finally:
        for seed in range(1, 5):
            forget(f"stress-{seed}")
