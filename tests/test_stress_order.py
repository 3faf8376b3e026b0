"""Order per key, at random, on a provider that hands out several events of a key at once, as Pub/Sub does."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from tests.consuming import event, until
from tests.scripted import DelaySteps, ScriptedAdapter, ScriptedReceiver
from tests.support import run

from crossbus import Bus, Event, Reject, Retry, RetryPolicy
from crossbus.adapter import LeaseOutcome, Received, Settlement
from crossbus.codecs import encode_json


class EagerReceiver(ScriptedReceiver):
    """Hands out the events of each key in order, without waiting for earlier ones to be acknowledged.

    An event that is given back comes again, and so do all later ones of its key, whose leases are lost.
    """

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self.chance = chance
        self.lines: dict[str, list[Event]] = defaultdict(list)
        self.in_hand: dict[int, tuple[str, Event]] = {}
        self.attempts: dict[str, int] = defaultdict(int)
        self.tokens = 0
        self.most_of_a_key = 0

    def _out(self, key: str) -> set[str]:
        return {event.id for held_key, event in self.in_hand.values() if held_key == key}

    def _next(self, max: int) -> list[Received]:
        taken: list[Received] = []
        for key in self.chance.sample(list(self.lines), len(self.lines)):
            out = self._out(key)
            for waiting in self.lines[key]:
                if waiting.id in out:
                    continue
                if len(taken) == max or self.chance.random() < 0.2:
                    break
                self.tokens += 1
                self.in_hand[self.tokens] = key, waiting
                self.attempts[waiting.id] += 1
                taken.append(
                    Received(
                        lease=self.tokens,
                        body=encode_json(waiting),
                        attributes={},
                        message_id=waiting.id,
                        attempt=self.attempts[waiting.id],
                        key=key,
                    )
                )
            self.most_of_a_key = builtin_max(self.most_of_a_key, len(self._out(key)))
        return taken

    async def receive(self, max: int, wait: float) -> Sequence[Received]:
        while not (taken := self._next(max)):  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        return taken

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[LeaseOutcome]:
        await asyncio.sleep(self.chance.choice([0, 0.001]))
        return [self._settle(settlement) for settlement in settlements]

    def _settle(self, settlement: Settlement) -> LeaseOutcome:
        if settlement.lease in self.in_hand and self.chance.random() < 0.05:
            return LeaseOutcome.FAILED
        key, event = self.in_hand.pop(settlement.lease, ("", None))
        if event is None:
            return LeaseOutcome.LOST
        line = self.lines[key]
        if settlement.delay is None:
            self.lines[key] = [other for other in line if other.id != event.id]
        else:
            place = next((i for i, other in enumerate(line) if other.id == event.id), len(line))
            later = {other.id for other in line[place:]}
            self.in_hand = {
                lease: held
                for lease, held in self.in_hand.items()
                if held[0] != key or held[1].id not in later
            }
        return LeaseOutcome.OK


builtin_max = max


def test_events_of_a_key_succeed_in_order_whatever_is_retried_paused_or_stopped() -> None:
    async def scenario(seed: int) -> None:
        chance = random.Random(seed)
        adapter = ScriptedAdapter(retry_delays=DelaySteps((0.0, 0.01)), receive_batch=20)
        adapter.receiver = receiver = EagerReceiver(chance)
        for number in range(30):
            for key in ("a", "b", "c", "d"):
                receiver.lines[key].append(event(f"{key}-{number}", key))
        done: list[str] = []
        rejected: set[str] = set()
        running: set[Any] = set()
        wrong: list[str] = []

        async def handle(event: Event) -> None:
            key = event.extensions["partitionkey"]
            if key in running:
                wrong.append(f"two of {key} at once")
            running.add(key)
            try:
                await asyncio.sleep(chance.choice([0, 0.001, 0.002]))
            finally:
                running.discard(key)
            if chance.random() < 0.03:
                rejected.add(event.id)
                raise Reject("no")
            if chance.random() < 0.15:
                raise chance.choice(
                    [Retry(after=0.005), Retry(after=0), Retry(after=0.015), ValueError("no")]
                )
            done.append(event.id)

        bus = Bus(adapter=adapter, drain_limit=chance.choice([0.0, 1.0]))
        policy = RetryPolicy(attempts="unlimited", first_delay=0.005, max_delay=0.02)
        bus.subscribe("orders", "billing", ordered=True, concurrency=3, retry=policy)(handle)

        async def consume() -> None:
            while any(receiver.lines.values()):
                async with bus.running():
                    for _ in range(chance.randrange(1, 5)):
                        await asyncio.sleep(chance.random() * 0.03)
                        await bus.pause("orders", "billing")
                        await asyncio.sleep(chance.random() * 0.01)
                        await bus.resume("orders", "billing")

        async with bus:
            task = asyncio.ensure_future(consume())
            await until(lambda: task.done() or not any(receiver.lines.values()), limit=20)
            await task
        assert not wrong
        assert receiver.most_of_a_key > 1, "the provider was not eager"
        assert set(done) | rejected == {f"{key}-{number}" for key in "abcd" for number in range(30)}
        for key in "abcd":
            first = [id for id in dict.fromkeys(done) if id.startswith(key) and id not in rejected]
            assert first == sorted(first, key=lambda id: int(id.split("-")[1])), first

    async def scenarios() -> None:
        await asyncio.gather(*(scenario(seed) for seed in range(4)))

    run(scenarios())
