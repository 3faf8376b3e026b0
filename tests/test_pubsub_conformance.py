"""The conformance kit on Google's emulator, behind a guard that asks for tokens and a network that can be cut."""

from __future__ import annotations

import asyncio
import faulthandler
import logging
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from crossbus import Bus, Event, exact
from crossbus.adapter import Adapter, Compilation
from crossbus.clock import Clock, SystemClock
from crossbus.conformance import Case, Report, run
from crossbus.filters import Filter
from crossbus.profiles import Profile
from crossbus.topology import Topic
from crossbus_pubsub import PubSubAdapter, filters
from crossbus_pubsub.emulator import Emulator
from pubsub_emulator import PubSubHarness
from pubsub_guard import Guard
from support import run as run_limited

NOT_THERE = {
    "replay_ordered": "the emulator does not implement Seek on an ordered subscription",
    "restarts": "nobody can restart Pub/Sub, and the emulator keeps everything in memory",
}
"""What is skipped, by the missing capability, and why."""


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    faulthandler.cancel_dump_traceback_later()  # the kit has limits of its own, and takes longer on an emulator
    yield
    logging.disable(logging.NOTSET)


def check(report: Report) -> None:
    assert not report.failed, f"\n{report.table()}\n{report.failed[0].error}"
    for result in report.skipped:
        assert result.case.waits_for or NOT_THERE.keys() & set(result.case.requires), result.detail
    assert report.passed


def without_stress(case: Case) -> bool:
    return case.group != "stress"


@pytest.mark.long(5)
def test_every_case(emulator: Emulator) -> None:
    harness = PubSubHarness(emulator)
    try:
        check(run_limited(run(harness, select=without_stress, parallel=16), limit=1200))
    finally:
        harness.close()


def noting(types: list[str]) -> Callable[[Event], Coroutine[Any, Any, None]]:
    async def note(event: Event) -> None:
        types.append(event.type)

    return note


class FilteringAdapter(PubSubAdapter):
    """Takes the emulator for the service: what is compiled exactly is evaluated nowhere else."""

    def compile(self, filter: Filter) -> Compilation:
        return filters.compile(filter)


class FilteringHarness(PubSubHarness):
    """The guard filters as Google documents it."""

    name = "pubsub: with filters"

    def make_adapter(self, world: str, clock: Clock) -> Adapter:
        self.guard(world).filters = True
        made = super().make_adapter(world, clock)
        return FilteringAdapter(made.profile, clock=clock, credentials=self.guard(world).credentials())


def test_filters_that_the_provider_evaluates(emulator: Emulator) -> None:
    harness = FilteringHarness(emulator)
    try:
        check(run_limited(run(harness, select="filters", parallel=4), limit=300))
    finally:
        harness.close()


def test_a_filter_that_the_provider_was_not_given_is_evaluated_here(emulator: Emulator) -> None:
    """An adopted subscription has its own filter, and a native one of the user's may be wider."""
    guard = Guard(emulator.address)
    guard.filters = True

    async def main() -> None:
        place = Profile(adapter="pubsub", target="given", parameters={"endpoint": guard.address})
        made = FilteringAdapter(place, clock=SystemClock(), credentials=guard.credentials())
        bus = Bus(adapter=made, provision="always", source="/s")
        seen: dict[str, list[str]] = {"wide": [], "adopted": [], "exact": []}
        for name, options in (
            ("wide", {"native_filter": {"pubsub": ""}}),
            ("adopted", {"resource": "theirs"}),
            ("exact", {}),
        ):
            bus.subscribe("orders", name, filter=exact(type="wanted"), **options)(noting(seen[name]))
        await made.open()
        await made.client.call("CreateTopic", name=made.names.topic(Topic("orders")))
        await made.client.call("CreateTopic", name=made.names.topic(Topic("dead")))
        await made.client.call(
            "CreateSubscription",
            name="projects/given/subscriptions/theirs",
            topic="projects/given/topics/orders",
            dead_letter_policy={"dead_letter_topic": "projects/given/topics/dead"},
        )
        async with bus, bus.running():
            for type in ("other", "wanted"):
                await bus.publish("orders", Event(type=type))
            async with asyncio.timeout(30):
                while not all(seen.values()):  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
            await asyncio.sleep(1.5)
        assert set(map(tuple, seen.values())) == {("wanted",)}

    try:
        run_limited(main(), limit=60)
    finally:
        guard.close()
