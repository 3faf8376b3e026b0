"""Publishing to and consuming from EventBridge, beside boto3 written by hand, on one moto server.

`python -m benchmarks.bench_eventbridge` prints the tables; with the name of a peer, a URL and a part it takes one
sample. moto costs more than all else, so that overhead is what counts; the processor's time is this process's alone.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks.measure import Table, against, in_turn

EVENTS = 1000
THREADS = 8
"""Requests beside each other: as many as crossbus has under way for one topic."""
BATCHED, SINGLE, OURS = "boto3, batches of 10", "boto3, one at a time", "crossbus"
KEYS = {
    "AWS_ACCESS_KEY_ID": "AKIABENCHMARK",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
}
DATA = {"order": "o-1", "customer": "c-1", "total": 12.5, "lines": ["book", "pen"]}


def measured(work: Callable[[], Any], count: int) -> dict[str, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"seconds": wall, "cpu": cpu / count * 1e6}


# --- by hand ------------------------------------------------------------------------------------------------------


def clients(url: str) -> tuple[Any, Any]:
    import boto3
    from botocore.config import Config

    session = boto3.Session()
    config = Config(max_pool_connections=THREADS)
    return tuple(session.client(name, endpoint_url=url, config=config) for name in ("events", "sqs"))  # type: ignore[return-value]


def made(url: str, name: str) -> str:
    """Make a bus, a rule and a queue; return the queue's URL."""
    events, sqs = clients(url)
    events.create_event_bus(Name=name)
    queue: str = sqs.create_queue(QueueName=f"{name}--all", Attributes={"VisibilityTimeout": "60"})[
        "QueueUrl"
    ]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    sqs.create_queue(QueueName=f"{name}--all--dead")
    events.put_rule(Name=f"{name}--all", EventBusName=name, EventPattern='{"source":[{"prefix":""}]}')
    events.put_targets(Rule=f"{name}--all", EventBusName=name, Targets=[{"Id": "1", "Arn": arn}])
    return queue


def entry(name: str, number: int) -> dict[str, Any]:
    from datetime import UTC, datetime

    now = datetime.now(UTC)
    event = {
        "specversion": "1.0",
        "id": f"e-{number}",
        "source": "/shop",
        "type": "com.acme.order.placed",
        "time": now.isoformat(),
        "datacontenttype": "application/json",
        "data": DATA,
    }
    return {
        "Source": "/shop",
        "DetailType": "com.acme.order.placed",
        "Time": now,
        "Detail": json.dumps(event),
        "EventBusName": name,
    }


def publish_by_hand(url: str, name: str, batch: int, count: int) -> Callable[[], None]:
    events, _ = clients(url)

    def put(start: int) -> None:
        answer = events.put_events(Entries=[entry(name, number) for number in range(start, start + batch)])
        assert not answer["FailedEntryCount"]

    def work() -> None:
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(put, range(0, count, batch)))

    return work


def consume_by_hand(url: str, queue: str, count: int) -> Callable[[], None]:
    _, sqs = clients(url)
    seen: set[str] = set()
    lock = threading.Lock()

    def poll(_: int) -> None:
        while len(seen) < count:
            answer = sqs.receive_message(
                QueueUrl=queue, MaxNumberOfMessages=10, WaitTimeSeconds=1, VisibilityTimeout=60
            )
            messages = answer.get("Messages", [])
            if not messages:
                continue
            ids = [json.loads(message["Body"])["detail"]["id"] for message in messages]
            entries = [
                {"Id": str(n), "ReceiptHandle": message["ReceiptHandle"]}
                for n, message in enumerate(messages)
            ]
            sqs.delete_message_batch(QueueUrl=queue, Entries=entries)
            with lock:
                seen.update(ids)

    def work() -> None:
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(poll, range(THREADS)))

    return work


# --- crossbus -----------------------------------------------------------------------------------------------------


async def ours(url: str, name: str, part: str, count: int) -> dict[str, float]:
    from crossbus import Bus, Event

    bus = Bus(f"eventbridge:?region=us-east-1&endpoint={url}&pollers={THREADS}&wait=1", provision="never")
    seen: set[str] = set()
    done = asyncio.Event()

    @bus.subscribe(name, "all", concurrency=200)
    async def note(event: Event) -> None:
        seen.add(event.id)
        if len(seen) == count:
            done.set()

    async with bus:
        wall, cpu = time.perf_counter(), time.process_time()
        if part == "publish":
            await bus.publish_many(
                name,
                (
                    Event(type="com.acme.order.placed", source="/shop", id=f"e-{number}", data=DATA)
                    for number in range(count)
                ),
            )
        else:
            async with bus.running():
                await done.wait()
                wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
                return {"seconds": wall, "cpu": cpu / count * 1e6}
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"seconds": wall, "cpu": cpu / count * 1e6}


# --- samples and tables ---------------------------------------------------------------------------------------------


def take(peer: str, url: str, part: str) -> dict[str, float]:
    import logging

    logging.disable(logging.WARNING)  # the rule made by hand differs from what crossbus would make
    once(peer, url, part, 50)  # what is done once in a process is not the subject
    return once(peer, url, part, EVENTS)


def once(peer: str, url: str, part: str, count: int) -> dict[str, float]:
    name = f"bench-{os.getpid()}-{time.time_ns() % 10**9}"
    queue = made(url, name)
    if part == "consume":
        publish_by_hand(url, name, 10, count)()
    if peer == OURS:
        return asyncio.run(ours(url, name, part, count))
    if part == "consume":
        return measured(consume_by_hand(url, queue, count), count)
    return measured(publish_by_hand(url, name, 10 if peer == BATCHED else 1, count), count)


def row(peer: str, found: dict[str, dict[str, float]], base: str) -> tuple[str, str, str, str]:
    own, other = found[peer], found[base]
    return (
        peer,
        f"{own['seconds']:.2f} s",
        f"{own['seconds'] / other['seconds']:.2f}",
        f"{own['cpu']:,.0f} µs",
    )


def floor_of(found: dict[str, dict[str, float]], peer: str) -> str:
    """What hand-written batches take of a peer's time: nobody can take less of it on this server."""
    return f"{BATCHED}, take {found[BATCHED]['seconds'] / found[peer]['seconds']:.2f} of {peer}"


def table(title: str, found: dict[str, dict[str, float]], limits: list[tuple[str, float]]) -> Table:
    result = Table(title, ["what", f"{EVENTS:,} events", "ratio", "processor, an event"])
    result.rows = [row(peer, found, BATCHED) for peer in found]
    extra = found[OURS]["cpu"] - found[BATCHED]["cpu"]
    targets = ", ".join(f"at most {most:g} of {peer}" for peer, most in limits)
    result.note = (
        f"One moto server for all, by itself; {THREADS} requests beside each other. What crossbus takes "
        f"of the processor beyond boto3 written by hand: {extra:,.0f} µs an event. Targets: {targets}; below 150 µs."
    )
    for peer, most in limits:
        ratio = found[OURS]["seconds"] / found[peer]["seconds"]
        floor = "" if peer == BATCHED else f" ({floor_of(found, peer)})"
        result.misses += against(f"{title}: {ratio:.2f} of {peer}, target {most:g}{floor}", ratio <= most)
    if SINGLE in found:
        result.note += f" The floor: {floor_of(found, SINGLE)}, which is what the server takes for a batch."
    result.misses += against(f"{title}: {extra:.0f} µs beyond boto3, target 150", extra < 150)
    return result


def tables() -> list[Table]:
    from tests.moto_world import moto_server

    os.environ.update(KEYS)
    with moto_server() as server:
        publish = in_turn("bench_eventbridge", [BATCHED, SINGLE, OURS], server.url, "publish", rounds=5)
        consume = in_turn("bench_eventbridge", [BATCHED, OURS], server.url, "consume", rounds=5)
    return [
        table("Publish to EventBridge", publish, [(BATCHED, 1.15), (SINGLE, 0.2)]),
        table("Consume from EventBridge", consume, [(BATCHED, 1.15)]),
    ]


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(take(*sys.argv[1:])))
    else:
        print("\n\n".join(map(str, tables())))
