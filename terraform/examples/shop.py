"""A program whose topology the examples have: `crossbus topology export shop:bus` writes it."""

from crossbus import Bus, Event, RetryPolicy, exact, prefix

bus = Bus()


@bus.subscribe("orders", "billing", filter=exact(type="com.acme.order.placed"))
async def bill(event: Event) -> None:
    print("billed", event.id)


@bus.subscribe("orders", "shipping", filter=prefix(type="com.acme.order."), lease=120, retention=86400)
async def ship(event: Event) -> None:
    print("shipped", event.id)


@bus.subscribe("payments", "books", retry=RetryPolicy(attempts=3))
async def book(event: Event) -> None:
    print("booked", event.id)
