"""Filters compiled to Pub/Sub's language, evaluated as Google documents it: a superset, and exact where it says so."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from google.pubsub_v1.types import PubsubMessage
from hypothesis import given
from hypothesis import strategies as st

from crossbus.clock import SystemClock
from crossbus.conformance import filters as kit
from crossbus.errors import DeclarationError
from crossbus.event import Event
from crossbus.explain import explain
from crossbus.filters import Filter, all_, any_, exact, not_, prefix, suffix
from crossbus.profiles import Profile
from crossbus.topology import Subscription, Topic
from crossbus_pubsub import PubSubAdapter, encoding, filters
from crossbus_pubsub.naming import Names, generation
from crossbus_pubsub.options import native_text
from pubsub_filter_language import FilterSyntaxError, parse


def attributes_of(event: Event) -> dict[str, str]:
    return dict(encoding.encode(event, PubsubMessage.pb()).attributes)


def check(wanted: Filter, events: list[Event]) -> None:
    compiled = filters.compile(wanted)
    passes = parse(compiled.text)
    for event in events:
        native = passes(attributes_of(event))
        if wanted.matches(event):
            assert native, f"{compiled.text} drops {event!r}, which {wanted} matches"
        elif compiled.residual is None:
            assert not native, (
                f"{compiled.text} is said to be exact, and passes {event!r}, which {wanted} does not match"
            )
    assert compiled.residual in (None, wanted)
    assert (compiled.native is None) == (compiled.text == "")


# --- the evaluator itself -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        ('attributes.ce-type = "a"', True),
        ('attributes.ce-type = "A"', False),
        ('attributes.absent != "x"', True),
        ('attributes.ce-type != "a"', False),
        ("attributes:ce-type", True),
        ("attributes:absent", False),
        ('hasPrefix(attributes.ce-type, "")', True),
        ('hasPrefix(attributes.absent, "")', False),
        ('NOT hasPrefix(attributes.absent, "x")', True),
        ('attributes.ce-type = "a" OR attributes.x = "y"', True),
        ('attributes."ce-type" = "\\u0061"', True),
        ('NOT attributes:absent AND attributes.ce-type = "\\x61"', True),
        ("", True),
    ],
)
def test_evaluator_follows_the_documentation(text: str, passes: bool) -> None:
    assert parse(text)({"ce-type": "a"}) is passes


@pytest.mark.parametrize(
    "text",
    [
        'attributes.a = "x" AND attributes.b = "y" OR attributes.c = "z"',
        'attributes.a = "x" and attributes.b = "y"',
        'attributes.a.b = "x"',
        "attributes.a = x",
        'data = "x"',
        'hasSuffix(attributes.a, "x")',
        '(attributes.a = "x"',
        f'attributes.a = "{"x" * 256}"',
    ],
)
def test_evaluator_refuses_what_the_service_refuses(text: str) -> None:
    with pytest.raises(FilterSyntaxError):
        parse(text)


# --- the kit's tables ---------------------------------------------------------------------------------------------


def kit_rows() -> list[tuple[Filter, set[int]]]:
    """All rows of the kit: those of its table, and those that its other cases hand to its check."""
    rows = list(kit._TABLE)

    async def collect(t: Any, more: list[tuple[Filter, set[int]]], bus_wrap: bool = False) -> None:
        rows.extend(more)

    original, kit._check = kit._check, collect  # type: ignore[assignment]
    try:
        asyncio.run(kit.nested(None))  # type: ignore[arg-type]
        asyncio.run(kit.edges(None))  # type: ignore[arg-type]
    finally:
        kit._check = original
    return rows


@pytest.mark.parametrize(("wanted", "numbers"), kit_rows(), ids=str)
def test_truth_table_of_the_kit(wanted: Filter, numbers: set[int]) -> None:
    events = [
        event.replace(source=event.source)
        for event in kit._events(SimpleNamespace(id="kit"))  # type: ignore[arg-type]
    ]
    assert {event.data["number"] for event in events if wanted.matches(event)} == numbers
    check(wanted, events)


def test_kit_has_more_than_its_table() -> None:
    assert len(kit_rows()) >= len(kit._TABLE) + 16


# --- anything -----------------------------------------------------------------------------------------------------

NAMES = ("type", "source", "subject", "tenant", "datacontenttype", "count", "flag")
texts = st.one_of(
    st.sampled_from(
        ["a", "ab", "abc", "b", "true", "7", 'say "x"', "back\\slash", "application/json", " ", "é", "\u200b"]
    ),
    st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=8),
    st.text("xyz", min_size=80, max_size=300),
)
comparisons = st.builds(
    lambda kind, name, value: kind({name: value}),
    st.sampled_from([exact, prefix, suffix]),
    st.sampled_from(NAMES),
    texts,
) | st.builds(lambda one, two: exact(type=one, subject=two), texts, texts)
any_filter = st.recursive(
    comparisons,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=4).map(lambda parts: all_(*parts)),
        st.lists(inner, min_size=1, max_size=4).map(lambda parts: any_(*parts)),
        inner.map(not_),
    ),
    max_leaves=10,
)


@st.composite
def any_event(draw: st.DrawFn) -> Event:
    extensions = {
        "tenant": draw(st.none() | texts),
        "count": draw(st.none() | st.integers(0, 100)),
        "flag": draw(st.none() | st.booleans()),
    }
    data = draw(st.sampled_from([None, {"a": 1}, "text", b"bytes"]))
    return Event(
        type=draw(texts),
        source=draw(texts),
        subject=draw(st.none() | texts),
        data=data,
        extensions={name: value for name, value in extensions.items() if value is not None},
    )


@given(any_filter, st.lists(any_event(), min_size=1, max_size=5))
def test_any_filter_is_a_superset(wanted: Filter, events: list[Event]) -> None:
    check(wanted, events)


@given(st.lists(texts, min_size=1, max_size=60), st.lists(any_event(), max_size=5))
def test_many_values_of_one_attribute(values: list[str], events: list[Event]) -> None:
    wanted = exact(type=values)
    base = Event(type="x", source="/s", data={})
    check(wanted, [*events, *(base.replace(type=value) for value in values)])


# --- 256 bytes ----------------------------------------------------------------------------------------------------


def test_many_types_become_what_they_begin_with() -> None:
    wanted = exact(type=[f"com.acme.order.{n}" for n in range(40)])
    compiled = filters.compile(wanted)
    assert compiled.text == 'hasPrefix(attributes.ce-type, "com.acme.order.")'
    assert compiled.residual == wanted


def test_the_longest_condition_makes_room() -> None:
    wanted = exact(type="com.acme.placed", subject="s" * 300)
    compiled = filters.compile(wanted)
    assert 'attributes.ce-type = "com.acme.placed"' in compiled.text
    assert 'hasPrefix(attributes.ce-subject, "sss' in compiled.text
    assert compiled.residual == wanted


def test_nothing_in_common_is_left_to_us() -> None:
    wanted = any_(*(exact({f"a{n}": "v" * 20}) for n in range(20)))
    assert filters.compile(wanted) == (None, "", wanted)


def test_exactly_256_bytes_fit() -> None:
    frame = len('attributes.ce-type = ""')
    assert filters.compile(exact(type="é" * ((256 - frame) // 2))).residual is None
    assert filters.compile(exact(type="é" * ((256 - frame) // 2 + 1))).residual is not None


def test_explain_says_what_is_left() -> None:
    wanted = exact(type="com.acme.placed") & suffix(subject=".pdf")
    text = str(explain(wanted, filters.compile(wanted), provider="pubsub"))
    assert 'attributes.ce-type = "com.acme.placed"' in text
    assert "you pay for the delivery" in text


def test_on_the_emulator_all_is_evaluated_here() -> None:
    wanted = exact(type="a")
    on_emulator = PubSubAdapter(Profile(parameters={"endpoint": "127.0.0.1:1"}), clock=SystemClock())
    assert on_emulator.compile(wanted) == (wanted, 'attributes.ce-type = "a"', wanted)
    on_cloud = PubSubAdapter(Profile(), clock=SystemClock())
    assert on_cloud.compile(wanted).residual is None


# --- the user's own, and generations ------------------------------------------------------------------------------


def subscription(**fields: Any) -> Subscription:
    return Subscription(topic=Topic("orders"), name="billing", **fields)


def test_native_filter_is_used_as_it_is() -> None:
    own = 'attributes.ce-type = "a" AND NOT attributes:ce-test'
    assert native_text(subscription(native_filter={"pubsub": own}, filter=exact(type="a"))) == own
    assert native_text(subscription(native_filter={"pubsub": ""}, filter=exact(type="a"))) == ""
    with pytest.raises(DeclarationError, match="256"):
        native_text(subscription(native_filter={"pubsub": "x" * 257}))
    with pytest.raises(DeclarationError, match="must be text"):
        native_text(subscription(native_filter={"pubsub": 7}))


def test_another_native_filter_is_another_generation() -> None:
    names = Names(Profile(adapter="pubsub"), "my-project")
    plain = names.subscription(subscription(), "")
    assert plain == "projects/my-project/subscriptions/orders--billing"
    one, two = (names.subscription(subscription(), text) for text in ("a", "b"))
    assert one == f"{plain}--{generation('a')}" != two
    assert all(names.is_generation(name, plain) for name in (plain, one, two))
    for stranger in (
        "orders--billing--dead",
        "orders--billing-old",
        "orders--billing2",
        "orders--other--0a1b2c3d",
    ):
        assert not names.is_generation(f"projects/my-project/subscriptions/{stranger}", plain)
    adopted = subscription(resource="theirs")
    assert names.subscription(adopted, "a") == "projects/my-project/subscriptions/theirs"


def test_another_residual_is_none() -> None:
    first = exact(type="a") & suffix(subject=".pdf")
    second = exact(type="a") & suffix(subject=".doc")
    assert filters.compile(first).text == filters.compile(second).text
