"""`crossbus dlq summary` of a large dead letter on the local broker's server: how long it takes, and how much memory.

The target is 100,000 records in 2 s, with 100 MB above the memory that the command starts with. Run it with
``python -m benchmarks.bench_dlq``, and ``--records 10000`` for a quick look.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import resource
import statistics
import subprocess
import sys
import time

from crossbus import Event, Subscription, Topic
from crossbus.adapter import Received
from crossbus.clock import SystemClock
from crossbus.config import load
from crossbus.deadletter import make_record
from crossbus.registry import adapter_class
from crossbus.topology import Topology

TARGET_SECONDS = 2.0
TARGET_MB = 100.0

_MEASURED = """
import resource, sys
from crossbus.cli import main
from crossbus.letters import DeadLetters
import crossbus.cli.dlq_look, rich.table, asyncio, crossbus_local.remote.client
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    main(sys.argv[1:])
finally:
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"memory {(after - before) / 1024:.1f}", file=sys.stderr)
"""


def main() -> None:
    """Fill a dead letter, sum it up several times, and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args()
    serve = [sys.executable, "-m", "crossbus", "serve", "--port", "0"]
    server = subprocess.Popen(serve, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        url = "local+http://127.0.0.1:" + server.stdout.readline().strip().rpartition(":")[2]
        asyncio.run(_fill(url, given.records))
        measured = [_summary(url, given.records) for _ in range(given.runs)]
    finally:
        server.terminate()
        server.wait()
    seconds, busy, megabytes = (statistics.median(column) for column in zip(*measured, strict=True))
    print(
        f"dlq summary of {given.records:,} records, whole process: {seconds:.2f} s (target {TARGET_SECONDS:g} s), of "
        f"which it used a processor for {busy:.2f} s"
    )
    print(f"memory above start: {megabytes:.0f} MB (target {TARGET_MB:g} MB)")


async def _fill(url: str, count: int) -> None:
    profile = load(url).default
    adapter = adapter_class(profile.scheme, profile.origin)(profile, clock=SystemClock())
    await adapter.open()
    subscription = Subscription(topic=Topic("orders"), name="billing")
    await adapter.provision(await adapter.plan(Topology((subscription.topic,), (subscription,))))
    now = time.time()
    for start in range(0, count, 500):
        wires = []
        for n in range(start, min(start + 500, count)):
            event = Event(
                id=f"e-{n}",
                type=f"com.acme.order.{('placed', 'paid', 'sent')[n % 3]}",
                source="/shop",
                data={"order": f"o-{n}", "total": n / 100, "note": "x" * 100},
            )
            record = make_record(
                subscription,
                Received(n, b"", {}, f"m-{n}", 5, published=now - 700),
                event,
                reason="failed",
                error=ValueError(f"no customer {n}"),
                handler="shop.bill",
                now=now - 600 + n / 1000,
            )
            wires.append(adapter.encode(subscription.dead_letter, record))
        await adapter.send(subscription.dead_letter, wires)
    await adapter.close()


def _summary(url: str, count: int) -> tuple[float, float, float]:
    words = ["dlq", "summary", "orders/billing", "--url", url, "--output", "lines"]
    began, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, *words], capture_output=True, text=True, check=True, env=os.environ
    )
    took, now = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    counted = sum(int(line.split("\t")[0]) for line in done.stdout.splitlines())
    assert counted == count, done.stdout
    found = re.search(r"memory ([\d.]+)", done.stderr)
    assert found is not None
    return took, busy, float(found[1])


if __name__ == "__main__":
    main()
