"""moto's server in a process of its own, with what AWS has and moto lacks: keys that end, connections that break,
throttling, and replays that reach only the rules named. Run as a script it serves until its standard input closes.

A key is the world of who uses it: what is done to one leaves the others alone.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for when it is run as a script

from tests.eventbridge_v2_server import CustomEventBuses, operation_of, respond

_KEY = re.compile(r"Credential=([A-Za-z0-9]+)/")
CONTROL = "/-/"


class MotoServer:
    """The process, and what can be asked of it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self._process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self._process.stdout.readline())}"

    def set(self, key: str, **faults: Any) -> None:
        """Say what happens to requests of a key: `errors` (code, and operation or None), `throttle`, `partial`, and
        `answers` (by operation of IAM and STS, the XML that it is answered with: what was recorded).
        """
        self._ask("set", {"key": key, "faults": faults})

    def counts(self, key: str) -> dict[str, int]:
        """Return how often each operation was called with a key."""
        found: dict[str, int] = self._ask("counts", {"key": key})
        return found

    def _ask(self, what: str, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            f"{self.url}{CONTROL}{what}", json.dumps(body).encode(), method="POST"
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextlib.contextmanager
def moto_server() -> Iterator[MotoServer]:
    server = MotoServer()
    try:
        yield server
    finally:
        server.close()


# --- in the process of its own ------------------------------------------------------------------------------------


class Faulty:
    """A WSGI application around moto's."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._lock = threading.Lock()
        self._faults: dict[str, dict[str, Any]] = {}
        self._counts: dict[str, dict[str, int]] = {}

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path.startswith(CONTROL):
            return self._control(path[len(CONTROL) :], environ, start_response)
        match = _KEY.search(environ.get("HTTP_AUTHORIZATION", ""))
        key = match[1] if match else ""
        operation = (
            operation_of(path) or environ.get("HTTP_X_AMZ_TARGET", "").rpartition(".")[2] or _queried(environ)
        )
        with self._lock:
            counts = self._counts.setdefault(key, {})
            counts[operation] = counts.get(operation, 0) + 1
            faults = self._faults.get(key, {})
            fault = self._drawn(faults, operation)
        if fault == "cut":
            environ["werkzeug.socket"].shutdown(2)
            raise ConnectionAbortedError
        if fault is not None:
            return self._refuse(environ, start_response, fault)
        if operation in faults.get("answers", {}):
            return _answer(start_response, "200 OK", faults["answers"][operation], "text/xml")
        if operation == "SimulatePrincipalPolicy":  # which moto lacks
            return _refuse(environ, start_response, "AccessDenied")
        if operation == "PutRawEvents" and faults.get("partial"):
            environ["tests.refused"] = _Some(faults)
        if operation == "PutEvents" and faults.get("partial"):
            return self._partial(environ, start_response, faults)
        return self._inner(environ, start_response)  # type: ignore[no-any-return]

    def _refuse(self, environ: dict[str, Any], start_response: Any, code: str) -> list[bytes]:
        if operation_of(environ["PATH_INFO"]):
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            return respond(start_response, *self._inner.model.refusal(code, "put in by the tests"))
        return _refuse(environ, start_response, code)

    def _drawn(self, faults: dict[str, Any], operation: str) -> str | None:
        if faults.get("cut"):
            return "cut"
        for code, wanted in faults.get("errors", ()):
            if wanted in (None, operation):
                return str(code)
        for name, left in faults.get("throttle", {}).items():
            if left > 0 and name == operation:
                faults["throttle"][name] = left - 1
                return "ThrottlingException"
        return None

    def _partial(
        self, environ: dict[str, Any], start_response: Any, faults: dict[str, Any]
    ) -> Iterable[bytes]:
        """Refuse every n-th entry, once each, as AWS does within an answer of success."""
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        request = json.loads(body)
        some = _Some(faults)
        drawn = {index: some.get(entry["Detail"]) for index, entry in enumerate(request["Entries"])}
        refused = {index: code for index, code in drawn.items() if code}
        request["Entries"] = [one for index, one in enumerate(request["Entries"]) if index not in refused]
        answer = {"FailedEntryCount": len(refused), "Entries": []}
        headers = [("Content-Type", "application/x-amz-json-1.1")]
        passed: list[Any] = []
        if request["Entries"]:
            passed = json.loads(self._forward(environ, json.dumps(request).encode()))["Entries"]
        for index in range(len(refused) + len(passed)):
            code = refused.get(index)
            answer["Entries"].append(  # type: ignore[attr-defined]
                {"ErrorCode": code, "ErrorMessage": "put in by the tests"} if code else passed.pop(0)
            )
        text = json.dumps(answer).encode()
        start_response("200 OK", [*headers, ("Content-Length", str(len(text)))])
        return [text]

    def _forward(self, environ: dict[str, Any], body: bytes) -> bytes:
        inner = {**environ, "wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
        inner.pop("werkzeug.request", None)
        return b"".join(self._inner(inner, lambda *_: None))

    def _control(self, what: str, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        body = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
        answer: Any = {}
        with self._lock:
            if what == "set":
                self._faults[body["key"]] = body["faults"]
            elif what == "counts":
                answer = dict(self._counts.get(body["key"], {}))
        text = json.dumps(answer).encode()
        start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(text)))])
        return [text]


class _Some:
    """Draws every n-th entry, once each."""

    def __init__(self, faults: dict[str, Any]) -> None:
        self._seen: set[Any] = faults.setdefault("seen", set())
        self._every: int = faults["partial"]

    def get(self, what: Any) -> str | None:
        """Return the code with which an entry is refused this time; None if it is not."""
        if what in self._seen:
            return None
        self._seen.add(what)
        if len(self._seen) % self._every:
            return None
        return ("ThrottlingException", "InternalFailure")[len(self._seen) % 2]


def _queried(environ: dict[str, Any]) -> str:
    """Return the operation of IAM's and STS's protocol, whose requests are forms; empty for another's."""
    if not environ.get("CONTENT_TYPE", "").startswith("application/x-www-form-urlencoded"):
        return ""
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    environ["wsgi.input"] = io.BytesIO(body)
    environ["tests.queried"] = True
    return parse_qs(body.decode()).get("Action", [""])[0]


def _refuse(environ: dict[str, Any], start_response: Any, code: str) -> list[bytes]:
    length = int(environ.get("CONTENT_LENGTH") or 0)
    if length:
        environ["wsgi.input"].read(length)
    status = "500 Internal Server Error" if code == "InternalFailure" else "400 Bad Request"
    if environ.get("tests.queried"):
        said = f"<Code>{code}</Code><Message>put in by the tests</Message>"
        text = f"<ErrorResponse><Error>{said}</Error></ErrorResponse>"
        return _answer(start_response, status, text, "text/xml")
    text = json.dumps({"__type": code, "message": "put in by the tests"})
    return _answer(start_response, status, text, "application/x-amz-json-1.1")


def _answer(start_response: Any, status: str, text: str, kind: str) -> list[bytes]:
    body = text.encode()
    start_response(status, [("Content-Type", kind), ("Content-Length", str(len(body)))])
    return [body]


def mend_replays() -> None:
    """Have moto keep to FilterArns, and to the time from which a replay is to go; it ignores both."""
    from moto.events.models import Replay

    whole = Replay.replay_events

    def replay_events(self: Any, archive: Any) -> None:
        from moto.events.models import events_backends

        wanted = set(self.destination.get("FilterArns") or ())
        name = self.destination["Arn"].split("/")[-1]
        bus = events_backends[self.account_id][self.region].describe_event_bus(name)
        rules = bus.rules
        kept = {key: rule for key, rule in rules.items() if not wanted or rule.arn in wanted}
        events = archive.events
        begin = float(self.event_start_time)
        archive.events = [event for event in list(events) if float(event.get("time", begin)) >= int(begin)]
        bus.rules = kept
        try:
            whole(self, archive)
        finally:
            bus.rules = rules
            archive.events = events

    Replay.replay_events = replay_events  # type: ignore[method-assign]


def mend_envelopes() -> None:
    """Have moto write the envelope as JSON; it puts texts between quotes as they are, so a quote breaks it."""
    from moto.events.utils import EventTemplateParser

    written = EventTemplateParser.parse

    def parse(input_template: str, input_paths_map: dict[str, Any], event: Any) -> dict[str, Any]:
        if input_template:
            return written(input_template, input_paths_map, event)  # type: ignore[no-any-return]
        names = ("version", "id", "detail-type", "source", "account", "time", "region", "resources", "detail")
        return {name: event[name] for name in names if name in event}

    EventTemplateParser.parse = staticmethod(parse)  # type: ignore[method-assign]


def mend_speed() -> None:
    """Have moto count less, and ask for the time in one step: for each message it looks at all others, three times."""
    from moto.sqs import models

    def is_valid(self: Any, queue_name: str, message: Any) -> bool:
        kept = self.get_queue(queue_name).message_retention_period
        return bool(message.sent_timestamp / 1000 + kept > time.time())

    models.SQSBackend.is_message_valid_based_on_retention_period = is_valid  # type: ignore[method-assign]
    models.unix_time = time.time  # type: ignore[assignment]
    models.unix_time_millis = lambda: time.time() * 1000  # type: ignore[assignment, misc]


def mend_threads() -> None:
    """Have moto's queues do one thing at a time: where two threads meet it loses messages and brings deleted ones back.

    A long poll looks again and again, so that it keeps nobody waiting.
    """
    from moto.sqs.models import SQSBackend

    lock = threading.RLock()

    def guarded(method: Any) -> Any:
        @functools.wraps(method)
        def call(*arguments: Any, **named: Any) -> Any:
            with lock:
                return method(*arguments, **named)

        return call

    look = guarded(SQSBackend.receive_message)

    @guarded
    def settle_groups(self: Any, name: str) -> None:
        """Several messages of one group that come again at once hide each other, but for the last, which overtakes."""
        queue = self.get_queue(name)
        queue._pending_messages = {one for one in queue._pending_messages if not one.visible}

    def receive(self: Any, name: str, count: int, wait: int, visibility: int, attributes: Any = None) -> Any:
        end = time.monotonic() + wait
        while True:
            settle_groups(self, name)
            found = look(self, name, count, 0, visibility, attributes)
            if found or time.monotonic() >= end:
                return found
            time.sleep(0.05)

    SQSBackend.receive_message = receive  # type: ignore[method-assign]
    for name in ("send_message", "delete_message", "change_message_visibility", "get_queue_attributes"):
        setattr(SQSBackend, name, guarded(getattr(SQSBackend, name)))


def serve() -> None:
    """Serve until standard input closes."""
    import logging

    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Handler(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"  # connections are kept, as AWS keeps them
        disable_nagle_algorithm = True

        def log(self, *_: Any) -> None:
            """Say nothing."""

    logging.disable(logging.CRITICAL)
    mend_replays()
    mend_envelopes()
    mend_speed()
    mend_threads()
    buses = CustomEventBuses(DomainDispatcherApplication(create_backend_app))
    application = Faulty(buses)
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=Handler)
    server.daemon_threads = True  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    buses.port = server.server_port
    print(server.server_port, flush=True)
    sys.stdin.buffer.read()


if __name__ == "__main__":
    serve()
