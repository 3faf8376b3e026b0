"""What the cases share in which something breaks, or somebody dies, while events are on their way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from crossbus.bus import Bus
from crossbus.conformance.trial import Trial

__all__ = ["OUTAGE", "in_a_row", "interrupted", "nothing_dead", "patient_bus"]

OUTAGE: Final = 3.0
"""Seconds that a network stays cut."""
WITHIN: Final = 300.0
"""Seconds in which everything must have come after an outage."""


def patient_bus(t: Trial) -> Bus:
    """Make a bus that publishes again for longer than any outage takes."""
    return t.bus(publish_timeout=WITHIN * t.harness.patience)


async def interrupted(t: Trial, interrupt: Callable[[], Awaitable[object]]) -> None:
    """Publish and consume, and have something break at one third and at two thirds: none lost, none dead-lettered.

    A second subscription is paused until all is over, so that something waits at the provider whenever it breaks.
    """
    bus, topic = patient_bus(t), t.topic()
    events = t.events(t.size(3000, least=90))
    third = len(events) // 3
    # A receive whose answer is lost shows only when the lease ends that it took.
    inbox = t.inbox(bus, topic, "interrupted", lease=t.lease(10))
    waiting = t.inbox(bus, topic, "waiting", lease=t.lease(10))
    await bus.pause(topic, "waiting")
    async with t.consuming(bus):
        for part in range(3):
            publishing = asyncio.ensure_future(
                bus.publish_many(topic, events[part * third : (part + 1) * third])
            )
            if part:
                await interrupt()
            await t.within(publishing, "publishing through an outage", WITHIN)
        await t.arrive(inbox, events[: third * 3], within=WITHIN)
        assert len(waiting) == 0, "a paused subscription was given an event"
        await bus.resume(topic, "waiting")
        await t.arrive(waiting, events[: third * 3], within=WITHIN)
        for name in ("interrupted", "waiting"):
            await nothing_dead(t, bus, topic, name)
    strangers = (inbox.counts.keys() | waiting.counts.keys()) - {event.id for event in events}
    assert not strangers, f"events came that nobody published: {sorted(strangers)[:3]}"
    if again := len(inbox) - len(inbox.counts):
        t.notes.append(f"{again} came again")  # which at least once allows, for something failed


async def nothing_dead(t: Trial, bus: Bus, topic: str, name: str) -> None:
    """Fail if anything is in the dead letter of a subscription."""
    if not t.capabilities.has("dead_letters"):
        return
    letters = await bus.dead_letters(topic, name).list(limit=10)
    assert not letters, f"an event was dead-lettered although no handler failed: {letters[0].reason}"


def in_a_row(t: Trial) -> tuple[int, dict[str, Any]]:
    """Return how many consumers may fail with one event before any backstop, and the subscription's options."""
    bounds = t.capabilities.backstop
    rounds = t.size(20, least=5)
    backstop = None
    if bounds is not None:
        rounds = min(rounds, bounds[1] - 1)
        backstop = min(max(rounds + 10, bounds[0]), bounds[1])
    return rounds, {"lease": t.lease(), "backstop": backstop}
