"""What suppressing duplicates costs: throughput of a bus with the memory store, and checks of the store in a file.

`python -m benchmarks.bench_deduplicate` prints the tables; `--ids 10000000` says how many ids the file holds, one
million by default.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.measure import Table, against, in_turn, per_second, sample

COUNT = 40_000
CHECKS = 100_000
AT_ONCE = 100
"""How many handlers ask the store at the same time."""
IDS = 1_000_000
FEWER = 5
"""Rounds of the store in a file at its default size; one beyond it."""


def bus(middleware: bool) -> float:
    from crossbus import Bus, Deduplicate, Event, MemoryStore

    shop = Bus("local:", handle_middleware=[Deduplicate(MemoryStore())] if middleware else [])
    handled = 0
    stop_at = 0
    done = asyncio.Event()

    @shop.subscribe("orders", "billing")
    async def bill(order: dict) -> None:  # type: ignore[type-arg]
        nonlocal handled
        handled += 1
        if handled == stop_at:
            done.set()

    async def publish(number: int) -> None:
        nonlocal stop_at
        done.clear()
        stop_at = handled + number
        for index in range(number):
            order = {"order": f"o-{index}", "customer": "c-1", "total": 12.5, "items": ["book", "pen"]}
            await shop.publish("orders", Event(type="com.acme.order.placed", source="/shop", data=order))
        await done.wait()

    async def main() -> float:
        async with shop, shop.running():
            await publish(COUNT // 10)
            start = time.perf_counter()
            await publish(COUNT)
            return COUNT / (time.perf_counter() - start)

    return asyncio.run(main())


def key(number: int) -> str:
    """What the middleware makes of an event whose id is as random as a UUID."""
    return f'["orders/billing","/shop","{number * 0x9E3779B97F4A7C15 % 2**64:032x}"]'


def fill(path: Path, ids: int) -> None:
    """Put ids into the file as a store would hold them, in the order of their keys: it is made for the measure only."""
    import sqlite3

    from crossbus.deduplicate_sqlite import short_key

    until = time.time() + 86_400
    keys = sorted(short_key(key(number)) for number in range(ids))
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        connection.executemany(
            "INSERT INTO crossbus_duplicates VALUES (?, NULL, ?)", ((each, until) for each in keys)
        )


def file(ids: int) -> dict[str, float]:
    from crossbus import SQLiteStore

    async def main(path: Path) -> dict[str, float]:
        async with SQLiteStore(path) as store:
            await store.close()
            fill(path, ids)

            async def measured(first: int, step: int, answer: str | None) -> float:
                numbers = iter(range(first, first + step * CHECKS, step))

                async def ask() -> None:
                    for number in numbers:
                        if answer is None:
                            await store.confirm(key(number), ttl=86_400)
                        else:
                            assert await store.claim(key(number), ttl=900) == answer

                start = time.perf_counter()
                await asyncio.gather(*(ask() for _ in range(AT_ONCE)))
                return CHECKS / (time.perf_counter() - start)

            duplicates = await measured(0, max(1, ids // CHECKS), "done")
            new = await measured(ids, 1, "new")
            confirmed = await measured(ids, 1, None)
        return {"duplicates": duplicates, "new": new, "confirmed": confirmed}

    folder = os.environ.get("TMPDIR") or None
    with tempfile.TemporaryDirectory(dir=folder) as made:
        path = Path(made) / "handled.db"
        return {**asyncio.run(main(path)), "bytes": path.stat().st_size / (ids + CHECKS)}


def tables(ids: int = IDS) -> list[Table]:
    found = in_turn("bench_deduplicate", ["without", "memory"])
    plain, memory = found["without"]["rate"], found["memory"]["rate"]
    if ids <= IDS:
        held = in_turn("bench_deduplicate", ["sqlite"], str(ids), rounds=FEWER)["sqlite"]
    else:
        held = sample("bench_deduplicate", "sqlite", str(ids))
    return [
        Table(
            "Events a second with `Deduplicate(MemoryStore())`",
            ("what", "events/s", "of the first"),
            [
                ("no middleware", per_second(plain), "1.00"),
                ("`Deduplicate(MemoryStore())`", per_second(memory), f"{memory / plain:.2f}"),
            ],
            "As the throughput above, with a handler of `dict`: published one by one, handled, acknowledged, in one "
            "process. Target: it costs at most 30 %.",
            against("0.70 of the throughput without", memory >= 0.7 * plain),
        ),
        Table(
            f"`SQLiteStore` that holds {ids:,} ids",
            ("what", "a second"),
            [
                ("checks of an id that is a duplicate", per_second(held["duplicates"])),
                ("checks of an id that is new, which claims it", per_second(held["new"])),
                ("confirmations", per_second(held["confirmed"])),
                ("bytes of the file for an id", f"{held['bytes']:.0f}"),
            ],
            f"{CHECKS:,} ids of each kind, spread over the file, {AT_ONCE} at a time, in one process. Target: 20,000 "
            "checks a second, also with 10,000,000 ids.",
            against("20,000 checks a second", min(held["duplicates"], held["new"]) >= 20_000),
        ),
    ]


def main() -> None:
    arguments = sys.argv[1:]
    if arguments[:1] == ["sqlite"]:
        print(json.dumps(file(int(arguments[1]))))
    elif arguments[:1] in (["without"], ["memory"]):
        print(json.dumps({"rate": bus(arguments[0] == "memory")}))
    else:
        print(*tables(int(arguments[1]) if arguments[:1] == ["--ids"] else IDS), sep="\n\n")


if __name__ == "__main__":
    main()
