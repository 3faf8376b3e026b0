"""What `crossbus serve` carries from one process to another: events a second, and how long one takes.

`python -m benchmarks.bench_server` prints the table; with the name of a peer it takes one sample.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NamedTuple

from benchmarks.measure import Table, against, in_turn, per_second

EVENTS = 50_000
BATCH = 100
ALONE = 300
"""Events that are published one by one, for the latency."""
APART = 0.01
TARGET = 5_000
TARGET_MS = 3.0

VERSION = "api-version=2024-06-01"
HEADERS = {"content-type": "application/cloudevents-batch+json"}


class Peer(NamedTuple):
    title: str
    file: bool
    native: bool


PEERS = {
    "eventgrid": Peer("Event Grid's protocol, memory", False, False),
    "eventgrid-file": Peer("Event Grid's protocol, `--path`", True, False),
    "native": Peer("`local+http:`, memory", False, True),
    "native-file": Peer("`local+http:`, `--path`", True, True),
}


class Seen:
    """What a consumer notes: the throughput of the first events, the latencies of the others."""

    def __init__(self) -> None:
        self.count = 0
        self.begin = self.end = 0.0
        self.latencies: list[float] = []

    def note(self, sent: float) -> bool:
        """Note one event; True with the last."""
        self.count += 1
        if self.count == 1:
            self.begin = sent
        elif self.count > EVENTS:
            self.latencies.append((time.time() - sent) * 1000)
        elif self.count == EVENTS:
            self.end = time.time()
            print("halfway", flush=True)
        return self.count == EVENTS + ALONE

    def figures(self) -> dict[str, float]:
        ordered = sorted(self.latencies)
        return {
            "rate": EVENTS / (self.end - self.begin),
            "p50": statistics.median(ordered),
            "p99": ordered[int(len(ordered) * 0.99)],
        }


def made(number: int) -> bytes:
    data = {"sent": time.time(), "order": f"o-{number}", "note": "x" * 100}
    event = {
        "specversion": "1.0",
        "id": f"e-{number}",
        "source": "/shop",
        "type": "com.acme.placed",
        "data": data,
    }
    return json.dumps(event).encode()


# --- with any HTTP client ---------------------------------------------------------------------------------------


async def consume_eventgrid(url: str) -> dict[str, float]:
    import aiohttp

    seen, place = Seen(), f"{url}/topics/orders/eventsubscriptions/billing"
    async with aiohttp.ClientSession() as session:

        async def ask(what: str, **more: Any) -> Any:
            async with session.post(f"{place}:{what}{VERSION}", **more) as answer:
                return json.loads(await answer.read())

        await ask("receive?maxWaitTime=0&")
        print("ready", flush=True)
        last = False
        while not last:
            received = (await ask("receive?maxEvents=100&maxWaitTime=60&"))["value"]
            for one in received:
                last = seen.note(one["event"]["data"]["sent"])
            await ask(
                "acknowledge?",
                json={"lockTokens": [one["brokerProperties"]["lockToken"] for one in received]},
            )
    return seen.figures()


async def publish_eventgrid(url: str, halfway: Callable[[], object]) -> None:
    import aiohttp

    async with aiohttp.ClientSession() as session:

        async def publish(numbers: range) -> None:
            body = b"[" + b",".join(map(made, numbers)) + b"]"
            async with session.post(
                f"{url}/topics/orders:publish?{VERSION}", data=body, headers=HEADERS
            ) as answer:
                assert answer.status == 200
                await answer.read()

        for first in range(0, EVENTS, BATCH):
            await publish(range(first, first + BATCH))
        halfway()
        for number in range(EVENTS, EVENTS + ALONE):
            await asyncio.sleep(APART)
            await publish(range(number, number + 1))


# --- with crossbus ----------------------------------------------------------------------------------------------


async def consume_native(url: str) -> dict[str, float]:
    from crossbus import Bus, Event

    seen, done = Seen(), asyncio.Event()
    bus = Bus(url.replace("http:", "local+http:"))

    @bus.subscribe("orders", "billing", concurrency=100)
    async def handle(event: Event) -> None:
        if seen.note(event.data["sent"]):
            done.set()

    async with bus, bus.running():
        print("ready", flush=True)
        await done.wait()
    return seen.figures()


async def publish_native(url: str, halfway: Callable[[], object]) -> None:
    from crossbus import Bus, Event

    def event() -> Event:
        return Event(type="com.acme.placed", source="/shop", data={"sent": time.time(), "note": "x" * 100})

    async with Bus(url.replace("http:", "local+http:")) as bus:
        for _ in range(0, EVENTS, BATCH):
            await bus.publish_many("orders", [event() for _ in range(BATCH)])
        halfway()
        for _ in range(ALONE):
            await asyncio.sleep(APART)
            await bus.publish("orders", event())


# --- one sample -------------------------------------------------------------------------------------------------


def started(*words: str, core: int | None = None) -> subprocess.Popen[str]:
    def pin() -> None:
        if core is not None and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {core})

    return subprocess.Popen([sys.executable, "-m", *words], stdout=subprocess.PIPE, text=True, preexec_fn=pin)


def line_of(process: subprocess.Popen[str]) -> str:
    stream: IO[str] | None = process.stdout
    assert stream is not None
    return stream.readline().strip()


def measure(peer: Peer) -> dict[str, float]:
    """Run a server on one core, a consumer, and publish from this process."""
    with tempfile.TemporaryDirectory() as folder:
        path = ("--path", str(Path(folder) / "events.db")) if peer.file else ()
        server = started("crossbus", "serve", "--port", "0", "--shortest-wait", "0", *path, core=0)
        url = line_of(server).removeprefix("listening on ")
        kind = "native" if peer.native else "eventgrid"
        consumer = started("benchmarks.bench_server", f"consume-{kind}", url)
        try:
            line_of(consumer)
            publish = publish_native if peer.native else publish_eventgrid
            asyncio.run(publish(url, lambda: line_of(consumer)))
            found: dict[str, float] = json.loads(line_of(consumer))
            return found
        finally:
            for process in (consumer, server):
                process.kill()
                process.communicate()


def tables() -> list[Table]:
    found = in_turn("bench_server", list(PEERS))
    slowest = min(found["eventgrid"]["rate"], found["native"]["rate"])
    longest = max(found["eventgrid"]["p50"], found["native"]["p50"])
    return [
        Table(
            "One process to another, through `crossbus serve`",
            ("what", "events/s", "alone: p50 ms", "p99 ms"),
            [
                (PEERS[name].title, per_second(each["rate"]), f"{each['p50']:.2f}", f"{each['p99']:.2f}")
                for name, each in found.items()
            ],
            f"The server on one processor. {EVENTS:,} events published in batches of {BATCH}, received, handled and "
            f"acknowledged by another process, from the first to the last; then {ALONE} alone, {APART * 1000:g} ms "
            "apart, from before they are published to their handler. Event Grid's protocol: aiohttp and `json` at both "
            f"ends. Targets, in memory: {TARGET:,} events a second, {TARGET_MS:g} ms.",
            against(f"{TARGET:,} events a second", slowest >= TARGET)
            + against(f"{TARGET_MS:g} ms from publish to handler", longest <= TARGET_MS),
        )
    ]


def main() -> None:
    match sys.argv[1:]:
        case ["consume-eventgrid", url]:
            print(json.dumps(asyncio.run(consume_eventgrid(url))), flush=True)
        case ["consume-native", url]:
            print(json.dumps(asyncio.run(consume_native(url))), flush=True)
        case [name]:
            print(json.dumps(measure(PEERS[name])))
        case _:
            print(*tables(), sep="\n\n")


if __name__ == "__main__":
    main()
