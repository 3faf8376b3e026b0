"""A shop that bills its orders: a program to start from.

CROSSBUS_URL=local: python shop.py           here, without an account and without a server
CROSSBUS_PROFILE=production python shop.py   the same program in a cloud: see crossbus.toml
"""

import asyncio
from dataclasses import dataclass

from crossbus import Bus, Event, exact

bus = Bus(source="/shop")  # where it connects to is configuration
billed: asyncio.Queue[str] = asyncio.Queue()


@dataclass
class OrderPlaced:
    """What the data of the event should hold; data that does not fit goes to the dead letter."""

    order: str
    total: float


@bus.subscribe("orders", "billing", filter=exact(type="com.acme.order.placed"))
async def bill(order: OrderPlaced, event: Event) -> None:
    """Returning acknowledges the event; raising has it delivered again later."""
    print(f"billed {order.order}: {order.total:.2f} (event {event.id} from {event.source})")
    await billed.put(order.order)


async def main() -> None:
    """Publish two orders and handle them. A service would `await bus.run()`, which ends at SIGTERM."""
    async with bus:
        for number, total in ((1, 12.5), (2, 80.0)):
            data = {"order": f"o-{number}", "total": total}
            receipt = await bus.publish(
                "orders", Event(type="com.acme.order.placed", id=f"e-{number}", data=data)
            )
            print(f"published {receipt.event_id} to {receipt.topic}")
        async with bus.running():
            for _ in range(2):
                await billed.get()


if __name__ == "__main__":
    asyncio.run(main())
