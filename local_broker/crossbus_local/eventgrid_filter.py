"""Event Grid's own filters: what a subscription's `includedEventTypes` and `filters` mean.

>>> matches = compile_filter('{"filters":[{"key":"data.total","operatorType":"NumberGreaterThan","value":100}]}')
>>> matches({"type": "order.placed", "data": {"total": 250}})
True

All filters must match; of the values of one filter, one. Comparisons of text do not tell capitals. A key that the event
does not have, or has as null, matches nothing but `StringNotIn`, `NumberNotIn` and `IsNullOrUndefined`.

Source: https://learn.microsoft.com/azure/event-grid/namespace-event-filtering. Where it is silent:

- a value of another kind than the operator compares (a number under `StringIn`) is as none of the values;
- an array or an object is only ever not null;
- `includedEventTypes` do not tell capitals either;
- names of attributes in keys do not tell capitals, names inside the data do.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, TypeAlias

import msgspec

from crossbus.errors import DeclarationError, nearest

__all__ = ["MOST_FILTERS", "MOST_VALUES", "Predicate", "compile_filter", "decoded"]

MOST_FILTERS: Final = 25
MOST_VALUES: Final = 25
"""Of all filters of a subscription together."""
LONGEST_VALUE: Final = 512
"""In characters."""

Predicate: TypeAlias = Callable[[Mapping[str, Any]], bool]
"""A filter as a function of an event: of what its JSON decodes to."""

_Test: TypeAlias = Callable[[Any], bool]
_decode = msgspec.json.Decoder().decode
_ALIASES: Final = {"eventid": "id", "eventtype": "type"}


def decoded(body: bytes) -> Mapping[str, Any]:
    """Return an event as `compile_filter`'s functions take it; an empty one for what is no JSON object."""
    try:
        value = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


@lru_cache(maxsize=1024)
def compile_filter(text: str) -> Predicate:
    """Return a filter as a function, which is remembered.

    Args:
        text: JSON: an object with `includedEventTypes` and `filters`, as Azure's resource model writes them; either may
            be absent or null.

    Raises:
        DeclarationError: it is no such filter, or beyond Azure's 25 filters or 25 values. The message says where.
    """
    try:
        value = json.loads(text)
    except ValueError:
        raise DeclarationError("Event Grid filter: it is not JSON") from None
    if not isinstance(value, dict):
        raise DeclarationError("Event Grid filter: it must be a JSON object")
    for name in value:
        if name not in ("includedEventTypes", "filters"):
            raise _error("", f"unknown key {name!r}; {nearest(name, ('includedEventTypes', 'filters'))}")
    tests = [*_types(value.get("includedEventTypes")), *_filters(value.get("filters"))]
    return lambda event: all(test(event) for test in tests)


def _types(value: object) -> list[Predicate]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise _error("includedEventTypes", "it must be an array of texts")
    wanted = frozenset(map(_fold, value))
    if not wanted or "ALL" in wanted:
        return []
    return [lambda event: isinstance(found := event.get("type"), str) and _fold(found) in wanted]


def _filters(value: object) -> list[Predicate]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise _error("filters", "it must be an array of objects")
    if len(value) > MOST_FILTERS:
        raise _error("filters", f"it has {len(value)}; {MOST_FILTERS} is the most")
    made = [_filter(f"filters[{index}]", one) for index, one in enumerate(value)]
    count = sum(
        len(values) if isinstance(values := one.get("values"), list) else "value" in one for one in value
    )
    if count > MOST_VALUES:
        raise _error("filters", f"they have {count} values together; {MOST_VALUES} is the most")
    return made


def _filter(where: str, value: object) -> Predicate:
    if not isinstance(value, dict):
        raise _error(where, "it must be an object")
    operator = value.get("operatorType")
    if not isinstance(operator, str) or operator not in _OPERATORS:
        raise _error(where, f"unknown operatorType {operator!r}; {nearest(str(operator), _OPERATORS)}")
    parameter, check, make, of_missing = _OPERATORS[operator]
    for name in value:
        if name not in ("operatorType", "key", parameter):
            raise _error(
                where, f"{operator} has no {name!r}" + (f"; it takes {parameter!r}" if parameter else "")
            )
    if parameter:
        check(f"{where}.{parameter}", value.get(parameter))
    read, test = _reader(f"{where}.key", value.get("key")), make(value.get(parameter))

    def matches(event: Mapping[str, Any]) -> bool:
        found = read(event)
        return of_missing if found is None else test(found)

    return matches


def _reader(where: str, key: object) -> Callable[[Mapping[str, Any]], Any]:
    """Make the function that finds a key's value in an event; None if it is not there."""
    if not isinstance(key, str) or not key:
        raise _error(where, "it must be text, such as source, data.total or an extension's name")
    first, *inner = key.split(".")
    first = first.lower()
    if inner and (first != "data" or not all(inner)):
        raise _error(where, f"{key!r} names nothing: only data has parts, as in data.order.total")
    first = _ALIASES.get(first, first)

    def read(event: Mapping[str, Any]) -> Any:
        found = event.get(first)
        for name in inner:
            if not isinstance(found, dict):
                return None
            found = found.get(name)
        return found

    return read


def _error(where: str, problem: str) -> DeclarationError:
    return DeclarationError(f"Event Grid filter: {where}{': ' if where else ''}{problem}")


# --- text -------------------------------------------------------------------------------------------------------


def _fold(text: str) -> str:
    """Take capitals out of a comparison, character by character as .NET does: ß is not ss."""
    if text.isascii():
        return text.upper()
    return "".join(upper if len(upper := one.upper()) == 1 else one for one in text)


def _texts(compare: Callable[[str, str], bool]) -> Callable[[Any], _Test]:
    def make(values: Sequence[str]) -> _Test:
        wanted = [_fold(value) for value in values]

        def test(found: Any) -> bool:
            if not isinstance(found, str):
                return False
            folded = _fold(found)
            return any(compare(folded, value) for value in wanted)

        return test

    return make


def _no_texts(compare: Callable[[str, str], bool]) -> Callable[[Any], _Test]:
    def make(values: Sequence[str]) -> _Test:
        test = _texts(compare)(values)
        return lambda found: isinstance(found, str) and not test(found)

    return make


def _text_in(values: Sequence[str]) -> _Test:
    wanted = frozenset(map(_fold, values))
    return lambda found: isinstance(found, str) and _fold(found) in wanted


def _contains(text: str, part: str) -> bool:
    return part in text


# --- numbers ----------------------------------------------------------------------------------------------------


def _is_number(found: Any) -> bool:
    return isinstance(found, (int, float)) and not isinstance(found, bool)


def _number(compare: Callable[[float, float], bool]) -> Callable[[Any], _Test]:
    return lambda value: lambda found: _is_number(found) and compare(found, value)


def _number_in(values: Sequence[float]) -> _Test:
    wanted = frozenset(values)
    return lambda found: _is_number(found) and found in wanted


def _in_range(values: Sequence[Sequence[float]]) -> _Test:
    return lambda found: _is_number(found) and any(low <= found <= high for low, high in values)


def _not_in_range(values: Sequence[Sequence[float]]) -> _Test:
    inside = _in_range(values)
    return lambda found: _is_number(found) and not inside(found)


def _none_of(make: Callable[[Any], _Test]) -> Callable[[Any], _Test]:
    """Make the opposite: a value of another kind is none of them, an array or object is never compared."""

    def opposite(values: Any) -> _Test:
        test = make(values)
        return lambda found: not isinstance(found, (list, dict)) and not test(found)

    return opposite


# --- what the parameters must be ----------------------------------------------------------------------------------


def _is_values(is_one: _Test, what: str) -> Callable[[str, Any], None]:
    def check(where: str, value: Any) -> None:
        if not isinstance(value, list) or not value or not all(map(is_one, value)):
            raise _error(where, f"it must be an array of {what}, not empty")

    return check


def _is_value(is_one: _Test, what: str) -> Callable[[str, Any], None]:
    def check(where: str, value: Any) -> None:
        if not is_one(value):
            raise _error(where, f"it must be {what}")

    return check


_TEXTS: Final = _is_values(
    lambda one: isinstance(one, str) and len(one) <= LONGEST_VALUE,
    f"texts of at most {LONGEST_VALUE} characters",
)
_NUMBERS: Final = _is_values(_is_number, "numbers")
_RANGES: Final = _is_values(
    lambda one: isinstance(one, list) and len(one) == 2 and all(map(_is_number, one)) and one[0] <= one[1],
    "pairs of numbers, the lesser first",
)
_NUMBER: Final = _is_value(_is_number, "a number")
_BOOLEAN: Final = _is_value(lambda one: isinstance(one, bool), "true or false")

_Operator: TypeAlias = tuple[str, Callable[[str, Any], None], Callable[[Any], _Test], bool]
_OPERATORS: Final[Mapping[str, _Operator]] = {
    # operatorType: (its parameter, what that must be, what it makes, whether it matches where the key is missing)
    "StringIn": ("values", _TEXTS, _text_in, False),
    "StringNotIn": ("values", _TEXTS, _none_of(_text_in), True),
    "StringBeginsWith": ("values", _TEXTS, _texts(str.startswith), False),
    "StringNotBeginsWith": ("values", _TEXTS, _no_texts(str.startswith), False),
    "StringEndsWith": ("values", _TEXTS, _texts(str.endswith), False),
    "StringNotEndsWith": ("values", _TEXTS, _no_texts(str.endswith), False),
    "StringContains": ("values", _TEXTS, _texts(_contains), False),
    "StringNotContains": ("values", _TEXTS, _no_texts(_contains), False),
    "NumberIn": ("values", _NUMBERS, _number_in, False),
    "NumberNotIn": ("values", _NUMBERS, _none_of(_number_in), True),
    "NumberLessThan": ("value", _NUMBER, _number(lambda a, b: a < b), False),
    "NumberLessThanOrEquals": ("value", _NUMBER, _number(lambda a, b: a <= b), False),
    "NumberGreaterThan": ("value", _NUMBER, _number(lambda a, b: a > b), False),
    "NumberGreaterThanOrEquals": ("value", _NUMBER, _number(lambda a, b: a >= b), False),
    "NumberInRange": ("values", _RANGES, _in_range, False),
    "NumberNotInRange": ("values", _RANGES, _not_in_range, False),
    "BoolEquals": ("value", _BOOLEAN, lambda value: lambda found: found is value, False),
    "IsNullOrUndefined": ("", _BOOLEAN, lambda value: lambda found: False, True),
    "IsNotNull": ("", _BOOLEAN, lambda value: lambda found: True, False),
}
