"""How much memory 1,000,000 waiting events take on the local broker."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import Table, against, in_turn

COUNT = 1_000_000
ROUNDS = 1  # the figure does not depend on the machine's load, and a sample takes a while
TARGET = 1024


def resident() -> int:
    """Return the bytes of memory that this process holds now."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # not Linux: the peak, which is the same here, because memory only grows
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def payload(index: int, size: int) -> str:
    return f"{index:08d}".ljust(size - 2, "x")  # two quotes make it `size` bytes of JSON


def crossbus(size: int) -> float:
    from crossbus import Bus, Event

    bus = Bus("local:")
    bus.subscribe("orders", "billing")

    def events() -> Iterator[Event]:
        for index in range(COUNT):
            yield Event(
                type="com.acme.order.placed",
                source="/shop",
                data=payload(index, size),
                datacontenttype="application/json",
            )

    async def main() -> float:
        async with bus:
            await bus.publish("orders", Event(type="com.acme.order.placed", source="/shop", data={}))
            before = resident()
            some = 10_000
            made = events()
            for _ in range(COUNT // some):
                await bus.publish_many("orders", [next(made) for _ in range(some)])
            used = resident() - before
            assert (await bus.backlog("orders", "billing")).waiting == COUNT + 1
            return used / COUNT

    return asyncio.run(main())


def asyncio_queue(size: int) -> float:
    async def main() -> float:
        queue: asyncio.Queue[str] = asyncio.Queue()
        before = resident()
        for index in range(COUNT):
            event = {
                "specversion": "1.0",
                "id": f"{index:032x}",
                "source": "/shop",
                "type": "com.acme.order.placed",
                "time": "2026-01-31T12:00:00.000000Z",
                "datacontenttype": "application/json",
                "data": payload(index, size),
            }
            await queue.put(json.dumps(event))
        return (resident() - before) / COUNT

    return asyncio.run(main())


PEERS = {
    "crossbus": ("crossbus, `local:`", crossbus),
    "queue": ("`asyncio.Queue` of JSON text", asyncio_queue),
}


def tables() -> list[Table]:
    found = in_turn("bench_memory", list(PEERS), rounds=ROUNDS)
    return [
        Table(
            f"Memory of {COUNT:,} waiting events",
            ("what", "300 bytes an event: takes", "300 bytes of data: takes"),
            [
                (PEERS[peer][0], f"{figures['event']:.0f} bytes", f"{figures['data']:.0f} bytes")
                for peer, figures in found.items()
            ],
            "Growth of the process's resident memory, divided by the number of events; one sample. In the first "
            "column the whole event is 300 bytes of JSON, in the second its data alone. Target: under 1 KB.",
            against("under 1 KB", max(found["crossbus"].values()) < TARGET),
        )
    ]


def main() -> None:
    if len(sys.argv) == 2:
        import subprocess

        sizes = {"event": 300 - ENVELOPE, "data": 300}
        figures = {}
        for name, size in sizes.items():
            arguments = [sys.executable, "-m", "benchmarks.bench_memory", sys.argv[1], str(size)]
            figures[name] = float(
                subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
            )
        print(json.dumps(figures))
    elif len(sys.argv) == 3:
        print(PEERS[sys.argv[1]][1](int(sys.argv[2])))
    else:
        print(*tables(), sep="\n\n")


ENVELOPE = 190
"""About the bytes of JSON around the data of these events."""

if __name__ == "__main__":
    main()
