"""Deliberately wrong adapters. Each must fail the conformance cases that are named for its fault.

A case that no wrong adapter fails proves nothing. `FAULTS` maps the names of cases to the adapters that prove them.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import unicodedata
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, ClassVar, TypeVar
from urllib.parse import quote

from crossbus.adapter import (
    Adapter,
    Change,
    Compilation,
    DeadLetterQueue,
    Description,
    Finding,
    LeaseOutcome,
    PutBack,
    Received,
    Receiver,
    ReplayFrom,
    SendOutcome,
    Settlement,
    Wire,
)
from crossbus.codecs import decode_json
from crossbus.conformance import WrappedAdapter, WrappedReceiver
from crossbus.errors import DecodeError, ErrorCode, NotFound
from crossbus.event import DataKind, Event
from crossbus.filters import Filter, parse
from crossbus.topology import Subscription, Topic, Topology
from crossbus.wire import REPLAY

FAULTS: dict[str, list[type]] = {}
"""By the name of a case, the wrong adapters, and servers, that must fail it."""

A = TypeVar("A", bound=type)


def fails(*cases: str) -> Callable[[A], A]:
    def register(adapter: A) -> A:
        for case in cases:
            FAULTS.setdefault(case, []).append(adapter)
        return adapter

    return register


class WrongAdapter(WrappedAdapter):
    """Right in everything, until a subclass is wrong in one thing."""

    receiver: ClassVar[type[WrongReceiver] | None] = None

    def __init__(self, inner: Adapter, world: dict[str, Any]) -> None:
        super().__init__(inner)
        self.world = world
        """What all adapters of one run share: the provider's side of the fault."""

    def change(self, event: Event) -> Event:
        return event

    def decode(self, received: Received) -> Event:
        return self.change(self.inner.decode(received))

    async def open_receiver(self, subscription: Subscription, window: int) -> Receiver:
        receiver = await self.inner.open_receiver(subscription, window)
        return receiver if self.receiver is None else self.receiver(receiver, self, subscription)


class WrongReceiver(WrappedReceiver):
    def __init__(self, inner: Receiver, adapter: WrongAdapter, subscription: Subscription) -> None:
        super().__init__(inner)
        self.adapter = adapter
        self.subscription = subscription


# --- envelope -----------------------------------------------------------------------------------------------------


@fails("envelope/required-attributes")
class InventsTime(WrongAdapter):
    def change(self, event: Event) -> Event:
        return event if event.time_text else event.replace(time="2026-01-01T00:00:00Z")


@fails("envelope/optional-attributes")
class DropsSubject(WrongAdapter):
    def change(self, event: Event) -> Event:
        return event.replace(subject=None)


@fails("envelope/extension-types")
class MakesExtensionsStrings(WrongAdapter):
    def change(self, event: Event) -> Event:
        return event.replace(extensions={name: str(value) for name, value in event.extensions.items()})


@fails("envelope/any-id-and-source")
class QuotesSource(WrongAdapter):
    def change(self, event: Event) -> Event:
        return event.replace(source=quote(event.source, safe="/:"))


@fails("envelope/time-as-written")
class NormalisesTime(WrongAdapter):
    def change(self, event: Event) -> Event:
        return event if event.time is None else event.replace(time=event.time)


@fails("envelope/content-types")
class DropsMediaTypeParameters(WrongAdapter):
    def change(self, event: Event) -> Event:
        kind = event.datacontenttype
        return (
            event
            if kind is None or ";" not in kind
            else event.replace(datacontenttype=kind.partition(";")[0])
        )


@fails("envelope/null-and-absent")
class TakesNullForAbsent(WrongAdapter):
    def change(self, event: Event) -> Event:
        if event.data_kind is not DataKind.JSON or event.data is not None:
            return event
        kept = {name: event.get(name) for name in ("id", "source", "type", "subject", "datacontenttype")}
        return Event(time=event.time_text, **kept)  # type: ignore[arg-type]


@fails("envelope/not-re-encoded")
class ParsesJsonStrings(WrongAdapter):
    def change(self, event: Event) -> Event:
        if event.data_kind is DataKind.JSON and isinstance(event.data, str):
            with contextlib.suppress(ValueError):
                return event.replace(data=json.loads(event.data), datacontenttype=event.datacontenttype)
        return event


@fails("envelope/exact-numbers")
class CountsInFloats(WrongAdapter):
    def change(self, event: Event) -> Event:
        if event.data_kind is not DataKind.JSON:
            return event
        data = json.loads(event.data_bytes, parse_int=lambda text: int(float(text)))
        return event.replace(data=data, datacontenttype=event.datacontenttype)


@fails("envelope/awkward-strings")
class NormalisesUnicode(WrongAdapter):
    def change(self, event: Event) -> Event:
        subject = event.subject
        return event if subject is None else event.replace(subject=unicodedata.normalize("NFC", subject))


@fails("envelope/control-characters")
class StripsControlCharacters(WrongAdapter):
    def change(self, event: Event) -> Event:
        if event.data_kind is not DataKind.TEXT:
            return event
        text = "".join(c for c in event.data if c.isprintable())
        return event.replace(data=text, datacontenttype=event.datacontenttype)


@fails("envelope/invalid-utf8")
class ReadsBytesAsText(WrongAdapter):
    def change(self, event: Event) -> Event:
        if event.data_kind is not DataKind.BINARY:
            return event
        data = event.data.decode("utf-8", "replace").encode()
        return event.replace(data=data, datacontenttype=event.datacontenttype)


@fails("envelope/event-in-event")
class UnwrapsTwice(WrongAdapter):
    def change(self, event: Event) -> Event:
        return (
            decode_json(event.data_bytes)
            if event.datacontenttype == "application/cloudevents+json"
            else event
        )


@fails("envelope/foreign-mapped", "retry/undecodable")
class DropsForeignMessages(WrongAdapter):
    class receiver(WrongReceiver):
        async def receive(self, max: int, wait: float) -> Sequence[Received]:
            found = await self.inner.receive(max, wait)
            kept, foreign = [], []
            for received in found:
                try:
                    self.adapter.inner.decode(received)
                    kept.append(received)
                except DecodeError:
                    foreign.append(Settlement(received.lease))
            if foreign:
                await self.inner.settle(foreign)
            return kept


@fails("envelope/foreign-dead-lettered")
class InventsEvents(WrongAdapter):
    def decode(self, received: Received) -> Event:
        try:
            return self.inner.decode(received)
        except DecodeError:
            return Event(type="unknown", source="/invented", data=received.body)


# --- basic --------------------------------------------------------------------------------------------------------


@fails("basic/send-and-receive")
class GivesNoMessageId(WrongAdapter):
    async def send(self, topic: Topic, wires: Sequence[Wire]) -> Sequence[SendOutcome]:
        return [outcome._replace(message_id="") for outcome in await self.inner.send(topic, wires)]


@fails("basic/existing-resources")
class OverwritesOnConsuming(WrongAdapter):
    async def open_receiver(self, subscription: Subscription, window: int) -> Receiver:
        plain = subscription.replace(filter=None)
        await self.inner.provision(await self.inner.plan(Topology((plain.topic,), (plain,))))
        return await self.inner.open_receiver(subscription, window)


@fails("basic/provisioning-off")
class CreatesOnLooking(WrongAdapter):
    async def inspect(self, topology: Topology) -> Sequence[Finding]:
        found = await self.inner.inspect(topology)
        await self.inner.provision(await self.inner.plan(topology))
        return found


@fails("basic/two-subscriptions")
class SharesOneQueue(WrongAdapter):
    async def open_receiver(self, subscription: Subscription, window: int) -> Receiver:
        first = self.world.setdefault(subscription.topic.name, subscription)
        return await self.inner.open_receiver(first, window)


@fails("basic/competing-consumers")
class ServesOneConsumer(WrongAdapter):
    class receiver(WrongReceiver):
        async def receive(self, max: int, wait: float) -> Sequence[Received]:
            if self.adapter.world.setdefault("only", self) is not self:
                max = 0
            return await self.inner.receive(max, wait) if max else await _wait(self, wait)


async def _wait(receiver: WrongReceiver, seconds: float) -> Sequence[Received]:
    from crossbus.clock import sleep

    await sleep(receiver.adapter.clock, seconds)
    return []


@fails("basic/topics-do-not-mix")
class MixesTopics(WrongAdapter):
    async def send(self, topic: Topic, wires: Sequence[Wire]) -> Sequence[SendOutcome]:
        first = self.world.setdefault("topic", topic) if topic.kind == "topic" else topic
        return await self.inner.send(first, wires)


@fails("basic/many-topics", "basic/load", "resilience/throttled", "stress/latency")
class LosesOneInFour(WrongAdapter):
    async def send(self, topic: Topic, wires: Sequence[Wire]) -> Sequence[SendOutcome]:
        sent = [wire for wire in wires if self._count() % 4]
        outcomes = iter(await self.inner.send(topic, sent) if sent else ())
        return [next(outcomes) if any(wire is one for one in sent) else SendOutcome("lost") for wire in wires]

    def _count(self) -> int:
        self.world["count"] = self.world.get("count", 0) + 1
        return int(self.world["count"])


@fails("basic/unknown-topic", "errors/provider-codes")
class TakesEveryTopic(WrongAdapter):
    async def send(self, topic: Topic, wires: Sequence[Wire]) -> Sequence[SendOutcome]:
        outcomes = await self.inner.send(topic, wires)
        return [SendOutcome("taken") if one.code is ErrorCode.NOT_FOUND else one for one in outcomes]


@fails("basic/unknown-subscription")
class CreatesOnConsuming(WrongAdapter):
    async def open_receiver(self, subscription: Subscription, window: int) -> Receiver:
        with contextlib.suppress(NotFound):
            return await self.inner.open_receiver(subscription, window)
        await self.inner.provision(await self.inner.plan(Topology((subscription.topic,), (subscription,))))
        return await self.inner.open_receiver(subscription, window)


# --- acknowledgement ----------------------------------------------------------------------------------------------


@fails(
    "acknowledgement/retry-comes-again",
    "retry/record-before-ack",
    "retry/dead-letter",
    "flow/breaker",
    "lifecycle/close-while-backing-off",
)
class AcksOnReceive(WrongAdapter):
    class receiver(WrongReceiver):
        async def receive(self, max: int, wait: float) -> Sequence[Received]:
            found = await self.inner.receive(max, wait)
            if found:
                await self.inner.settle([Settlement(received.lease) for received in found])
            return found

        async def settle(self, settlements: Sequence[Settlement]) -> Sequence[LeaseOutcome]:
            return [LeaseOutcome.OK] * len(settlements)

        async def extend(self, leases: Sequence[Any], seconds: float) -> Sequence[LeaseOutcome]:
            return [LeaseOutcome.OK] * len(leases)


@fails("acknowledgement/retry-with-delay", "retry/back-off")
class IgnoresDelay(WrongAdapter):
    class receiver(WrongReceiver):
        async def settle(self, settlements: Sequence[Settlement]) -> Sequence[LeaseOutcome]:
            at_once = [one if one.delay is None else Settlement(one.lease, 0.0) for one in settlements]
            return await self.inner.settle(at_once)


@fails("acknowledgement/double-ack", "acknowledgement/ack-after-lease")
class FailsWhereLost(WrongAdapter):
    class receiver(WrongReceiver):
        async def settle(self, settlements: Sequence[Settlement]) -> Sequence[LeaseOutcome]:
            outcomes = await self.inner.settle(settlements)
            return [LeaseOutcome.FAILED if one is LeaseOutcome.LOST else one for one in outcomes]


@fails("acknowledgement/ack-then-retry")
class Resurrects(WrongAdapter):
    class receiver(WrongReceiver):
        async def receive(self, max: int, wait: float) -> Sequence[Received]:
            found = await self.inner.receive(max, wait)
            self.adapter.world.update({str(received.lease): received for received in found})
            return found

        async def settle(self, settlements: Sequence[Settlement]) -> Sequence[LeaseOutcome]:
            outcomes = await self.inner.settle(settlements)
            for one, outcome in zip(settlements, outcomes, strict=True):
                if one.delay is not None and outcome is LeaseOutcome.LOST:
                    received = self.adapter.world[str(one.lease)]
                    queue = self.adapter.inner.dead_letters(self.subscription)
                    await queue.redeliver([Wire(received.body, received.attributes, len(received.body))])
            return outcomes


@fails(
    "acknowledgement/cancelled-handler",
    "retry/shutdown",
    "filters/external-mismatch",
    "lifecycle/close-while-handling",
    "lifecycle/drain",
    "resilience/next-wire-version",
    "order/retry-holds-key",
)
class TakesGivingBackForAck(WrongAdapter):
    class receiver(WrongReceiver):
        async def settle(self, settlements: Sequence[Settlement]) -> Sequence[LeaseOutcome]:
            return await self.inner.settle([Settlement(one.lease) for one in settlements])


@fails("acknowledgement/ack-during-drain", "lifecycle/sigterm")
class AcksWithTheNextReceive(WrongAdapter):
    class receiver(WrongReceiver):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.acks: list[Settlement] = []

        async def receive(self, max: int, wait: float) -> Sequence[Received]:
            acks, self.acks = self.acks, []
            await self.inner.settle(acks)
            return await self.inner.receive(max, min(wait, 0.5))

        async def settle(self, settlements: Sequence[Settlement]) -> Sequence[LeaseOutcome]:
            self.acks += [one for one in settlements if one.delay is None]
            await self.inner.settle([one for one in settlements if one.delay is not None])
            return [LeaseOutcome.OK] * len(settlements)


# --- lease --------------------------------------------------------------------------------------------------------


@fails("lease/expiry")
class LeasesForever(WrongAdapter):
    async def open_receiver(self, subscription: Subscription, window: int) -> Receiver:
        return await self.inner.open_receiver(subscription.replace(lease=1e9), window)


@fails("lease/extension", "lease/long-handler", "lease/buffered")
class ExtendsNothing(WrongAdapter):
    class receiver(WrongReceiver):
        async def extend(self, leases: Sequence[Any], seconds: float) -> Sequence[LeaseOutcome]:
            return [LeaseOutcome.OK] * len(leases)


# --- retry and dead letter ----------------------------------------------------------------------------------------


@fails("retry/attempts")
class CountsNoAttempts(WrongAdapter):
    class receiver(WrongReceiver):
        async def receive(self, max: int, wait: float) -> Sequence[Received]:
            found = await self.inner.receive(max, wait)
            for received in found:
                received.attempt = 1
            return found


@fails("retry/reject")
class CountsFromTwo(WrongAdapter):
    class receiver(WrongReceiver):
        async def receive(self, max: int, wait: float) -> Sequence[Received]:
            found = await self.inner.receive(max, wait)
            for received in found:
                received.attempt = (received.attempt or 0) + 1
            return found


class ChangesRecords(WrongAdapter):
    def edit(self, record: dict[str, Any]) -> None: ...

    def encode(self, topic: Topic, event: Event) -> Wire:
        if topic.kind == "dead_letter":
            record = event.data
            self.edit(record)
            event = event.replace(data=record, extensions={})
        return self.inner.encode(topic, event)


@fails("retry/dead-letter", "trace/bytes-through-dead-letter")
class RecordsWithoutTrace(ChangesRecords):
    def edit(self, record: dict[str, Any]) -> None:
        record.pop("traceparent", None)
        for name in ("traceparent", "tracestate"):
            record.get("event", {}).pop(name, None)


@fails("retry/undecodable", "envelope/foreign-dead-lettered")
class RecordsCutOff(ChangesRecords):
    def edit(self, record: dict[str, Any]) -> None:
        if "body_base64" in record:
            record["body_base64"] = base64.b64encode(base64.b64decode(record["body_base64"])[:8]).decode()


@fails("retry/shutdown", "retry/consumers-in-a-row")
class MovesWhatComesBack(WrongAdapter):
    """Its backstop is a dozen receives too early."""

    async def plan(self, topology: Topology, *, prune: bool = False) -> Sequence[Change]:
        early = tuple(one.replace(backstop=2) for one in topology.subscriptions)
        return await self.inner.plan(dataclasses.replace(topology, subscriptions=early), prune=prune)


@fails("retry/backstop")
class HasNoBackstop(WrongAdapter):
    async def plan(self, topology: Topology, *, prune: bool = False) -> Sequence[Change]:
        never = tuple(one.replace(backstop=1_000_000) for one in topology.subscriptions)
        return await self.inner.plan(dataclasses.replace(topology, subscriptions=never), prune=prune)


class WrongQueue(DeadLetterQueue):
    def __init__(self, inner: DeadLetterQueue, adapter: WrongAdapter, subscription: Subscription) -> None:
        self.inner = inner
        self.adapter = adapter
        self.subscription = subscription

    async def browse(self, limit: int) -> Sequence[Received]:
        return await self.inner.browse(limit)

    async def redeliver(self, wires: Sequence[Wire]) -> Sequence[SendOutcome]:
        return await self.inner.redeliver(wires)

    async def delete(self, leases: Sequence[Any]) -> Sequence[LeaseOutcome]:
        return await self.inner.delete(leases)


class HasWrongQueue(WrongAdapter):
    queue: ClassVar[type[WrongQueue]]

    def dead_letters(self, subscription: Subscription) -> DeadLetterQueue:
        return self.queue(self.inner.dead_letters(subscription), self, subscription)


@fails("retry/redrive")
class RedrivesUnderNewIds(HasWrongQueue):
    class queue(WrongQueue):
        async def redeliver(self, wires: Sequence[Wire]) -> Sequence[SendOutcome]:
            topic = self.subscription.topic
            renamed = [decode_json(wire.body) for wire in wires]
            return await self.inner.redeliver(
                [self.adapter.inner.encode(topic, event.replace(id=f"{event.id}-again")) for event in renamed]
            )


@fails("retry/list-filter-purge")
class PurgesNothing(HasWrongQueue):
    class queue(WrongQueue):
        async def delete(self, leases: Sequence[Any]) -> Sequence[LeaseOutcome]:
            return [LeaseOutcome.OK] * len(leases)


@fails("retry/redrive-one-subscription")
class RedrivesToAll(HasWrongQueue):
    class queue(WrongQueue):
        async def redeliver(self, wires: Sequence[Wire]) -> Sequence[SendOutcome]:
            return await self.adapter.inner.send(self.subscription.topic, wires)


@fails("retry/dead-letter-pages")
class GivesOnePage(HasWrongQueue):
    class queue(WrongQueue):
        async def pages(self, size: int = 1000) -> AsyncGenerator[Sequence[Received], None]:
            yield (await self.inner.browse(size))


@fails("retry/dead-letter-pages")
class GivesTheLastOfAPageAgain(HasWrongQueue):
    """Its token of the next page is that of the last record, instead of the one after it."""

    class queue(WrongQueue):
        async def pages(self, size: int = 1000) -> AsyncGenerator[Sequence[Received], None]:
            found = await self.inner.browse(1000)
            for start in range(0, len(found) - 1, size - 1):
                yield found[start : start + size]


@fails("retry/put-back")
class PutsBackAndKeeps(HasWrongQueue):
    class queue(WrongQueue):
        async def put_back(self, records: Sequence[tuple[Any, Wire]]) -> Sequence[PutBack]:
            outcomes = await self.inner.redeliver([wire for _, wire in records])
            return [PutBack(sent, LeaseOutcome.OK) for sent in outcomes]


@fails("retry/put-back")
class RemovesAndDoesNotPutBack(HasWrongQueue):
    class queue(WrongQueue):
        async def put_back(self, records: Sequence[tuple[Any, Wire]]) -> Sequence[PutBack]:
            removed = await self.inner.delete([lease for lease, _ in records])
            return [PutBack(SendOutcome(str(n)), one) for n, one in enumerate(removed)]


# --- replay -------------------------------------------------------------------------------------------------------


@fails("replay/from-time")
class ReplaysNothing(WrongAdapter):
    async def replay(self, subscription: Subscription, start: ReplayFrom) -> int | None:
        return 0


@fails("replay/from-position")
class ReplaysFromTheBeginning(WrongAdapter):
    async def send(self, topic: Topic, wires: Sequence[Wire]) -> Sequence[SendOutcome]:
        outcomes = await self.inner.send(topic, wires)
        self.world.setdefault("first", outcomes[0].message_id)
        return outcomes

    async def replay(self, subscription: Subscription, start: ReplayFrom) -> int | None:
        return await self.inner.replay(subscription, ReplayFrom(position=self.world["first"]))


@fails("replay/only-the-subscription")
class ReplaysToAll(WrongAdapter):
    async def plan(self, topology: Topology, *, prune: bool = False) -> Sequence[Change]:
        self.world["subscriptions"] = topology.subscriptions
        return await self.inner.plan(topology, prune=prune)

    async def replay(self, subscription: Subscription, start: ReplayFrom) -> int | None:
        return sum([await self.inner.replay(one, start) or 0 for one in self.world["subscriptions"]])


@fails("replay/in-order")
class ReplaysBackwards(WrongAdapter):
    async def send(self, topic: Topic, wires: Sequence[Wire]) -> Sequence[SendOutcome]:
        self.world.setdefault("sent", []).extend(wires)
        return await self.inner.send(topic, wires)

    async def replay(self, subscription: Subscription, start: ReplayFrom) -> int | None:
        wires = self.world["sent"][::-1]
        await self.inner.dead_letters(subscription).redeliver(wires)
        return len(wires)


@fails("replay/with-duplicate-suppression")
class ReplaysUnmarked(WrongAdapter):
    def change(self, event: Event) -> Event:
        return event.without_extensions(REPLAY)


# --- order --------------------------------------------------------------------------------------------------------


@fails("order/per-key", "order/retry-holds-key", "order/failed-publish-stops-key")
class DropsKeys(WrongAdapter):
    def encode(self, topic: Topic, event: Event) -> Wire:
        wire = self.inner.encode(topic, event)
        wire.key = None
        return wire


@fails("order/failing-key-alone", "order/no-key")
class HasOneKey(WrongAdapter):
    def encode(self, topic: Topic, event: Event) -> Wire:
        wire = self.inner.encode(topic, event)
        wire.key = "the only one"
        return wire


@fails("order/dead-letter-releases-key")
class HoldsTheKeyOfTheDead(WrongAdapter):
    async def send(self, topic: Topic, wires: Sequence[Wire]) -> Sequence[SendOutcome]:
        if topic.kind == "dead_letter":
            self.world["dead"] = True
        return await self.inner.send(topic, wires)

    class receiver(WrongReceiver):
        async def receive(self, max: int, wait: float) -> Sequence[Received]:
            found = await self.inner.receive(max, wait)
            if not self.adapter.world.get("dead"):
                return found
            await self.inner.settle([Settlement(received.lease, 10_000.0) for received in found])
            return []


# --- batch --------------------------------------------------------------------------------------------------------


@fails("batch/exact", "batch/split-by-count")
class LosesTheLastOfABatch(WrongAdapter):
    async def send(self, topic: Topic, wires: Sequence[Wire]) -> Sequence[SendOutcome]:
        if len(wires) == 1:
            return await self.inner.send(topic, wires)
        return [*await self.inner.send(topic, wires[:-1]), SendOutcome("lost")]


@fails("batch/split-by-bytes")
class CountsNoBytes(WrongAdapter):
    def encode(self, topic: Topic, event: Event) -> Wire:
        wire = self.inner.encode(topic, event)
        wire.size = 0
        return wire


@fails("batch/partial-failure")
class FailsTheWholeBatch(WrongAdapter):
    async def send(self, topic: Topic, wires: Sequence[Wire]) -> Sequence[SendOutcome]:
        if len(wires) == 1 or self.world.setdefault("failed", False):
            return await self.inner.send(topic, wires)
        self.world["failed"] = True
        await self.inner.send(topic, wires[: len(wires) // 2])
        return [SendOutcome(code=ErrorCode.THROTTLED, message="throttled", retryable=True)] * len(wires)


@fails("batch/too-large")
class TakesLittle(WrongAdapter):
    def __init__(self, inner: Adapter, world: dict[str, Any]) -> None:
        super().__init__(inner, world)
        self.capabilities = dataclasses.replace(self.capabilities, event_bytes=500_000)


@fails("batch/empty")
class LosesLoneEvents(WrongAdapter):
    async def send(self, topic: Topic, wires: Sequence[Wire]) -> Sequence[SendOutcome]:
        return [SendOutcome("lost")] if len(wires) == 1 else await self.inner.send(topic, wires)


# --- filters ------------------------------------------------------------------------------------------------------


@fails("filters/truth-table", "filters/nested")
class ForgetsFilters(WrongAdapter):
    def compile(self, filter: Filter) -> Compilation:
        return Compilation(filter, str(filter), None)

    async def plan(self, topology: Topology, *, prune: bool = False) -> Sequence[Change]:
        bare = tuple(one.replace(filter=None) for one in topology.subscriptions)
        return await self.inner.plan(dataclasses.replace(topology, subscriptions=bare), prune=prune)


@fails("filters/edges")
class IgnoresCase(ForgetsFilters):
    class receiver(WrongReceiver):
        async def receive(self, max: int, wait: float) -> Sequence[Received]:
            found = await self.inner.receive(max, wait)
            wanted = self.subscription.filter
            if wanted is None:
                return found
            lowered = parse(json.loads(wanted.to_json().lower()))
            assert lowered is not None
            kept = []
            for received in found:
                event = self.adapter.inner.decode(received)
                low = {
                    name: value.lower()
                    for name, value in event.attributes().items()
                    if isinstance(value, str)
                }
                extensions = {name: low.get(name, value) for name, value in event.extensions.items()}
                changed = event.replace(
                    type=low["type"], source=low["source"], subject=low.get("subject"), extensions=extensions
                )
                if lowered.matches(changed):
                    kept.append(received)
                else:
                    await self.inner.settle([Settlement(received.lease)])
            return kept


@fails("filters/residual")
class DropsExtensions(WrongAdapter):
    def change(self, event: Event) -> Event:
        return event.replace(extensions={})


@fails("filters/no-leftovers")
class AcksNothing(WrongAdapter):
    class receiver(WrongReceiver):
        async def settle(self, settlements: Sequence[Settlement]) -> Sequence[LeaseOutcome]:
            await self.inner.settle([one for one in settlements if one.delay is not None])
            return [LeaseOutcome.OK] * len(settlements)


@fails("filters/change")
class MakesQueuesAnew(WrongAdapter):
    async def provision(self, changes: Sequence[Change]) -> None:
        for change in changes:
            if change.action == "update":
                home, _, name = change.name.partition("/")
                self.inner.engine.delete_subscription(home, name)  # type: ignore[attr-defined]
            await self.inner.provision([change])


# --- flow ---------------------------------------------------------------------------------------------------------


@fails("flow/bounded-memory", "flow/back-pressure")
class GivesAllItHas(WrongAdapter):
    class receiver(WrongReceiver):
        async def receive(self, max: int, wait: float) -> Sequence[Received]:
            return await self.inner.receive(1_000_000, wait)


@fails(
    "flow/pause-and-resume",
    "lifecycle/close-while-publishing",
    "lifecycle/two-buses",
    "lifecycle/close-twice",
)
class LosesEveryOther(LosesOneInFour):
    def _count(self) -> int:
        return 4 * (super()._count() % 2)


# --- resilience, trace, errors ------------------------------------------------------------------------------------


@fails("resilience/duplicates-dropped")
class GivesEachDeliveryAnId(WrongAdapter):
    def decode(self, received: Received) -> Event:
        self.world["count"] = self.world.get("count", 0) + 1
        return self.inner.decode(received).replace(source=f"/number/{self.world['count']}")


@fails("trace/bytes-kept", "trace/own-not-overwritten")
class RewritesTrace(WrongAdapter):
    def encode(self, topic: Topic, event: Event) -> Wire:
        if "traceparent" in event.extensions:
            event = event.with_attributes(
                traceparent="00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"
            )
        return self.inner.encode(topic, event)


@fails("trace/one-trace")
class LosesTrace(WrongAdapter):
    def change(self, event: Event) -> Event:
        return event.without_extensions("traceparent")


@fails("trace/spans-through-dead-letter")
class RedrivesWithoutTrace(HasWrongQueue):
    class queue(WrongQueue):
        async def redeliver(self, wires: Sequence[Wire]) -> Sequence[SendOutcome]:
            events = [decode_json(wire.body).without_extensions("traceparent") for wire in wires]
            again = [self.adapter.inner.encode(self.subscription.topic, event) for event in events]
            return await self.inner.redeliver(again)


@fails("trace/batch-links")
class GivesABatchOneTrace(WrongAdapter):
    async def send(self, topic: Topic, wires: Sequence[Wire]) -> Sequence[SendOutcome]:
        events = [decode_json(wire.body) for wire in wires]
        first = str(events[0].extensions["traceparent"])
        same = [self.inner.encode(topic, event.with_attributes(traceparent=first)) for event in events]
        return await self.inner.send(topic, same)


@fails("trace/root-span")
class InventsTrace(WrongAdapter):
    def change(self, event: Event) -> Event:
        if "traceparent" in event.extensions:
            return event
        return event.with_attributes(traceparent=f"00-{'1' * 32}-{'2' * 16}-01")


@fails("trace/names")
class CallsItselfByItsAddress(WrongAdapter):
    def describe(self) -> Description:
        return Description(system="https://broker.example.com:8787/")


@fails("errors/provider-codes")
class CallsEverythingThrottled(WrongAdapter):
    def error_code(self, error: BaseException) -> tuple[ErrorCode, bool] | None:
        return ErrorCode.THROTTLED, True


@fails("errors/closed-adapter")
class RaisesItsOwn(WrongAdapter):
    async def send(self, topic: Topic, wires: Sequence[Wire]) -> Sequence[SendOutcome]:
        try:
            return await self.inner.send(topic, wires)
        except Exception as error:
            raise AttributeError("'NoneType' object has no attribute 'publish'") from error
