"""`crossbus dlq` of a large dead letter on the local broker's server: how long it takes, and how much memory.

The target is 100,000 records in 2 s, with 100 MB above the memory that the command starts with. Run it with
``python -m benchmarks.bench_dlq``, ``--records 10000`` for a quick look, ``--records 1000000 --sqlite`` for the most.
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
import tempfile
import time
from pathlib import Path

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
    """Fill a dead letter, sum it up several times, and print the medians; then export it and put it back, once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--sqlite", action="store_true", help="a server that keeps a file")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = ["--path", str(Path(folder) / "broker.db")] if given.sqlite else []
        serve = [sys.executable, "-m", "crossbus", "serve", "--port", "0", *path]
        server = subprocess.Popen(serve, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            url = "local+http://127.0.0.1:" + server.stdout.readline().strip().rpartition(":")[2]
            asyncio.run(_fill(url, given.records))
            _measure(url, given.records, given.runs)
        finally:
            server.terminate()
            server.wait()


def _measure(url: str, records: int, runs: int) -> None:
    measured = [_summary(url, records) for _ in range(runs)]
    seconds, busy, megabytes = (statistics.median(column) for column in zip(*measured, strict=True))
    print(
        f"dlq summary of {records:,} records, whole process: {seconds:.2f} s (target {TARGET_SECONDS:g} s), of "
        f"which it used a processor for {busy:.2f} s"
    )
    print(f"memory above start: {megabytes:.0f} MB (target {TARGET_MB:g} MB)", flush=True)
    for words in (("export", "orders/billing", "-"), ("redrive", "orders/billing")):
        took, busy, megabytes, _ = _run(url, *words, to_nowhere=True)
        print(f"dlq {words[0]}: {took:.1f} s ({busy:.1f} s of a processor), {megabytes:.0f} MB", flush=True)


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
    took, busy, megabytes, output = _run(url, "summary", "orders/billing", "--output", "lines")
    counted = sum(int(line.split("\t")[0]) for line in output.splitlines())
    assert counted == count, output
    return took, busy, megabytes


def _run(url: str, *words: str, to_nowhere: bool = False) -> tuple[float, float, float, str]:
    """Run a command; return the seconds it took, those it was busy, MB above start, and what it printed."""
    began, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, "dlq", *words, "--url", url],
        stdout=subprocess.DEVNULL if to_nowhere else subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        check=True,
        env=os.environ,
    )
    took, now = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    found = re.search(r"memory ([\d.]+)", done.stderr)
    assert found is not None, done.stderr
    return took, busy, float(found[1]), done.stdout or ""


if __name__ == "__main__":
    main()
