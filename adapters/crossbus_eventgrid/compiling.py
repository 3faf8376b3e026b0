"""A filter, brought into the form that a namespace's event subscription has: never narrower than the filter.

Event Grid joins `includedEventTypes` and all of `filters` with *and*; each filter compares one key with several values,
joined with *or*. It ignores case, so that nothing is exact: the portable layer evaluates the whole filter again.

What has no such form is left out of an *and*, which only lets more through:

- a `not`: Event Grid would also refuse what differs in case alone;
- an `any` over several attributes;
- a value that an Integer or a Boolean of CloudEvents might equal: whether Event Grid compares those with text, its
  documentation says in two ways;
- keys for which it documents none (`id`, `time`, `datacontenttype`, `dataschema`), extensions named like its own keys;
- what exceeds its limits: 25 filters, 25 values altogether, 512 characters in one.

Source: https://learn.microsoft.com/azure/event-grid/namespace-event-filtering, "Limitations" and "CloudEvents".
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import msgspec

from crossbus.filter_tree import All, Comparison, Exact, Filter, Prefix
from crossbus.filter_tree import Any as AnyOf

__all__ = ["MAX_FILTERS", "MAX_VALUES", "MAX_VALUE_LENGTH", "compile_filter", "native_text"]

MAX_FILTERS: Final = 25
MAX_VALUES: Final = 25
"""Values of all filters of one subscription, together."""
MAX_VALUE_LENGTH: Final = 512
"""Characters of one value."""
OWN_FILTERS: Final = 1
"""Filters, of one value each, that provisioning adds as its mark; see `crossbus_eventgrid.settings.Owned`."""

_IN, _BEGINS, _ENDS, _CONTAINS = "StringIn", "StringBeginsWith", "StringEndsWith", "StringContains"
_TYPE: Final = "eventtype"

_KEYS: Final = {"type": _TYPE, "source": "source", "subject": "subject"}
_NO_KEYS: Final = frozenset({"id", "time", "datacontenttype", "dataschema", "specversion"})
_TAKEN: Final = frozenset({"eventid", "eventtype", "eventtypeversion", "topic", "dataversion", "eventtime"})
"""Event Grid's own keys: an extension called so could not be told from what they mean."""

_MAYBE_NUMBER: Final = re.compile(r"-?[0-9]*\Z")


class _Condition(NamedTuple):
    """One filter of Event Grid's: the key's value must stand in this relation to one of the values."""

    operator: str
    key: str
    values: tuple[str, ...]


def compile_filter(filter: Filter) -> dict[str, Any] | None:
    """Return ``{"includedEventTypes": [...], "filters": [...]}``, either where it is needed; None for everything."""
    conditions = _within_limits(_conditions(filter))
    if not conditions:
        return None
    native: dict[str, Any] = {}
    types = next((one for one in conditions if one.operator == _IN and one.key == _TYPE), None)
    if types is not None:
        conditions.remove(types)
        native["includedEventTypes"] = list(types.values)
    if conditions:
        native["filters"] = [
            {"operatorType": one.operator, "key": one.key, "values": list(one.values)} for one in conditions
        ]
    return native


def native_text(native: dict[str, Any] | None) -> str:
    """Return a native filter as JSON, the same text for the same filter; empty for none."""
    return "" if native is None else msgspec.json.encode(native, order="sorted").decode()


def _conditions(filter: Filter) -> list[_Condition]:
    """Return conditions, each of which every event meets that the filter matches."""
    if isinstance(filter, Comparison):
        return [one for name, value in filter.pairs if (one := _compared(filter, name, value)) is not None]
    if isinstance(filter, All):
        return _unique(one for child in filter.filters for one in _conditions(child))
    if isinstance(filter, AnyOf):
        return _joined([_conditions(child) for child in filter.filters])
    return []


def _compared(filter: Comparison, name: str, value: str) -> _Condition | None:
    key = _KEYS.get(name, name)
    if name in _NO_KEYS or name in _TAKEN or len(value) > MAX_VALUE_LENGTH:
        return None
    if isinstance(filter, Exact):
        operator, unsure = _IN, _MAYBE_NUMBER.match(value) or value in ("true", "false")
    elif isinstance(filter, Prefix):
        operator, unsure = (
            _BEGINS,
            _MAYBE_NUMBER.match(value) or "true".startswith(value) or "false".startswith(value),
        )
    else:
        operator, unsure = (
            _ENDS,
            _MAYBE_NUMBER.match(value) or "true".endswith(value) or "false".endswith(value),
        )
    return None if unsure and name not in _KEYS else _Condition(operator, key, (value,))


def _joined(children: list[list[_Condition]]) -> list[_Condition]:
    """Return what holds if any child's conditions hold: for each key that all of them speak of, one condition."""
    found = []
    for key in dict.fromkeys(one.key for one in children[0]):
        parts = [next((one for one in child if one.key == key), None) for child in children]
        known = [one for one in parts if one is not None]
        if len(known) == len(children):
            values = dict.fromkeys(value for one in known for value in one.values)
            found.append(_Condition(_widest({one.operator for one in known}), key, tuple(values)))
    return found


def _widest(operators: set[str]) -> str:
    """Return the operator that lets through what any of these does: who is equal begins so, and who begins contains."""
    if len(operators) == 1:
        return operators.pop()
    return next((one for one in (_BEGINS, _ENDS) if operators == {_IN, one}), _CONTAINS)


def _unique(conditions: Iterable[_Condition]) -> list[_Condition]:
    return list(dict.fromkeys(conditions))


def _within_limits(conditions: list[_Condition]) -> list[_Condition]:
    """Leave out what is too much, those with the most values first: each narrows the least."""
    kept = sorted(_unique(conditions), key=lambda one: len(one.values))
    most_filters, most_values = MAX_FILTERS - OWN_FILTERS, MAX_VALUES - OWN_FILTERS
    while len(kept) > most_filters or sum(len(one.values) for one in kept) > most_values:
        kept.pop()
    return sorted(kept)
