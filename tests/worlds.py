"""What the commands are tried on: the local broker, and what stands in for each cloud."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.server_process import Server
from tests.support import run
from tests.test_cli import crossbus, started

from crossbus import Bus, Event
from crossbus.adapter import Adapter, Received
from crossbus.clock import SystemClock
from crossbus.config import load
from crossbus.deadletter import make_record
from crossbus.event import new_id
from crossbus.registry import adapter_class
from crossbus.topology import Subscription, Topic, Topology

sys.path.append(str(Path(__file__).parent))  # as under pytest, for the modules below

EXACT = ("memory", "sqlite")


@dataclass
class World:
    """A bus to work on, with a topic of the test's own."""

    kind: str
    url: str
    environment: dict[str, str] = field(default_factory=dict)
    lease: float = 60.0

    def __post_init__(self) -> None:
        self.topic = f"t{new_id()[:8].lower().replace('-', 'x')}"
        self.where = f"{self.topic}/billing"

    @property
    def subscription(self) -> Subscription:
        return Subscription(topic=Topic(self.topic), name="billing", lease=self.lease)

    def adapter(self) -> Adapter:
        profile = load(self.url).default
        return adapter_class(profile.scheme, profile.origin)(profile, clock=SystemClock())

    def fill(self, count: int, *, traced: bool = False) -> None:
        """Make the subscription, and write so many records: a third of them rejected, the others failed."""

        async def scenario() -> None:
            adapter = self.adapter()
            await adapter.open()
            wanted = self.subscription
            await adapter.provision(await adapter.plan(Topology((wanted.topic,), (wanted,))))
            now = time.time() - 100
            for start in range(0, count, 10):
                records = [
                    _record(wanted, n, now + n / 1000, traced) for n in range(start, min(start + 10, count))
                ]
                outcomes = await adapter.send(
                    wanted.dead_letter, [adapter.encode(wanted.dead_letter, record) for record in records]
                )
                assert all(outcome.code is None for outcome in outcomes)
            await adapter.close()

        run(scenario(), limit=60)

    def waiting(self, count: int, patience: float = 20.0) -> list[str]:
        """Take what waits in the subscription, and return the ids: so many, and what comes in a second after."""

        async def scenario() -> list[str]:
            bus = Bus(self.url, provision="never")
            bus.subscribe(self.topic, "billing", lease=self.lease)
            ids: list[str] = []

            async def take() -> None:
                async with bus.deliveries(self.topic, "billing", max=100) as deliveries:
                    async for delivery in deliveries:
                        ids.append(delivery.event.id)
                        await delivery.ack()

            async with bus:
                taking = asyncio.ensure_future(take())
                end = time.monotonic() + patience
                while len(ids) < count and time.monotonic() < end and not taking.done():  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
                await asyncio.sleep(1)
                taking.cancel()
                await asyncio.gather(taking, return_exceptions=True)
            return sorted(ids)

        return run(scenario(), limit=60)

    def crossbus(self, *words: str, **more: Any) -> subprocess.CompletedProcess[str]:
        return crossbus(*words, CROSSBUS_URL=self.url, **self.environment, **more)

    def started(self, *words: str, **more: Any) -> AbstractContextManager[subprocess.Popen[str]]:
        return started(*words, CROSSBUS_URL=self.url, **self.environment, **more)

    def dead(self) -> int:
        """Count the dead letters, in this process: a command takes its second to start."""

        async def scenario() -> int:
            bus = Bus(self.url, provision="never")
            bus.subscribe(self.topic, "billing", lease=self.lease)
            async with bus:
                return (await bus.dead_letters(self.topic, "billing").summary()).count

        return run(scenario(), limit=60)

    def summary(self, *words: str) -> dict[str, int]:
        done = self.crossbus("dlq", "summary", self.where, *words, "-o", "json")
        assert done.returncode == 0, done.stderr
        found: Counter[str] = Counter()
        for group in json.loads(done.stdout)["groups"]:
            found[group["reason"]] += group["count"]
        return dict(found)


def _record(subscription: Subscription, n: int, now: float, traced: bool) -> Event:
    context = {"traceparent": f"00-{n + 1:032x}-00f067aa0ba902b7-01"} if traced else {}
    event = Event(
        id=f"e-{n}",
        type=f"com.acme.{'ab'[n % 2]}",
        source="/shop",
        data={"n": n},
        time=None,
        extensions=context,
    )
    return make_record(
        subscription,
        Received(n, b"", {}, f"m-{n}", 5, published=now - 60),
        event,
        reason="no customer" if n % 3 == 0 else "failed",
        error=ValueError(f"\x1b[31m{n}"),
        handler="shop.bill",
        now=now,
    )


@contextmanager
def _memory(folder: Path) -> Iterator[World]:
    with Server() as server:
        yield World("memory", server.url)


@contextmanager
def _sqlite(folder: Path) -> Iterator[World]:
    with Server("--path", str(folder / "broker.db")) as server:
        yield World("sqlite", server.url)


@contextmanager
def _pubsub(folder: Path) -> Iterator[World]:
    import pubsub_emulator

    emulator = pubsub_emulator.running()
    yield World("pubsub", f"pubsub:{pubsub_emulator.PROJECT}?endpoint={emulator.address}")


@contextmanager
def _eventbridge(folder: Path) -> Iterator[World]:
    from tests.eventbridge_harness import server, world

    with world(server()) as aws:
        yield World("eventbridge", aws.url("cli"), dict(aws.env))


@contextmanager
def _eventgrid(folder: Path) -> Iterator[World]:
    from eventgrid_harness import KEY

    before = os.environ.get(KEY)
    os.environ[KEY] = "any"
    try:
        with Server("--shortest-lock", "2", "--shortest-wait", "1") as server:
            endpoint = server.url.removeprefix("local+")
            url = f"eventgrid:?endpoint={endpoint}&shortest_lock=2&shortest_wait=1"
            yield World("eventgrid", url, {KEY: "any"}, 2.0)
    finally:
        if before is None:
            del os.environ[KEY]
        else:
            os.environ[KEY] = before


WORLDS: dict[str, Callable[[Path], AbstractContextManager[World]]] = {
    "memory": _memory,
    "sqlite": _sqlite,
    "pubsub": _pubsub,
    "eventbridge": _eventbridge,
    "eventgrid": _eventgrid,
}
