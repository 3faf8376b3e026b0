"""A program that publishes and consumes in a broker in a file, and reports each step before it goes on.

``python -m tests.sqlite_child PATH RUN`` writes a line for each thing that it was answered:

* ``published KEY N``: the event is the broker's;
* ``received KEY N ATTEMPT``; ``acknowledged KEY N``; ``returned KEY N``.
"""

from __future__ import annotations

import asyncio
import os
import sys

from crossbus.adapter import LeaseOutcome, Settlement
from crossbus.clock import SystemClock
from crossbus.event import Event
from crossbus.profiles import Profile
from crossbus.topology import Subscription, Topic, Topology
from crossbus_local import LocalAdapter

TOPIC = Topic("orders")
SUBSCRIPTION = Subscription(topic=TOPIC, name="billing", ordered=True, lease=600.0, backstop=1_000_000)
KEYS = 8


def opened(path: str) -> LocalAdapter:
    return LocalAdapter(Profile(parameters={"path": path, "history": "1000000"}), clock=SystemClock())


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def event(key: str, number: int) -> Event:
    return Event(
        type="load",
        source="/child",
        id=f"{key}-{number}",
        data={"n": number},
        extensions={"partitionkey": key},
    )


async def publish(local: LocalAdapter, run: int) -> None:
    number = 0
    while True:
        key = f"r{run}k{number % KEYS}"
        events = [event(key, number + more * KEYS) for more in range(1 + number % 3)]
        outcomes = await local.send(TOPIC, [local.encode(TOPIC, one) for one in events])
        for one, outcome in zip(events, outcomes, strict=True):
            if outcome.code is None:
                say("published", key, one.id.partition("-")[2])
        number += KEYS * 3 + 1
        await asyncio.sleep(0)


async def consume(local: LocalAdapter) -> None:
    receiver = await local.open_receiver(SUBSCRIPTION, 10)
    while True:
        taken = await receiver.receive(10, 1.0)
        settlements = []
        for one in taken:
            key, _, number = local.decode(one).id.partition("-")
            say("received", key, number, one.attempt)
            again = (one.attempt or 0) % 5 == 1 and int(number) % 7 == 0
            settlements.append((key, number, again, Settlement(one.lease, 0.01 if again else None)))
        outcomes = await receiver.settle([settlement for *_, settlement in settlements])
        for (key, number, again, _), outcome in zip(settlements, outcomes, strict=True):
            if outcome is LeaseOutcome.OK:
                say("returned" if again else "acknowledged", key, number)
        await asyncio.sleep(0)


async def main(path: str, run: int) -> None:
    local = opened(path)
    await local.open()
    await local.provision(await local.plan(Topology((TOPIC,), (SUBSCRIPTION,))))
    await asyncio.gather(publish(local, run), consume(local))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
