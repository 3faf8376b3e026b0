"""`crossbus serve` as a process: how it starts, what it says, how it ends, and who may not come in."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from tests.serving import BATCH, LIMIT, Client, Server, event, publish, raw, receive, serving, settle
from tests.test_cli import crossbus, refused

from crossbus.cli.serve import run_server
from crossbus.errors import AdapterNotInstalled

BILLING = "/topics/orders/eventsubscriptions/billing"
QUICK = ("--shortest-wait", "0")


def options(**changes: object) -> str:
    """A server with options that the command line has not."""
    given = ", ".join(f"{name}={value!r}" for name, value in changes.items())
    return (
        "from crossbus_local.http.options import ServerOptions\n"
        "from crossbus_local.http.serve import serve\n"
        f"serve(ServerOptions(port=0, shortest_wait=0.0, {given}))\n"
    )


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving(*QUICK) as server:
        yield server


def wait_until(holds, what: str) -> None:  # type: ignore[no-untyped-def]
    until = time.monotonic() + LIMIT
    while not holds():
        assert time.monotonic() < until, what
        time.sleep(0.02)


# --- starting -------------------------------------------------------------------------------------------------------


def test_it_says_how_to_use_it(server: Server) -> None:
    said = "\n".join(server.greeting)
    host, port = server.address
    assert server.greeting[0] == f"listening on http://127.0.0.1:{port}"
    assert f"CROSSBUS_URL=local+http://{host}:{port}" in said
    assert f"endpoint http://{host}:{port}" in said
    assert "any key" in said
    assert "in memory: gone when the server ends" in said


def test_the_address_in_use_is_one_line(server: Server) -> None:
    refused(crossbus("serve", "--port", str(server.address[1])), str(server.address[1]), "in use", "--port 0")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--host", "0.0.0.0"), ("0.0.0.0", "CROSSBUS_SERVER_KEY")),
        (("--host", "::"), ("::", "key")),
        (("--host", "no.such.host.invalid"), ("no.such.host.invalid", "no address")),
        (("--host", "300.1.1.1", "--key", "k"), ("300.1.1.1", "no address")),
        (("--port", "65536"), ("65536",)),
        (("--key", ""), ("key is empty",)),
        (("--key", "two words"), ("no header can carry",)),
        (("--key", "schlüssel"), ("no header can carry",)),
        (("--shortest-lock", "301"), ("shortest lock", "300")),
        (("--shortest-lock", "0"), ("shortest lock",)),
        (("--path", "/no/such/folder/events.db"), ("/no/such/folder/events.db",)),
        (("--shortest-wait", "nan"), ("shortest wait",)),
    ],
)
def test_what_cannot_be_is_one_line(words: tuple[str, ...], says: tuple[str, ...]) -> None:
    done = crossbus("serve", "--port", "0", *words) if "--port" not in words else crossbus("serve", *words)
    refused(done, *says)
    assert "two words" not in done.stderr
    assert "schlüssel" not in done.stderr


def test_a_missing_extra_is_one_line() -> None:
    code = (
        "import sys\nsys.modules['uvicorn'] = None\n"
        "from crossbus.cli import main\nmain(['serve', '--port', '0'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=LIMIT)
    refused(done, "uvicorn", "pip install 'crossbus[server]'")


def test_help_loads_no_server() -> None:
    code = (
        "import sys\nfrom crossbus.cli import main\n"
        "try:\n    main(['serve', '--help'])\n"
        "except SystemExit:\n    pass\n"
        "print([name for name in ('starlette', 'uvicorn', 'crossbus_local') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=LIMIT)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "CROSSBUS_SERVER_KEY" in done.stdout


# --- ending ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_long_polls_with_nothing_and_the_process_with_zero(number: int) -> None:
    with serving() as server, Client(server) as polling:
        polling.send(f"{BILLING}:receive?maxEvents=1&maxWaitTime=120")
        wait_until(lambda: polling_is_seen(server), "the poll arrives")
        began = time.monotonic()
        assert server.stop(number) == 0
        assert time.monotonic() - began < 20
        done = polling.answer()
        assert (done.status, done.json) == (200, {"value": []})
        wait_until(lambda: not server.errors, str(server.errors))


def polling_is_seen(server: Server) -> bool:
    """True once the subscription was made, which a receive does first."""
    done = server.ask(f"{BILLING}:acknowledge", b'{"lockTokens":["x"]}', content_type="application/json")
    return done.status == 200


def test_idle_and_half_sent_requests_do_not_hold_it_up() -> None:
    with serving() as server:
        connections = [socket.create_connection(server.address) for _ in range(3)]
        connections[1].sendall(b"POST /topics/orders:publish HTTP/1.1\r\nHost: local")
        connections[2].sendall(
            b"POST /topics/orders:publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"
        )
        with Client(server) as client:
            assert client.ask(f"{BILLING}:receive?maxEvents=0").status == 400  # and stays open
            began = time.monotonic()
            assert server.stop() == 0
            assert time.monotonic() - began < 30
        for connection in connections:
            connection.close()


def test_after_kill_another_takes_the_port() -> None:
    with serving(*QUICK) as server:
        port = str(server.address[1])
        receive(server, "orders", "billing")
        publish(server, "orders", event("1"))
        assert server.stop(signal.SIGKILL) == -signal.SIGKILL
        with serving(*QUICK, "--port", port) as again:
            assert again.address == server.address
            assert receive(again, "orders", "billing") == []


def test_with_a_file_a_kill_loses_nothing(tmp_path: Path) -> None:
    file = str(tmp_path / "events.db")
    with serving(*QUICK, "--path", file) as server:
        assert file in "\n".join(server.greeting)
        receive(server, "orders", "billing")
        publish(server, "orders", *(event(str(n), data=2**63) for n in range(4)))
        publish(server, "nobody", event("kept"))
        first, second, third, fourth = receive(server, "orders", "billing")
        tokens = [one["brokerProperties"]["lockToken"] for one in (first, second, third, fourth)]
        settle(server, "orders", "billing", "acknowledge", tokens[0])
        settle(server, "orders", "billing", "reject", tokens[1])
        settle(server, "orders", "billing", "release", tokens[2])
        refused(crossbus("serve", "--port", "0", "--path", file), "events.db", "in use")
        assert server.stop(signal.SIGKILL) == -signal.SIGKILL
    with serving(*QUICK, "--path", file) as server:
        (again,) = receive(server, "orders", "billing")
        assert (again["event"], again["brokerProperties"]["deliveryCount"]) == (third["event"], 2)
        assert [one["event"]["id"] for one in receive(server, "nobody", "late")] == ["kept"]
        done = settle(
            server, "orders", "billing", "acknowledge", again["brokerProperties"]["lockToken"], tokens[0]
        )
        assert len(done["succeededLockTokens"]) == len(done["failedLockTokens"]) == 1
        assert server.stop() == 0
        wait_until(lambda: not server.errors, str(server.errors))


# --- clients that go away -------------------------------------------------------------------------------------------


def test_a_receive_whose_client_goes_away_keeps_nothing(server: Server) -> None:
    receive(server, "away", "billing")
    path = "/topics/away/eventsubscriptions/billing:receive?maxEvents=1&maxWaitTime=60"
    for n in range(5):
        gone = Client(server)
        gone.send(path)
        time.sleep(0.1)
        gone.close()
        time.sleep(0.1)
        publish(server, "away", event(str(n)))
        (one,) = receive(server, "away", "billing")
        assert (one["event"]["id"], one["brokerProperties"]["deliveryCount"]) == (str(n), 1)
        settle(server, "away", "billing", "acknowledge", one["brokerProperties"]["lockToken"])


def test_a_client_that_is_gone_before_its_request_is_read_takes_nothing(server: Server) -> None:
    receive(server, "gone", "billing")
    publish(server, "gone", event("1"))
    text = (
        b"POST /topics/gone/eventsubscriptions/billing:receive?api-version=2024-06-01&maxEvents=1&maxWaitTime=0 "
        b"HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
    )
    with socket.create_connection(server.address) as connection:
        connection.sendall(text)
    wait_until(lambda: len(receive(server, "gone", "billing")) == 1, "it comes to another")


def test_a_killed_consumer_leaves_its_poll_to_others(server: Server) -> None:
    receive(server, "killed", "billing")
    code = (
        "import sys; from azure.eventgrid import EventGridConsumerClient as C; "
        "from azure.core.credentials import AzureKeyCredential as K; "
        f"c = C({server.url!r}, K('k'), namespace_topic='killed', subscription='billing'); "
        "print('polling', flush=True); c.receive(max_events=1, max_wait_time=120)"
    )
    consumer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert consumer.stdout
    with consumer.stdout:
        consumer.stdout.readline()
        time.sleep(0.5)
        consumer.kill()
        consumer.wait(LIMIT)
    time.sleep(0.3)
    publish(server, "killed", event("1"))
    assert [one["event"]["id"] for one in receive(server, "killed", "billing")] == ["1"]


def test_several_polls_share_what_comes(server: Server) -> None:
    receive(server, "shared", "billing")
    found: list[str] = []

    def poll() -> None:
        found.extend(one["event"]["id"] for one in receive(server, "shared", "billing", 1, 60))

    threads = [threading.Thread(target=poll) for _ in range(8)]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    publish(server, "shared", *(event(str(n)) for n in range(8)))
    for thread in threads:
        thread.join(LIMIT)
    assert sorted(found) == [str(n) for n in range(8)]


# --- who may come in ------------------------------------------------------------------------------------------------

PUBLISH = "/topics/orders:publish"


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8787", "localhost.evil.example", "10.0.0.1", "", "["]
)
def test_a_name_that_was_made_to_point_here(server: Server, host: str) -> None:
    done = server.ask(PUBLISH, b"[]", content_type=BATCH, host=host)
    assert (done.status, done.code) == (403, "Forbidden")


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:1", "127.0.0.1", "127.8.9.1:80", "[::1]:8787", "a.localhost"]
)
def test_names_of_this_machine(server: Server, host: str) -> None:
    assert server.ask(PUBLISH, b"[]", content_type=BATCH, host=host).status == 200


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost:3000", "http://127.0.0.1:8787", ""]
)
def test_no_web_page_may(server: Server, origin: str) -> None:
    done = server.ask(PUBLISH, json.dumps([event()]).encode(), content_type=BATCH, origin=origin)
    assert (done.status, done.code) == (403, "Forbidden")
    assert not [name for name in done.headers if name.startswith("access-control")]
    assert server.ask(PUBLISH, b"[]", content_type=BATCH, sec_fetch_site="cross-site").status == 403


def test_a_preflight_gets_no_leave(server: Server) -> None:
    with Client(server) as client:
        done = client.ask(
            PUBLISH,
            method="OPTIONS",
            origin="https://evil.example",
            access_control_request_method="POST",
            access_control_request_headers="content-type",
        )
    assert done.status == 403
    assert not [name for name in done.headers if name.startswith("access-control")]


def test_no_host_at_all(server: Server) -> None:
    assert b"400" in raw(server, b"POST /topics/orders:publish HTTP/1.0\r\n\r\n").partition(b"\r\n")[0]


def test_the_key_is_wanted_and_never_shown() -> None:
    key = "s3cret-s3cret"
    with serving(*QUICK, "--access-log", CROSSBUS_SERVER_KEY=key) as server:
        assert key not in "\n".join(server.greeting)
        for given in (
            "",
            "SharedAccessKey",
            "SharedAccessKey wrong",
            f"Bearer {key}",
            key,
            f"SharedAccessKey {key}x",
        ):
            done = server.ask(PUBLISH, b"[]", content_type=BATCH, authorization=given)
            assert (done.status, done.code) == (401, "Unauthorized")
            assert done.headers["www-authenticate"] == "SharedAccessKey"
            assert key not in done.message
        assert server.ask(PUBLISH, b"[]", content_type=BATCH).status == 401
        assert server.ask("/nothing/here").status == 401, "nobody without it learns what there is"
        for given in (f"SharedAccessKey {key}", f"sharedaccesskey  {key}"):
            assert server.ask(PUBLISH, b"[]", content_type=BATCH, authorization=given).status == 200
        wait_until(lambda: len(server.errors) >= 9, "requests are logged")
        assert any("publish" in line and line.endswith(" 200") for line in server.errors)
        assert key not in "\n".join(server.errors)


def test_no_log_of_requests_unless_asked_for(server: Server) -> None:
    server.ask("/nothing/here")
    assert not any("/nothing/here" in line for line in server.errors)


def test_an_address_that_others_can_reach_needs_the_key_and_is_strict() -> None:
    with serving("--host", "0.0.0.0", CROSSBUS_SERVER_KEY="k") as server:
        said = "\n".join(server.greeting)
        assert "http://0.0.0.0:" in said
        assert "CROSSBUS_KEY" in said
        key = {"authorization": "SharedAccessKey k"}
        done = server.ask(PUBLISH, b"[]", content_type=BATCH, host="broker.internal:8787", **key)
        assert (done.status, done.code) == (404, "NotFound"), "any name will do, for the key is what counts"
        assert server.ask(PUBLISH, b"[]", content_type=BATCH).status == 401
    with serving("--host", "0.0.0.0", "--no-strict", CROSSBUS_SERVER_KEY="k") as server:
        assert server.ask(PUBLISH, b"[]", content_type=BATCH, **key).status == 200


def test_ipv6() -> None:
    if not socket.has_ipv6 or not os.path.exists("/proc/net/if_inet6"):
        pytest.skip("waits for a machine with IPv6")
    with serving("--host", "::1", *QUICK) as server:
        assert server.url.startswith("http://[::1]:")
        assert receive(server, "orders", "billing") == []


# --- what a stranger can send ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("complete", [True, False])
@pytest.mark.parametrize("many", [True, False])
def test_headers_beyond_bounds(server: Server, complete: bool, many: bool) -> None:
    lines = [b"x: " + b"y" * 1000] * 100 if many else [b"x: " + b"y" * 100_000]
    text = (
        b"POST / HTTP/1.1\r\nHost: localhost\r\n" + b"\r\n".join(lines) + (b"\r\n\r\n" if complete else b"")
    )
    assert raw(server, text).startswith(b"HTTP/1.1 431 ")
    assert receive(server, "orders", "billing") == []


@pytest.mark.parametrize(
    ("begins", "goes_on"),
    [(b"0\r\nx: ", b"y" * 300_000), (b"0\r\n", b"x: y\r\n" * 60_000), (b"1;", b"e" * 300_000)],
    ids=["a long trailer", "many trailers", "an extension of a chunk"],
)
def test_a_stranger_cannot_have_it_keep_what_comes_beside_a_body(begins: bytes, goes_on: bytes) -> None:
    with serving(CROSSBUS_SERVER_KEY="k") as server:
        head = b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        with socket.create_connection(server.address, timeout=LIMIT) as connection:
            connection.sendall(head + begins)
            assert connection.recv(100).startswith(b"HTTP/1.1 401 ")
            with pytest.raises(OSError, match=r"reset|[Bb]roken"):
                _send_for_long(connection, goes_on)


def _send_for_long(connection: socket.socket, text: bytes) -> None:
    for _ in range(100):
        connection.sendall(text)
        time.sleep(0.05)


def test_trailers_are_no_headers(server: Server) -> None:
    text = (
        b"POST /topics/orders:publish?api-version=2024-06-01 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n2\r\n[]\r\n0\r\nContent-Type: application/cloudevents-batch+json\r\n\r\n"
    )
    assert raw(server, text).startswith(b"HTTP/1.1 415 ")


def test_slow_heads_are_not_waited_for() -> None:
    with serving(code=options(head_seconds=0.5)) as server:
        assert raw(server, b"POST / HTTP/1.1\r\nHost: local") == b""
        assert raw(server, b"") == b""
        with Client(server) as client:
            assert client.ask(PUBLISH, b"[]", content_type=BATCH).status == 200
            time.sleep(1.0)
            assert client.ask(PUBLISH, b"[]", content_type=BATCH).status == 200, "idle is not slow"


def test_slow_bodies_are_not_waited_for() -> None:
    with serving(code=options(body_seconds=0.5)) as server:
        text = b"POST /topics/orders:publish?api-version=2024-06-01 HTTP/1.1\r\nHost: localhost\r\n"
        answer = raw(
            server, text + b"Content-Type: application/cloudevents+json\r\nContent-Length: 10\r\n\r\n{"
        )
        assert answer.startswith(b"HTTP/1.1 408 ")


def test_a_large_body_may_take_its_time() -> None:
    with serving(code=options(body_seconds=0.5)) as server:
        body = json.dumps([event(data="x" * 60_000)]).encode()
        head = (
            f"POST {PUBLISH}?api-version=2024-06-01 HTTP/1.1\r\nHost: localhost\r\nContent-Type: {BATCH}\r\n"
        )
        with socket.create_connection(server.address, timeout=LIMIT) as connection:
            connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[:20_000])
            time.sleep(1.0)
            connection.sendall(body[20_000:])
            assert connection.recv(100).startswith(b"HTTP/1.1 200 ")


def test_more_connections_than_allowed_are_told_so() -> None:
    with serving(code=options(connections=3)) as server:
        connections = [socket.create_connection(server.address) for _ in range(3)]
        wait_until(lambda: server.ask(PUBLISH, b"[]", content_type=BATCH).status == 503, "it is full")
        done = server.ask(PUBLISH, b"[]", content_type=BATCH)
        assert (done.status, done.code, done.headers["retry-after"]) == (503, "ServiceUnavailable", "1")
        for connection in connections:
            connection.close()
        wait_until(
            lambda: server.ask(PUBLISH, b"[]", content_type=BATCH).status == 200, "there is room again"
        )


def test_many_more_connections_are_closed() -> None:
    with serving(code=options(connections=3)) as server:
        connections = [socket.create_connection(server.address) for _ in range(70)]
        for connection in connections[60:]:
            connection.settimeout(LIMIT)
            assert is_closed(connection)
        for connection in connections:
            connection.close()
        wait_until(
            lambda: server.ask(PUBLISH, b"[]", content_type=BATCH).status == 200, "there is room again"
        )


def is_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


def test_bodies_are_sent_as_they_are(server: Server) -> None:
    done = server.ask(PUBLISH, b"[]", content_type=BATCH, content_encoding="gzip")
    assert (done.status, done.code) == (415, "UnsupportedMediaType")


def test_two_hosts(server: Server) -> None:
    text = b"POST / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
    assert raw(server, text).startswith(b"HTTP/1.1 400 ")


def test_a_server_that_is_not_registered_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "entry_points", lambda **_: ())
    with pytest.raises(AdapterNotInstalled, match=r"pip install 'crossbus\[server\]'"):
        run_server()


def test_expect_continue_is_refused_before_the_body_is_sent(server: Server) -> None:
    text = (
        b"POST /topics/orders:publish?api-version=2024-06-01 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        b"Content-Type: application/cloudevents+json\r\nExpect: 100-continue\r\nContent-Length: 2000000\r\n\r\n"
    )
    assert raw(server, text, half_close=True).startswith(b"HTTP/1.1 413 ")


def test_pipelined_requests_are_answered_in_order(server: Server) -> None:
    one = b"POST /topics/orders:publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
    two = b"POST /nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    answer = raw(server, one + one + two)
    assert [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]] == [b"400", b"400", b"404"]
