"""Filters in Event Grid's form: a superset of the filter for every event, within Event Grid's limits."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossbus.clock import SystemClock
from crossbus.codecs import encode_json
from crossbus.event import Event
from crossbus.explain import explain
from crossbus.filters import Filter, all_, any_, exact, not_, prefix, suffix
from crossbus.profiles import Profile
from crossbus_eventgrid import EventGridAdapter
from crossbus_eventgrid.compiling import compile_filter
from eventgrid_filters import check, matches
from test_filter_properties import EVENTS, FILTERS, TEXTS


def in_json(event: Event) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(encode_json(event))
    return found


def one(operator: str, key: str, *values: str) -> dict[str, Any]:
    return {"operatorType": operator, "key": key, "values": list(values)}


def with_source(event: Event) -> Event:
    return event if event.source else event.replace(source="/x")


NARROW = st.builds(
    lambda kind, name, values: any_(*(kind({name: value}) for value in values)),
    st.sampled_from([exact, prefix, suffix]),
    st.sampled_from(["type", "source", "subject", "tenant"]),
    st.lists(TEXTS, min_size=1, max_size=30),
)
"""Those that Event Grid has a form for, of one attribute and up to 30 values."""


@given(FILTERS | NARROW | st.builds(all_, NARROW, NARROW), EVENTS.map(with_source))
def test_native_lets_all_through_that_the_filter_matches(filter: Filter, event: Event) -> None:
    native = compile_filter(filter)
    if native is not None:
        check(native)
    if filter.matches(event):
        assert matches(native, in_json(event)), f"{native} loses {event!r}, which {filter} matches"


@given(FILTERS, EVENTS.map(with_source))
def test_native_and_residual_are_the_filter(filter: Filter, event: Event) -> None:
    compilation = EventGridAdapter(Profile(target="a.b"), clock=SystemClock()).compile(filter)
    residual = compilation.residual
    both = matches(compilation.native, in_json(event)) and (residual is None or residual.matches(event))
    assert both == filter.matches(event)


@pytest.mark.parametrize(
    ("filter", "native"),
    [
        (exact(type="a"), {"includedEventTypes": ["a"]}),
        (exact(type=["a", "b"]), {"includedEventTypes": ["a", "b"]}),
        (prefix(type="com."), {"filters": [one("StringBeginsWith", "eventtype", "com.")]}),
        (suffix(subject=".jpg"), {"filters": [one("StringEndsWith", "subject", ".jpg")]}),
        (
            exact(type="a", tenant="gold"),
            {
                "includedEventTypes": ["a"],
                "filters": [one("StringIn", "tenant", "gold")],
            },
        ),
        (
            any_(exact(source="/a"), prefix(source="/b/")),
            {"filters": [one("StringBeginsWith", "source", "/a", "/b/")]},
        ),
        (
            any_(suffix(source="a"), prefix(source="b")),
            {"filters": [one("StringContains", "source", "a", "b")]},
        ),
        (
            any_(all_(exact(type="a"), exact(tenant="x")), all_(exact(type="b"), suffix(subject="y"))),
            {"includedEventTypes": ["a", "b"]},
        ),
        (all_(exact(type="a"), not_(exact(tenant="x"))), {"includedEventTypes": ["a"]}),
        # What has no form at all: a not, several attributes, a number in disguise, keys that nobody documents.
        (not_(exact(type="a")), None),
        (any_(exact(type="a"), exact(source="/b")), None),
        (exact(count="7"), None),
        (prefix(flag="tr"), None),
        (suffix(count="0"), None),
        (exact(id="1"), None),
        (prefix(time="2026-"), None),
        (exact(eventtype="a"), None),
        (exact(subject="x" * 513), None),
        (exact(type=[f"t{n}" for n in range(26)]), None),
    ],
)
def test_compiles_to(filter: Filter, native: dict[str, Any] | None) -> None:
    assert compile_filter(filter) == native


def test_what_is_too_much_is_left_out_and_the_narrowest_stays() -> None:
    many = exact(tenant=[f"tenant-{n}" for n in range(20)])
    native = compile_filter(all_(exact(type="a"), prefix(source="/shop/"), many, prefix(subject="o-")))
    assert native is not None
    check(
        {
            **native,
            "filters": [*native["filters"], {"operatorType": "StringNotIn", "key": "k", "values": ["v"]}],
        }
    )
    more = compile_filter(
        all_(exact(type=["a", "b", "c"]), prefix(source="/s"), many, exact(region=["x", "y"]))
    )
    assert more is not None
    assert [one["key"] for one in more["filters"]] == ["source", "region"] or "tenant" not in str(more)


def test_explain_says_who_evaluates_what() -> None:
    adapter = EventGridAdapter(Profile(target="a.b"), clock=SystemClock())
    filter = all_(exact(type="com.acme.order"), not_(exact(tenant="x")))
    text = str(explain(filter, adapter.compile(filter), provider="eventgrid"))
    assert '{"includedEventTypes":["com.acme.order"]}' in text
    assert "not (tenant" in text
    assert "you pay for the delivery" in text
