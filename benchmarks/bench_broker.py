"""What the local broker costs beneath the portable layer: each step of a delivery, in memory and in a file; filters."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence

from benchmarks.measure import Table, against, in_turn

EVENTS = 50_000
BATCH = 100
SUBSCRIPTIONS = 1_000
TARGET = 3.0


def million(seconds: float, events: int = EVENTS) -> float:
    return seconds / events * 1e6


async def broker(subscriptions: Sequence[object] = (), path: str = "") -> tuple[object, object, object]:
    from crossbus.clock import SystemClock
    from crossbus.profiles import Profile
    from crossbus.topology import Subscription, Topic, Topology
    from crossbus_local import LocalAdapter

    local = LocalAdapter(Profile(parameters={"path": path} if path else {}), clock=SystemClock())
    await local.open()
    topic = Topic("orders")
    declared = [
        Subscription(topic=topic, name=f"sub-{number}", filter=filter)  # type: ignore[arg-type]
        for number, filter in enumerate(subscriptions or [None])
    ]
    await local.provision(await local.plan(Topology((topic,), tuple(declared))))
    return local, topic, declared


async def in_file(size: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        return await steps(size, f"{folder}/events.db")


async def steps(size: int, path: str = "") -> dict[str, float]:
    """Publish, receive and acknowledge, `size` at a time."""
    from crossbus import Event
    from crossbus.adapter import Settlement

    local, topic, (subscription,) = await broker(path=path)  # type: ignore[misc]
    event = Event(type="com.acme.order.placed", source="/shop", data={"text": "x" * 100})
    batches = [[local.encode(topic, event) for _ in range(size)] for _ in range(EVENTS // size)]
    receiver = await local.open_receiver(subscription, size)
    begin = time.perf_counter()
    for batch in batches:
        await local.send(topic, batch)
    sent = time.perf_counter()
    taken = [await receiver.receive(size, 1.0) for _ in batches]
    received = time.perf_counter()
    for deliveries in taken:
        await receiver.settle([Settlement(one.lease) for one in deliveries])
    settled = time.perf_counter()
    await local.close()
    return {
        "publish": million(sent - begin),
        "receive": million(received - sent),
        "settle": million(settled - received),
    }


async def filters(count: int) -> dict[str, float]:
    """Publish to a topic with `count` subscriptions, of which one matches."""
    from crossbus import Event, exact, prefix

    made = [
        exact(type=f"com.acme.type{number}") if number % 2 else prefix(type=f"com.acme.kind{number}.")
        for number in range(count - 1)
    ]
    local, topic, _ = await broker([*made, exact(type="com.acme.order.placed")])
    event = Event(type="com.acme.order.placed", source="/shop", data={"text": "x" * 100})
    begin = time.perf_counter()
    for _ in range(EVENTS):
        await local.send(topic, [local.encode(topic, event)])  # type: ignore[attr-defined]
    return {"publish": million(time.perf_counter() - begin)}


PEERS: dict[str, tuple[str, Callable[[], Awaitable[dict[str, float]]]]] = {
    "single": ("in memory, one at a time", lambda: steps(1)),
    "batch": (f"in memory, {BATCH} at a time", lambda: steps(BATCH)),
    "file-single": ("in a file, one at a time", lambda: in_file(1)),
    "file-batch": (f"in a file, {BATCH} at a time", lambda: in_file(BATCH)),
    "one": ("1 subscription, filtered", lambda: filters(1)),
    "many": (
        f"{SUBSCRIPTIONS:,} subscriptions, exact and prefix, one matches",
        lambda: filters(SUBSCRIPTIONS),
    ),
}


def tables() -> list[Table]:
    found = in_turn("bench_broker", list(PEERS))
    ratio = found["many"]["publish"] / found["one"]["publish"]
    return [
        Table(
            "The local broker beneath the bus",
            ("what", "publish", "receive", "acknowledge"),
            [
                (
                    PEERS[peer][0],
                    *(f"{found[peer][step]:.2f} µs" for step in ("publish", "receive", "settle")),
                )
                for peer in ("single", "batch", "file-single", "file-batch")
            ],
            f"Microseconds an event, through `send`, `receive` and `settle` of the adapter; encoding apart; "
            f"{EVENTS:,} events. In a file means `local:?path=`: each call is one transaction, handed to the operating "
            "system before it returns.",
        ),
        Table(
            "One matching subscription of many",
            ("topic with", "encode and publish", "ratio"),
            [
                (PEERS["one"][0], f"{found['one']['publish']:.2f} µs", "1.00"),
                (PEERS["many"][0], f"{found['many']['publish']:.2f} µs", f"{ratio:.2f}"),
            ],
            f"Target: at most {TARGET:g} times the cost of one.",
            against(f"at most {TARGET:g} times the cost of one", ratio <= TARGET),
        ),
    ]


def main() -> None:
    if len(sys.argv) > 1:
        print(json.dumps(asyncio.run(PEERS[sys.argv[1]][1]())))  # type: ignore[arg-type]
    else:
        print(*tables(), sep="\n\n")


if __name__ == "__main__":
    main()
