"""Order: events with one `partitionkey` are handled one after the other, as published; other keys go on meanwhile.

    CROSSBUS_URL=local: python ordering.py

A retry holds its key: what follows waits until it is done. A provider that has no order refuses `ordered=True` when
the bus opens.
"""

import asyncio
from collections import defaultdict

from crossbus import Bus, Delivery, Event, RetryPolicy

bus = Bus(source="/shop")
seen: dict[str, list[str]] = defaultdict(list)
handled = asyncio.Semaphore(0)


@bus.subscribe("orders", "ledger", ordered=True, retry=RetryPolicy(first_delay=0.3, jitter=False))
async def post(event: Event, delivery: Delivery) -> None:
    """Post an order's steps; the first step of o-1 fails once."""
    order, step = str(event.extensions["partitionkey"]), event.type.rpartition(".")[2]
    if (order, step) == ("o-1", "placed") and delivery.attempt == 1:
        print("o-1 placed: fails, and is retried; o-2 does not wait for it")
        raise ConnectionError("the ledger does not answer")
    seen[order].append(step)
    handled.release()


async def main() -> None:
    """Publish the steps of two orders, interleaved."""
    async with bus:
        for step in ("placed", "paid", "shipped"):
            for order in ("o-1", "o-2"):
                event = Event(type=f"com.acme.order.{step}", extensions={"partitionkey": order})
                await bus.publish("orders", event)
        async with bus.running():
            for _ in range(6):
                await handled.acquire()
    for order in ("o-1", "o-2"):
        print(order, *seen[order])


if __name__ == "__main__":
    asyncio.run(main())
