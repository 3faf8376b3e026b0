"""Real servers for tests: `crossbus serve` as a process, and requests as bytes."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from tests.test_cli import environment

LIMIT = 60.0
VERSION = "api-version=2024-06-01"


@dataclass
class Server:
    """A server that runs."""

    process: subprocess.Popen[str]
    url: str
    greeting: list[str]
    errors: list[str] = field(default_factory=list)
    """What it wrote to standard error so far, line by line."""

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        assert parts.hostname
        assert parts.port
        return parts.hostname, parts.port

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(LIMIT)

    def ask(self, path: str, body: bytes | None = None, **headers: str) -> Answer:
        """Send one request on a connection of its own."""
        with Client(self) as client:
            return client.ask(path, body, **headers)


@contextmanager
def serving(*options: str, code: str = "", **variables: str) -> Iterator[Server]:
    """Run `crossbus serve` on any free port, or `code`, which calls `serve(ServerOptions(...))`."""
    words = ["-c", code] if code else ["-m", "crossbus", "serve", "--port", "0", *options]
    process = subprocess.Popen(
        [sys.executable, "-W", "error", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(**variables),
    )
    try:
        server = _started(process)
        yield server
        assert not [line for line in server.errors if "Traceback" in line], "\n".join(server.errors)
    finally:
        process.kill()
        process.wait(LIMIT)
        assert process.stdout
        process.stdout.close()


def _started(process: subprocess.Popen[str]) -> Server:
    assert process.stdout
    assert process.stderr
    greeting = []
    for line in process.stdout:
        greeting.append(line.rstrip("\n"))
        if "Ctrl-C" in line:
            break
    assert greeting, process.stderr.read()
    url = re.search(r"http://\S+", greeting[0])
    assert url
    server = Server(process, url[0].replace("0.0.0.0", "127.0.0.1"), greeting)
    threading.Thread(target=_collect, args=(process.stderr, server.errors), daemon=True).start()
    return server


def _collect(stream: Any, lines: list[str]) -> None:
    with stream:
        lines.extend(line.rstrip("\n") for line in stream)


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The code of an error, whose body has the one form."""
        error = self.json["error"]
        assert set(error) == {"code", "message"}
        assert self.headers["content-type"] == "application/json; charset=utf-8"
        assert error["message"]
        return str(error["code"])

    @property
    def message(self) -> str:
        return str(self.json["error"]["message"])


class Client:
    """A connection that is kept."""

    def __init__(self, server: Server) -> None:
        self.connection = http.client.HTTPConnection(*server.address, timeout=LIMIT)

    def send(self, path: str, body: bytes | None = None, method: str = "POST", **headers: str) -> None:
        query = "" if VERSION in path or "?!" in path else ("&" if "?" in path else "?") + VERSION
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.connection.request(method, path.replace("?!", "?").rstrip("?") + query, body or b"", named)

    def answer(self) -> Answer:
        got = self.connection.getresponse()
        return Answer(got.status, {name.lower(): value for name, value in got.getheaders()}, got.read())

    def ask(self, path: str, body: bytes | None = None, method: str = "POST", **headers: str) -> Answer:
        self.send(path, body, method, **headers)
        return self.answer()

    def close(self) -> None:
        self.connection.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def raw(server: Server, text: bytes, *, half_close: bool = False) -> bytes:
    """Send bytes as they are, and return all that comes until the server closes."""
    with socket.create_connection(server.address, timeout=LIMIT) as connection:
        connection.sendall(text)
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        parts = []
        try:
            while part := connection.recv(65536):
                parts.append(part)
        except ConnectionResetError:
            pass
        return b"".join(parts)


def event(id: str = "1", **changes: Any) -> dict[str, Any]:
    members = {"specversion": "1.0", "id": id, "source": "/test", "type": "com.acme.tested", **changes}
    return {name: value for name, value in members.items() if value is not None}


ONE = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
JSON = "application/json"


def publish(server: Server, topic: str, *events: Any) -> None:
    done = server.ask(f"/topics/{topic}:publish", json.dumps(events).encode(), content_type=BATCH)
    assert (done.status, done.json) == (200, {}), done.body


def receive(server: Server, topic: str, name: str, most: int = 100, wait: int = 0) -> list[dict[str, Any]]:
    """Needs a server with --shortest-wait 0."""
    path = f"/topics/{topic}/eventsubscriptions/{name}:receive?maxEvents={most}&maxWaitTime={wait}"
    done = server.ask(path)
    assert done.status == 200, done.body
    return list(done.json["value"])


def settle(server: Server, topic: str, name: str, what: str, *tokens: str, query: str = "") -> Any:
    path = f"/topics/{topic}/eventsubscriptions/{name}:{what}{query}"
    done = server.ask(path, json.dumps({"lockTokens": tokens}).encode(), content_type=JSON)
    assert done.status == 200, done.body
    return done.json
