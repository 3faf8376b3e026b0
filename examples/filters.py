"""Filters: which events a subscription gets, and who decides.

    CROSSBUS_URL=local: python filters.py

A filter sees the attributes of an event and its extensions, never its data. What the provider cannot decide itself
is decided here, after delivery, so that every provider gives the same answer; `explain` says which is which.
"""

import asyncio
from collections import defaultdict

from crossbus import Bus, Delivery, Event, all_, any_, exact, not_, prefix, suffix

bus = Bus(source="/shop")

FILTERS = {
    "placed": exact(type="com.acme.order.placed"),
    "orders": prefix(type="com.acme.order."),
    "endings": suffix(type=".cancelled"),
    "europe": all_(prefix(type="com.acme.order."), exact(region="eu")),
    "not-europe": all_(prefix(type="com.acme."), not_(exact(region="eu"))),
    "either": any_(exact(type="com.acme.stock.low"), suffix(type=".cancelled")),
    "everything": None,
}

EVENTS = [
    Event(type="com.acme.order.placed", id="1", extensions={"region": "eu"}),
    Event(type="com.acme.order.placed", id="2", extensions={"region": "us"}),
    Event(type="com.acme.order.cancelled", id="3", extensions={"region": "eu"}),
    Event(type="com.acme.stock.low", id="4"),
]

got: dict[str, list[str]] = defaultdict(list)
arrived = asyncio.Semaphore(0)


async def note(delivery: Delivery) -> None:
    """Handle an event of any subscription."""
    got[delivery.subscription].append(delivery.event.id)
    arrived.release()


for name, chosen in FILTERS.items():
    bus.subscribe("events", name, filter=chosen)(note)


async def main() -> None:
    """Publish, and show who got what."""
    async with bus:
        await bus.publish_many("events", EVENTS)
        async with bus.running():
            for _ in range(
                sum(chosen is None or chosen.matches(e) for e in EVENTS for chosen in FILTERS.values())
            ):
                await arrived.acquire()
        for name in FILTERS:
            print(f"{name:<12} {' '.join(sorted(got[name]))}")
        print()
        print(bus.explain("events", "europe"))


if __name__ == "__main__":
    asyncio.run(main())
