"""A consumer in a process of its own, to be watched and ended. Run as ``python -m crossbus.conformance.child``.

Its one argument is JSON, as `crossbus.conformance.children` writes it. It says on standard output, a line each, that it
is ``ready``, what it ``got ID`` and is ``done ID`` with, and that it ``ended``.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from crossbus.bus import Bus
from crossbus.delivery import Delivery


async def consume(
    url: str, topic: str, name: str, *, work: float | None = None, drain_limit: float = 25.0, **options: Any
) -> None:
    """Consume a subscription until SIGTERM.

    Args:
        url: The broker.
        topic: Its topic.
        name: The subscription, which must be there.
        work: Seconds that the handler takes for each event; None for one that never ends.
        drain_limit: As for `Bus`.
        options: Further ones of `Bus.subscribe`.
    """
    bus = Bus(url, provision="never", drain_limit=drain_limit)

    @bus.subscribe(topic, name, **options)
    async def handle(delivery: Delivery) -> None:
        say(f"got {delivery.event.id}")
        if work is None:
            await asyncio.Event().wait()
        elif work:
            await asyncio.sleep(work)
        say(f"done {delivery.event.id}")

    async with bus:
        say("ready")
        await bus.run()
    say("ended")


def say(line: str) -> None:
    """Print a line so that it is out even if the process is killed right after."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(consume(**json.loads(sys.argv[1])))
