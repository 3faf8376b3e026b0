"""Pull: take deliveries when you want them, and say yourself how each ends.

    CROSSBUS_URL=local: python pull.py

For jobs that run to an end. Leases are kept as long as a delivery is in hand; what is not settled when the block
ends is given back.
"""

import asyncio

from crossbus import Bus, Event

bus = Bus(source="/shop")
bus.subscribe("orders", "report")


async def main() -> None:
    """Read what is there, and stop after three."""
    async with bus:
        for number in range(1, 5):
            await bus.publish(
                "orders", Event(type="com.acme.order.placed", id=f"e-{number}", data={"total": number})
            )
        total = 0
        async with bus.deliveries("orders", "report", max=1) as deliveries:
            async for delivery in deliveries:
                if delivery.event.id == "e-2":
                    await delivery.reject("a test order")
                    continue
                total += delivery.event.data["total"]
                await delivery.ack()
                if delivery.event.id == "e-3":
                    break
        print("total:", total)
        print("waiting:", (await bus.backlog("orders", "report")).waiting)
        for letter in await bus.dead_letters("orders", "report").list():
            print("dead:", letter.event.id, letter.reason)


if __name__ == "__main__":
    asyncio.run(main())
