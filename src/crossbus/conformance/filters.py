"""Filters: every subscription gets the events that its filter matches, whoever evaluates it."""

from __future__ import annotations

from collections.abc import Sequence

from crossbus.adapter import Adapter
from crossbus.conformance.cases import case
from crossbus.conformance.faults import Faults, FaultyAdapter
from crossbus.conformance.trial import Trial
from crossbus.errors import DeclarationError
from crossbus.event import Event
from crossbus.filters import Filter, all_, any_, exact, not_, prefix, suffix

Row = tuple[Filter, set[int]]


def _events(t: Trial) -> list[Event]:
    rows: list[dict[str, object]] = [
        {"type": "com.acme.order.placed", "source": "/shop/eu", "subject": "o-1", "x": ("gold", True, 7)},
        {"type": "com.acme.order.cancelled", "source": "/shop/us", "x": ("Gold", None, None)},
        {"type": "com.ACME.order.placed", "source": "/Shop/eu", "subject": "o-10", "x": (None, None, None)},
        {"type": "org.acme.order.placed", "source": "/warehouse", "x": ("silver", False, 70)},
        {"type": "com.acme.order", "source": "/shop/eu/", "subject": "placed", "x": ("golden", None, None)},
        {
            "type": "com.acme.order.placed",
            "source": "ünï/日本",
            "subject": 'a"b\\c*?',
            "x": (" ", None, None),
        },
    ]
    made = []
    for number, row in enumerate(rows):
        values: tuple[object, ...] = row.pop("x")  # type: ignore[assignment]
        named = zip(("tenant", "flag", "count"), values, strict=True)
        extensions = {name: value for name, value in named if value is not None}
        made.append(Event(id=f"{t.id}-{number}", data={"number": number}, extensions=extensions, **row))  # type: ignore[arg-type]
    return made


async def _check(t: Trial, rows: Sequence[Row], bus_wrap: bool = False) -> None:
    """Fail unless each filter gives the numbered events, by the local evaluator and through the provider."""
    events = _events(t)
    for wanted, numbers in rows:
        found = {event.data["number"] for event in events if wanted.matches(event)}
        assert found == numbers, f"the local evaluator of {wanted} matches events {found}, not {numbers}"
    bus, topic = t.bus(wrap=_weak if bus_wrap else None), t.topic()
    inboxes = [t.inbox(bus, topic, f"filter-{n}", filter=wanted) for n, (wanted, _) in enumerate(rows)]
    everything = t.inbox(bus, topic, "everything")
    async with t.consuming(bus):
        await bus.publish_many(topic, events)
        await t.once(everything, events)
        for inbox, (wanted, numbers) in zip(inboxes, rows, strict=True):
            due = [event for event in events if event.data["number"] in numbers]
            await t.arrive(inbox, due)
            extra = set(inbox.numbers) - numbers
            assert not extra, (
                f"the subscription with filter {wanted} was given events {extra}, which do not match"
            )
        await t.elapse(2.0)
        for inbox, (_, numbers) in zip(inboxes, rows, strict=True):
            t.check_once(inbox, [event.id for event in events if event.data["number"] in numbers])


def _weak(adapter: Adapter) -> Adapter:
    """A provider that evaluates no filter at all."""
    calm = Faults(
        partial=0,
        throttle=0,
        lost_answer=0,
        duplicate=0,
        lost_lease=0,
        settle_failed=0,
        extend_failed=0,
        slow_receive=0,
    )
    return FaultyAdapter(adapter, calm)


_TABLE: list[Row] = [
    (exact(type="com.acme.order.placed"), {0, 5}),
    (exact(source="/shop/eu"), {0}),
    (exact(tenant="gold"), {0}),
    (exact(type=["com.acme.order.placed", "com.acme.order.cancelled"]), {0, 1, 5}),
    (exact(type="com.acme.order.placed", source="/shop/eu"), {0}),
    (exact(flag="true"), {0}),
    (exact(count="7"), {0}),
    (exact(source="ünï/日本"), {5}),
    (exact(subject='a"b\\c*?'), {5}),
    (prefix(type="com.acme."), {0, 1, 4, 5}),
    (prefix(source="/shop/"), {0, 1, 4}),
    (prefix(count="7"), {0, 3}),
    (prefix(subject="o-1"), {0, 2}),
    (prefix(subject='a"b\\c*'), {5}),
    (suffix(type=".placed"), {0, 2, 3, 5}),
    (suffix(source="/eu"), {0, 2}),
    (suffix(subject="*?"), {5}),
    (all_(prefix(type="com."), suffix(type=".placed")), {0, 2, 5}),
    (any_(exact(tenant="silver"), prefix(subject="placed")), {3, 4}),
    (not_(exact(tenant="gold")), {1, 2, 3, 4, 5}),
    (not_(prefix(type="com.")), {3}),
]


@case(
    "filters/truth-table",
    "every operator gives what it says, by the local evaluator and by the provider",
    starred=True,
)
async def truth_table(t: Trial) -> None:
    await _check(t, _TABLE)


@case("filters/nested", "all, any and not, nested")
async def nested(t: Trial) -> None:
    gold_or_silver = any_(exact(tenant="gold"), exact(tenant="silver"))
    await _check(
        t,
        [
            (all_(gold_or_silver, not_(suffix(type=".cancelled")), prefix(source="/")), {0, 3}),
            (not_(all_(prefix(type="com."), not_(exact(subject="o-1")))), {0, 3}),
            (not_(not_(exact(tenant="gold"))), {0}),
            (not_(any_(prefix(source="/"), exact(subject="o-1"))), {5}),
            (
                any_(
                    all_(prefix(type="com.acme."), exact(tenant="golden")),
                    all_(prefix(source="/ware"), any_(exact(count="70"), not_(prefix(type="org.")))),
                ),
                {3, 4},
            ),
        ],
    )


@case(
    "filters/edges",
    "a missing attribute matches nothing, an empty text is refused, case matters",
    starred=True,
)
async def edges(t: Trial) -> None:
    await _check(
        t,
        [
            (exact(nosuch="x"), set()),
            (not_(exact(nosuch="x")), {0, 1, 2, 3, 4, 5}),
            (prefix(subject="o"), {0, 2}),
            (not_(prefix(subject="o")), {1, 3, 4, 5}),
            (exact(tenant="Gold"), {1}),
            (exact(tenant="GOLD"), set()),
            (prefix(source="/Shop"), {2}),
            (prefix(type="com.ACME"), {2}),
            (suffix(type="PLACED"), set()),
            (exact(flag="false"), {3}),
            (exact(tenant=" "), {5}),
        ],
    )
    for dialect in (exact, prefix, suffix):
        try:
            dialect(subject="")
        except DeclarationError:
            continue
        raise AssertionError(f"{dialect.__name__}(subject='') was accepted; an empty text is refused")


@case(
    "filters/residual",
    "what the provider cannot hold of a filter is evaluated here, and `explain` says so",
    starred=True,
)
async def residual(t: Trial) -> None:
    await _check(t, _TABLE, bus_wrap=True)
    bus, topic = t.bus(wrap=_weak), t.topic()
    bus.subscribe(topic, "explained", filter=exact(type="com.example.one"))
    async with bus:
        explained = bus.explain(topic, "explained")
        assert explained.residual, f"explain does not say that the filter is evaluated here: {explained}"
        assert "com.example.one" in str(explained), f"explain does not show the filter: {explained}"
        assert explained.warning, (
            f"explain does not say what the delivery of what is dropped costs: {explained}"
        )
    sure = t.bus()
    sure.subscribe(topic, "sure", filter=exact(type="com.example.one"))
    async with sure:
        compiled = sure.adapter_for(topic).compile(exact(type="com.example.one"))
        explained = sure.explain(topic, "sure")
        assert (compiled.residual is None) == (explained.residual is None), (
            f"the adapter's residual is {compiled.residual}, and explain says {explained.residual}"
        )


@case(
    "filters/no-leftovers",
    "events that do not match do not stay in a queue that crossbus owns",
    starred=True,
)
async def no_leftovers(t: Trial) -> None:
    bus, topic = t.bus(wrap=_weak), t.topic()
    wanted = exact(type="com.example.wanted")
    inbox = t.inbox(bus, topic, "clean", filter=wanted, lease=t.lease())
    no = t.events(10, type="com.example.other")
    yes = [event.replace(id=f"{event.id}-yes") for event in t.events(2, type="com.example.wanted")]
    async with t.consuming(bus):
        await bus.publish_many(topic, [*no, *yes])
        await t.once(inbox, yes, quiet=3.0)
        if t.capabilities.backlog == "exact":
            left = await bus.backlog(topic, "clean")
            assert not left.waiting and not left.in_hand, (
                f"{left.waiting} events wait and {left.in_hand} are in hand although none is left that matches"
            )
    adapter = _weak(await t.adapter())  # where a filter is part of a subscription's name, the one without it
    receiver = await t.receiver(adapter, bus.topology.subscriptions[0])
    await t.nothing(receiver, t.lease() * 1.5, "the filter does not match it, so it should have been dropped")


@case(
    "filters/change",
    "changing the filter of a subscription with a backlog loses nothing",
    starred=True,
    requires={"provision", "filter_change"},
)
async def change(t: Trial) -> None:
    topic = t.topic()
    one, two = exact(type="com.example.one"), exact(type="com.example.two")
    ones = t.events(5, type="com.example.one")
    twos = [event.replace(id=f"{event.id}-two") for event in t.events(5, type="com.example.two")]
    more = [event.replace(id=f"{event.id}-more") for event in t.events(3, type="com.example.two")]
    await t.provide((topic, "widened"), filter=one)
    await t.provide((topic, "narrowed"), filter=any_(one, two))
    publisher = t.bus()
    publisher.topic(topic)
    async with publisher:
        await publisher.publish_many(topic, [*ones, *twos])
    # The backlog holds what matched before. The change must keep what it holds of that.
    bus = t.bus()
    widened = t.inbox(bus, topic, "widened", filter=any_(one, two))
    narrowed = t.inbox(bus, topic, "narrowed", filter=two)
    async with t.consuming(bus):
        await bus.publish_many(topic, more)
        await t.arrive(widened, [*ones, *more])
        await t.arrive(narrowed, [*twos, *more])
        await t.elapse(1.0)
    # Where a filter is evaluated here, what was published before the change may match now.
    t.check_once(widened, [event.id for event in [*ones, *twos, *more]])


@case(
    "filters/external-mismatch",
    "an external subscription with a filter and no `on_mismatch` is refused at open",
    starred=True,
    requires={"provision"},
)
async def external_mismatch(t: Trial) -> None:
    topic = t.topic()
    (subscription,) = await t.provide((topic, "theirs"))
    wanted = exact(type="com.example.wanted")
    refused = t.bus(wrap=_weak)
    refused.subscribe(topic, "theirs", filter=wanted, external=True)
    try:
        await refused.open()
    except DeclarationError as error:
        assert "on_mismatch" in str(error), f"the error does not name on_mismatch: {error}"
    else:
        raise AssertionError("an external subscription with a filter that it does not hold was opened")
    no = t.events(3, type="com.example.other")
    yes = [event.replace(id=f"{event.id}-yes") for event in t.events(2, type="com.example.wanted")]
    # `release` leaves what does not match to those whose it is.
    releasing = t.bus(wrap=_weak)
    inbox = t.inbox(releasing, topic, "theirs", filter=wanted, external=True, on_mismatch="release")
    async with t.consuming(releasing):
        await releasing.publish_many(topic, [*no, *yes])
        await t.once(inbox, yes)
    adapter = await t.adapter()
    receiver = await t.receiver(adapter, subscription)
    found = {adapter.decode(one).id for one in await t.take(receiver, 3, within=120)}
    assert found <= {event.id for event in no}, f"an event that was handled is still there: {found}"
