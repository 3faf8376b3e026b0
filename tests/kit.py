"""The whole kit several times over on one server, each time in a new world: what fails once in ten is found so.

``python -m tests.kit``                       ten times on Google's emulator of Pub/Sub
``python -m tests.kit --times 3 --scale 0.1`` less often, and the large cases smaller still

It exits with 1 if a case failed. Not part of the tests: it takes minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path

from crossbus.conformance import Harness, Report, run

PARALLEL = 16


def _pubsub() -> Harness:
    sys.path.append(str(Path(__file__).parent))  # as under pytest
    from pubsub_emulator import PubSubHarness, running

    return PubSubHarness(running())


SERVERS: dict[str, Callable[[], Harness]] = {"pubsub": _pubsub}
"""What it can run on: a new server lends its harness here."""


async def once(harness: Harness, scale: float) -> Report:
    """Run every case but those of stress, which are the kit beside itself."""
    return await run(harness, select=lambda case: case.group != "stress", parallel=PARALLEL, scale=scale)


def line(number: int, times: int, report: Report, seconds: float) -> str:
    """Say what came of one run."""
    counts = f"{len(report.passed)} passed, {len(report.skipped)} skipped, {len(report.failed)} failed"
    failed = "".join(f"\n  {result.case.name}: {result.detail}" for result in report.failed)
    return f"{number} of {times}: {counts}, {seconds:.0f} s{failed}"


def main() -> int:
    """Run the kit so often, and print what came of each run."""
    parser = argparse.ArgumentParser(prog="python -m tests.kit", description=__doc__.partition("\n")[0])
    parser.add_argument("--on", choices=tuple(SERVERS), default="pubsub", help="the server")
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies how large the large cases are")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)  # it provokes what would be logged
    harness, passed = SERVERS[arguments.on](), 0
    for number in range(1, arguments.times + 1):
        began = time.monotonic()
        report = asyncio.run(once(harness, arguments.scale))
        passed += not report.failed
        print(line(number, arguments.times, report, time.monotonic() - began), flush=True)
    print(f"{harness.name} ({harness.what_lies_under}): {passed} of {arguments.times} passed")
    return 0 if passed == arguments.times else 1


if __name__ == "__main__":
    sys.exit(main())
