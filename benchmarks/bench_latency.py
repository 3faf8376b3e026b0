"""How long an event takes from `publish` to its handler, at 5,000 events a second.

`python -m benchmarks.bench_latency` prints the table; with the name of a peer it takes one sample.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable

from benchmarks.bench_throughput import OrderPlaced
from benchmarks.measure import Table, in_turn

RATE = 5_000
SECONDS = 3


async def paced(publish: Callable[[OrderPlaced], Awaitable[object]], count: int) -> None:
    """Publish `count` orders, each when it is due. The event loop sleeps between, as it does in a service."""
    start = time.perf_counter()
    for index in range(count):
        wait = start + index / RATE - time.perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)
        # The order carries the time at which it is published; no state is shared with the handler.
        await publish(OrderPlaced(f"o-{index}", "c-1", time.perf_counter(), ["book", "pen"]))


def crossbus(count: int) -> list[float]:
    from crossbus import Bus, Event

    bus = Bus("local:")
    seen: list[float] = []
    done = asyncio.Event()

    @bus.subscribe("orders", "billing")
    async def bill(order: OrderPlaced) -> None:
        seen.append(time.perf_counter() - order.total)
        if len(seen) == count:
            done.set()

    async def publish(order: OrderPlaced) -> None:
        await bus.publish("orders", Event(type="com.acme.order.placed", source="/shop", data=order))

    async def main() -> None:
        async with bus, bus.running():
            await paced(publish, count)
            await done.wait()

    asyncio.run(main())
    return seen


def faststream(count: int) -> list[float]:
    from faststream.nats import NatsBroker, TestNatsBroker

    broker = NatsBroker()
    seen: list[float] = []

    @broker.subscriber("orders")
    async def bill(order: OrderPlaced) -> None:
        seen.append(time.perf_counter() - order.total)

    async def main() -> None:
        async with TestNatsBroker(broker):
            await paced(lambda order: broker.publish(order, "orders"), count)

    asyncio.run(main())
    return seen


def asyncio_queue(count: int) -> list[float]:
    from dataclasses import asdict

    seen: list[float] = []

    async def main() -> None:
        queue: asyncio.Queue[str] = asyncio.Queue(1000)

        async def consume() -> None:
            for _ in range(count):
                order = OrderPlaced(**json.loads(await queue.get()))
                seen.append(time.perf_counter() - order.total)

        consumer = asyncio.create_task(consume())
        await paced(lambda order: queue.put(json.dumps(asdict(order))), count)
        await consumer

    asyncio.run(main())
    return seen


PEERS: dict[str, tuple[str, Callable[[int], list[float]]]] = {
    "crossbus": ("crossbus, `local:`", crossbus),
    "queue": ("`asyncio.Queue` and `json`", asyncio_queue),
    "faststream": ("FastStream, `TestNatsBroker`", faststream),
}


def tables() -> list[Table]:
    found = in_turn("bench_latency", list(PEERS))
    return [
        Table(
            f"From publish to handler, at {RATE:,} events a second",
            ("what", "p50 ms", "p99 ms", "longest ms", "reached events/s"),
            [
                (
                    PEERS[peer][0],
                    *(f"{figures[each] * 1000:.2f}" for each in ("p50", "p99", "longest")),
                    f"{figures['rate']:,.0f}",
                )
                for peer, figures in found.items()
            ],
            f"In one process and one event loop, {SECONDS} seconds for each sample, from the call of `publish` to the "
            "first line of the handler. A peer that does not reach the rate publishes as fast as it can; FastStream's "
            "test broker calls the handler inside `publish`, so that nothing ever waits in a queue.",
        )
    ]


def main() -> None:
    if len(sys.argv) > 1:
        start = time.perf_counter()
        seen = sorted(PEERS[sys.argv[1]][1](RATE * SECONDS))
        figures = {
            "p50": seen[len(seen) // 2],
            "p99": seen[len(seen) * 99 // 100],
            "longest": seen[-1],
            "rate": len(seen) / (time.perf_counter() - start),
        }
        print(json.dumps(figures))
    else:
        print(*tables(), sep="\n\n")


if __name__ == "__main__":
    main()
