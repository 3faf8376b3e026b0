"""The paths on which a trace must stay one, by provider: what runs them, and what must have come of each."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.otlp import Exported, Received, receiving
from tests.trace_programs import BATCH, OWN, OWN_STATE

from crossbus.conformance import Harness
from crossbus.telemetry import names

LIMIT = 120.0
CONSUMERS = {"billing": "bus", "billing-sync": "sync_bus"}
ROOT = Path(__file__).parent.parent


# --- providers ----------------------------------------------------------------------------------------------------


@contextmanager
def _served() -> Iterator[Harness]:
    from tests.harnesses import MemoryHarness

    with MemoryHarness() as harness:
        yield harness


@contextmanager
def _eventgrid() -> Iterator[Harness]:
    from eventgrid_server import EventGridServerHarness

    with EventGridServerHarness() as harness:
        yield harness


@contextmanager
def _pubsub() -> Iterator[Harness]:
    from pubsub_emulator import PubSubHarness, running, version

    harness = PubSubHarness(running())
    harness.what_lies_under = f"Google's emulator {version()}"  # reached by its URL, past the guard
    try:
        yield harness
    finally:
        harness.close()


@contextmanager
def _eventbridge() -> Iterator[Harness]:
    from tests.eventbridge_harness import MotoHarness, server, world

    with world(server()) as made:
        yield MotoHarness(made)


PROVIDERS: Mapping[str, Callable[[], AbstractContextManager[Harness]]] = {
    "local+http": _served,
    "eventbridge": _eventbridge,
    "pubsub": _pubsub,
    "eventgrid": _eventgrid,
}
"""What the programs are run on: a new adapter adds a line here."""


# --- running ------------------------------------------------------------------------------------------------------


@dataclass
class World:
    """What was exported on one provider, when all was done."""

    prefix: str
    received: Received
    what_lies_under: str

    def topic(self, path: str) -> str:
        return f"{self.prefix}-{path}"

    def of(self, operation: str, path: str, event_id: str | None = None) -> list[Exported]:
        """Return crossbus's spans of an operation on a topic; of one event, by its id."""
        return [
            span
            for span in self.received.spans
            if span.scope == names.SCOPE
            and span.name == f"{operation} {self.topic(path)}"
            and (event_id is None or span.attributes.get(names.EVENT_ID) == event_id)
        ]

    def only(self, operation: str, path: str, event_id: str | None = None) -> Exported:
        found = self.of(operation, path, event_id)
        assert len(found) == 1, f"{len(found)} spans of {operation} {path}"
        return found[0]

    def named(self, name: str) -> Exported:
        (found,) = [span for span in self.received.spans if span.name == name]
        return found


@contextmanager
def traced(provider: str) -> Iterator[World]:
    """Run publisher and consumers on a provider, and hand over what they exported once they have ended."""
    with ExitStack() as stack:
        received = stack.enter_context(receiving())
        harness = stack.enter_context(PROVIDERS[provider]())
        world = World(f"tr{secrets.token_hex(3)}", received, harness.what_lies_under)
        with tempfile.TemporaryDirectory() as folder:
            _run(world, harness, Path(folder))
        yield world


def _run(world: World, harness: Harness, folder: Path) -> None:
    env = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("CROSSBUS_", "OTEL_"))},
        **harness.environment(world.prefix),
        "CROSSBUS_URL": harness.url(world.prefix),
        "TRACE_WORLD": world.prefix,
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests"))),
        "OTEL_EXPORTER_OTLP_ENDPOINT": world.received.url,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }
    consumers = [_Consumer(service, bus, env) for service, bus in CONSUMERS.items()]
    try:
        for consumer in consumers:
            consumer.wait_until_it_consumes()
        done = subprocess.run(
            [sys.executable, "-m", "tests.trace_programs"],
            env={**env, "OTEL_SERVICE_NAME": "shop"},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        world.received.wait(lambda _: _is_complete(world), "not everything was handled", LIMIT)
        for consumer in consumers:
            consumer.end()
    finally:
        for consumer in consumers:
            consumer.kill()


def _is_complete(world: World) -> bool:
    handled = {
        "success": 1, "retry": 2, "dead": 2, "plain": 1, "own": 1, "absent": 1, "sync": 1, "next": 2, "batch": 1,
    }  # fmt: skip
    links = {link for span in world.of("process", "batch") for link in span.links}
    return len(links) >= BATCH and all(len(world.of("process", path)) >= n for path, n in handled.items())


class _Consumer:
    """`crossbus run` in a process of its own."""

    def __init__(self, service: str, bus: str, env: Mapping[str, str]) -> None:
        self._lines: list[str] = []
        self._ready = threading.Event()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "crossbus", "run", f"tests.trace_consumers:{bus}"],
            env={**env, "OTEL_SERVICE_NAME": service},
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._lines.append(line)
            if "consuming" in line:
                self._ready.set()
        self._ready.set()

    def wait_until_it_consumes(self) -> None:
        assert self._ready.wait(LIMIT), "it did not begin to consume"
        assert self._process.poll() is None, "".join(self._lines)

    def end(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        assert self._process.wait(LIMIT) == 0, "".join(self._lines)

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(LIMIT)
        self._reader.join(LIMIT)
        assert self._process.stderr is not None
        self._process.stderr.close()


# --- what must have come of each path -----------------------------------------------------------------------------


def _continues(span: Exported, publish: Exported) -> None:
    assert span.trace_id == publish.trace_id, f"{span.name} is in another trace than {publish.name}"
    assert span.parent_id == publish.span_id, f"{span.name} is no child of {publish.name}"
    assert (publish.trace_id, publish.span_id) in span.links, f"{span.name} does not link to {publish.name}"


def _published(world: World, path: str) -> Exported:
    """Check the publish of the one event of a path, and return its span."""
    publish, request = world.only("publish", path, f"{path}-0"), world.named(f"request {path}")
    assert (publish.trace_id, publish.parent_id) == (request.trace_id, request.span_id)
    assert (publish.kind, publish.service) == ("PRODUCER", "shop")
    assert publish.attributes[names.MESSAGE_ID]
    return publish


def _handled_once(world: World, path: str, service: str = "billing") -> Exported:
    publish, process = _published(world, path), world.of("process", path, f"{path}-0")[0]
    _continues(process, publish)
    assert (process.kind, process.service, process.failed) == ("CONSUMER", service, False)
    assert process.schema == names.SCHEMA_URL
    return process


def _leads_on(world: World, path: str, process: Exported) -> None:
    """What the handler published is a child of it, and its handling a child of that."""
    publish = world.only("publish", "next", f"{path}-0-next")
    assert (publish.trace_id, publish.parent_id) == (process.trace_id, process.span_id)
    following = world.of("process", "next", f"{path}-0-next")[0]
    _continues(following, publish)


def success(world: World) -> None:
    process = _handled_once(world, "success")
    _leads_on(world, "success", process)
    acks = [span for span in world.received.spans if span.parent_id == process.span_id and "ack" in span.name]
    assert [(ack.kind, ack.trace_id) for ack in acks] == [("CLIENT", process.trace_id)]


def retry(world: World) -> None:
    publish, processed = _published(world, "retry"), world.of("process", "retry")
    for process in processed:
        _continues(process, publish)
    first, *_, last = sorted(processed, key=lambda span: span.attributes[names.ATTEMPT])
    assert (first.failed, first.attributes[names.ERROR_TYPE], last.failed) == (True, "Retry", False)


def dead_letter(world: World) -> None:
    publish = _published(world, "dead")
    rejected = [span for span in world.of("process", "dead") if span.failed]
    assert [span.attributes[names.ERROR_TYPE] for span in rejected] == ["Reject"]
    _continues(rejected[0], publish)
    record = world.only("publish", "dead--async--dead")
    assert (record.trace_id, record.parent_id) == (publish.trace_id, rejected[0].span_id)
    assert (publish.trace_id, publish.span_id) in record.links


def redrive(world: World) -> None:
    publish, redriven = _published(world, "dead"), world.only("redrive", "dead")
    _continues(redriven, publish)
    again = [span for span in world.of("process", "dead") if not span.failed]
    assert again, "the redriven event was not handled"
    for process in again:
        _continues(process, publish)


def batch(world: World) -> None:
    created, request = world.of("create", "batch"), world.named("request batch")
    assert len(created) == BATCH
    assert {(span.trace_id, span.parent_id, span.kind) for span in created} == {
        (request.trace_id, request.span_id, "PRODUCER")
    }
    made = {(span.trace_id, span.span_id) for span in created}
    sent = world.of("send", "batch")
    assert {link for span in sent for link in span.links} == made
    assert {(span.kind, span.trace_id, span.parent_id) for span in sent} == {
        ("CLIENT", request.trace_id, request.span_id)
    }
    processed = world.of("process", "batch")
    assert {link for span in processed for link in span.links} == made
    assert {span.parent_id for span in processed} == {""}


def plain_function(world: World) -> None:
    process, work = _handled_once(world, "plain"), world.named("work in a thread")
    assert (work.trace_id, work.parent_id) == (process.trace_id, process.span_id)


def sync_bus(world: World) -> None:
    process = _handled_once(world, "sync", "billing-sync")
    _leads_on(world, "sync", process)


def own_context(world: World) -> None:
    publish, request = world.only("publish", "own"), world.named("request own")
    _, trace_id, span_id, _ = OWN.split("-")
    assert (publish.trace_id, publish.kind, publish.links) == (
        request.trace_id,
        "CLIENT",
        ((trace_id, span_id),),
    )
    process = world.of("process", "own")[0]
    assert (process.trace_id, process.parent_id) == (trace_id, span_id)
    assert process.attributes["kept"] is True, f"not {OWN} and {OWN_STATE}"


def no_context(world: World) -> None:
    for process in world.of("process", "absent"):
        assert process.parent_id == ""
        assert process.links == ()


def sdk_spans(world: World) -> None:
    """Spans of SDKs are children of crossbus's, or of no publish and no handling at all; and none is of a poll."""
    spans = world.received.spans
    ours = {span.span_id for span in spans if span.scope in (names.SCOPE, "the program's")}
    theirs = {span.span_id: span for span in spans if span.span_id not in ours}
    # Of consumers: looking into a dead letter receives from it too, and somebody asked for it.
    polls = [span for span in theirs.values() if span.service in CONSUMERS and _is_poll(span)]
    assert not polls, f"{len(polls)} polls have spans: {polls[0]}"
    children = 0
    for span in theirs.values():
        while span.parent_id in theirs:
            span = theirs[span.parent_id]
        children += span.parent_id in ours
    assert children, (
        f"no instrumented SDK made a span below one of crossbus's: {sorted({s.scope for s in spans})}"
    )
    publishes = {
        s.span_id for s in spans if s.scope == names.SCOPE and s.name.startswith(("publish", "send"))
    }
    assert publishes & {span.parent_id for span in theirs.values()}, "a publish has no span of its SDK"


def _is_poll(span: Exported) -> bool:
    said = " ".join([span.name, *(str(value) for value in span.attributes.values())])
    return any(word in said for word in ("ReceiveMessage", "/Pull", ":receive", "/receive", ":renewLock"))


def metrics(world: World) -> None:
    wanted = {
        one.name for one in (names.SENT, names.CONSUMED, names.OPERATION_DURATION, names.PROCESS_DURATION)
    }
    assert world.received.metrics.keys() == CONSUMERS.keys(), "the programs of `crossbus run` export metrics"
    for service, found in world.received.metrics.items():
        assert wanted <= found, f"{service} lacks {wanted - found}"


PATHS: Mapping[str, tuple[str, Callable[[World], None]]] = {
    "success": ("publish, handle, publish in the handler, acknowledge", success),
    "retry": ("a handler that asks for a retry", retry),
    "dead letter": ("a handler that rejects, and the record", dead_letter),
    "redrive": ("back from the dead letter, and handled", redrive),
    "batch": ("`publish_many`, and a handler of `list[Event]`, which links to each", batch),
    "plain function": ("a handler that is no coroutine, in a thread", plain_function),
    "SyncBus": ("published and handled without asyncio", sync_bus),
    "own context": ("an event with a `traceparent` and `tracestate` of its own", own_context),
    "no context": ("an event without one starts a trace", no_context),
    "SDK spans": (
        "with instrumentations under crossbus: children of its spans, and none of polls",
        sdk_spans,
    ),
    "metrics": ("exported by `crossbus run`", metrics),
}
"""Each path, with what happens on it, and what checks it."""
