"""`local:?path=`: the broker in a file as a program uses it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.support import run

from crossbus.adapter import Settlement
from crossbus.bus import Bus
from crossbus.clock import SystemClock
from crossbus.errors import BusClosedError, ConfigurationError, Unavailable
from crossbus.event import Event
from crossbus.profiles import Profile
from crossbus.testing import Clock
from crossbus.topology import Subscription, Topic, Topology
from crossbus_local import LocalAdapter

ORDERS = Topic("orders")
BILLING = Subscription(topic=ORDERS, name="billing")
ALL = Topology((ORDERS,), (BILLING,))
ROOT = Path(__file__).parent.parent


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.db"


def adapter(path: object, *, clock: Clock | None = None, target: str = "", **parameters: str) -> LocalAdapter:
    profile = Profile(target=target, parameters={"path": str(path), **parameters})
    return LocalAdapter(profile, clock=clock or SystemClock())


@asynccontextmanager
async def opened(path: object, **parameters: str) -> AsyncIterator[LocalAdapter]:
    made = adapter(path, **parameters)
    await made.open()
    await made.provision(await made.plan(ALL))
    try:
        yield made
    finally:
        await made.close()


def event(number: int = 1) -> Event:
    return Event(type="order.placed", source="/shop", id=str(number), data={"n": number})


async def send(local: LocalAdapter, *events: Event) -> None:
    outcomes = await local.send(ORDERS, [local.encode(ORDERS, one) for one in events])
    assert all(outcome.code is None for outcome in outcomes)


def script(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


# --- sharing --------------------------------------------------------------------------------------------------------


def test_adapters_of_one_file_meet_however_its_path_is_written(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    (path.parent / "link.db").symlink_to(path)

    async def main() -> None:
        async with opened(path) as one, opened("events.db") as two, opened("link.db") as three:
            await send(one, event())
            assert (await two.backlog(BILLING)).waiting == 1
            receiver = await three.open_receiver(BILLING, 10)
            assert await receiver.receive(1, 1)
            assert (await one.backlog(BILLING)).in_hand == 1

    run(main())
    assert sorted(os.listdir(path.parent)) == ["events.db", "link.db"]


def test_the_file_is_free_when_the_last_has_closed(path: Path) -> None:
    async def main() -> None:
        one, two = adapter(path), adapter(path)
        await one.open()
        await two.open()
        await one.open()  # twice is once
        await one.close()
        await one.close()
        assert path.with_name("events.db-wal").exists()
        await two.provision(await two.plan(ALL))
        await send(two, event())
        receiver = await two.open_receiver(BILLING, 10)
        (taken,) = await receiver.receive(1, 1)
        await two.close()
        assert not path.with_name("events.db-wal").exists()
        with pytest.raises(BusClosedError, match=r"events\.db is not open"):
            await two.backlog(BILLING)
        with pytest.raises(BusClosedError, match=r"events\.db is closed"):
            await receiver.settle([Settlement(taken.lease)])
        async with opened(path) as three:
            assert (await three.backlog(BILLING)).waiting == 1

    run(main())


def test_who_shares_a_file_shares_its_clock_and_its_history(path: Path) -> None:
    async def main() -> None:
        async with opened(path):
            with pytest.raises(ConfigurationError, match=r"events\.db is shared and has another clock"):
                await adapter(path, clock=Clock()).open()
            with pytest.raises(ConfigurationError, match="history=10000, not 5"):
                await adapter(path, history="5").open()
        async with opened(path, history="5"):  # those that were refused hold nothing open
            pass

    run(main())


def test_a_broker_in_a_file_has_no_name_beside_its_path(path: Path) -> None:
    with pytest.raises(
        ConfigurationError, match=r"local:shop has a path.*leave out the name: local:\?path=FILE"
    ):
        adapter(path, target="shop")


def test_a_file_that_cannot_be_used_is_one_error_of_the_bus(path: Path) -> None:
    path.write_text("no database" * 100)

    async def main() -> None:
        bus = Bus(f"local:?path={path}")
        for _ in range(2):
            with pytest.raises(ConfigurationError, match="is no SQLite database"):
                await bus.open()
        os.unlink(path)
        async with bus:
            pass

    run(main())


FORK = """
import os, sys
from crossbus import Event, SyncBus
from crossbus.errors import ConfigurationError

def made():
    bus = SyncBus(f"local:?path={sys.argv[1]}")
    bus.subscribe("orders", "billing")
    return bus

def forked(work):
    if not (pid := os.fork()):
        work()
        sys.exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7

def publish():
    with made() as bus:
        bus.publish("orders", Event(type="a", source="/s"))

def refused():
    try:
        publish()
    except ConfigurationError as error:
        assert "in use by another process" in str(error), error
    else:
        raise AssertionError

with made() as bus:
    publish()
    forked(refused)
    publish()
forked(publish)
with made() as bus:
    print(bus.backlog("orders", "billing").waiting)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="has no fork")
def test_a_forked_child_has_the_file_once_its_parent_has_closed_it(path: Path) -> None:
    with script(FORK, path) as process:
        out, err = process.communicate(timeout=60)
    assert out == "3\n", err


# --- a program, and its end -----------------------------------------------------------------------------------------


def test_a_program_goes_on_where_it_was(path: Path) -> None:
    seen: list[object] = []
    all_seen = asyncio.Event()

    def made() -> Bus:
        bus = Bus(f"local:?path={path}")

        @bus.subscribe("orders", "billing")
        async def bill(event: Event) -> None:
            seen.append(event.data["n"])
            if len(seen) == 100:
                all_seen.set()

        return bus

    async def main() -> None:
        async with made() as bus:
            await bus.publish_many("orders", [event(n) for n in range(100)])
        assert seen == []
        async with made() as bus, bus.running():
            await all_seen.wait()
        async with made() as bus:
            assert (await bus.backlog("orders", "billing"))[:2] == (0, 0)
            since = datetime.now(UTC) - timedelta(hours=1)
            assert await bus.replay("orders", "billing", time=since) == 100

    run(main())
    assert sorted(seen) == list(range(100))  # type: ignore[type-var]


def test_a_publish_that_cannot_be_stored_fails_and_one_that_can_be_later_goes(path: Path) -> None:
    async def main() -> None:
        async with opened(path) as local:
            connection = local.engine._storage._connection  # type: ignore[attr-defined]
            bus = Bus(f"local:?path={path}", publish_timeout=0.2)
            bus.subscribe("orders", "billing")
            patient = Bus(f"local:?path={path}", publish_timeout=60)
            patient.topic("orders")
            async with bus, patient:
                connection.execute("PRAGMA query_only = ON")
                with pytest.raises(Unavailable, match="could not be written") as caught:
                    await bus.publish("orders", event(1))
                assert caught.value.retryable
                later = asyncio.create_task(patient.publish("orders", event(2)))
                await asyncio.sleep(0.05)
                assert (await bus.backlog("orders", "billing")).waiting == 0
                connection.execute("PRAGMA query_only = OFF")
                await later
                assert (await bus.backlog("orders", "billing")).waiting == 1

    run(main())


PROGRAM = """
import asyncio, os, sys
from crossbus import Bus, Event

bus = Bus(f"local:?path={sys.argv[1]}")

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

@bus.subscribe("orders", "billing", concurrency=5)
async def bill(event: Event) -> None:
    await asyncio.sleep(0.001)
    say("handled", event.id)

@bus.on_start
async def begin(bus) -> None:
    bus.state.publishing = asyncio.create_task(publish())

@bus.on_stop
async def end(bus) -> None:
    bus.state.publishing.cancel()

async def publish() -> None:
    for n in range(1_000_000):
        await bus.publish("orders", Event(type="a", source="/s", id=f"{sys.argv[2]}-{n}"))
        say("published", f"{sys.argv[2]}-{n}")

asyncio.run(bus.run())
"""


def test_a_program_that_is_asked_to_end_leaves_what_it_has_not_handled_and_no_more(path: Path) -> None:
    published: set[str] = set()
    handled: Counter[str] = Counter()
    for number in range(3):
        with script(PROGRAM, path, number) as process:
            assert process.stdout is not None
            for count, line in enumerate(process.stdout, 1):
                what, id = line.split()
                if what == "published":
                    published.add(id)
                else:
                    handled[id] += 1
                if count == 200 * (number + 1):
                    process.send_signal(signal.SIGTERM)
            assert process.stderr is not None
            assert process.wait() == 0, process.stderr.read()

    async def left() -> set[str]:
        async with opened(path) as local:
            receiver = await local.open_receiver(BILLING, 1000)
            found = []
            while taken := await receiver.receive(1000, 0.1):
                found += [local.decode(one).id for one in taken]
            assert len(found) == len(set(found))
            return set(found)

    waiting = run(left())
    assert published
    assert handled
    assert set(handled.values()) == {1}
    assert published <= waiting | set(handled)
    assert not waiting & set(handled)
