"""Duplicate suppression: all stores through one class, the middleware, and crashes of real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import postgres_server
from crossbus import Bus, Deduplicate, Event, MemoryStore, Reject, Retry, RetryPolicy, SQLiteStore
from crossbus.deduplicate import Claim, DuplicateStore
from crossbus.errors import ConfigurationError
from crossbus.outcomes import NotYet
from crossbus.testing import Clock
from postgres_server import postgres_store
from support import run


def delivery(**values: Any) -> Any:
    event = Event(type="t", source=values.pop("source", "/shop"), id=values.pop("id", "1"))
    return SimpleNamespace(
        **{
            "event": event,
            "topic": "orders",
            "subscription": "billing",
            "replay": None,
            "attempt": 1,
            "count_duplicate": lambda: None,
            **values,
        }
    )


class Handler:
    """Counts; and fails, once each, with what it is given."""

    def __init__(self, *failures: BaseException) -> None:
        self.handled: list[str] = []
        self.failures = list(failures)

    async def __call__(self, delivery: Any) -> str:
        self.handled.append(delivery.event.id)
        if self.failures:
            raise self.failures.pop(0)
        return "answer"


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def kind(request: pytest.FixtureRequest) -> str:
    if request.param == "postgres":
        postgres_server.running()
    return str(request.param)


class TestAllStores:
    """What any store must do, and what the middleware makes of it."""

    def run(
        self, kind: str, tmp_path: Path, test: Callable[[DuplicateStore, Clock], Awaitable[None]]
    ) -> None:
        async def body() -> None:
            clock = Clock()
            if kind == "memory":
                await test(MemoryStore(clock=clock), clock)
            elif kind == "sqlite":
                async with SQLiteStore(tmp_path / "handled.db", clock=clock) as store:
                    await test(store, clock)
            else:
                async with postgres_store(clock=clock) as store:
                    await test(store, clock)

        run(body())

    def test_a_claim_is_exclusive_until_it_is_released(self, kind: str, tmp_path: Path) -> None:
        async def test(store: DuplicateStore, clock: Clock) -> None:
            assert await store.claim("a", ttl=10) == "new"
            assert await store.claim("a", ttl=10) == "in_progress"
            assert await store.claim("b", ttl=10) == "new"
            await store.release("a")
            assert await store.claim("a", ttl=10) == "new"

        self.run(kind, tmp_path, test)

    def test_a_confirmed_key_stays_done_for_its_time(self, kind: str, tmp_path: Path) -> None:
        async def test(store: DuplicateStore, clock: Clock) -> None:
            await store.claim("a", ttl=10)
            await store.confirm("a", ttl=100)
            await store.release("a")
            await clock.advance(99)
            assert await store.claim("a", ttl=10) == "done"
            await clock.advance(2)
            assert await store.claim("a", ttl=10) == "new"

        self.run(kind, tmp_path, test)

    def test_a_claim_ends_by_itself(self, kind: str, tmp_path: Path) -> None:
        async def test(store: DuplicateStore, clock: Clock) -> None:
            await store.claim("a", ttl=10)
            await clock.advance(9)
            assert await store.claim("a", ttl=10) == "in_progress"
            await clock.advance(2)
            assert await store.claim("a", ttl=10) == "new"
            assert await store.claim("a", ttl=10) == "in_progress"

        self.run(kind, tmp_path, test)

    def test_releasing_leaves_what_is_confirmed(self, kind: str, tmp_path: Path) -> None:
        async def test(store: DuplicateStore, clock: Clock) -> None:
            await store.claim("a", ttl=10)
            await store.confirm("a", ttl=100)
            await store.release("a")
            await store.release("never claimed")
            assert await store.claim("a", ttl=10) == "done"
            await store.confirm("never claimed", ttl=100)
            assert await store.claim("never claimed", ttl=10) == "done"

        self.run(kind, tmp_path, test)

    def test_confirming_again_remembers_for_longer(self, kind: str, tmp_path: Path) -> None:
        async def test(store: DuplicateStore, clock: Clock) -> None:
            await store.confirm("a", ttl=100)
            await clock.advance(50)
            await store.confirm("a", ttl=100)
            await clock.advance(99)
            assert await store.claim("a", ttl=10) == "done"

        self.run(kind, tmp_path, test)

    def test_any_text_is_a_key(self, kind: str, tmp_path: Path) -> None:
        async def test(store: DuplicateStore, clock: Clock) -> None:
            keys = ["", "'; DROP TABLE x; --", "%s", "\x00", "ä€😀", "x" * 100_000]
            assert [await store.claim(key, ttl=10) for key in keys] == ["new"] * len(keys)
            assert [await store.claim(key, ttl=10) for key in keys] == ["in_progress"] * len(keys)

        self.run(kind, tmp_path, test)

    def test_one_of_many_claims_at_once_wins(self, kind: str, tmp_path: Path) -> None:
        async def test(store: DuplicateStore, clock: Clock) -> None:
            answers = await asyncio.gather(*(store.claim("a", ttl=10) for _ in range(50)))
            assert sorted(answers) == ["in_progress"] * 49 + ["new"]

        self.run(kind, tmp_path, test)

    def test_a_duplicate_is_acknowledged_without_handling(self, kind: str, tmp_path: Path) -> None:
        async def test(store: DuplicateStore, clock: Clock) -> None:
            middleware, handler = Deduplicate(store), Handler()
            assert await middleware(delivery(), handler) == "answer"
            assert await middleware(delivery(), handler) is None
            assert handler.handled == ["1"]
            assert middleware.dropped == 1

        self.run(kind, tmp_path, test)

    @pytest.mark.parametrize(
        "other",
        [
            {"id": "2"},
            {"source": "/other"},
            {"topic": "invoices"},
            {"subscription": "mail"},
            {"replay": "r1"},
        ],
        ids=lambda other: next(iter(other)),
    )
    def test_what_differs_is_no_duplicate(self, kind: str, tmp_path: Path, other: dict[str, str]) -> None:
        async def test(store: DuplicateStore, clock: Clock) -> None:
            middleware, handler = Deduplicate(store), Handler()
            await middleware(delivery(), handler)
            await middleware(delivery(**other), handler)
            await middleware(delivery(**other), handler)
            assert len(handler.handled) == 2
            assert middleware.dropped == 1

        self.run(kind, tmp_path, test)

    def test_no_two_keys_run_together(self, kind: str, tmp_path: Path) -> None:
        async def test(store: DuplicateStore, clock: Clock) -> None:
            middleware, handler = Deduplicate(store), Handler()
            await middleware(delivery(source='/a","b', id="c"), handler)
            await middleware(delivery(source="/a", id='b","c'), handler)
            assert len(handler.handled) == 2

        self.run(kind, tmp_path, test)

    @pytest.mark.parametrize(
        "failure", [Retry(after=1), Reject("bad"), ValueError("no"), asyncio.CancelledError()]
    )
    def test_after_a_failure_it_is_handled_again(
        self, kind: str, tmp_path: Path, failure: BaseException
    ) -> None:
        async def test(store: DuplicateStore, clock: Clock) -> None:
            middleware, handler = Deduplicate(store), Handler(failure)
            with pytest.raises(type(failure)):
                await middleware(delivery(), handler)
            assert await middleware(delivery(attempt=2), handler) == "answer"
            assert await middleware(delivery(attempt=3), handler) is None
            assert handler.handled == ["1", "1"]

        self.run(kind, tmp_path, test)

    def test_what_is_being_handled_comes_again_later(self, kind: str, tmp_path: Path) -> None:
        async def test(store: DuplicateStore, clock: Clock) -> None:
            middleware = Deduplicate(store)
            begun, go_on = asyncio.Event(), asyncio.Event()

            async def slow(delivery: Any) -> None:
                begun.set()
                await go_on.wait()

            first = asyncio.create_task(middleware(delivery(), slow))
            await begun.wait()
            with pytest.raises(NotYet) as caught:
                await middleware(delivery(attempt=3), Handler())
            assert caught.value.after == 40.0
            go_on.set()
            await first
            assert await middleware(delivery(attempt=4), Handler()) is None

        self.run(kind, tmp_path, test)

    def test_a_crash_between_handling_and_confirming_loses_nothing(self, kind: str, tmp_path: Path) -> None:
        async def test(store: DuplicateStore, clock: Clock) -> None:
            middleware, handler = Deduplicate(store, claim_ttl=60), Handler()
            await store.claim('["orders/billing","/shop","1"]', ttl=60)  # and then the process was gone
            with pytest.raises(NotYet):
                await middleware(delivery(attempt=2), handler)
            await clock.advance(61)
            assert await middleware(delivery(attempt=3), handler) == "answer"

        self.run(kind, tmp_path, test)


@pytest.mark.parametrize(
    ("attempt", "after"), [(1, 10.0), (3, 40.0), (9, 900.0), (5000, 900.0), (None, 10.0)]
)
def test_what_is_being_handled_comes_again_no_later_than_the_claim_ends(
    attempt: int | None, after: float
) -> None:
    class Busy(MemoryStore):
        async def claim(self, key: str, *, ttl: float) -> Claim:
            return "in_progress"

    with pytest.raises(NotYet) as caught:
        run(Deduplicate(Busy())(delivery(attempt=attempt), Handler()))
    assert caught.value.after == after


# --- a store that fails ---


class Failing:
    """A store whose calls wait for permission, and fail if told so."""

    def __init__(self, store: DuplicateStore) -> None:
        self.store = store
        self.fails: set[str] = set()
        self.gate: dict[str, asyncio.Event] = {}
        self.reached = asyncio.Event()

    async def _pass(self, name: str) -> None:
        if name in self.gate:
            self.reached.set()
            await self.gate[name].wait()
        if name in self.fails:
            raise OSError(f"{name}: the store is away")

    async def claim(self, key: str, *, ttl: float) -> Claim:
        answer = await self.store.claim(key, ttl=ttl)
        await self._pass("claim")
        return answer

    async def confirm(self, key: str, *, ttl: float) -> None:
        await self._pass("confirm")
        await self.store.confirm(key, ttl=ttl)

    async def release(self, key: str) -> None:
        await self._pass("release")
        await self.store.release(key)


def test_while_the_store_is_away_events_wait(caplog: pytest.LogCaptureFixture) -> None:
    async def body() -> None:
        store = Failing(MemoryStore())
        store.fails = {"claim"}
        handler = Handler()
        with pytest.raises(NotYet, match="the duplicate store failed"):
            await Deduplicate(store)(delivery(), handler)
        assert handler.handled == []

    run(body())
    assert "the duplicate store failed" in caplog.text


def test_what_was_handled_is_acknowledged_though_it_cannot_be_confirmed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def body() -> None:
        store = Failing(MemoryStore())
        store.fails = {"confirm"}
        assert await Deduplicate(store)(delivery(), Handler()) == "answer"

    run(body())
    assert "cannot confirm" in caplog.text


def test_the_handlers_error_is_raised_though_the_claim_cannot_be_released(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def body() -> None:
        store = Failing(MemoryStore())
        store.fails = {"release"}
        with pytest.raises(ValueError, match="no"):
            await Deduplicate(store)(delivery(), Handler(ValueError("no")))

    run(body())
    assert "cannot release" in caplog.text


@pytest.mark.parametrize("where", ["claim", "confirm", "release"])
def test_cancelling_leaves_nothing_half_done(where: str) -> None:
    async def body() -> None:
        store = Failing(MemoryStore())
        store.gate = {where: asyncio.Event()}
        middleware = Deduplicate(store)
        handler = Handler(ValueError("no")) if where == "release" else Handler()
        task = asyncio.create_task(middleware(delivery(), handler))
        await store.reached.wait()
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done(), "it waits for what it began"
        store.gate[where].set()
        with pytest.raises(asyncio.CancelledError):
            await task
        again = await middleware(delivery(), handler)
        if where == "confirm":
            assert (again, handler.handled) == (None, ["1"])
        else:
            assert again == "answer"

    run(body())


@pytest.mark.parametrize("values", [{"ttl": 0}, {"ttl": "1"}, {"claim_ttl": -1}, {"claim_ttl": float("inf")}])
def test_times_to_live_are_checked(values: dict[str, Any]) -> None:
    with pytest.raises(
        ConfigurationError, match=r"^Deduplicate\((ttl|claim_ttl)=.*a number of seconds above 0"
    ):
        Deduplicate(MemoryStore(), **values)


# --- memory ---


def test_memory_is_bounded() -> None:
    async def body() -> None:
        store = MemoryStore(limit=10)
        for number in range(100):
            await store.claim(str(number), ttl=60)
            await store.confirm(str(number), ttl=60)
        assert len(store) == 10
        assert await store.claim("99", ttl=60) == "done"
        assert await store.claim("89", ttl=60) == "new"

    run(body())
    with pytest.raises(ConfigurationError, match="a whole number from 1"):
        MemoryStore(limit=0)


def test_memory_forgets_what_has_expired() -> None:
    async def body() -> None:
        clock = Clock()
        store = MemoryStore(clock=clock)
        for number in range(100):
            await store.confirm(str(number), ttl=60)
        await clock.advance(61)
        await store.confirm("last", ttl=60)
        assert len(store) == 1

    run(body())


# --- SQLite ---


def rows(path: Path) -> int:
    import sqlite3

    connection = sqlite3.connect(path)
    try:
        return int(connection.execute("SELECT count(*) FROM crossbus_duplicates").fetchone()[0])
    finally:
        connection.close()


def test_sqlite_remembers_beyond_a_restart(tmp_path: Path) -> None:
    async def body() -> None:
        async with SQLiteStore(tmp_path / "handled.db") as store:
            await store.claim("a", ttl=60)
            await store.confirm("a", ttl=60)
        async with SQLiteStore(tmp_path / "handled.db") as store:
            assert await store.claim("a", ttl=60) == "done"
        assert await store.claim("a", ttl=60) == "done"  # a closed one opens itself again
        await store.close()
        await store.close()

    run(body())


def test_sqlite_is_kept_small(tmp_path: Path) -> None:
    async def body() -> None:
        clock = Clock()
        async with SQLiteStore(tmp_path / "handled.db", clock=clock) as store:
            await asyncio.gather(*(store.confirm(f"old {number}", ttl=60) for number in range(2500)))
            await clock.advance(61)
            await asyncio.gather(*(store.claim(f"new {number}", ttl=60) for number in range(500)))
        assert rows(tmp_path / "handled.db") == 500, (
            "five looks at 1,000 of 3,000 see all, wherever they begin"
        )

    run(body())


def test_sqlite_releases_only_its_own_claim(tmp_path: Path) -> None:
    async def body() -> None:
        clock = Clock()
        path = tmp_path / "handled.db"
        async with SQLiteStore(path, clock=clock) as slow, SQLiteStore(path, clock=clock) as other:
            await slow.claim("a", ttl=10)
            await clock.advance(11)
            assert await other.claim("a", ttl=10) == "new"
            await slow.release("a")
            assert await slow.claim("a", ttl=10) == "in_progress"

    run(body())


@pytest.mark.parametrize("name", ["", ":memory:", "missing/handled.db", "text.db"])
def test_a_file_that_is_none_is_refused_when_made(name: str, tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("this is no database " * 100)
    path = name if name in ("", ":memory:") else str(tmp_path / name)
    with pytest.raises(ConfigurationError, match=r"^SQLiteStore\(.*(needs a file|cannot be opened)"):
        SQLiteStore(path)


CLAIMER = """
    import asyncio, sys
    from crossbus import SQLiteStore

    async def main(path, name):
        won = 0
        async with SQLiteStore(path) as store:
            print("ready", flush=True)
            sys.stdin.readline()
            for number in range(300):
                if await store.claim(str(number), ttl=600) == "new":
                    won += 1
                    await store.confirm(str(number), ttl=600)
        print(won, flush=True)

    asyncio.run(main(*sys.argv[1:]))
"""

CRASHER = """
    import asyncio, sys
    from types import SimpleNamespace
    from crossbus import Deduplicate, Event, SQLiteStore

    async def handler(delivery):
        print("handled", flush=True)
        await asyncio.sleep(3600)

    async def main(path):
        event = Event(type="t", source="/shop", id="1")
        delivery = SimpleNamespace(
            event=event, topic="orders", subscription="billing", replay=None, attempt=1, count_duplicate=int
        )
        await Deduplicate(SQLiteStore(path), claim_ttl=float(sys.argv[2]))(delivery, handler)

    asyncio.run(main(sys.argv[1]))
"""


def start(program: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_two_processes_on_one_file_claim_each_key_once(tmp_path: Path) -> None:
    processes = [start(CLAIMER, tmp_path / "handled.db", name) for name in "ab"]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        won = [int(process.communicate("go\n", timeout=60)[0]) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert sum(won) == 300


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_killed_process_loses_no_event(tmp_path: Path) -> None:
    path = tmp_path / "handled.db"
    killed = start(CRASHER, path, 2.0)
    try:
        assert killed.stdout is not None
        assert killed.stdout.readline() == "handled\n"
        os.kill(killed.pid, signal.SIGKILL)
    finally:
        killed.kill()
        killed.communicate()

    async def body() -> None:
        handler = Handler()
        async with SQLiteStore(path) as store:
            middleware = Deduplicate(store, claim_ttl=2.0)
            answers: list[object] = []
            for attempt in range(2, 200):
                try:
                    answers.append(await middleware(delivery(attempt=attempt), handler))
                    break
                except NotYet:
                    answers.append("not yet")
                    await asyncio.sleep(0.1)
            assert answers[0] == "not yet", "the claim of the killed process still held"
            assert answers[-1] == "answer"
            assert await middleware(delivery(), handler) is None

    run(body())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_child_opens_the_file_anew(tmp_path: Path) -> None:
    program = """
        import asyncio, os, sys
        from crossbus import SQLiteStore

        async def claim(key):
            return await store.claim(key, ttl=600)

        store = SQLiteStore(sys.argv[1])
        print(asyncio.run(claim("parent")), flush=True)
        child = os.fork()
        if child == 0:
            print(asyncio.run(claim("parent")), asyncio.run(claim("child")), flush=True)
            os._exit(0)
        os.waitpid(child, 0)
        print(asyncio.run(claim("child")), asyncio.run(claim("more")), flush=True)
    """
    output, _ = start(program, tmp_path / "handled.db").communicate(timeout=60)
    assert output.splitlines() == ["new", "in_progress new", "in_progress new"]


# --- on a bus ---


@asynccontextmanager
async def shop(
    middleware: Deduplicate, clock: Clock, handler: Callable[[Event], Awaitable[None]], **options: Any
) -> AsyncIterator[Bus]:
    bus = Bus("local:", source="/shop", clock=clock, handle_middleware=[middleware])
    bus.subscribe("orders", "billing", **options)(handler)
    async with bus, bus.running():
        yield bus


async def settled(bus: Bus, clock: Clock, until: Callable[[], bool], *, step: float = 1.0) -> None:
    for _ in range(2000):
        if until():
            return
        await clock.advance(step)
    raise AssertionError("it did not come to that")


def test_on_a_bus_a_duplicate_is_handled_once_and_a_retry_again(tmp_path: Path) -> None:
    async def body() -> None:
        clock = Clock()
        async with SQLiteStore(tmp_path / "handled.db", clock=clock) as store:
            middleware = Deduplicate(store)
            handled: list[str] = []

            async def handler(event: Event) -> None:
                handled.append(event.id)
                if event.id == "fails" and handled.count("fails") == 1:
                    raise RuntimeError("once")

            async with shop(middleware, clock, handler) as bus:
                for id in ("a", "a", "fails", "b", "a"):
                    await bus.publish("orders", Event(type="t", id=id))
                await settled(bus, clock, lambda: middleware.dropped == 2 and len(handled) == 4)
                assert sorted(handled) == ["a", "b", "fails", "fails"]
                assert (await bus.backlog("orders", "billing")).dead == 0

    run(body())


def test_on_a_bus_a_redrive_is_handled() -> None:
    async def body() -> None:
        clock = Clock()
        handled: list[str] = []

        async def handler(event: Event) -> None:
            handled.append(event.id)
            if len(handled) == 1:
                raise Reject("bad")

        async with shop(Deduplicate(MemoryStore(clock=clock)), clock, handler) as bus:
            await bus.publish("orders", Event(type="t", id="a"))
            letters = bus.dead_letters("orders", "billing")
            for _ in range(1000):
                if await letters.list():
                    break
                await clock.advance(0.1)
            assert await letters.redrive() == 1
            await settled(bus, clock, lambda: len(handled) == 2)

    run(body())


def test_on_a_bus_waiting_for_another_is_no_failure() -> None:
    """A crash at the last attempt: the claim is still held, and the event must not go to the dead letter."""

    async def body() -> None:
        clock = Clock()
        store = MemoryStore(clock=clock)
        handled: list[str] = []

        async def handler(event: Event) -> None:
            handled.append(event.id)

        await store.claim('["orders/billing","/shop","a"]', ttl=900)
        policy = RetryPolicy(attempts=1)
        async with shop(Deduplicate(store), clock, handler, retry=policy) as bus:
            await bus.publish("orders", Event(type="t", id="a"))
            await settled(bus, clock, lambda: handled == ["a"], step=5.0)
            assert clock.monotonic() >= 900
            assert await bus.dead_letters("orders", "billing").list() == []

    run(body())
