"""Retries and dead letters: what happens to an event whose handler fails.

    CROSSBUS_URL=local: python retries_and_dead_letters.py

Three ways to fail: an exception (again, by the policy of the subscription), `Retry` (again, when the handler says),
and `Reject` (never again: into the dead letter, from where it can be redriven once the cause is gone).
"""

import asyncio

from crossbus import Bus, Delivery, Event, Reject, Retry, RetryPolicy

bus = Bus(source="/shop")
known_currencies = {"EUR"}
ended: asyncio.Queue[str] = asyncio.Queue()


@bus.subscribe("orders", "billing", retry=RetryPolicy(attempts=3, first_delay=0.2, jitter=False))
async def bill(order: dict, delivery: Delivery) -> None:
    """Fail in every way there is."""
    name, attempt = order["order"], delivery.attempt
    if name == "o-2" and attempt == 1:
        print(f"{name} attempt {attempt}: the payment service does not answer")
        raise ConnectionError("the payment service does not answer")
    if name == "o-3" and attempt == 1:
        print(f"{name} attempt {attempt}: the payment service asks us to come back later")
        raise Retry(after=0.5, reason="the payment service is busy")
    if name == "o-4":
        print(f"{name} attempt {attempt}: a mistake in the handler")
        if attempt == 3:
            ended.put_nowait(name)
        raise KeyError("price")
    if order["currency"] not in known_currencies:
        print(f"{name} attempt {attempt}: unknown currency")
        ended.put_nowait(name)
        raise Reject(f"unknown currency {order['currency']}")
    print(f"{name} attempt {attempt}: billed")
    ended.put_nowait(name)


async def main() -> None:
    """Publish five orders; look into the dead letter; repair, and redrive one."""
    async with bus:
        for number, currency in enumerate(("EUR", "EUR", "EUR", "EUR", "CHF"), 1):
            data = {"order": f"o-{number}", "currency": currency}
            await bus.publish("orders", Event(type="com.acme.order.placed", id=f"e-{number}", data=data))
        async with bus.running():
            for _ in range(5):
                await ended.get()

        dead = bus.dead_letters("orders", "billing")
        for letter in await dead.list():
            print(
                f"dead: {letter.event.id} after {letter.attempts}: {letter.reason} {letter.error or ''}".rstrip()
            )

        known_currencies.add("CHF")
        rejected = [letter.id for letter in await dead.list(reason="unknown currency CHF")]
        print("redriven:", await dead.redrive(rejected))
        async with bus.running():
            await ended.get()
        print("purged:", await dead.purge())


if __name__ == "__main__":
    asyncio.run(main())
