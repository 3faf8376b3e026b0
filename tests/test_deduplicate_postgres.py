"""The duplicate store on a real PostgreSQL server: the handler's transaction, lost connections, many processes."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest

from crossbus import Bus, Deduplicate, Delivery, Event, MemoryStore, PostgresStore
from crossbus.errors import ConfigurationError
from crossbus.outcomes import NotYet
from crossbus.testing import Clock
from postgres_server import PostgresServer, execute, postgres_store, running
from support import run


@pytest.fixture(autouse=True)
def server() -> PostgresServer:
    return running()


@pytest.fixture
def effects() -> Iterator[None]:
    """A table of the user's, into which his handlers write."""
    execute("CREATE TABLE IF NOT EXISTS effects (event text)")
    execute("TRUNCATE effects")
    yield
    execute("DROP TABLE effects")


def done() -> list[str]:
    return [row[0] for row in execute("SELECT event FROM effects ORDER BY event")]


def delivery(id: str = "1") -> Any:
    event = Event(type="t", source="/shop", id=id)
    return SimpleNamespace(
        event=event,
        topic="orders",
        subscription="billing",
        replay=None,
        attempt=1,
        count_duplicate=lambda: None,
    )


def rows(store: PostgresStore) -> int:
    return int(execute(f"SELECT count(*) FROM {store._table}")[0][0])


# --- within the handler's transaction ---


@pytest.mark.usefixtures("effects")
def test_effect_and_memory_are_one_transaction(server: PostgresServer) -> None:
    async def body() -> None:
        async with postgres_store() as store:
            deduplicate = Deduplicate(store)

            async def write(delivery: Any) -> None:
                async with (
                    await psycopg.AsyncConnection.connect(server.conninfo) as connection,
                    connection.transaction(),
                ):
                    await connection.execute("INSERT INTO effects VALUES (%s)", (delivery.event.id,))
                    await deduplicate.confirm(delivery, connection)
                    if delivery.event.id == "fails" and not done():
                        await connection.execute("SELECT 1/0")

            await deduplicate(delivery("a"), write)
            await deduplicate(delivery("a"), write)
            assert (done(), deduplicate.dropped) == (["a"], 1)
            assert not store._held
            execute("TRUNCATE effects")
            with pytest.raises(psycopg.errors.DivisionByZero):
                await deduplicate(delivery("fails"), write)
            assert done() == []
            execute("INSERT INTO effects VALUES ('other')")
            await deduplicate(delivery("fails"), write)
            assert done() == ["fails", "other"]

    run(body())


@pytest.mark.usefixtures("effects")
def test_a_handler_without_asyncio_confirms_in_its_transaction(server: PostgresServer) -> None:
    async def body() -> None:
        async with postgres_store() as store:
            deduplicate = Deduplicate(store)
            bus = Bus("local:", source="/shop")
            handled = asyncio.Event()
            loop = asyncio.get_running_loop()

            @bus.subscribe("orders", "billing", middleware=[deduplicate])
            def bill(event: Event, delivery: Delivery) -> None:
                with psycopg.connect(server.conninfo) as connection:
                    connection.execute("INSERT INTO effects VALUES (%s)", (event.id,))
                    deduplicate.confirm_sync(delivery, connection)
                if event.id == "last":
                    loop.call_soon_threadsafe(handled.set)

            async with bus, bus.running():
                for id in ("a", "a", "b", "a", "last"):
                    await bus.publish("orders", Event(type="t", id=id))
                await handled.wait()
            assert sorted(set(done())) == ["a", "b", "last"]
            assert len(done()) == 3

    run(body())


@pytest.mark.usefixtures("effects")
def test_a_claim_that_ended_while_handling_rolls_the_effect_back(server: PostgresServer) -> None:
    """Slow: its claim ends, another claims and handles the event, and then it would commit a second effect."""

    async def body() -> None:
        clock = Clock()
        async with postgres_store(clock=clock) as store:
            others = PostgresStore(server.conninfo, table=store._table, clock=clock)
            slow, quick = Deduplicate(store, claim_ttl=10), Deduplicate(others, claim_ttl=10)

            async def write(deduplicate: Deduplicate, delivery: Any, *, late: bool) -> None:
                async with (
                    await psycopg.AsyncConnection.connect(server.conninfo) as connection,
                    connection.transaction(),
                ):
                    await connection.execute("INSERT INTO effects VALUES (%s)", (delivery.event.id,))
                    if late:
                        await clock.advance(11)
                        await quick(delivery, lambda each: write(quick, each, late=False))
                    await deduplicate.confirm(delivery, connection)

            with pytest.raises(NotYet, match="its claim ended while it was handled"):
                await slow(delivery(), lambda each: write(slow, each, late=True))
            assert done() == ["1"]
            await slow(delivery(), lambda each: write(slow, each, late=False))
            assert (done(), slow.dropped) == (["1"], 1)
            await others.close()

    run(body())


def test_a_claim_does_not_wait_for_a_long_transaction(server: PostgresServer) -> None:
    async def body() -> None:
        clock = Clock()
        async with postgres_store(clock=clock) as store:
            await store.claim("a", ttl=10)
            async with await psycopg.AsyncConnection.connect(server.conninfo) as connection:
                assert await store.confirm_within(connection, "a", ttl=100)
                await clock.advance(11)  # the claim has ended, the transaction has not
                assert await store.claim("a", ttl=10) == "in_progress"
            assert await store.claim("a", ttl=10) == "done"

    run(body())


def test_what_cannot_be_confirmed_within_is_refused(server: PostgresServer) -> None:
    async def body() -> None:
        async with postgres_store() as store:
            deduplicate = Deduplicate(store)
            async with await psycopg.AsyncConnection.connect(server.conninfo, autocommit=True) as connection:
                with pytest.raises(ConfigurationError, match="no transaction is open on this connection"):
                    await deduplicate.confirm(delivery(), connection)
                with pytest.raises(
                    ConfigurationError, match="a psycopg Connection, in a handler that is a plain"
                ):
                    deduplicate.confirm_sync(delivery(), connection)
            with pytest.raises(ConfigurationError, match=r"needs a psycopg AsyncConnection.*, not object"):
                await deduplicate.confirm(delivery(), object())
            with pytest.raises(ConfigurationError, match=r"^MemoryStore cannot confirm within a transaction"):
                await Deduplicate(MemoryStore()).confirm(delivery(), object())

    run(body())


# --- the store ---


def test_the_databases_time_holds_without_a_clock() -> None:
    async def body() -> None:
        async with postgres_store() as store:
            await store.confirm("a", ttl=3600)
            await store.confirm("b", ttl=1e-6)
            assert await store.claim("a", ttl=10) == "done"
            assert await store.claim("b", ttl=10) == "new"

    run(body())


def test_it_is_kept_small() -> None:
    async def body() -> None:
        clock = Clock()
        async with postgres_store(clock=clock) as store:
            await asyncio.gather(*(store.confirm(f"old {number}", ttl=60) for number in range(2500)))
            await clock.advance(61)
            await asyncio.gather(*(store.claim(f"new {number}", ttl=60) for number in range(500)))
            assert rows(store) == 500, "five looks at 1,000 of 3,000 see all, wherever they begin"

    run(body())


def test_only_ones_own_claim_is_released(server: PostgresServer) -> None:
    async def body() -> None:
        clock = Clock()
        async with postgres_store(clock=clock) as slow:
            other = PostgresStore(server.conninfo, table=slow._table, clock=clock)
            await slow.claim("a", ttl=10)
            await clock.advance(11)
            assert await other.claim("a", ttl=10) == "new"
            await slow.release("a")
            assert await slow.claim("a", ttl=10) == "in_progress"
            await other.close()

    run(body())


def test_a_server_that_was_started_anew_costs_no_event(server: PostgresServer) -> None:
    async def body() -> None:
        async with postgres_store() as store:
            await asyncio.gather(*(store.claim(str(number), ttl=60) for number in range(20)))
            server.stop()
            with pytest.raises(psycopg.OperationalError):
                await store.claim("while it is away", ttl=60)
            server.start()
            assert await store.claim("1", ttl=60) == "in_progress"
            assert await store.claim("new", ttl=60) == "new"
            await store.release("1")
            assert await store.claim("1", ttl=60) == "new"

    run(body())


def test_the_answer_to_a_claim_may_be_lost_with_its_connection() -> None:
    """The server has the claim, the client does not know: the second try must not take it for somebody else's."""

    async def body() -> None:
        async with postgres_store(connections=1) as store:
            await store.claim("a", ttl=60)
            (connection,) = store._idle
            execute_once = connection.execute

            def loses_the_answer(statement: Any, values: Any) -> Any:
                execute_once(statement, values)
                connection.close()
                raise psycopg.OperationalError("server closed the connection unexpectedly")

            connection.execute = loses_the_answer  # type: ignore[method-assign]
            assert await store.claim("b", ttl=60) == "new"

    run(body())


def test_a_store_is_used_from_one_loop_after_another() -> None:
    store: PostgresStore | None = None

    async def first() -> None:
        nonlocal store
        store = PostgresStore(running().conninfo, table="loops")
        assert await store.claim("a", ttl=60) == "new"

    async def second() -> None:
        assert store is not None
        assert await store.claim("a", ttl=60) == "in_progress"
        await store.close()
        assert await store.claim("a", ttl=60) == "in_progress"  # a closed one opens itself again
        await store.close()
        await store.close()

    run(first())
    run(second())
    execute("DROP TABLE loops")


CLAIMER = """
    import asyncio, sys
    from crossbus import PostgresStore

    async def main(conninfo, table):
        print("ready", flush=True)
        sys.stdin.readline()
        async with PostgresStore(conninfo, table=table) as store:  # both make the table at the same time
            answers = await asyncio.gather(*(store.claim(str(number), ttl=600) for number in range(300)))
        print(answers.count("new"), flush=True)

    asyncio.run(main(*sys.argv[1:]))
"""


def test_two_processes_claim_each_key_once(server: PostgresServer) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(CLAIMER), server.conninfo, "claimers"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        won = [int(process.communicate(timeout=60)[0]) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
        execute("DROP TABLE IF EXISTS claimers")
    assert sum(won) == 300


# --- what is refused ---


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            {"conninfo": "hunter2 is my password"},
            "libpq cannot read this conninfo; write postgresql://HOST/DATABASE",
        ),
        ({"conninfo": 5}, "libpq cannot read this conninfo"),
        ({"table": "a; DROP TABLE b"}, "lower-case letters, digits and _ are allowed"),
        ({"connections": 0}, "a whole number from 1"),
        ({"timeout": -1}, "a number of seconds above 0"),
    ],
)
def test_bad_arguments_are_refused_when_it_is_made(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        PostgresStore(**arguments)
    assert text in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_what_cannot_be_reached_is_refused_when_it_is_opened() -> None:
    async def body() -> None:
        with pytest.raises(
            ConfigurationError, match=r"^PostgresStore: .*connection to server.*/nowhere"
        ) as caught:
            async with PostgresStore("host=/nowhere dbname=x password=hunter2"):
                pass
        assert "hunter2" not in str(caught.value)

    run(body())


def test_a_table_that_may_not_be_made_is_refused_with_the_sql_that_makes_it(server: PostgresServer) -> None:
    async def body() -> None:
        store = PostgresStore(server.conninfo, table="missing", create=False)
        with pytest.raises(ConfigurationError, match="there is no table missing; make it with: CREATE TABLE"):
            await store.open()
        await store.close()
        execute("CREATE ROLE weak LOGIN")
        store = PostgresStore(server.conninfo.replace("user=tests", "user=weak"), table="missing")
        with pytest.raises(ConfigurationError, match=r"may not be made \(permission denied.*CREATE TABLE"):
            await store.open()
        await store.close()
        execute(store.schema)
        execute("GRANT SELECT, INSERT, UPDATE, DELETE ON missing TO weak")
        assert await store.claim("a", ttl=60) == "new"
        await store.close()
        execute("DROP TABLE missing")
        execute("DROP ROLE weak")

    run(body())
