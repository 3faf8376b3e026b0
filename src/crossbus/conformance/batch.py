"""Batch: as few requests as the limits allow, and an outcome for each event."""

from __future__ import annotations

from collections.abc import Callable

from crossbus.adapter import Adapter, SendOutcome, Wire
from crossbus.conformance.cases import case
from crossbus.conformance.trial import Trial
from crossbus.conformance.wrap import Watch
from crossbus.errors import ErrorCode, EventTooLarge, PartialPublishError
from crossbus.event import Event
from crossbus.topology import Topic

_THROTTLED = SendOutcome(code=ErrorCode.THROTTLED, message="throttled (put in by the kit)", retryable=True)


def _watched(**options: object) -> tuple[list[Watch], Callable[[Adapter], Adapter]]:
    made: list[Watch] = []

    def wrap(adapter: Adapter) -> Adapter:
        made.append(Watch(adapter, **options))  # type: ignore[arg-type]
        return made[-1]

    return made, wrap


@case("batch/exact", "as many events as one request takes go in one request")
async def exact_batches(t: Trial) -> None:
    count = min(t.capabilities.publish_batch, 10)
    watches, wrap = _watched(publish_batch=count)
    bus, topic = t.bus(wrap=wrap), t.topic()
    inbox = t.inbox(bus, topic, "batched")
    events = t.events(count)
    async with t.consuming(bus):
        receipts = await bus.publish_many(topic, events)
        await t.once(inbox, events)
    assert watches[0].sizes(topic)[0] == count, (
        f"{count} events went in requests of {watches[0].sizes(topic)}"
    )
    assert watches[0].resent() == 0, (
        f"{watches[0].resent()} events were sent again although they were published"
    )
    assert [receipt.event_id for receipt in receipts] == [event.id for event in events], (
        "the receipts of a batch are not in the order of its events"
    )


@case("batch/split-by-count", "more events than one request takes go in several")
async def split_by_count(t: Trial) -> None:
    count = min(t.capabilities.publish_batch, 10)
    watches, wrap = _watched(publish_batch=count)
    bus, topic = t.bus(wrap=wrap), t.topic()
    inbox = t.inbox(bus, topic, "split")
    events = t.events(count * 2 + 1)
    async with t.consuming(bus):
        await bus.publish_many(topic, events)
        await t.once(inbox, events)
    sizes = watches[0].sizes(topic)
    assert max(sizes) <= count, f"a request held {max(sizes)} events; the adapter takes {count}"
    assert len(sizes) >= 3, f"{len(events)} events went in requests of {sizes}"
    assert watches[0].resent() == 0, (
        f"{watches[0].resent()} events were sent again although they were published"
    )


@case("batch/split-by-bytes", "more bytes than one request takes go in several")
async def split_by_bytes(t: Trial) -> None:
    limit = min(t.capabilities.publish_batch_bytes, 50_000)
    watches, wrap = _watched(publish_batch_bytes=limit)
    bus, topic = t.bus(wrap=wrap), t.topic()
    inbox = t.inbox(bus, topic, "split")
    events = [
        event.replace(data={"number": n, "fill": "x" * (limit // 4)}) for n, event in enumerate(t.events(10))
    ]
    async with t.consuming(bus):
        await bus.publish_many(topic, events)
        await t.once(inbox, events)
    for to, wires in watches[0].requests:
        size = sum(wire.size for wire in wires)
        assert size <= limit, f"a request to {to.name} held {size} bytes; the adapter takes {limit}"
        for wire in wires:
            assert wire.size >= len(wire.body), (
                f"a wire of {len(wire.body)} bytes says that it has {wire.size}"
            )
    assert max(watches[0].sizes(topic)) > 1 or t.capabilities.publish_batch == 1, (
        "every event went in a request of its own"
    )


@case(
    "batch/partial-failure",
    "a result per event; only what failed and may be tried again is sent again",
    starred=True,
)
async def partial_failure(t: Trial) -> None:
    events = t.events(8)
    transient, final = {events[2].id, events[5].id}, events[6].id
    named: dict[int, Event] = {}
    kept: list[Wire] = []
    refused: set[str] = set()

    class Refusing(Watch):
        def encode(self, topic: Topic, event: Event) -> Wire:
            wire = super().encode(topic, event)
            kept.append(wire)
            named[id(wire)] = event
            return wire

    def refuse(to: Topic, wire: Wire) -> SendOutcome | None:
        event = named.get(id(wire))
        if event is None or to.kind != "topic":
            return None
        if event.id == final:
            return SendOutcome(code=ErrorCode.INVALID_REQUEST, message="refused (put in by the kit)")
        if event.id in transient and event.id not in refused:
            refused.add(event.id)
            return _THROTTLED
        return None

    watches: list[Watch] = []

    def wrap(adapter: Adapter) -> Adapter:
        watches.append(Refusing(adapter, on_send=refuse))
        return watches[-1]

    bus, topic = t.bus(wrap=wrap), t.topic()
    inbox = t.inbox(bus, topic, "partial")
    async with t.consuming(bus):
        try:
            await bus.publish_many(topic, events)
        except PartialPublishError as error:
            results = error.results
        else:
            raise AssertionError("publish_many went well although one event of eight was refused for good")
        others = [event for event in events if event.id != final]
        await t.once(inbox, others)
    assert [result.event_id for result in results] == [event.id for event in events], (
        "the results of a batch are not one for each event, in order"
    )
    failed = [result for result in results if result.error is not None]
    assert [result.event_id for result in failed] == [final], (
        f"{len(failed)} of eight events are reported as failed; one was refused for good"
    )
    assert all(result.receipt is not None for result in results if result.error is None), (
        "an event that was published has no receipt among the results"
    )
    sent = [named[id(wire)].id for _, wires in watches[0].requests for wire in wires if id(wire) in named]
    assert sent.count(final) == 1, f"an event refused for good was sent {sent.count(final)} times"
    assert watches[0].resent() == 0, (
        f"{watches[0].resent()} events were sent again although they were published"
    )


@case(
    "batch/too-large",
    "an event that is too large is a typed error before the network; its neighbours go",
    starred=True,
)
async def too_large(t: Trial) -> None:
    watches, wrap = _watched()
    bus, topic = t.bus(wrap=wrap), t.topic()
    inbox = t.inbox(bus, topic, "large")
    large = t.events(1)[0].replace(id=f"{t.id}-large", data={"number": 0, "fill": "x" * 1_000_001})
    fits = t.events(1)[0].replace(id=f"{t.id}-fits", data={"number": 0, "fill": "x" * 900_000})
    async with t.consuming(bus):
        try:
            await bus.publish(topic, large)
        except EventTooLarge as error:
            assert error.size > error.limit, f"EventTooLarge says {error.size} bytes of {error.limit} allowed"
        else:
            raise AssertionError("an event of more than 1,000,000 bytes was published; EventTooLarge is due")
        assert not watches[0].requests, "an event that is too large went to the network before it was refused"
        await bus.publish(topic, fits)
        events = t.events(4)
        try:
            await bus.publish_many(topic, [*events[:2], large, *events[2:]])
        except PartialPublishError as error:
            kinds = [type(result.error).__name__ for result in error.results]
            assert kinds == ["NoneType", "NoneType", "EventTooLarge", "NoneType", "NoneType"], (
                f"the third of five events was too large; the errors of their results are {kinds}"
            )
        else:
            raise AssertionError("publish_many went well although one event was too large")
        await t.once(inbox, [fits, *events])


@case("batch/empty", "an empty batch makes no call")
async def empty(t: Trial) -> None:
    watches, wrap = _watched()
    bus, topic = t.bus(wrap=wrap), t.topic()
    inbox = t.inbox(bus, topic, "empty")
    async with t.consuming(bus):
        assert await bus.publish_many(topic, []) == [], "publishing no events returned receipts"
        await t.elapse(1.0)
        assert not watches[0].requests, "publishing no events made a request"
        event = t.events(1)
        await bus.publish_many(topic, iter(event))
        await t.once(inbox, event)
