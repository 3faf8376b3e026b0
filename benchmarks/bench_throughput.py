"""Events a second: publish one by one, decode into a dataclass in the handler, acknowledge; in one process.

Each peer is written as its own documentation writes it. `python -m benchmarks.bench_throughput` prints the table;
with the name of a peer it takes one sample.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from benchmarks.measure import Table, against, in_turn, per_second


@dataclass
class OrderPlaced:
    order: str
    customer: str
    total: float
    items: list[str]


def order(number: int) -> OrderPlaced:
    return OrderPlaced(f"o-{number}", "c-1", 12.5, ["book", "pen"])


def crossbus(count: int) -> float:
    from crossbus import Bus, Event

    bus = Bus("local:")
    handled = 0
    done = asyncio.Event()
    stop_at = 0

    @bus.subscribe("orders", "billing")
    async def bill(order: OrderPlaced) -> None:
        nonlocal handled
        handled += 1
        if handled == stop_at:
            done.set()

    async def publish(number: int) -> None:
        nonlocal stop_at
        done.clear()
        stop_at = handled + number
        for index in range(number):
            await bus.publish(
                "orders", Event(type="com.acme.order.placed", source="/shop", data=order(index))
            )
        await done.wait()

    async def main() -> float:
        async with bus, bus.running():
            await publish(count // 10)
            start = time.perf_counter()
            await publish(count)
            return time.perf_counter() - start

    return asyncio.run(main())


def faststream(count: int) -> float:
    """With a pydantic model, as its users write it: that is its faster way, too."""
    from faststream.nats import NatsBroker, TestNatsBroker
    from pydantic import BaseModel

    class Order(BaseModel):
        order: str
        customer: str
        total: float
        items: list[str]

    broker = NatsBroker()
    handled = 0

    async def bill(order: Order) -> None:
        nonlocal handled
        handled += 1

    bill.__annotations__["order"] = Order  # the module's annotations are text, and Order is local
    broker.subscriber("orders")(bill)

    async def publish(number: int) -> None:
        for index in range(number):
            made = Order(order=f"o-{index}", customer="c-1", total=12.5, items=["book", "pen"])
            await broker.publish(made, "orders")

    async def main() -> float:
        async with TestNatsBroker(broker):
            await publish(count // 10)
            start = time.perf_counter()
            await publish(count)
            elapsed = time.perf_counter() - start
        assert handled == count // 10 + count
        return elapsed

    return asyncio.run(main())


def kombu(count: int) -> float:
    from kombu import Connection, Consumer, Exchange, Queue

    exchange = Exchange("orders", type="direct")
    queue = Queue("billing", exchange, routing_key="placed")
    handled = 0

    def bill(body: dict[str, object], message: object) -> None:
        nonlocal handled
        OrderPlaced(**body)  # type: ignore[arg-type]
        handled += 1
        message.ack()  # type: ignore[attr-defined]

    with Connection("memory://") as connection:
        producer = connection.Producer(serializer="json")

        def publish(number: int) -> None:
            stop_at = handled + number
            for index in range(number):
                producer.publish(
                    asdict(order(index)), exchange=exchange, routing_key="placed", declare=[queue]
                )
                connection.drain_events(timeout=1)
            assert handled == stop_at

        with Consumer(connection.channel(), queues=[queue], callbacks=[bill], accept=["json"]):
            publish(count // 10)
            start = time.perf_counter()
            publish(count)
            return time.perf_counter() - start


def asyncio_queue(count: int) -> float:
    """The data alone as JSON, no envelope."""
    return _queue(count, lambda index: asdict(order(index)), lambda found: OrderPlaced(**found))


def asyncio_queue_cloudevent(count: int) -> float:
    """The same CloudEvent as JSON: what crosses the queue is what crosses a bus."""

    def event(index: int) -> dict[str, object]:
        return {
            "specversion": "1.0",
            "id": f"{index:032x}",
            "source": "/shop",
            "type": "com.acme.order.placed",
            "time": "2026-01-31T12:00:00.000000Z",
            "datacontenttype": "application/json",
            "data": asdict(order(index)),
        }

    return _queue(count, event, lambda found: OrderPlaced(**found["data"]))


def _queue(
    count: int, make: Callable[[int], object], read: Callable[[dict[str, dict[str, object]]], object]
) -> float:
    async def main() -> float:
        queue: asyncio.Queue[str] = asyncio.Queue(1000)

        async def consume(number: int) -> None:
            for _ in range(number):
                read(json.loads(await queue.get()))
                queue.task_done()

        async def run(number: int) -> float:
            start = time.perf_counter()
            consumer = asyncio.create_task(consume(number))
            for index in range(number):
                await queue.put(json.dumps(make(index)))
            await consumer
            return time.perf_counter() - start

        await run(count // 10)
        return await run(count)

    return asyncio.run(main())


PEERS: dict[str, tuple[str, Callable[[int], float], int]] = {
    "crossbus": ("crossbus, `local:`", crossbus, 40_000),
    "faststream": ("FastStream, `TestNatsBroker`", faststream, 4_000),
    "kombu": ("Kombu, `memory://`", kombu, 10_000),
    "queue": ("`asyncio.Queue` and `json`, the data alone", asyncio_queue, 100_000),
    "queue-event": ("`asyncio.Queue` and `json`, the whole CloudEvent", asyncio_queue_cloudevent, 100_000),
}


def tables() -> list[Table]:
    found = in_turn("bench_throughput", list(PEERS))
    rates = {peer: figures["rate"] for peer, figures in found.items()}
    own = rates["crossbus"]
    return [
        Table(
            "Events a second: publish one by one, typed handler, acknowledge",
            ("what", "events/s", "crossbus is"),
            [(PEERS[peer][0], per_second(rate), f"{own / rate:.2f} times") for peer, rate in rates.items()],
            "In one process, from the first `publish` to the last handled event, with defaults and without a "
            "telemetry SDK. Every peer builds the same order for each event (a dataclass; for FastStream a pydantic "
            "model), carries it as JSON, and builds it again for the handler. FastStream's test broker calls the "
            "handler inside `publish`: it queues, acknowledges and retries nothing. Targets: 10 times FastStream, "
            "2.5 times Kombu, 0.4 (goal 0.6) of the bare queue with the same JSON.",
            [
                *against("10 times FastStream", own >= 10 * rates["faststream"]),
                *against("2.5 times Kombu", own >= 2.5 * rates["kombu"]),
                *against("0.4 of the queue, the whole CloudEvent", own >= 0.4 * rates["queue-event"]),
                *against("0.4 of the queue, the data alone", own >= 0.4 * rates["queue"]),
            ],
        )
    ]


def main() -> None:
    if len(sys.argv) > 1:
        _, measure, count = PEERS[sys.argv[1]]
        print(json.dumps({"rate": count / measure(count)}))
    else:
        print(*tables(), sep="\n\n")


if __name__ == "__main__":
    main()
