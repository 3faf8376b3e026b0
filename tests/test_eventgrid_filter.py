"""Event Grid's own filters: each operator as Azure documents it, and what the engine makes of them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossbus.adapter import ReplayFrom
from crossbus.errors import DeclarationError
from crossbus.filters import exact
from crossbus.testing import Clock
from crossbus_local.engine import Engine
from crossbus_local.eventgrid_filter import MOST_FILTERS, MOST_VALUES, compile_filter, decoded
from crossbus_local.queue import QueueSettings
from crossbus_local.records import NO_ATTRIBUTES, LocalWire
from crossbus_local.settings_json import canonical, settings_from_json, settings_to_json

EVENT: dict[str, Any] = {
    "specversion": "1.0",
    "id": "e-1",
    "source": "/Shop/Berlin",
    "type": "com.acme.Order.Placed",
    "tenant": "T-1",
    "gone": None,
    "count": 7,
    "data": {
        "total": 12.5,
        "ok": True,
        "tags": ["a"],
        "lines": {"First": {"sku": "ABC"}},
        "big": 2**60,
        "none": None,
    },
}
ORDERED = ("LessThan", "LessThanOrEquals", "GreaterThan", "GreaterThanOrEquals")


def condition(operator: str, key: str, parameter: Any = None) -> dict[str, Any]:
    name = "value" if operator == "BoolEquals" or operator.removeprefix("Number") in ORDERED else "values"
    return {"operatorType": operator, "key": key} | ({} if parameter is None else {name: parameter})


def matches(operator: str, key: str, parameter: Any = None, event: Any = EVENT) -> bool:
    return compile_filter(canonical({"filters": [condition(operator, key, parameter)]}))(event)


@pytest.mark.parametrize(
    ("operator", "key", "parameter", "expected"),
    [
        ("StringIn", "source", ["/x", "/shop/BERLIN"], True),
        ("StringIn", "source", ["/shop"], False),
        ("StringNotIn", "source", ["/shop/berlin", "/x"], False),
        ("StringNotIn", "source", ["/x", "/y"], True),
        ("StringBeginsWith", "type", ["org.", "COM.acme"], True),
        ("StringBeginsWith", "type", ["acme"], False),
        ("StringNotBeginsWith", "type", ["com", "org"], False),
        ("StringNotBeginsWith", "type", ["org", "net"], True),
        ("StringEndsWith", "type", ["PLACED"], True),
        ("StringEndsWith", "type", ["order"], False),
        ("StringNotEndsWith", "type", ["x", "placed"], False),
        ("StringNotEndsWith", "type", ["x"], True),
        ("StringContains", "tenant", ["t-"], True),
        ("StringContains", "tenant", ["x", "y"], False),
        ("StringNotContains", "tenant", ["t-"], False),
        ("StringNotContains", "tenant", ["x", "y"], True),
        ("StringIn", "data.lines.First.sku", ["abc"], True),
        ("StringIn", "data.lines.first.sku", ["abc"], False),
        ("StringIn", "eventType", ["com.acme.order.placed"], True),
        ("StringIn", "eventId", ["E-1"], True),
        ("StringIn", "Data.lines.First.sku", ["abc"], True),
        ("NumberIn", "data.total", [1, 12.5], True),
        ("NumberIn", "data.total", [12], False),
        ("NumberIn", "data.big", [2**60], True),
        ("NumberIn", "data.big", [2**60 + 1], False),
        ("NumberNotIn", "data.total", [12.5], False),
        ("NumberNotIn", "data.total", [1, 2], True),
        ("NumberLessThan", "count", 8, True),
        ("NumberLessThan", "count", 7, False),
        ("NumberLessThanOrEquals", "count", 7, True),
        ("NumberLessThanOrEquals", "count", 6.5, False),
        ("NumberGreaterThan", "count", 6, True),
        ("NumberGreaterThan", "count", 7, False),
        ("NumberGreaterThanOrEquals", "count", 7, True),
        ("NumberGreaterThanOrEquals", "count", 7.5, False),
        ("NumberInRange", "count", [[1, 2], [7, 9]], True),
        ("NumberInRange", "count", [[1, 6.9]], False),
        ("NumberNotInRange", "count", [[1, 2], [7, 9]], False),
        ("NumberNotInRange", "count", [[8, 9]], True),
        ("BoolEquals", "data.ok", True, True),
        ("BoolEquals", "data.ok", False, False),
        ("IsNullOrUndefined", "subject", None, True),
        ("IsNullOrUndefined", "gone", None, True),
        ("IsNullOrUndefined", "data.none", None, True),
        ("IsNullOrUndefined", "source", None, False),
        ("IsNotNull", "source", None, True),
        ("IsNotNull", "data.tags", None, True),
        ("IsNotNull", "gone", None, False),
        ("IsNotNull", "data.lines.Second.sku", None, False),
    ],
)
def test_each_operator(operator: str, key: str, parameter: Any, expected: bool) -> None:
    assert matches(operator, key, parameter) is expected


PARAMETERS: dict[str, Any] = {
    **{f"String{name}": ["x"] for name in ("In", "BeginsWith", "EndsWith", "Contains")},
    **{f"StringNot{name}": ["x"] for name in ("In", "BeginsWith", "EndsWith", "Contains")},
    **{f"Number{name}": 1 for name in ORDERED},
    "NumberIn": [1],
    "NumberNotIn": [1],
    "NumberInRange": [[0, 2]],
    "NumberNotInRange": [[0, 2]],
    "BoolEquals": True,
    "IsNullOrUndefined": None,
    "IsNotNull": None,
}


@pytest.mark.parametrize("operator", PARAMETERS)
@pytest.mark.parametrize("key", ["subject", "gone", "data.x", "data.total.x", "data.none"])
def test_a_missing_key_matches_only_what_azure_says(operator: str, key: str) -> None:
    expected = operator in ("StringNotIn", "NumberNotIn", "IsNullOrUndefined")
    assert matches(operator, key, PARAMETERS[operator]) is expected


@pytest.mark.parametrize("operator", [name for name in PARAMETERS if not name.startswith("Is")])
def test_an_array_or_object_is_never_compared(operator: str) -> None:
    assert not matches(operator, "data.tags", PARAMETERS[operator])
    assert not matches(operator, "data.lines", PARAMETERS[operator])


def test_a_value_of_another_kind_is_none_of_the_values() -> None:
    assert not matches("StringIn", "count", ["7"])
    assert matches("StringNotIn", "count", ["7"])
    assert not matches("NumberIn", "data.ok", [1])
    assert not matches("NumberGreaterThan", "source", 0)
    assert not matches("BoolEquals", "count", True)


def test_types_and_filters_must_all_match() -> None:
    def both(types: Any, *filters: dict[str, Any]) -> bool:
        return compile_filter(canonical({"includedEventTypes": types, "filters": list(filters)}))(EVENT)

    right, wrong = condition("NumberIn", "count", [7]), condition("NumberIn", "count", [8])
    assert both(["com.acme.order.placed"], right, right)
    assert not both(["com.acme.order.placed"], right, wrong)
    assert not both(["com.acme.order"], right)
    assert both(["All"], right)
    assert both([], right)
    assert both(None)


words = st.text(max_size=6)


@given(
    words,
    st.lists(words, min_size=1, max_size=4),
    st.sampled_from(["In", "BeginsWith", "EndsWith", "Contains"]),
)
def test_a_not_form_is_the_opposite_for_text(found: str, values: list[str], name: str) -> None:
    event = {"subject": found}
    assert matches(f"String{name}", "subject", values, event) is not matches(
        f"StringNot{name}", "subject", values, event
    )


@given(
    words,
    st.lists(words, min_size=1, max_size=4),
    st.sampled_from(["In", "BeginsWith", "EndsWith", "Contains"]),
)
def test_native_filters_are_a_superset_of_case_sensitive_ones(
    found: str, values: list[str], name: str
) -> None:
    compare = {
        "In": str.__eq__,
        "BeginsWith": str.startswith,
        "EndsWith": str.endswith,
        "Contains": str.__contains__,
    }[name]
    if any(compare(found, value) for value in values):
        assert matches(f"String{name}", "subject", values, {"subject": found})


@given(st.text("abcXYZß€é-", max_size=5))
def test_capitals_do_not_count(text: str) -> None:
    swapped = "".join(other if len(other := one.swapcase()) == 1 else one for one in text)
    for name in ("In", "BeginsWith", "EndsWith", "Contains"):
        assert matches(f"String{name}", "subject", [text], {"subject": swapped})


@given(
    st.floats(allow_nan=False) | st.integers(),
    st.floats(allow_nan=False, allow_infinity=False) | st.integers(),
)
def test_numbers_compare_as_numbers(found: float, value: float) -> None:
    event = {"count": found}
    assert matches("NumberLessThan", "count", value, event) is (found < value)
    assert matches("NumberGreaterThanOrEquals", "count", value, event) is (found >= value)
    assert matches("NumberIn", "count", [value], event) is (found == value)
    assert matches("NumberInRange", "count", [[value, value]], event) is (found == value)


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)


@given(st.sampled_from(sorted(PARAMETERS)), json_values)
def test_whatever_a_value_is_there_is_an_answer(operator: str, value: Any) -> None:
    assert matches(operator, "data", PARAMETERS[operator], {"data": value}) in (True, False)


# --- mistakes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ([], "must be a JSON object"),
        ({"filter": []}, "'filters'"),
        ({"includedEventTypes": "a"}, "includedEventTypes: it must be an array of texts"),
        ({"filters": {}}, "filters: it must be an array"),
        ({"filters": [3]}, "filters[0]: it must be an object"),
        ({"filters": [condition("StringsIn", "a", ["b"])]}, "did you mean 'StringIn'?"),
        ({"filters": [{"key": "a"}]}, "filters[0]: unknown operatorType None"),
        ({"filters": [condition("StringIn", "a", [])]}, "filters[0].values: it must be an array of texts"),
        ({"filters": [condition("StringIn", "a", [1])]}, "filters[0].values"),
        ({"filters": [condition("StringIn", "a", ["x" * 513])]}, "at most 512"),
        ({"filters": [{"operatorType": "StringIn", "key": "a", "value": "b"}]}, "it takes 'values'"),
        ({"filters": [{"operatorType": "IsNotNull", "key": "a", "values": []}]}, "IsNotNull has no 'values'"),
        ({"filters": [condition("StringIn", "", ["b"])]}, "filters[0].key: it must be text"),
        ({"filters": [condition("StringIn", "a.b", ["b"])]}, "only data has parts"),
        ({"filters": [condition("StringIn", "data..b", ["b"])]}, "only data has parts"),
        ({"filters": [condition("NumberIn", "a", [True])]}, "array of numbers"),
        ({"filters": [condition("NumberInRange", "a", [[2, 1]])]}, "pairs of numbers"),
        ({"filters": [condition("NumberLessThan", "a", "1")]}, "filters[0].value: it must be a number"),
        ({"filters": [condition("BoolEquals", "a", 1)]}, "true or false"),
        ({"filters": [condition("IsNotNull", "a")] * (MOST_FILTERS + 1)}, "26; 25 is the most"),
        ({"filters": [condition("StringIn", "a", ["b"] * 13)] * 2}, "26 values together; 25 is the most"),
        (
            {"filters": [condition("NumberLessThan", "a", 1), condition("NumberIn", "a", [1] * 25)]},
            "26 values",
        ),
    ],
)
def test_a_mistake_is_one_line_that_says_where(value: Any, says: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        compile_filter(json.dumps(value))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_azures_bounds_themselves_are_allowed() -> None:
    compile_filter(canonical({"filters": [condition("IsNotNull", "a")] * MOST_FILTERS}))
    compile_filter(canonical({"filters": [condition("StringIn", "a", ["x" * 512] * MOST_VALUES)]}))


# --- in the engine --------------------------------------------------------------------------------------------------


def wire(**changes: Any) -> LocalWire:
    body = json.dumps(EVENT | changes).encode()
    return LocalWire(body, NO_ATTRIBUTES, len(body), None)


def received(engine: Engine, name: str) -> list[str]:
    return [decoded(one.body)["id"] for one in engine.receive(engine.find("orders", name), 100, 60.0)[0]]


def test_the_engine_delivers_what_both_filters_match() -> None:
    engine = Engine(Clock())
    engine.create_topic("orders")
    native = canonical({"filters": [condition("NumberGreaterThan", "data.total", 10)]})
    engine.put_subscription("orders", "all", QueueSettings())
    engine.put_subscription("orders", "native", QueueSettings(eventgrid_filter=native))
    engine.put_subscription(
        "orders", "both", QueueSettings(filter=exact(tenant="T-1"), eventgrid_filter=native)
    )
    first = engine.publish(
        "orders", [wire(id="1"), wire(id="2", data={"total": 5}), wire(id="3", tenant="t-1")]
    )
    assert received(engine, "all") == ["1", "2", "3"]
    assert received(engine, "native") == ["1", "3"]
    assert received(engine, "both") == ["1"]
    assert engine.replay("orders", "both", ReplayFrom(position=str(first))) == 1
    engine.put_subscription("orders", "native", QueueSettings())
    engine.publish("orders", [wire(id="4", data={"total": 5})])
    assert received(engine, "native") == ["4"]


def test_an_event_that_no_native_filter_matches_is_dropped_and_counted() -> None:
    engine = Engine(Clock())
    engine.create_topic("orders")
    native = canonical({"includedEventTypes": ["other"]})
    engine.put_subscription("orders", "native", QueueSettings(eventgrid_filter=native))
    body = b"no JSON at all"
    engine.publish("orders", [wire(), LocalWire(body, NO_ATTRIBUTES, len(body), None)])
    assert engine.topics()["orders"].dropped == 2


def test_a_filter_that_is_none_changes_nothing() -> None:
    engine = Engine(Clock())
    engine.create_topic("orders")
    with pytest.raises(DeclarationError, match="unknown key 'x'"):
        engine.put_subscription("orders", "native", QueueSettings(eventgrid_filter='{"x":1}'))
    assert engine.topics()["orders"].queues == {}


def test_it_is_sent_and_stored_with_the_settings() -> None:
    settings = QueueSettings(eventgrid_filter=canonical({"includedEventTypes": ["a"]}), lease=120.0)
    assert settings_from_json(settings_to_json(settings)) == settings
