"""Event Grid's filters, evaluated as its documentation says: written for the tests, from the documentation alone.

https://learn.microsoft.com/azure/event-grid/namespace-event-filtering: strings are compared without regard to case, the
values of one filter are joined with or, filters with and, a missing key fails but for the `NotIn` operators, and values
of another type than the filter's are ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

_MISSING = object()


def _fold(text: str) -> str:
    """Fold case letter by letter, as .NET's ordinal comparison does; a whole text folds otherwise in places (ΑΣ)."""
    return "".join(up if len(up := letter.upper()) == 1 else letter for letter in text)


_KEYS = {"eventid": "id", "eventtype": "type", "eventtypeversion": "dataschema"}

_STRINGS: dict[str, Callable[[str, str], bool]] = {
    "StringIn": lambda has, value: has == value,
    "StringBeginsWith": lambda has, value: has.startswith(value),
    "StringEndsWith": lambda has, value: has.endswith(value),
    "StringContains": lambda has, value: value in has,
}


def check(native: Mapping[str, Any]) -> None:
    """Refuse what Event Grid would refuse."""
    assert set(native) <= {"includedEventTypes", "filters"}, native
    filters = native.get("filters", [])
    types = native.get("includedEventTypes", [])
    assert len(filters) <= 25, f"{len(filters)} filters"
    assert sum(len(one["values"]) for one in filters) + len(types) <= 25, "too many values"
    for one in filters:
        assert set(one) == {"operatorType", "key", "values"}, one
        assert one["operatorType"] in {*_STRINGS, "StringNotIn"}, one
        assert one["key"], one
        assert "." not in one["key"], one
        assert one["values"], one
        assert all(0 < len(value) <= 512 for value in one["values"]), one
    assert all(isinstance(one, str) and 0 < len(one) <= 512 for one in types), types


def matches(native: Mapping[str, Any] | None, event: Mapping[str, Any]) -> bool:
    """True if an event, as its JSON object, passes a native filter."""
    native = native or {}
    types = native.get("includedEventTypes")
    if types and _fold(event["type"]) not in {_fold(one) for one in types}:
        return False
    return all(_one(one, event) for one in native.get("filters", []))


def _one(one: Mapping[str, Any], event: Mapping[str, Any]) -> bool:
    key = one["key"].lower()
    has = event.get(_KEYS.get(key, key), _MISSING)
    if one["operatorType"] == "StringNotIn":
        return not isinstance(has, str) or _fold(has) not in {_fold(value) for value in one["values"]}
    if not isinstance(has, str):
        return False
    test = _STRINGS[one["operatorType"]]
    return any(test(_fold(has), _fold(value)) for value in one["values"])
