"""``local+http:`` through the contract of an adapter, on real server processes."""

from __future__ import annotations

import asyncio
import http.server
import logging
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from tests.server_process import Server
from tests.support import run

from crossbus.adapter import LeaseOutcome, Received, Receiver, ReplayFrom, Settlement
from crossbus.capabilities import CAPABILITIES
from crossbus.clock import SystemClock
from crossbus.config import load
from crossbus.errors import (
    BusClosedError,
    ConfigurationError,
    ErrorCode,
    InvalidRequest,
    NotFound,
    Unauthenticated,
    Unavailable,
)
from crossbus.event import Event, new_id
from crossbus.filters import exact
from crossbus.profiles import Profile
from crossbus.topology import Subscription, Topic, Topology
from crossbus_local.protocol import LeaseAnswers
from crossbus_local.remote import RemoteAdapter
from crossbus_local.remote.address import Address

OK, LOST = LeaseOutcome.OK, LeaseOutcome.LOST


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


@pytest.fixture
def topic() -> Topic:
    return Topic(f"orders-{new_id()[:8]}")


def adapter(url: str) -> RemoteAdapter:
    return RemoteAdapter(load(url).default, clock=SystemClock())


def billing(topic: Topic, **more: object) -> Subscription:
    return Subscription(topic=topic, name="billing", **{"lease": 30.0} | more)  # type: ignore[arg-type]


@asynccontextmanager
async def opened(url: str, *subscriptions: Subscription) -> AsyncIterator[RemoteAdapter]:
    made = adapter(url)
    await made.open()
    await made.provision(await made.plan(Topology(subscriptions=subscriptions)))
    try:
        yield made
    finally:
        await made.close()


def event(id: str = "1", **extensions: str) -> Event:
    return Event(type="order.placed", source="/shop", id=id, data={"n": id}, extensions=extensions or None)


async def send(remote: RemoteAdapter, topic: Topic, *ids: str) -> list[str]:
    outcomes = await remote.send(topic, [remote.encode(topic, event(id)) for id in ids])
    assert all(outcome.code is None for outcome in outcomes)
    return [outcome.message_id for outcome in outcomes]


async def ack(receiver: Receiver, *taken: Received) -> Sequence[LeaseOutcome]:
    return await receiver.settle([Settlement(one.lease) for one in taken])


def ids(remote: RemoteAdapter, taken: Sequence[Received]) -> list[str]:
    return [remote.decode(one).id for one in taken]


# --- what it says of itself ---------------------------------------------------------------------------------------


def test_it_declares_every_capability_but_pushing_and_credentials() -> None:
    assert {name for name in CAPABILITIES if not RemoteAdapter.capabilities.has(name)} == {
        "push",
        "credentials",
    }


def test_a_server_without_memory_of_its_own_cannot_be_restarted(server: Server) -> None:
    async def main() -> None:
        async with opened(server.url) as remote:
            assert not remote.capabilities.has("restarts")
            assert remote.capabilities.has("replay_time")
            assert remote.is_local
            described = remote.describe()
            assert (described.server_address, described.server_port) == ("127.0.0.1", server.port)

    run(main())


@pytest.mark.parametrize(
    ("url", "address", "loopback"),
    [
        ("local+http:", ("127.0.0.1", 8787), True),
        ("local+http://localhost", ("localhost", 8787), True),
        ("local+http://127.9.9.9:1", ("127.9.9.9", 1), True),
        ("local+http://[::1]:9000/", ("::1", 9000), True),
        ("local+http://broker:8787", ("broker", 8787), False),
        ("local+http://10.0.0.1:8787", ("10.0.0.1", 8787), False),
        ("local+http://localhost.example.com", ("localhost.example.com", 8787), False),
    ],
)
def test_addresses(url: str, address: tuple[str, int], loopback: bool) -> None:
    made = adapter(url)
    assert made._address == address
    assert made.is_local is loopback


@pytest.mark.parametrize(
    "target", ["127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:http", "a/b", "a b", ":8787", "::1", "a:1:2"]
)
def test_a_target_that_is_no_address_is_refused(target: str) -> None:
    with pytest.raises(ConfigurationError, match="HOST:PORT and nothing else"):
        Address.of(Profile(target=target))


def test_it_is_read_without_what_the_extra_installs() -> None:
    program = """
import asyncio, sys
sys.modules["aiohttp"] = None
from crossbus.errors import AdapterNotInstalled
from crossbus.registry import capabilities_of
assert capabilities_of("local+http").has("processes")
from crossbus import Bus
try:
    asyncio.run(Bus("local+http:").open())
except AdapterNotInstalled as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "the local+http adapter needs the module 'aiohttp'" in done.stdout
    assert done.stdout.endswith("pip install 'crossbus[server]'\n")


# --- opening ------------------------------------------------------------------------------------------------------


async def refused(url: str) -> str:
    """Return why opening failed, having seen that nothing was left open."""
    made = adapter(url)
    with pytest.raises((Unavailable, Unauthenticated, InvalidRequest)) as caught:
        await made.open()
    with pytest.raises(BusClosedError):
        _ = made.client
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_nothing_listens_there(server: Server) -> None:
    with Server() as gone:
        pass
    text = run(refused(gone.url))
    assert text == (
        f"nothing listens on 127.0.0.1:{gone.port}; start it with: crossbus serve --port {gone.port}"
    )


@contextmanager
def stranger(status: int, body: bytes) -> Iterator[str]:
    """An HTTP server that gives one answer to everything."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    try:
        yield f"local+http://127.0.0.1:{running.server_port}"
    finally:
        running.shutdown()
        thread.join()
        running.server_close()


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (200, b"<html>", "is no crossbus server (its answer is not that of one): check host and port"),
        (200, b"{}", "is no crossbus server"),
        (200, b'{"crossbus":"\xff"}', "is no crossbus server"),
        (500, b'{"error":"\xff"}', "is no crossbus server (HTTP 500)"),
        (404, b"not here", "is no crossbus server (HTTP 404)"),
        (500, b'{"error": {"code": "x", "message": "broken"}}', "is no crossbus server (broken)"),
        (
            200,
            b'{"crossbus":"9.0","protocol":2,"broker":"a","storage":"memory","history":1}',
            "speaks version 2 of the protocol (crossbus 9.0), this crossbus version 1: bring both to one version",
        ),
        (
            404,
            b'{"error": {"code": "not_found", "message": "this server speaks /crossbus/v2/, not /crossbus/v1"}}',
            "this server speaks /crossbus/v2/",
        ),
    ],
)
def test_something_else_listens_there(status: int, body: bytes, words: str) -> None:
    with stranger(status, body) as url:
        assert words in run(refused(url))


def test_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    with Server(CROSSBUS_SERVER_KEY="open-sesame") as locked:
        monkeypatch.delenv("CROSSBUS_KEY", raising=False)
        where = f"127.0.0.1:{locked.port}"
        assert run(refused(locked.url)) == f"{where} wants a key: set CROSSBUS_KEY to the key of the server"
        monkeypatch.setenv("CROSSBUS_KEY", "wrong-guess")
        text = run(refused(locked.url))
        assert text == f"{where} wants a key: the key in CROSSBUS_KEY is not that of the server"
        assert "wrong-guess" not in text
        monkeypatch.setenv("CROSSBUS_KEY", "open-sesame")

        async def main() -> None:
            async with opened(locked.url, billing(Topic("orders"))) as remote:
                monkeypatch.setenv("CROSSBUS_KEY", "changed-too-early")
                with pytest.raises(Unauthenticated):
                    await remote.backlog(billing(Topic("orders")))
                monkeypatch.setenv("CROSSBUS_KEY", "open-sesame")
                assert (await remote.backlog(billing(Topic("orders")))).waiting == 0

        run(main())


def test_a_key_that_no_header_can_carry_is_refused(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("two\nlines", "schlüssel", "with space"):
        monkeypatch.setenv("CROSSBUS_KEY", key)
        with pytest.raises(ConfigurationError, match="CROSSBUS_KEY") as caught:
            run(adapter(server.url).open())
        assert key not in str(caught.value)


def test_a_key_that_leaves_the_machine_unencrypted_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CROSSBUS_KEY", "open-sesame")
    with caplog.at_level(logging.WARNING, "crossbus.local"):
        run(refused("local+http://no-such-host.invalid:8787"))
    (record,) = caplog.records
    assert "no-such-host.invalid:8787 unencrypted" in record.message
    assert "open-sesame" not in caplog.text


def test_closed_it_refuses_and_can_be_opened_again(server: Server, topic: Topic) -> None:
    async def main() -> None:
        made = adapter(server.url)
        with pytest.raises(BusClosedError, match="is not open; open the bus first"):
            await made.send(topic, [made.encode(topic, event())])
        for _ in range(2):
            await made.open()
            await made.provision(await made.plan(Topology((topic,))))
            await send(made, topic, "1")
            await made.close()
            await made.close()

    run(main())


# --- publishing and receiving -------------------------------------------------------------------------------------


def test_an_event_comes_as_it_was_sent(server: Server, topic: Topic) -> None:
    async def main() -> None:
        async with opened(server.url, billing(topic)) as remote:
            sent = event(partitionkey="k", tenant="t-1")
            (outcome,) = await remote.send(topic, [remote.encode(topic, sent)])
            receiver = await remote.open_receiver(billing(topic), 10)
            (taken,) = await receiver.receive(10, 1)
            assert remote.decode(taken) == sent
            assert (taken.message_id, taken.attempt, taken.key) == (outcome.message_id, 1, "k")
            assert taken.lease_seconds == 30
            assert await ack(receiver, taken, taken) == [OK, LOST]
            await receiver.close()
            assert await receiver.receive(10, 60) == []

    run(main())


def test_a_missing_topic_is_an_outcome_and_a_missing_subscription_an_error(
    server: Server, topic: Topic
) -> None:
    async def main() -> None:
        async with opened(server.url, billing(topic)) as remote:
            missing = Topic(f"{topic.name}x")
            outcomes = await remote.send(missing, [remote.encode(missing, event(n)) for n in "123"])
            assert [outcome.code for outcome in outcomes] == [ErrorCode.NOT_FOUND] * 3
            assert f"did you mean '{topic.name}'" in outcomes[0].message
            receiver = await remote.open_receiver(Subscription(topic=topic, name="nobody"), 1)
            with pytest.raises(NotFound):
                await receiver.receive(1, 5)
            with pytest.raises(NotFound):
                await remote.backlog(Subscription(topic=topic, name="nobody"))

    run(main())


def test_what_was_sent_again_after_a_lost_answer_is_published_once(server: Server, topic: Topic) -> None:
    async def main() -> None:
        async with opened(server.url, billing(topic)) as remote:
            wires = [remote.encode(topic, event(str(n))) for n in range(3)]
            await lose_answers(remote)
            with pytest.raises(Unavailable):
                await remote.send(topic, wires)
            await find_answers(remote)
            first = await remote.send(topic, wires)
            assert (await remote.backlog(billing(topic))).waiting == 3
            assert len({outcome.message_id for outcome in first}) == 3
            # Other company, or another order, is another request.
            await remote.send(topic, wires[:2])
            assert (await remote.backlog(billing(topic))).waiting == 5

    run(main())


async def lose_answers(remote: RemoteAdapter) -> None:
    """Let the server carry out what is asked, and the answer break off."""
    client, inner = remote.client, remote.client._session.request

    @asynccontextmanager
    async def request(*arguments: object, **more: object) -> AsyncIterator[object]:
        async with inner(*arguments, **more) as response:  # type: ignore[arg-type]
            await response.read()
        raise aiohttp.ClientPayloadError("the connection broke in the middle of the answer")
        yield

    client._session.request = request  # type: ignore[assignment, method-assign]


async def find_answers(remote: RemoteAdapter) -> None:
    del remote.client._session.request


def test_settling_after_a_lost_answer_is_no_lost_lease(server: Server, topic: Topic) -> None:
    async def main() -> None:
        async with opened(server.url, billing(topic)) as remote:
            await send(remote, topic, "1", "2")
            receiver = await remote.open_receiver(billing(topic), 10)
            one, two = await receiver.receive(10, 1)
            settlements = [Settlement(one.lease), Settlement(two.lease, 3600.0)]
            await lose_answers(remote)
            with pytest.raises(Unavailable):
                await receiver.settle(settlements)
            await find_answers(remote)
            assert await receiver.settle(settlements) == [OK, OK]
            assert await receiver.settle(settlements) == [LOST, LOST]
            backlog = await remote.backlog(billing(topic))
            assert (backlog.waiting, backlog.in_hand) == (1, 0)

    run(main())


def test_a_receive_whose_answer_was_lost_costs_no_attempt_and_no_time(server: Server, topic: Topic) -> None:
    async def main() -> None:
        async with opened(server.url, billing(topic, lease=3600.0)) as remote:
            await send(remote, topic, "1", "2")
            receiver = await remote.open_receiver(billing(topic, lease=3600.0), 10)
            await lose_answers(remote)
            with pytest.raises(Unavailable):
                await receiver.receive(10, 1)
            await find_answers(remote)
            taken = await receiver.receive(10, 1)
            assert ids(remote, taken) == ["1", "2"]
            assert [one.attempt for one in taken] == [1, 1]

    run(main())


def test_cancelled_receives_lose_nothing(server: Server, topic: Topic) -> None:
    """Cancelled at every moment of their way: each event comes once, on its first attempt, long before leases end."""

    async def main() -> None:
        subscription = billing(topic, lease=3600.0)
        async with opened(server.url, subscription) as remote:
            receiver = await remote.open_receiver(subscription, 10)
            seen: list[Received] = []
            for n in range(120):
                await send(remote, topic, str(n))
                receiving = asyncio.create_task(receiver.receive(10, 5))
                await asyncio.sleep(n * 0.00005)
                receiving.cancel()
                try:
                    seen += await receiving
                except asyncio.CancelledError:
                    pass
            while len(seen) < 120:
                taken = await receiver.receive(50, 10)
                assert taken, f"{120 - len(seen)} events are held by nobody"
                seen += taken
            assert sorted(map(int, ids(remote, seen))) == list(range(120))
            assert {one.attempt for one in seen} == {1}
            assert set(await ack(receiver, *seen)) == {OK}
            await receiver.close()

    run(main())


def test_what_a_cancelled_receive_had_taken_comes_to_another_at_once(server: Server, topic: Topic) -> None:
    async def main() -> None:
        subscription = billing(topic, lease=3600.0)
        async with opened(server.url, subscription) as remote, opened(server.url, subscription) as other:
            await send(remote, topic, "1")
            receiver = await remote.open_receiver(subscription, 10)
            inner, answered = remote.client.data, asyncio.Event()

            async def slowly(*arguments: Any, **more: Any) -> Any:
                answer = await inner(*arguments, **more)
                answered.set()
                await asyncio.sleep(0 if arguments[0].endswith("/abandon") else 3600)
                return answer

            remote.client.data = slowly  # type: ignore[method-assign]
            receiving = asyncio.create_task(receiver.receive(10, 5))
            await answered.wait()
            assert (await other.backlog(subscription)).in_hand == 1
            receiving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await receiving
            (taken,) = await (await other.open_receiver(subscription, 10)).receive(10, 20)
            assert taken.attempt == 1

    run(main())


def test_a_receive_that_is_cancelled_at_the_end_of_its_way_keeps_what_came_before(
    server: Server, topic: Topic
) -> None:
    async def main() -> None:
        async with opened(server.url, billing(topic)) as remote:
            receiver = await remote.open_receiver(billing(topic), 10)
            await send(remote, topic, "1")
            (kept,) = await receiver.receive(10, 5)
            receiving = asyncio.create_task(receiver.receive(10, 5))
            receiving.cancel()  # before it has begun
            with pytest.raises(asyncio.CancelledError):
                await receiving
            await receiver.close()
            assert await ack(receiver, kept) == [OK]

    run(main())


def test_what_arrived_stays_in_hand_when_the_next_receive_never_reaches_the_server(
    server: Server, topic: Topic
) -> None:
    async def main() -> None:
        async with opened(server.url, billing(topic)) as remote:
            receiver = await remote.open_receiver(billing(topic), 10)
            await send(remote, topic, "1")
            (kept,) = await receiver.receive(10, 5)
            receiving = asyncio.create_task(receiver.receive(10, 5))
            await asyncio.sleep(0)
            receiving.cancel()  # its request is not sent yet
            with pytest.raises(asyncio.CancelledError):
                await receiving
            base, remote.client._base = remote.client._base, "http://127.0.0.1:1"
            with pytest.raises(Unavailable):
                await receiver.receive(10, 5)
            remote.client._base = base
            assert await receiver.receive(10, 0) == []
            await receiver.close()
            assert await ack(receiver, kept) == [OK]

    run(main())


def test_closing_gives_back_what_was_lost_to_every_receive(server: Server, topic: Topic) -> None:
    async def main() -> None:
        async with opened(server.url, billing(topic)) as remote:
            receiver = await remote.open_receiver(billing(topic), 10)
            await send(remote, topic, "1", "2")
            await lose_answers(remote)
            lost = await asyncio.gather(*(receiver.receive(1, 1) for _ in "12"), return_exceptions=True)
            assert [type(one) for one in lost] == [Unavailable, Unavailable]
            await find_answers(remote)
            await receiver.close()
            assert (await remote.backlog(billing(topic))).waiting == 2

    run(main())


def test_an_answer_to_settling_that_is_too_short_leaves_nobody_waiting(
    server: Server, topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(*_: object, **__: object) -> LeaseAnswers:
        return LeaseAnswers([])

    async def main() -> None:
        async with opened(server.url, billing(topic)) as remote:
            receiver = await remote.open_receiver(billing(topic), 10)
            monkeypatch.setattr(remote.client, "data", nothing)
            with pytest.raises(ValueError, match="shorter"):
                await asyncio.wait_for(receiver.settle([Settlement("x"), Settlement("y")]), 30)

    run(main())


def test_closing_ends_a_receive_that_waits(server: Server, topic: Topic) -> None:
    async def main() -> None:
        async with opened(server.url, billing(topic)) as remote:
            receiver = await remote.open_receiver(billing(topic), 10)
            waiting = asyncio.create_task(receiver.receive(10, 3600))
            await asyncio.sleep(0.2)
            await receiver.close()
            assert await asyncio.wait_for(waiting, 10) == []
            other = await remote.open_receiver(billing(topic), 10)
            await send(remote, topic, "1")
            assert len(await other.receive(10, 10)) == 1

    run(main())


def test_who_waits_gets_what_comes_and_waits_no_longer_than_asked(server: Server, topic: Topic) -> None:
    async def main() -> None:
        async with opened(server.url, billing(topic)) as remote:
            receiver = await remote.open_receiver(billing(topic), 10)
            assert await receiver.receive(10, 0) == []
            assert await receiver.receive(10, 0.2) == []
            waiting = asyncio.create_task(receiver.receive(10, 3600))
            await asyncio.sleep(0.2)
            await send(remote, topic, "7")
            assert ids(remote, await asyncio.wait_for(waiting, 10)) == ["7"]

    run(main())


def test_several_receives_at_once_take_different_events(server: Server, topic: Topic) -> None:
    async def main() -> None:
        async with opened(server.url, billing(topic)) as remote:
            receiver = await remote.open_receiver(billing(topic), 10)
            waiting = [asyncio.create_task(receiver.receive(1, 20)) for _ in range(5)]
            await asyncio.sleep(0.2)
            await send(remote, topic, *"12345")
            taken = [one for each in waiting for one in await each]
            assert sorted(ids(remote, taken)) == list("12345")

    run(main())


def test_a_client_that_vanishes_while_it_waits_takes_nothing(server: Server, topic: Topic) -> None:
    async def main() -> None:
        subscription = billing(topic, lease=3600.0)
        async with opened(server.url, subscription) as remote:
            gone = await remote.open_receiver(subscription, 10)
            waiting = asyncio.create_task(gone.receive(10, 60))
            await asyncio.sleep(0.3)
            await remote.client.close()  # without a word
            with pytest.raises((Unavailable, BusClosedError)):
                await waiting
        async with opened(server.url, subscription) as other:
            await send(other, topic, "1")
            receiver = await other.open_receiver(subscription, 10)
            (taken,) = await receiver.receive(10, 10)
            assert taken.attempt == 1

    run(main())


# --- a server that is started anew ----------------------------------------------------------------------------------


def test_programs_go_on_when_a_developer_restarts_his_server(caplog: pytest.LogCaptureFixture) -> None:
    topic = Topic("orders")

    async def main() -> None:
        subscription = billing(topic, filter=exact(type="order.placed"))
        async with (
            opened(server.url, subscription) as consumer,
            opened(server.url, subscription) as publisher,
        ):
            receiver = await consumer.open_receiver(subscription, 10)
            await send(publisher, topic, "1")
            (old,) = await receiver.receive(10, 5)
            server.kill(signal.SIGTERM)
            with pytest.raises(Unavailable, match="nothing listens on"):
                await receiver.receive(10, 5)
            server.start()
            waiting = asyncio.create_task(receiver.receive(10, 20))
            await asyncio.sleep(0.3)
            await send(publisher, topic, "2")
            (new,) = await waiting
            assert ids(consumer, [new]) == ["2"]
            assert await ack(receiver, old, new) == [LOST, OK], (
                "a lease of the other broker acknowledged an event"
            )
            assert [
                finding.state for finding in await consumer.inspect(Topology((topic,), (subscription,)))
            ] == [
                "ok",
                "ok",
            ]

    with Server() as server, caplog.at_level(logging.WARNING, "crossbus.local"):
        run(main())
    assert "was started anew and had lost what is declared" in caplog.text


def test_on_a_file_leases_outlive_the_server(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    topic = Topic("orders")

    async def main() -> None:
        subscription = billing(topic, lease=3600.0)
        async with opened(server.url, subscription) as remote:
            assert remote.capabilities.has("restarts")
            await send(remote, topic, "1", "2", "3")
            receiver = await remote.open_receiver(subscription, 2)
            one, two = await receiver.receive(2, 5)
            server.kill()
            server.start()
            assert await ack(receiver, one) == [OK]
            assert await receiver.extend([two.lease], 3600.0) == [OK]
            assert ids(remote, await receiver.receive(10, 5)) == ["3"], "what is in hand was handed out again"

    with Server("--path", str(tmp_path / "events.db")) as server, caplog.at_level(logging.WARNING):
        run(main())
    assert "started anew" not in caplog.text


def test_a_temporary_subscription_is_made_again_on_a_server_that_is_started_anew(tmp_path: Path) -> None:
    topic = Topic("orders")

    async def main() -> None:
        async with opened(server.url, billing(topic)) as remote:
            async with remote.temporary_subscription(topic) as subscription:
                receiver = await remote.open_receiver(subscription, 10)
                assert await receiver.receive(10, 0) == []
                server.kill()
                server.start()
                assert await receiver.receive(10, 0) == []
                await send(remote, topic, "1")
                assert ids(remote, await receiver.receive(10, 5)) == ["1"]
            names = (await remote._found()).topics["orders"].queues
            assert list(names) == ["billing"]

    with Server("--path", str(tmp_path / "events.db")) as server:
        run(main())


def test_a_temporary_subscription_is_kept_on_after_a_problem_of_this_machine(
    server: Server, topic: Topic, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("crossbus_local.remote.adapter.TEMPORARY", 1.5)

    async def main() -> None:
        async with (
            opened(server.url, billing(topic)) as remote,
            remote.temporary_subscription(topic) as subscription,
        ):
            monkeypatch.setenv("CROSSBUS_KEY", "no\nkey")  # the next request is not even made
            while not caplog.records:  # noqa: ASYNC110 (a record wakes nobody)
                await asyncio.sleep(0.01)
            monkeypatch.delenv("CROSSBUS_KEY")
            await asyncio.sleep(2)
            await send(remote, topic, "1")
            assert (await remote.backlog(subscription)).waiting == 1

    with caplog.at_level(logging.WARNING):
        run(main())
    assert "could not be kept, and is tried again soon: " in caplog.text


def test_what_somebody_deleted_stays_deleted(server: Server, topic: Topic) -> None:
    async def main() -> None:
        async with opened(server.url, billing(topic)) as remote:
            receiver = await remote.open_receiver(billing(topic), 10)
            waiting = asyncio.create_task(receiver.receive(10, 60))
            await asyncio.sleep(0.2)
            changes = await remote.plan(Topology(), prune=True)
            await remote.provision([one for one in changes if topic.name in one.name])
            with pytest.raises(NotFound):
                await waiting
            (outcome,) = await remote.send(topic, [remote.encode(topic, event())])
            assert outcome.code is ErrorCode.NOT_FOUND

    run(main())


def test_a_kept_connection_that_the_server_closed_is_no_failure() -> None:
    topic = Topic("orders")

    async def main() -> None:
        async with opened(server.url, billing(topic)) as remote:
            await send(remote, topic, "1")
            server.kill()
            server.start()
            # The connection in the pool is dead, and nobody has noticed.
            await send(remote, topic, "2")
            assert (await remote.backlog(billing(topic))).waiting == 1

    with Server() as server:
        run(main())


# --- what else it can do ------------------------------------------------------------------------------------------


def test_a_temporary_subscription_is_gone_with_its_block_or_with_its_process(
    server: Server, topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crossbus_local.remote.adapter.TEMPORARY", 0.6)

    async def main() -> None:
        async with opened(server.url, billing(topic)) as remote:
            async with remote.temporary_subscription(topic, exact(type="order.placed")) as subscription:
                await asyncio.sleep(1.5)  # it is kept, though nobody receives
                await send(remote, topic, "1")
                receiver = await remote.open_receiver(subscription, 10)
                assert len(await receiver.receive(10, 5)) == 1
                assert not await remote.plan(Topology(), prune=True) or all(
                    subscription.name not in change.name
                    for change in await remote.plan(Topology(), prune=True)
                )
            with pytest.raises(NotFound):
                await remote.backlog(subscription)
            leaving = remote.temporary_subscription(topic)
            left = await leaving.__aenter__()
            assert (await remote.backlog(left)).waiting == 0
        # Its keeper goes on, without a client: as good as dead.
        async with opened(server.url, billing(topic)) as other:
            for _ in range(100):
                if left.name not in (await other._found()).topics[topic.name].queues:
                    break
                await asyncio.sleep(0.1)
            else:
                raise AssertionError("it never ended")
        await leaving.__aexit__(None, None, None)

    run(main())


def test_dead_letters_are_browsed_in_pages(
    server: Server, topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crossbus_local.remote.dead_letters.PAGE", 7)

    async def main() -> None:
        subscription = billing(topic)
        async with opened(server.url, subscription) as remote:
            dead = subscription.dead_letter
            for n in range(3):
                await remote.send(
                    dead, [remote.encode(dead, event(f"{n}{m}", partitionkey="k")) for m in range(10)]
                )
            letters = remote.dead_letters(subscription)
            assert len(await letters.browse(12)) == 12
            found = await letters.browse(10_000)
            assert ids(remote, found) == [f"{n}{m}" for n in range(3) for m in range(10)]
            assert {one.key for one in found} == {"k"}
            outcomes = await letters.delete([found[0].lease, found[0].lease, "gone"])
            assert list(outcomes) == [OK, LOST, LOST]
            (put,) = await letters.redeliver([remote.encode(topic, event("again"))])
            assert put.code is None
            backlog = await remote.backlog(subscription)
            assert (backlog.waiting, backlog.dead) == (1, 29)

    run(main())


def test_replay_from_a_time_and_from_a_position(server: Server, topic: Topic) -> None:
    async def main() -> None:
        async with opened(server.url, billing(topic)) as remote:
            first, second = await send(remote, topic, "1", "2")
            assert await remote.replay(billing(topic), ReplayFrom(position=second)) == 1
            hour_ago = datetime.now(UTC) - timedelta(hours=1)
            assert await remote.replay(billing(topic), ReplayFrom(time=hour_ago)) == 2
            receiver = await remote.open_receiver(billing(topic), 10)
            taken = await receiver.receive(10, 5)
            assert [one.message_id for one in taken] == [first, second, second, first, second]
            assert "crossbusreplay" in remote.decode(taken[2]).extensions
            with pytest.raises(InvalidRequest, match="is no position of it"):
                await remote.replay(billing(topic), ReplayFrom(position="1"))

    run(main())


def test_errors_of_the_connection_have_portable_codes() -> None:
    made = adapter("local+http:")
    assert made.error_code(Unavailable()) == (ErrorCode.UNAVAILABLE, True)
    assert made.error_code(aiohttp.ServerDisconnectedError()) == (ErrorCode.UNAVAILABLE, True)
    assert made.error_code(aiohttp.ClientPayloadError()) == (ErrorCode.UNAVAILABLE, True)
    assert made.error_code(TimeoutError()) == (ErrorCode.DEADLINE_EXCEEDED, True)
    assert made.error_code(aiohttp.InvalidURL("x")) == (ErrorCode.UNKNOWN, False)
    assert made.error_code(ValueError()) is None


def test_a_server_holds_a_subscription_for_all_its_consumers(server: Server, topic: Topic) -> None:
    async def body() -> None:
        subscription = billing(topic)
        async with opened(server.url, subscription) as one, opened(server.url, subscription) as other:
            receivers = [await each.open_receiver(subscription, 10) for each in (one, other)]
            assert await one.pause_for_all(subscription, True)
            assert not await other.pause_for_all(subscription, True)
            wires = [one.encode(topic, event())]
            await one.send(topic, wires)
            for receiver in receivers:
                assert await receiver.receive(10, 0.2) == []
            assert await other.plan(Topology(subscriptions=(subscription,))) == []
            waiting = asyncio.create_task(receivers[0].receive(10, 30))
            assert await other.pause_for_all(subscription, False)
            assert len(await waiting) == 1
            with pytest.raises(NotFound):
                await one.pause_for_all(Subscription(topic=topic, name="elsewhere"), True)
            for receiver in receivers:
                await receiver.close()

    run(body())
