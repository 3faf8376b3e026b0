"""Duplicates: an event that was published twice is handled once.

    CROSSBUS_URL=local: python deduplicate.py

Every provider delivers at least once, and a publisher that did not get its answer publishes again. `Deduplicate`
remembers (source, id): `MemoryStore` in this process only, `SQLiteStore` in a file, for processes of one machine.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from crossbus import Bus, Deduplicate, Delivery, Event, MemoryStore

once = Deduplicate(MemoryStore())
handled: list[str] = []
ended = asyncio.Semaphore(0)


async def count(delivery: Delivery, call_next: Callable[[Delivery], Awaitable[Any]]) -> Any:
    """Count what comes, duplicates too: a middleware around all others."""
    result = await call_next(delivery)
    ended.release()
    return result


bus = Bus(source="/shop", handle_middleware=[count])


@bus.subscribe("orders", "billing", middleware=[once])
async def bill(event: Event) -> None:
    """Bill an order: it would be a pity to do that twice."""
    handled.append(event.id)
    print(f"{event.id} handled")


async def main() -> None:
    """Publish two orders, each twice."""
    async with bus:
        orders = [Event(type="com.acme.order.placed", id=f"e-{number}") for number in (1, 2)]
        async with bus.running():
            for order in orders * 2:
                await bus.publish("orders", order)
            for _ in range(4):
                await ended.acquire()
        print(f"published 4, handled {len(handled)}, dropped {once.dropped}")


if __name__ == "__main__":
    asyncio.run(main())
