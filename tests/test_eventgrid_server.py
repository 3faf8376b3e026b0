"""The Event Grid adapter, with Azure's SDK, on `crossbus serve`: the conformance kit, provisioning, whole programs."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from azure.core.credentials import AzureKeyCredential
from azure.core.messaging import CloudEvent
from azure.eventgrid.aio import EventGridConsumerClient, EventGridPublisherClient

from crossbus import Bus, Event, Reject, RetryPolicy, exact
from crossbus.conformance import GROUPS, all_cases, run
from crossbus.delivery import Delivery
from eventgrid_server import EventGridServerHarness
from server_process import Server
from support import run as run_limited

NOT_OF_EVENT_GRID = {"ordering", "replay_time", "replay_position", "backstop_listed", "foreign"}
NOT_IN_MEMORY = {"restarts", "credentials"}
"""What a server loses that keeps all in memory: with a file these cases run."""
SLOW = ("resilience/connection-swallowed", "resilience/next-wire-version")
"""They wait for a minute."""
WITH_A_FILE = (
    "resilience/provider-restarts",
    "resilience/provider-killed",
    "resilience/credentials-rotate",
    "resilience/killed-consumer",
    "retry/consumers-killed",
)
IN_MEMORY = [
    ("envelope", "basic", "acknowledgement", "lease"),
    ("retry", "replay", "order"),
    ("batch", "filters", "flow", "lifecycle", "trace", "errors"),
    ("resilience",),
    SLOW,
]


@pytest.fixture
def quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def check(harness: EventGridServerHarness, select: Sequence[str], lacks: set[str], parallel: int) -> None:
    with harness:
        report = run_limited(run(harness, select=select, parallel=parallel), limit=1500)
    assert not report.failed, f"\n{report.table()}\n{report.failed[0].error}"
    for result in report.skipped:
        missing = set(result.case.requires) & lacks
        assert result.case.waits_for or missing, f"{result.case.name} was skipped: {result.detail}"


@pytest.mark.long
@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("groups", IN_MEMORY, ids=" ".join)
def test_the_kit_on_a_server_in_memory(groups: tuple[str, ...]) -> None:
    cases = [one.name for one in all_cases() if one.group in groups and one.name not in SLOW] or list(groups)
    check(EventGridServerHarness(), cases, NOT_OF_EVENT_GRID | NOT_IN_MEMORY, parallel=8)


@pytest.mark.long
@pytest.mark.usefixtures("quiet")
def test_the_kit_on_a_server_with_a_file_that_is_killed_and_restarted(tmp_path: Path) -> None:
    check(EventGridServerHarness(str(tmp_path / "events.db")), WITH_A_FILE, NOT_OF_EVENT_GRID, parallel=1)


def test_no_group_is_forgotten() -> None:
    assert {group for groups in IN_MEMORY for group in groups} - {*SLOW} == set(GROUPS) - {"stress"}


# --- whole programs -------------------------------------------------------------------------------------------------


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.delenv("AZURE_EVENTGRID_KEY", raising=False)
    with Server() as found:
        yield found


def url(server: Server) -> str:
    return f"eventgrid:?endpoint=http://127.0.0.1:{server.port}"


def test_the_program_of_the_tutorial_runs_unchanged(server: Server) -> None:
    from tests.test_cli import environment

    program = Path(__file__).parent.parent / "examples" / "shop.py"
    answer = subprocess.run(
        [sys.executable, str(program)],
        env=environment(CROSSBUS_URL=url(server)),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    assert "published e-1 to orders" in answer.stdout
    assert "billed o-1: 12.50 (event e-1 from /shop)" in answer.stdout
    assert "billed o-2: 80.00 (event e-2 from /shop)" in answer.stdout


def test_opening_creates_what_is_declared_and_twice_is_once(server: Server) -> None:
    async def main() -> None:
        async with Bus(url(server)) as bus:
            bus.subscribe("orders", "billing", filter=exact(type="a"), retention=3600, lease=90)
            changes = [f"{one.action} {one.kind} {one.name}" for one in await bus.provision()]
            assert changes == [
                "create topic orders",
                "create dead-letter topic orders--billing--dead",
                "create event subscription orders--billing--dead/dead-letters",
                "create event subscription orders/billing",
            ]
            assert await bus.provision() == []
        async with Bus(url(server)) as bus:
            bus.subscribe("orders", "billing", filter=exact(type="b"), lease=60)
            (change,) = await bus.provision()
            assert (change.action, change.name) == ("update", "orders/billing")
            assert (
                'native {"includedEventTypes":["a"]}, declared {"includedEventTypes":["b"]}' in change.detail
            )
            assert await bus.provision() == []
        async with Bus(url(server)) as bus:
            bus.topic("invoices")
            pruned = await bus.provision(prune=True)
            assert {(one.action, one.name) for one in pruned} == {
                ("create", "invoices"),
                ("delete", "orders"),
                ("delete", "orders--billing--dead"),
            }

    run_limited(main())


def test_a_program_with_azures_sdk_and_one_with_crossbus_share_a_subscription(server: Server) -> None:
    key, endpoint = AzureKeyCredential("any"), f"http://127.0.0.1:{server.port}"

    async def main() -> None:
        got: list[Event] = []
        both = asyncio.Event()

        async def handle(event: Event) -> None:
            got.append(event)
            if len(got) == 2:
                both.set()

        bus = Bus(url(server))
        bus.subscribe("orders", "billing")(handle)
        bus.subscribe("orders", "shipping")
        publisher = EventGridPublisherClient(endpoint, key, namespace_topic="orders")
        consumer = EventGridConsumerClient(endpoint, key, namespace_topic="orders", subscription="shipping")
        async with bus, publisher, consumer:
            await publisher.send([CloudEvent("/sdk", "t", id="1", data={"n": 1}, extensions={"tenant": "x"})])
            await bus.publish(
                "orders", Event(source="/crossbus", type="t", id="2", data=b"\x00", subject="s")
            )
            taken = await consumer.receive(max_events=10, max_wait_time=10)
            while len(taken) < 2:
                taken += await consumer.receive(max_events=10, max_wait_time=10)
            events = {one.event.id: one.event for one in taken}
            assert events["2"].data == b"\x00"
            assert (events["2"].source, events["2"].subject, events["2"].extensions) == (
                "/crossbus",
                "s",
                None,
            )
            await consumer.acknowledge(lock_tokens=[one.broker_properties.lock_token for one in taken])
            async with bus.running():
                await both.wait()
        first = next(event for event in got if event.id == "1")
        assert (first.data, first.extensions["tenant"]) == ({"n": 1}, "x")

    run_limited(main())


def test_failures_reach_the_dead_letter_and_a_redrive_the_handler(server: Server) -> None:

    async def main() -> None:
        mended, handled = asyncio.Event(), asyncio.Event()

        async def bill(delivery: Delivery) -> None:
            if delivery.event.id == "rejected" and not mended.is_set():
                raise Reject("no such customer")
            if delivery.event.id == "failing":
                raise RuntimeError("out of order")
            handled.set()

        bus = Bus(url(server))
        retry = RetryPolicy(attempts=2, first_delay=0.1, jitter=False)
        bus.subscribe("orders", "billing", retry=retry)(bill)
        async with bus, bus.running():
            for id in ("rejected", "failing"):
                await bus.publish("orders", Event(type="t", source="/s", id=id))
            letters = []
            while len(letters) < 2:
                letters = list(await bus.dead_letters("orders", "billing").list())
            assert {(one.event.id, one.reason, one.attempts) for one in letters if one.event} == {
                ("rejected", "no such customer", 1),
                ("failing", "failed", 2),
            }
            mended.set()
            rejected = next(one for one in letters if one.event and one.event.id == "rejected")
            assert await bus.dead_letters("orders", "billing").redrive([rejected.id]) == 1
            await handled.wait()
            assert [one.reason for one in await bus.dead_letters("orders", "billing").list()] == ["failed"]

    run_limited(main(), limit=60)


def test_a_temporary_subscription_is_gone_afterwards(server: Server) -> None:
    async def main() -> None:
        async with Bus(url(server)) as bus:
            topic = bus.topic("orders")
            await bus.provision()
            adapter = bus.adapter_for("orders")
            async with adapter.temporary_subscription(topic, exact(type="a")) as temporary:
                await bus.publish("orders", Event(type="a", source="/s"))
                receiver = await adapter.open_receiver(temporary, 1)
                (one,) = await receiver.receive(1, 10)
                assert adapter.decode(one).type == "a"
                await receiver.close()
                assert await adapter.plan(bus.topology, prune=True) == []
            there = await adapter.control().topics()
            assert there == {"orders": {}}

    run_limited(main())
