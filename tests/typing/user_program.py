# pyright: strict, reportUnnecessaryTypeIgnoreComment=true, reportUnusedFunction=false
"""What a user writes, for the type checkers: checked strictly against the installed wheel, never run.

A line of `mistakes` that stops being an error fails the check, for then its `type: ignore` is one too many.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypedDict, assert_type

from crossbus import (
    Bus,
    Delivery,
    Event,
    PartialPublishError,
    Receipt,
    Reject,
    Retry,
    RetryPolicy,
    SyncBus,
    all_,
    event_type,
    exact,
    not_,
    prefix,
)

bus = Bus("local:", source="/shop")


@dataclass
class OrderPlaced:
    order: str
    total: float


@event_type("com.acme.order.paid")
@dataclass
class OrderPaid:
    order: str


class Refund(TypedDict):
    order: str


@bus.subscribe("orders", "billing", filter=exact(type="com.acme.order.placed"))
async def bill(order: OrderPlaced, event: Event) -> None:
    assert_type(order.total, float)
    assert_type(event.type, str)


@bus.subscribe(
    "orders",
    "mail",
    retry=RetryPolicy(attempts=3),
    filter=all_(prefix(type="com.acme."), not_(exact(source="/x"))),
)
def mail(refund: Refund) -> None:
    assert_type(refund["order"], str)


@bus.subscribe("orders", "audit", batch=50)
async def audit(events: list[Event]) -> list[Retry | Reject | None]:
    return [Retry(after=5) if event.subject is None else None for event in events]


stock = bus.subscribe("orders", "stock", ordered=True)


@stock.on("com.acme.order.placed", "com.acme.order.paid")
async def reserve(event: Event, delivery: Delivery) -> None:
    assert_type(delivery.attempt, int | None)
    if event.data_as(OrderPlaced).total < 0:
        raise Reject("a negative total")


async def publishing() -> None:
    async with bus:
        receipt = await bus.publish("orders", Event(type="com.acme.order.placed", data={"order": "o-1"}))
        assert_type(receipt, Receipt)
        assert_type(receipt.event_id, str)
        await bus.publish("orders", OrderPaid("o-1"))
        try:
            receipts = await bus.publish_many("orders", (Event(type="a.b") for _ in range(3)))
            assert_type(receipts, list[Receipt])
        except PartialPublishError as error:
            print([result.event_id for result in error.failed])
        async with bus.running():
            ready: bool = bus.health().ready
            print(ready)
        await bus.run()


async def pulling() -> None:
    async with bus.deliveries("orders", "billing", max=5) as deliveries:
        async for delivery in deliveries:
            assert_type(delivery, Delivery)
            await delivery.extend(30)
            await delivery.retry(after=10)


async def timed(delivery: Delivery, call_next: Callable[[Delivery], Awaitable[Any]]) -> Any:
    return await call_next(delivery)


other = Bus("local:other", handle_middleware=[timed])


def from_sync_code() -> None:
    with SyncBus("local:") as sync:
        assert_type(sync.publish("orders", Event(type="a.b", source="/s")), Receipt)


async def mistakes() -> None:
    Event(data={})  # type: ignore[call-arg]
    bus.subscribe("orders", "billing", concurrency="ten")  # type: ignore[arg-type]
    await bus.publish(Event(type="a.b"), "orders")  # type: ignore[arg-type]
