"""An adapter that answers as a test tells it to: for the portable layer's own tests."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from crossbus.adapter import (
    Adapter,
    Change,
    Compilation,
    Description,
    Finding,
    LeaseOutcome,
    Received,
    Receiver,
    SendOutcome,
    Settlement,
    Wire,
)
from crossbus.capabilities import CAPABILITIES, Capabilities, DelayRange, DelaySteps, LeaseLimits
from crossbus.clock import Clock, SystemClock
from crossbus.codecs import decode_json, encode_json
from crossbus.errors import ErrorCode
from crossbus.event import Event
from crossbus.filters import Filter
from crossbus.profiles import Profile
from crossbus.topology import Subscription, Topic, Topology

EVERYTHING = frozenset(CAPABILITIES)


def capabilities(without: Sequence[str] = (), **changes: Any) -> Capabilities:
    """Make capabilities that have everything but some."""
    values: dict[str, Any] = {
        "names": EVERYTHING - set(without),
        "publish_batch": 10,
        "publish_batch_bytes": 1_000_000,
        "event_bytes": 1_000_000,
        "receive_batch": 10,
        "lease": LeaseLimits(),
    }
    return Capabilities(**{**values, **changes})


class ScriptedReceiver(Receiver):
    """Gives out what was put into it, and remembers what it was told."""

    def __init__(self) -> None:
        self.waiting: deque[Received] = deque()
        self.settled: list[Settlement] = []
        self.extended: list[tuple[Any, float]] = []
        self.receives: list[int] = []
        self.settle_answers: deque[Any] = deque()
        self.extend_answer: Any = LeaseOutcome.OK
        self.receive_errors: deque[Exception] = deque()
        self.closed = False
        self._news: asyncio.Event = asyncio.Event()
        self._count = 0

    def put(self, event: Event | bytes, **fields: Any) -> Received:
        """Make an event wait."""
        self._count += 1
        body = event if isinstance(event, bytes) else encode_json(event)
        key = None if isinstance(event, bytes) else event.get("partitionkey")
        values: dict[str, Any] = {
            "lease": self._count,
            "body": body,
            "attributes": {},
            "message_id": f"m-{self._count}",
            "attempt": 1,
            "key": key,
        }
        received = Received(**{**values, **fields})
        self.waiting.append(received)
        self._news.set()
        return received

    async def receive(self, max: int, wait: float) -> Sequence[Received]:
        self.receives.append(max)
        if self.receive_errors:
            raise self.receive_errors.popleft()
        while not self.waiting:
            self._news.clear()
            await self._news.wait()
            if self.receive_errors:
                raise self.receive_errors.popleft()
        return [self.waiting.popleft() for _ in range(min(max, len(self.waiting)))]

    def fail(self, error: Exception) -> None:
        """Let the present or next receive fail."""
        self.receive_errors.append(error)
        self._news.set()

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[LeaseOutcome]:
        if self.settle_answers:
            answer = self.settle_answers.popleft()
            if isinstance(answer, Exception):
                raise answer
            if answer is not LeaseOutcome.OK:
                return [answer] * len(settlements)
        self.settled.extend(settlements)
        return [LeaseOutcome.OK] * len(settlements)

    async def extend(self, leases: Sequence[Any], seconds: float) -> Sequence[LeaseOutcome]:
        self.extended.extend((lease, seconds) for lease in leases)
        if isinstance(self.extend_answer, Exception):
            raise self.extend_answer
        return [self.extend_answer] * len(leases)

    async def close(self) -> None:
        self.closed = True

    @property
    def acked(self) -> list[Any]:
        """The leases that were acknowledged."""
        return [settlement.lease for settlement in self.settled if settlement.delay is None]

    @property
    def given_back(self) -> list[tuple[Any, float]]:
        """The leases that were given back, and after what delay."""
        return [(s.lease, s.delay) for s in self.settled if s.delay is not None]


class ScriptedAdapter(Adapter):
    """Remembers what is sent, and answers with `answers` while there are any."""

    name = "scripted"
    capabilities = capabilities()

    def __init__(self, *, clock: Clock | None = None, **changes: Any) -> None:
        super().__init__(Profile(name="scripted", adapter="scripted"), clock=clock or SystemClock())
        self.capabilities = capabilities(**changes)
        self.sent: list[tuple[str, list[Event]]] = []
        self.answers: deque[Callable[[Sequence[Wire]], Any]] = deque()
        self.gate: asyncio.Event | None = None
        self.under_way = 0
        self.most_under_way = 0
        self.receiver = ScriptedReceiver()
        self.findings: list[Finding] = []
        self.provisioned: list[Change] = []
        self.local = False
        self.opened = 0
        self.closed = 0
        self.residual = True

    @property
    def is_local(self) -> bool:
        return self.local

    async def open(self) -> None:
        self.opened += 1

    async def close(self) -> None:
        self.closed += 1

    def describe(self) -> Description:
        return Description(system="scripted", server_address="127.0.0.1", server_port=1)

    def error_code(self, error: BaseException) -> tuple[ErrorCode, bool] | None:
        if isinstance(error, ConnectionError):
            return ErrorCode.UNAVAILABLE, True
        if isinstance(error, PermissionError):
            return ErrorCode.PERMISSION_DENIED, False
        return None

    def encode(self, topic: Topic, event: Event) -> Wire:
        body = encode_json(event)
        key = event.get("partitionkey")
        return Wire(body, {}, len(body), None if key is None else str(key))

    def decode(self, received: Received) -> Event:
        return decode_json(received.body)

    async def send(self, topic: Topic, wires: Sequence[Wire]) -> Sequence[SendOutcome]:
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            if self.gate is not None:
                await self.gate.wait()
            await asyncio.sleep(0)  # as any network would
            answer = self.answers.popleft()(wires) if self.answers else None
            if isinstance(answer, Exception):
                raise answer
            self.sent.append((topic.name, [decode_json(wire.body) for wire in wires]))
            return answer if answer is not None else [SendOutcome(f"p-{i}") for i, _ in enumerate(wires)]
        finally:
            self.under_way -= 1

    @property
    def batches(self) -> list[list[str]]:
        """The ids of the events of each request."""
        return [[event.id for event in events] for _, events in self.sent]

    @property
    def published(self) -> list[str]:
        """The ids of all events, in order."""
        return [id for batch in self.batches for id in batch]

    def records(self) -> list[Event]:
        """What was written into dead letters."""
        return [event for topic, events in self.sent if topic.endswith("--dead") for event in events]

    async def open_receiver(self, subscription: Subscription, window: int) -> Receiver:
        return self.receiver

    def compile(self, filter: Filter) -> Compilation:
        return Compilation(None, "", filter if self.residual else None)

    async def inspect(self, topology: Topology) -> Sequence[Finding]:
        return self.findings

    async def plan(self, topology: Topology, *, prune: bool = False) -> Sequence[Change]:
        return [Change("create", "topic", topic.name) for topic in topology.topics]

    async def provision(self, changes: Sequence[Change]) -> None:
        self.provisioned.extend(changes)


def refuse(
    code: ErrorCode = ErrorCode.THROTTLED, *, retryable: bool = True
) -> Callable[[Sequence[Wire]], Any]:
    """Answer that every event failed."""
    return lambda wires: [SendOutcome(code=code, message="no", retryable=retryable)] * len(wires)


__all__ = [
    "DelayRange",
    "DelaySteps",
    "LeaseLimits",
    "ScriptedAdapter",
    "ScriptedReceiver",
    "capabilities",
    "refuse",
]
