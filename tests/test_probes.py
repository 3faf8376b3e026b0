"""Probes: the ASGI form on a real server, the small server of its own, and what each says when."""

from __future__ import annotations

import asyncio
import http.client
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from tests.consuming import until
from tests.support import run

from crossbus import Bus, Event, SyncBus
from crossbus.errors import ConfigurationError
from crossbus.probes import AT_ONCE, Probe, asgi, listening, parse_address, probe


def get(address: tuple[str, int], path: str, method: str = "GET") -> tuple[int, str]:
    connection = http.client.HTTPConnection(*address, timeout=30)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


class Answers:
    def __init__(self, alive: bool = True, ready: bool = True) -> None:
        self.alive, self.ready = alive, ready

    def __call__(self) -> tuple[bool, bool]:
        return self.alive, self.ready


@contextmanager
def own(ask: Probe) -> Iterator[tuple[str, int]]:
    with listening("127.0.0.1", 0, ask) as address:
        yield address


@contextmanager
def mounted(ask_bus: Any, prefix: str = "/health") -> Iterator[tuple[str, int]]:
    """The ASGI form, mounted by Starlette and served by uvicorn."""
    import threading

    import uvicorn

    app = Starlette(routes=[Mount(prefix, app=asgi(ask_bus))]) if prefix else asgi(ask_bus)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical"))
    bound = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
    thread.start()
    try:
        yield bound.getsockname()[:2]
    finally:
        server.should_exit = True
        thread.join()
        bound.close()


def test_the_answers_are_a_status_and_a_word() -> None:
    answers = Answers()
    with own(answers) as address:
        assert get(address, "/livez") == (200, "alive\n")
        assert get(address, "/readyz?verbose") == (200, "ready\n")
        answers.ready = False
        assert get(address, "/livez") == (200, "alive\n")
        assert get(address, "/readyz") == (503, "not ready\n")
        answers.alive = False
        assert get(address, "/livez") == (503, "not alive\n")
        assert get(address, "/livez", "HEAD") == (503, "")
        assert get(address, "/") == (404, "there are /livez and /readyz\n")
        assert get(address, "/livez", "POST") == (405, "only GET and HEAD\n")


@pytest.mark.parametrize("sent", [b"nonsense\r\n\r\n", b"GET /livez\r\n\r\n", b"\x00\xff\r\n\r\n"])
def test_what_is_no_request_is_answered_as_such(sent: bytes) -> None:
    with own(Answers()) as address, socket.create_connection(address, timeout=30) as client:
        client.sendall(sent)
        assert client.makefile("rb").read().startswith(b"HTTP/1.1 400 Bad Request\r\n")


def test_clients_that_say_nothing_or_too_much_keep_nobody_from_being_answered() -> None:
    with own(Answers()) as address:
        silent = [socket.create_connection(address, timeout=30) for _ in range(AT_ONCE // 2)]
        try:
            with socket.create_connection(address, timeout=30) as client:
                client.sendall(b"GET /livez HTTP/1.1\r\nX: " + b"x" * 100_000)
                client.shutdown(socket.SHUT_WR)
                try:
                    assert client.recv(100) == b""
                except ConnectionResetError:
                    pass  # it closed while we still sent
            assert get(address, "/livez") == (200, "alive\n")
        finally:
            for each in silent:
                each.close()


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8080", ("127.0.0.1", 8080)),
        (":8080", ("127.0.0.1", 8080)),
        ("8080", ("127.0.0.1", 8080)),
        ("0.0.0.0:0", ("0.0.0.0", 0)),
        ("[::1]:8080", ("::1", 8080)),
    ],
)
def test_an_address_is_this_machines_unless_it_says_otherwise(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text, "--health") == address


@pytest.mark.parametrize(
    "text", ["", "host", "host:", "host:80x", "host:70000", "http://host:80", "a b:80", "host:²"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^--health '.*' is no address: write HOST:PORT"):
        parse_address(text, "--health")


def test_an_address_in_use_is_one_line() -> None:
    with (
        own(Answers()) as address,
        pytest.raises(ConfigurationError, match=r"health cannot listen on 127.0.0.1:"),
        listening(*address, Answers()),
    ):
        raise AssertionError("it listens twice")


# --- of a bus -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["asgi", "mounted", "own"])
def test_ready_from_opening_to_draining(form: str) -> None:
    bus = Bus("local:", source="/shop")
    finish = asyncio.Event()
    begun = asyncio.Event()

    @bus.subscribe("orders", "billing")
    async def bill(event: Event) -> None:
        begun.set()
        await finish.wait()

    server = {
        "asgi": lambda: mounted(bus, ""),
        "mounted": lambda: mounted(bus),
        "own": lambda: own(probe(bus)),
    }[form]
    prefix = "/health" if form == "mounted" else ""

    async def body() -> None:
        async def asked() -> tuple[int, int]:
            live = await asyncio.to_thread(get, address, f"{prefix}/livez")
            ready = await asyncio.to_thread(get, address, f"{prefix}/readyz")
            return live[0], ready[0]

        assert await asked() == (200, 503)
        async with bus:
            async with bus.running():
                assert await asked() == (200, 200)
                await bus.pause("orders", "billing")
                assert await asked() == (200, 503)
                await bus.resume("orders", "billing")
                await bus.publish("orders", Event(type="t"))
                await begun.wait()
                closing = asyncio.create_task(bus.close())
                await until(lambda: bus.health().subscriptions["orders/billing"].state == "draining")
                assert await asked() == (200, 503)
                finish.set()
                await closing
            assert await asked() == (200, 503)

    with server() as address:
        run(body())


def test_a_handler_that_blocks_the_loop_is_not_alive() -> None:
    bus = Bus("local:", source="/shop")
    found: list[tuple[int, str]] = []

    @bus.subscribe("orders", "billing", lease=1.0)
    async def bill(event: Event) -> None:
        ends = time.monotonic() + 30
        while time.monotonic() < ends:  # blocks, and asks as an orchestrator would, from outside of the loop
            found.append(get(address, "/livez"))
            if found[-1][0] == 503:
                return

    async def body() -> None:
        async with bus, bus.running():
            await bus.publish("orders", Event(type="t"))
            await until(lambda: found and found[-1][0] == 503)
            while (await asyncio.to_thread(get, address, "/livez"))[0] != 200:
                pass

    with own(probe(bus)) as address:
        run(body(), limit=60)
    assert found[0] == (200, "alive\n")
    assert found[-1] == (503, "not alive\n")


def test_a_bus_without_asyncio() -> None:
    bus = SyncBus("local:", source="/shop")
    with mounted(bus) as address:
        assert get(address, "/health/readyz")[0] == 503
        with bus:
            assert get(address, "/health/readyz")[0] == 200
            assert get(address, "/health/livez", "HEAD") == (200, "")
