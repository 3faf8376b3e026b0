"""The Event Grid adapter beside hand-written loops on Azure's SDK: the same server, events and batch sizes."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable

from benchmarks.measure import Table, against, in_turn, per_second

EVENTS = 10_000
BATCH = 100
TARGET = 1.15
PEERS = ("Azure's SDK", "adapter")
TOPIC, NAME = "bench-topic", "bench-sub"


def data(number: int) -> dict[str, object]:
    return {"order": f"o-{number}", "total": 12.5, "lines": [{"sku": "abc", "count": number}] * 4}


async def measured(
    publish: Callable[[int], Awaitable[None]], receive: Callable[[], Awaitable[int]]
) -> dict[str, float]:
    """Publish all, then receive and acknowledge all; the seconds of each."""
    await publish(0)
    assert await receive() == BATCH  # connections, caches
    began = time.perf_counter()
    for first in range(0, EVENTS, BATCH):
        await publish(first)
    published, count = time.perf_counter(), 0
    while count < EVENTS:
        count += await receive()
    return {"publish": published - began, "receive": time.perf_counter() - published}


async def sdk(url: str) -> dict[str, float]:
    from azure.core.credentials import AzureKeyCredential
    from azure.core.messaging import CloudEvent
    from azure.eventgrid.aio import EventGridConsumerClient, EventGridPublisherClient

    key = AzureKeyCredential("local")
    publisher = EventGridPublisherClient(url, key, namespace_topic=TOPIC)
    consumer = EventGridConsumerClient(url, key, namespace_topic=TOPIC, subscription=NAME)

    async def publish(first: int) -> None:
        events = [CloudEvent(source="/bench", type="com.example", data=data(first + n)) for n in range(BATCH)]
        await publisher.send(events)

    async def receive() -> int:
        details = await consumer.receive(max_events=BATCH, max_wait_time=10)
        assert all(detail.event.data["order"] for detail in details)
        await consumer.acknowledge(lock_tokens=[detail.broker_properties.lock_token for detail in details])
        return len(details)

    async with publisher, consumer:
        return await measured(publish, receive)


async def adapter(url: str) -> dict[str, float]:
    from crossbus import Event
    from crossbus.adapter import Settlement
    from crossbus.clock import SystemClock
    from crossbus.profiles import Profile
    from crossbus.topology import Subscription, Topic
    from crossbus_eventgrid import EventGridAdapter

    opened = EventGridAdapter(Profile(parameters={"endpoint": url}), clock=SystemClock())
    await opened.open()
    topic = Topic(TOPIC)
    receiver = await opened.open_receiver(Subscription(topic=topic, name=NAME), BATCH)

    async def publish(first: int) -> None:
        events = [Event(source="/bench", type="com.example", data=data(first + n)) for n in range(BATCH)]
        outcomes = await opened.send(topic, [opened.encode(topic, event) for event in events])
        assert all(outcome.code is None for outcome in outcomes)

    async def receive() -> int:
        taken = await receiver.receive(BATCH, 10)
        assert all(opened.decode(one).data["order"] for one in taken)
        await receiver.settle([Settlement(one.lease) for one in taken])
        return len(taken)

    try:
        return await measured(publish, receive)
    finally:
        await receiver.close()
        await opened.close()


def tables() -> list[Table]:
    server = subprocess.Popen(
        [sys.executable, "-m", "crossbus", "serve", "--port", "0"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        found = re.search(r"http://\S+", server.stdout.readline())
        assert found is not None
        samples = in_turn("bench_eventgrid", PEERS, found[0])
    finally:
        server.terminate()
        server.wait()
    table = Table(
        f"Event Grid: {EVENTS:,} events in batches of {BATCH}, events a second",
        ("", *PEERS, "time of the adapter to the SDK's"),
        note="`crossbus serve` in memory, in a process of its own. Making, encoding and decoding events counts.",
    )
    for what, title in (("publish", "publish"), ("receive", "receive and acknowledge")):
        times = [samples[peer][what] for peer in PEERS]
        ratio = times[1] / times[0]
        table.rows.append((title, *(per_second(EVENTS / each) for each in times), f"{ratio:.2f}"))
        table.misses += against(
            f"{title}: at most {TARGET} of the SDK's time, not {ratio:.2f}", ratio <= TARGET
        )
    return [table]


if __name__ == "__main__":
    peer, url = sys.argv[1:]
    print(json.dumps(asyncio.run((sdk if peer == PEERS[0] else adapter)(url))))
