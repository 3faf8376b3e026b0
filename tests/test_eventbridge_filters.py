"""Filters as event patterns: a superset always, exact where it says so, short enough; by AWS's rules."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.event_pattern import BadPattern, matches

from crossbus import DeclarationError, Event, all_, any_, exact, not_, prefix, suffix
from crossbus.codecs import encode_json
from crossbus.filters import Filter
from crossbus.topology import Subscription, Topic
from crossbus_eventbridge.encoding import decode
from crossbus_eventbridge.filters import compile_filter, pattern_of, text_of


def envelope(event: Event | dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Put an event, or the detail of a foreign one, into EventBridge's envelope."""
    detail = json.loads(encode_json(event)) if isinstance(event, Event) else event
    return {
        "version": "0",
        "id": "6a7e8feb-b491-4cf7-a9f1-bf3703467718",
        "detail-type": detail.get("type", "Object Created"),
        "source": detail.get("source", "aws.s3"),
        "account": "111122223333",
        "time": "2026-11-12T13:14:15Z",
        "region": "eu-west-1",
        "resources": [],
        "detail": detail,
        **changes,
    }


def event(**attributes: Any) -> Event:
    own = {name: attributes.pop(name) for name in ("tenant", "flag", "count") if name in attributes}
    return Event(**{"type": "com.acme.order.placed", "source": "/shop", **attributes}, extensions=own)


# --- AWS's own semantics, so that the evaluator can be trusted ----------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "fields", "wanted"),
    [
        ({"a": ["x"]}, {"a": "x"}, True),
        ({"a": ["x"]}, {"a": "X"}, False),
        ({"a": ["x"]}, {"a": ["y", "x"]}, True),
        ({"a": ["x"]}, {}, False),
        ({"a": [None]}, {"a": None}, True),
        ({"a": [None]}, {}, False),
        ({"a": [""]}, {"a": ""}, True),
        ({"a": [1]}, {"a": True}, False),
        ({"a": [1]}, {"a": 1.0}, False),
        ({"a": [{"numeric": ["=", 1]}]}, {"a": 1.0}, True),
        ({"a": [{"numeric": [">", 0, "<=", 5]}]}, {"a": 5}, True),
        ({"a": [{"prefix": ""}]}, {"a": "anything"}, True),
        ({"a": [{"prefix": ""}]}, {"a": 7}, False),
        ({"a": [{"anything-but": "x"}]}, {"a": "y"}, True),
        ({"a": [{"anything-but": "x"}]}, {"a": "x"}, False),
        ({"a": [{"anything-but": "x"}]}, {}, False),
        ({"a": [{"anything-but": ["x", "y"]}]}, {"a": "y"}, False),
        ({"a": [{"anything-but": {"prefix": "x"}}]}, {"a": "yx"}, True),
        ({"a": [{"exists": False}]}, {}, True),
        ({"a": [{"exists": False}]}, {"a": None}, False),
        ({"a": [{"equals-ignore-case": "x"}]}, {"a": "X"}, True),
        ({"a": ["x"], "b": ["y"]}, {"a": "x", "b": "z"}, False),
        ({"$or": [{"a": ["x"]}, {"b": ["y"]}]}, {"a": "z", "b": "y"}, True),
        ({"a": {"b": ["x"]}}, {"a": [{"b": "y"}, {"b": "x"}]}, True),
    ],
)
def test_the_evaluator_does_as_aws_documents(pattern: Any, fields: Any, wanted: bool) -> None:
    assert matches(pattern, fields) is wanted


@pytest.mark.parametrize(
    "pattern",
    [{}, {"a": []}, {"a": {}}, {"$or": [{"a": ["x"]}]}, {"a": ["x"], "$or": [{"a": ["y"]}, {"b": ["z"]}]}],
)
def test_the_evaluator_refuses_what_aws_refuses(pattern: Any) -> None:
    with pytest.raises(BadPattern):
        matches(pattern, {"a": "x"})


# --- what is made -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("filter", "pattern"),
    [
        (exact(type="a.b"), {"detail-type": ["a.b"]}),
        (exact(type=["a", "b"], source="/s"), {"detail-type": ["a", "b"], "source": ["/s"]}),
        (prefix(type="com."), {"detail-type": [{"prefix": "com."}]}),
        (suffix(source="/eu"), {"source": [{"suffix": "/eu"}]}),
        (not_(exact(type="a")), {"detail-type": [{"anything-but": "a"}]}),
        (not_(exact(type=["a", "b"])), {"detail-type": [{"anything-but": ["a", "b"]}]}),
        (not_(prefix(source="/s")), {"source": [{"anything-but": {"prefix": "/s"}}]}),
        (exact(subject="o-1"), {"detail": {"specversion": ["1.0"], "subject": ["o-1"]}}),
        (exact(flag="true"), {"detail": {"specversion": ["1.0"], "flag": ["true", True]}}),
        (exact(count="7"), {"detail": {"specversion": ["1.0"], "count": ["7", 7]}}),
        (exact(count="007"), {"detail": {"specversion": ["1.0"], "count": ["007"]}}),
        (prefix(tenant="gold"), {"detail": {"specversion": ["1.0"], "tenant": [{"prefix": "gold"}]}}),
        (
            any_(exact(type="a"), exact(tenant="gold")),
            {"$or": [{"detail-type": ["a"]}, {"detail": {"specversion": ["1.0"], "tenant": ["gold"]}}]},
        ),
        (
            all_(exact(source="/s"), any_(exact(type="a"), exact(tenant="gold"))),
            {
                "source": ["/s"],
                "$or": [{"detail-type": ["a"]}, {"detail": {"specversion": ["1.0"], "tenant": ["gold"]}}],
            },
        ),
        (
            not_(any_(exact(type="a"), exact(source="/s"))),
            {"detail-type": [{"anything-but": "a"}], "source": [{"anything-but": "/s"}]},
        ),
    ],
    ids=str,
)  # fmt: skip
def test_what_eventbridge_can_evaluate_exactly(filter: Filter, pattern: dict[str, Any]) -> None:
    compiled = compile_filter(filter)
    assert compiled.native == pattern
    assert compiled.residual is None
    assert json.loads(compiled.text) == pattern


@pytest.mark.parametrize(
    ("filter", "pattern"),
    [
        (not_(exact(tenant="gold")), None),
        (exact(id="e-1"), None),
        (prefix(count="7"), None),
        (suffix(tenant="ue"), None),
        (exact(awsregion="eu-west-1"), None),
        (any_(exact(type="a"), not_(exact(tenant="gold"))), None),
        (all_(exact(type="a"), not_(exact(tenant="gold"))), {"detail-type": ["a"]}),
        (all_(prefix(type="com."), suffix(type=".placed")), {"detail-type": [{"prefix": "com."}]}),
        (all_(prefix(type="com."), exact(type="com.a")), {"detail-type": ["com.a"]}),
        (
            all_(exact(type="a"), any_(exact(type="a"), exact(tenant="gold"))),
            {"detail-type": ["a"]},
        ),
    ],
    ids=str,
)
def test_the_rest_is_evaluated_here(filter: Filter, pattern: dict[str, Any] | None) -> None:
    compiled = compile_filter(filter)
    assert compiled.native == pattern
    assert compiled.residual == filter


def test_a_pattern_that_is_too_long_becomes_wider() -> None:
    many = exact(type=[f"com.acme.orders.event-number-{n}" for n in range(200)], tenant="gold")
    compiled = compile_filter(many)
    assert len(compiled.text) <= 2048
    assert compiled.native == {
        "detail-type": [{"prefix": "com.acme.orders.event-number-"}],
        "detail": {"specversion": ["1.0"], "tenant": ["gold"]},
    }
    assert compiled.residual == many
    apart = exact(type=[f"{n}-event-that-begins-otherwise" for n in range(10, 99)], tenant="gold")
    assert compile_filter(apart).native == {"detail": {"specversion": ["1.0"], "tenant": ["gold"]}}
    alone = exact(type=[f"{n}-event-that-begins-otherwise" for n in range(10, 99)])
    assert compile_filter(alone).native is None
    assert compile_filter(alone).text == ""


# --- any filter, any event ----------------------------------------------------------------------------------------

TEXTS = [
    "a",
    "A",
    "ab",
    "b",
    "true",
    "false",
    "rue",
    "7",
    "70",
    "-7",
    "007",
    "-0",
    "0",
    "1.0",
    "ünï",
    'a"b\\c*?',
    "{",
    " ",
]
texts = st.sampled_from(TEXTS)
names = st.sampled_from(["type", "source", "subject", "id", "tenant", "flag", "awsregion", "datacontenttype"])
comparisons = st.builds(
    lambda make, pairs: make(pairs),
    st.sampled_from([exact, prefix, suffix]),
    st.dictionaries(names, texts, min_size=1, max_size=2),
)
some_filter: st.SearchStrategy[Filter] = st.recursive(
    comparisons,
    lambda inner: st.lists(inner, min_size=1, max_size=3).flatmap(
        lambda some: st.sampled_from([all_(*some), any_(*some), not_(some[0])])
    ),
    max_leaves=8,
)
own_events = st.builds(
    Event,
    type=texts,
    source=texts,
    id=texts,
    subject=st.none() | texts,
    extensions=st.dictionaries(
        st.sampled_from(["tenant", "flag", "awsregion"]),
        texts | st.booleans() | st.sampled_from([7, 70, -7, 0]),
        max_size=3,
    ),
)
foreign_details = st.dictionaries(
    st.sampled_from(["tenant", "subject", "flag", "type", "id"]),
    texts | st.booleans() | st.none() | st.lists(texts, max_size=2),
    max_size=3,
)
envelopes = st.one_of(
    own_events.map(envelope),
    st.builds(
        lambda detail, type, source: envelope(detail, **{"detail-type": type, "source": source}),
        foreign_details,
        texts,
        texts,
    ),
)  # fmt: skip


@given(some_filter, envelopes)
def test_no_event_is_lost_and_none_too_many_comes_where_the_pattern_is_exact(
    filter: Filter, arrives: dict[str, Any]
) -> None:
    compiled = compile_filter(filter)
    read = decode(json.dumps(arrives, separators=(",", ":")).encode())
    wanted = filter.matches(read)
    passes = True if compiled.native is None else matches(compiled.text, arrives)
    assert passes or not wanted, f"{filter} matches, and {compiled.text} does not"
    if compiled.residual is None:
        assert passes == wanted, f"{filter} is said to be exact as {compiled.text}"
    else:
        assert compiled.residual == filter


@given(st.lists(st.text("abc-.", min_size=1, max_size=60), min_size=1, max_size=120, unique=True), own_events)
def test_long_filters_stay_within_the_limit(values: list[str], one: Event) -> None:
    filter = all_(
        exact(type=values), exact(tenant=values), any_(*(prefix(subject=value) for value in values))
    )
    compiled = compile_filter(filter)
    assert len(compiled.text) <= 2048
    for wanted in (one.replace(type=values[0], subject=values[-1], extensions={"tenant": values[0]}), one):
        if compiled.native is not None and filter.matches(wanted):
            assert matches(compiled.text, envelope(wanted))


# --- the pattern of a rule ----------------------------------------------------------------------------------------


def subscription(**changes: Any) -> Subscription:
    return Subscription(**{"topic": Topic("orders"), "name": "billing", **changes})


def test_without_a_filter_a_rule_takes_every_event() -> None:
    pattern = pattern_of(subscription(), None)
    assert matches(pattern, envelope(event()))
    assert matches(pattern, envelope({"bucket": "b"}))


def test_topics_of_one_bus_are_told_apart() -> None:
    ours = envelope({**json.loads(encode_json(event(tenant="gold"))), "crossbustopic": "orders"})
    theirs = envelope({**json.loads(encode_json(event(tenant="gold"))), "crossbustopic": "returns"})
    for filter in (
        None,
        exact(tenant="gold"),
        exact(type="com.acme.order.placed"),
        any_(exact(tenant="gold"), exact(source="/x")),
    ):
        pattern = text_of(pattern_of(subscription(filter=filter), "orders"))
        assert matches(pattern, ours)
        assert not matches(pattern, theirs)  # fmt: skip


def test_a_native_filter_takes_the_place_of_the_compiled_one() -> None:
    native = {"detail": {"data": {"total": [{"numeric": [">", 100]}]}}}
    assert (
        pattern_of(subscription(filter=exact(type="a"), native_filter={"eventbridge": native}), None)
        == native
    )
    text = subscription(native_filter={"eventbridge": json.dumps(native)})
    assert pattern_of(text, "orders") == {"detail": {**native["detail"], "crossbustopic": ["orders"]}}


@pytest.mark.parametrize(
    ("native", "says"),
    [
        ("{", "is no JSON"),
        ([], "must be an event pattern"),
        ({}, "must be an event pattern"),
        ({"detail": {"x": ["y" * 2100]}}, "characters; EventBridge takes 2048"),
    ],
)
def test_a_native_filter_that_is_no_pattern_is_refused(native: Any, says: str) -> None:
    with pytest.raises(DeclarationError, match=f"orders/billing: native_filter.*{says}"):
        pattern_of(subscription(native_filter={"eventbridge": native}), None)


def test_a_filter_that_detail_data_cannot_answer_is_refused() -> None:
    topic = Topic("orders", options={"wire": "detail-data"})
    assert pattern_of(subscription(topic=topic, filter=exact(type="a")), None) == {"detail-type": ["a"]}
    with pytest.raises(DeclarationError, match="carries source and type but not 'tenant'"):
        pattern_of(subscription(topic=topic, filter=all_(exact(type="a"), exact(tenant="gold"))), None)
