"""Dead letters below the Bus: looked at page by page, and put back in steps."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing

from crossbus.adapter import Adapter, LeaseOutcome, Received
from crossbus.clock import sleep
from crossbus.conformance import retry  # noqa: F401 (its cases stand before these)
from crossbus.conformance.cases import case
from crossbus.conformance.trial import Trial
from crossbus.deadletter import DeadLetter, make_record, read_record, wire_of
from crossbus.event import Event
from crossbus.topology import Subscription

PAGE = 10


@case(
    "retry/dead-letter-pages",
    "a look at a dead letter of several pages gives each record once, and moves none; also one that ends early",
    starred=True,
    requires={"dead_letters"},
)
async def pages(t: Trial) -> None:
    adapter, subscription, events = await _filled(t, 25)
    wanted = {event.id for event in events}
    queue = adapter.dead_letters(subscription)
    async with aclosing(queue.pages(PAGE)) as look:
        first = await anext(look)
    assert 1 <= len(first) <= PAGE, f"a page of up to {PAGE} records has {len(first)}"
    for what in ("a look after one that ended early", "another look"):
        found = []
        async with aclosing(queue.pages(PAGE)) as look:
            async for page in look:
                assert 1 <= len(page) <= PAGE, f"a page of up to {PAGE} records has {len(page)}"
                found += _read(adapter, subscription, page)
        ids = [letter.id for letter in found]
        assert len(set(ids)) == len(ids), f"{what} gives {len(ids) - len(set(ids))} records more than once"
        missing = wanted - _events(found)
        assert not missing, f"{what} gives {len(wanted) - len(missing)} of {len(wanted)} records"
    assert _events(_read(adapter, subscription, await queue.browse(100))) == wanted, "looking removed records"


@case(
    "retry/put-back",
    "putting back answers for each, reaches the subscription, and removes those records and no other",
    starred=True,
    requires={"dead_letters", "redeliver"},
)
async def put_back(t: Trial) -> None:
    adapter, subscription, events = await _filled(t, 12)
    queue = adapter.dead_letters(subscription)
    async with aclosing(queue.pages(5)) as look:
        chosen = _read(adapter, subscription, await anext(look))
        answers = await queue.put_back(
            [(letter.received.lease, wire_of(adapter, subscription, letter)) for letter in chosen]
        )
        assert len(answers) == len(chosen), (
            f"{len(chosen)} records were put back, and {len(answers)} answered"
        )
        for letter, answer in zip(chosen, answers, strict=True):
            assert answer.outcome is not None and answer.outcome.code is None, (
                f"{letter.id}: {answer.outcome}"
            )
            assert answer.removed is LeaseOutcome.OK, f"the record {letter.id} was put back, and not removed"
        again = await queue.delete([letter.received.lease for letter in chosen])
        assert set(again) == {LeaseOutcome.LOST}, "removing records that were put back does not say LOST"
    wanted = _events(chosen)
    receiver = await t.receiver(adapter, subscription)
    came: set[str] = set()
    end = t.now() + 60 * t.harness.patience
    while not wanted <= came:
        assert t.now() < end, f"{len(wanted - came)} of {len(wanted)} events that were put back did not come"
        for received in await receiver.receive(100, 1.0):
            came.add(adapter.decode(received).id)
    assert came == wanted, f"{len(came - wanted)} other events came"
    left = {event.id for event in events} - wanted
    found = _read(adapter, subscription, await queue.browse(100))
    assert _events(found) == left, f"of {len(left)} records that were not put back, {len(found)} are left"


async def _filled(t: Trial, count: int) -> tuple[Adapter, Subscription, Sequence[Event]]:
    """Provide a subscription, and write so many records into its dead letter."""
    (subscription,) = await t.provide((t.topic(), "paged"))
    adapter = await t.adapter()
    events = t.events(count)
    now = t.clock.time()
    records = [
        make_record(
            subscription,
            Received(n, b"", {}, f"m-{n}", 1),
            event,
            reason="broken",
            error=None,
            handler=None,
            now=now + n / 1000,
        )
        for n, event in enumerate(events)
    ]
    for start in range(0, count, PAGE):
        await t.send(adapter, subscription.dead_letter, records[start : start + PAGE])
    queue = adapter.dead_letters(subscription)
    end = t.now() + 60 * t.harness.patience
    while len(_events(_read(adapter, subscription, await queue.browse(1000)))) < count:
        assert t.now() < end, f"not all of {count} records were seen in the dead letter"
        await sleep(t.clock, 0.1)
    return adapter, subscription, events


def _read(adapter: Adapter, subscription: Subscription, page: Sequence[Received]) -> list[DeadLetter]:
    return [read_record(adapter, subscription, received) for received in page]


def _events(letters: Sequence[DeadLetter]) -> set[str]:
    return {letter.event.id for letter in letters if letter.event is not None}
