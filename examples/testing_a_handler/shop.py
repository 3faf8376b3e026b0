"""A program with a handler, and beside it its test."""

import asyncio
from dataclasses import dataclass

from crossbus import Bus, Event, exact

bus = Bus(source="/shop")
bus.topic("bills")


@dataclass
class OrderPlaced:
    """The data of com.acme.order.placed."""

    order: str
    total: float


def tax(total: float) -> float:
    """Return what an order costs with tax."""
    return round(total * 1.2, 2)


@bus.subscribe("orders", "billing", filter=exact(type="com.acme.order.placed"))
async def bill(order: OrderPlaced) -> None:
    """Bill an order: that is, publish that it was billed."""
    data = {"order": order.order, "amount": tax(order.total)}
    await bus.publish("bills", Event(type="com.acme.bill.issued", data=data))


if __name__ == "__main__":
    asyncio.run(bus.run())
