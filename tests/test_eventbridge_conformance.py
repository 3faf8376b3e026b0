"""The conformance kit on the EventBridge adapter, over moto's server; and the soak, with faults put in."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from tests.consuming import until
from tests.eventbridge_harness import ROLE, MotoHarness, World, server, world
from tests.support import run as run_limited

from crossbus import Bus, Delivery, Event
from crossbus.conformance import Report, UrlHarness, all_cases, run
from crossbus.event import new_id

LACKS = {"ordering", "replay_position", "restarts"}
"""What EventBridge does not have; each is said in the adapter's page."""
CASES = {case.name: case for case in all_cases() if case.group != "stress"}
BY_URL = [
    "basic/send-and-receive",
    "envelope/foreign-mapped",
    "envelope/foreign-dead-lettered",
    "retry/undecodable",
    "retry/redrive",
]
BESIDE = [name for name, case in CASES.items() if not case.exclusive]
ALONE = [name for name, case in CASES.items() if case.exclusive]


@pytest.fixture(scope="module")
def aws() -> Iterator[World]:
    with world(server()) as made:
        yield made


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def check(report: Report) -> None:
    assert not report.failed, f"\n{report.table()}\n{report.failed[0].error}"
    for result in report.skipped:
        assert result.case.waits_for or LACKS & set(result.case.requires), result.detail


@pytest.mark.long
@pytest.mark.parametrize("part", range(4))
def test_cases_that_may_run_beside_others(aws: World, part: int) -> None:
    check(run_limited(run(MotoHarness(aws), select=BESIDE[part::4], parallel=8), limit=900))


@pytest.mark.parametrize("name", ALONE)
def test_case_that_runs_alone(aws: World, name: str) -> None:
    check(run_limited(run(MotoHarness(aws), select=name), limit=600))


@pytest.mark.parametrize(
    "more", [{"archive": "1"}, {"api": "v2", "delivery_role": ROLE}], ids=["classic", "v2"]
)
def test_by_url_foreign_messages_too_as_on_an_account(aws: World, more: dict[str, str]) -> None:
    """As ``crossbus conformance URL`` runs it, which has nothing but the URL."""
    harness = UrlHarness(aws.url(f"url{new_id()[:8]}", **more), scale=0.02)
    harness.patience = 3.0
    report = run_limited(run(harness, select=BY_URL, parallel=4), limit=300)
    check(report)
    assert {result.case.name for result in report.results if result.status == "passed"} == {*BY_URL}


def test_latency_can_be_measured(aws: World) -> None:
    check(run_limited(run(MotoHarness(aws), select="stress/latency"), limit=300))


def test_soak(aws: World) -> None:
    """2,000 events, with throttling and refused entries, keys that rotate, handlers that fail: none lost, none dead."""
    who = f"soak{new_id()[:8]}"
    events = [
        Event(id=f"{who}-{n}", type="com.acme.soak", source="/soak", data={"n": n}) for n in range(2000)
    ]

    async def scenario() -> None:
        bus = Bus(aws.url(who), provision="always")
        got: set[str] = set()
        seen = 0

        @bus.subscribe(who, "soak", concurrency=50, lease=60)
        async def handle(delivery: Delivery) -> None:
            nonlocal seen
            seen += 1
            if seen % 50 == 0:
                raise RuntimeError("failing by intent")
            got.add(delivery.event.id)

        def failed() -> bool:
            return bus.health().subscriptions[f"{who}/soak"].state == "failed"

        async with bus, bus.running():
            for part in range(4):
                key = aws.key(who)
                throttle = {"PutEvents": 5, "ReceiveMessage": 3, "DeleteMessageBatch": 3}
                await asyncio.to_thread(aws.server.set, key, partial=7, throttle=throttle)
                receipts = await bus.publish_many(who, events[part * 500 : (part + 1) * 500])
                assert len(receipts) == 500
                await asyncio.to_thread(aws.rotate, who)
            await until(lambda: len(got) == len(events) or failed(), limit=240)
            assert not failed(), f"{len(got)} came: {bus.health()}"
        letters: Any
        async with bus:
            letters = await bus.dead_letters(who, "soak").list()
        assert not letters, letters[0].reason

    run_limited(scenario(), limit=300)
