"""A soak of Pub/Sub on Google's emulator: load through a network that is cut again and again, until the time is over.

``python scripts/soak_pubsub.py [MINUTES]``. Exit code 1 if an event was lost or dead-lettered. The emulator keeps all
in memory, so that it cannot be restarted; what is cut is the network before it, in each of the ways there are.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import sys
import time
from collections import Counter
from contextlib import AsyncExitStack
from typing import Final

from crossbus import Bus, Delivery, Event
from crossbus.conformance.proxy import Proxy
from crossbus_pubsub.emulator import Emulator

RATE: Final = 200
"""Events per second, of all publishers."""
CUTS: Final = ("refused", "unanswered", "swallowed")
QUIET: Final = 120.0
"""Seconds in which everything must have come once the cuts are over."""


async def soak(proxy: Proxy, seconds: float) -> int:
    """Publish and consume for so long; return 0 if all came and none is dead."""
    seen: Counter[str] = Counter()

    async def note(delivery: Delivery) -> None:
        seen[delivery.event.id] += 1
        if random.random() < 0.01:
            raise RuntimeError("failing by intent")

    def bus() -> Bus:
        made = Bus(f"pubsub:soak?endpoint=127.0.0.1:{proxy.port}", source="/soak", publish_timeout=300)
        made.subscribe("load", "counting", lease=10)(note)
        return made

    published: list[str] = []
    numbers = itertools.count()
    end = time.monotonic() + seconds
    async with AsyncExitStack() as stack:
        buses = [await stack.enter_async_context(bus()) for _ in range(3)]
        for one in buses:
            await stack.enter_async_context(one.running())

        async def publish() -> None:
            while time.monotonic() < end:
                events = [Event(type="soak", data={"number": next(numbers)}) for _ in range(RATE // 10 // 4)]
                published.extend(receipt.event_id for receipt in await buses[0].publish_many("load", events))
                await asyncio.sleep(0.1)

        cutting = asyncio.create_task(_cut(proxy, end))
        await asyncio.gather(*(publish() for _ in range(4)))
        await cutting
        last = time.monotonic() + QUIET
        while time.monotonic() < last and any(id not in seen for id in published):  # noqa: ASYNC110
            await asyncio.sleep(0.5)
        letters = await buses[0].dead_letters("load", "counting").list()
    lost = [id for id in published if id not in seen]
    again = sum(seen.values()) - len(seen)
    print(
        f"{len(published):,} published, {len(lost)} lost, {len(letters)} dead, {again:,} deliveries beyond the first"
    )
    return 1 if lost or letters else 0


async def _cut(proxy: Proxy, end: float) -> None:
    for how in itertools.cycle(CUTS):
        await asyncio.sleep(random.uniform(5, 15))
        if time.monotonic() > end:
            return
        proxy.cut(how)  # type: ignore[arg-type]
        await asyncio.sleep(random.uniform(0.5, 5))
        proxy.restore()
        print(f"{time.strftime('%H:%M:%S')} the network was {how}", flush=True)


def main() -> int:
    """Run it on an emulator of its own."""
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 30.0
    logging.disable(logging.WARNING)
    with Emulator() as emulator, Proxy((emulator.host, emulator.port)) as proxy:
        return asyncio.run(soak(proxy, minutes * 60))


if __name__ == "__main__":
    sys.exit(main())
