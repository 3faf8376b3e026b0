"""Filters as event patterns of EventBridge: never narrower than the filter, and exact where they can be.

`source` and `type` are matched on `source` and `detail-type`, which every event of a bus has; all else on `detail`, for
the whole event is there. A condition on `detail` comes with ``"specversion": ["1.0"]``, so that a field of that name in
a foreign event is not taken for an attribute.

What has no such form is left out of an *and*, which only lets more through, and is evaluated here:

- `not` of anything but `source` and `type`: a foreign event would have to pass, whatever its fields are called;
- two conditions on one attribute that both have to hold (a pattern joins the values of one field with *or*);
- a prefix or suffix that an Integer or Boolean might have, for a pattern compares text with text only;
- `id`, `time`, `datacontenttype` and what a native event is given when it is read;
- what makes the pattern longer than 2,048 characters.

Source: https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-create-pattern-operators.html
"""

from __future__ import annotations

import json
import os.path
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from crossbus.adapter import Compilation
from crossbus.errors import DeclarationError
from crossbus.filter_tree import All, Comparison, Exact, Filter, Group, Not, Prefix
from crossbus.topology import Subscription
from crossbus.wire import TOPIC
from crossbus_eventbridge.limits import MAX_PATTERN
from crossbus_eventbridge.options import wire_of

__all__ = [
    "EVERYTHING",
    "check_pattern",
    "compile_filter",
    "pattern_of",
    "raw_of",
    "raw_pattern_of",
    "text_of",
]

Pattern = dict[str, Any]

EVERYTHING: Final[Pattern] = {"source": [{"prefix": ""}]}
"""The pattern of a rule that takes every event of its bus."""

_ROOM: Final = MAX_PATTERN - 100
"""What a filter may take: its topic is added where the bus has several."""
_TOP: Final = {"source": "source", "type": "detail-type"}
_PLACES: Final = frozenset(_TOP.values())
_NOT_THERE: Final = frozenset(
    {"id", "time", "datacontenttype", "awsaccount", "awsregion", "awsresources", "specversion"}
)
_STANDARD: Final = frozenset({"subject", "dataschema"})
"""Attributes whose value is text always."""
_INTEGER: Final = re.compile(r"-?(0|[1-9][0-9]{0,18})\Z")
_MAYBE_NUMBER: Final = re.compile(r"-?[0-9]*\Z")


class _Leaf(NamedTuple):
    """One field must have one of these values."""

    field: str
    matchers: tuple[Any, ...]
    """As JSON writes them in a pattern, each as text: so they can be compared."""


class _All(NamedTuple):
    parts: tuple[Any, ...]


class _Any(NamedTuple):
    parts: tuple[Any, ...]


_Node = _Leaf | _All | _Any


# --- what the pattern says --------------------------------------------------------------------------------------


def compile_filter(filter: Filter) -> Compilation:
    """Divide a filter: a pattern that lets every matching event through, and what is left of the filter."""
    node, exact = _node(filter)
    pattern, whole = ({}, False) if node is None else _object(node)
    if not pattern:
        return Compilation(None, "", filter)
    text = text_of(pattern)
    if len(text) <= _ROOM:
        return Compilation(pattern, text, None if exact and whole else filter)
    shorter = _shortened(node)
    return (
        Compilation(None, "", filter) if shorter is None else Compilation(shorter, text_of(shorter), filter)
    )


def text_of(pattern: Pattern) -> str:
    """Write a pattern as short as it can be."""
    return json.dumps(pattern, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def _node(filter: Filter, negated: bool = False) -> tuple[_Node | None, bool]:
    """Return what a pattern can say of a filter, None for nothing; and whether that is all of it."""
    if isinstance(filter, Not):
        return _node(filter.filter, not negated)
    if isinstance(filter, Comparison):
        leaves = [_leaf(filter, name, value, negated) for name, value in filter.pairs]
        return _joined([(leaf, leaf is not None) for leaf in leaves], conjunction=not negated)
    assert isinstance(filter, Group)
    children = [_node(child, negated) for child in filter.filters]
    return _joined(children, conjunction=isinstance(filter, All) is not negated)


def _leaf(comparison: Comparison, name: str, value: str, negated: bool) -> _Leaf | None:
    if name in _TOP:
        operator = "" if isinstance(comparison, Exact) else comparison.dialect
        return _Leaf(_TOP[name], (_matcher(operator, value, negated),))
    if negated or name in _NOT_THERE:
        return None
    if isinstance(comparison, Exact):
        return _Leaf(name, (_quoted(value), *(() if name in _STANDARD else _as_scalar(value))))
    if name not in _STANDARD and _may_be_scalar(comparison, value):
        return None
    return _Leaf(name, (_matcher(comparison.dialect, value, False),))


def _matcher(operator: str, value: str | list[str], negated: bool) -> str:
    found: Any = {operator: value} if operator else value
    return json.dumps(
        {"anything-but": found} if negated else found, ensure_ascii=False, separators=(",", ":")
    )


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def _as_scalar(value: str) -> tuple[str, ...]:
    """Return the Boolean or Integer that is compared as this text, as JSON writes it."""
    return (value,) if value in ("true", "false") or (_INTEGER.match(value) and value != "-0") else ()


def _may_be_scalar(comparison: Comparison, value: str) -> bool:
    if _MAYBE_NUMBER.match(value):
        return True
    test = str.startswith if isinstance(comparison, Prefix) else str.endswith
    return test("true", value) or test("false", value)


def _joined(found: Sequence[tuple[_Node | None, bool]], *, conjunction: bool) -> tuple[_Node | None, bool]:
    nodes = [node for node, _ in found if node is not None]
    exact = all(whole for _, whole in found) and len(nodes) == len(found)
    if not nodes or (not conjunction and len(nodes) < len(found)):
        return None, False
    if conjunction:
        return _conjunction(nodes, exact)
    return _disjunction(nodes), exact


def _conjunction(nodes: Sequence[_Node], exact: bool) -> tuple[_Node, bool]:
    parts = [part for node in nodes for part in (node.parts if isinstance(node, _All) else (node,))]
    return (parts[0] if len(parts) == 1 else _All(tuple(parts))), exact


def _disjunction(nodes: Sequence[_Node]) -> _Node:
    """Join with *or*: the values of one field are one condition."""
    parts = [part for node in nodes for part in (node.parts if isinstance(node, _Any) else (node,))]
    values: dict[str, dict[Any, None]] = {}
    others: list[_Node] = []
    for part in parts:
        if isinstance(part, _Leaf):
            values.setdefault(part.field, {}).update(dict.fromkeys(part.matchers))
        elif part not in others:
            others.append(part)
    joined: list[_Node] = [_Leaf(field, tuple(matchers)) for field, matchers in values.items()]
    joined += others
    return joined[0] if len(joined) == 1 else _Any(tuple(joined))


# --- how it is written ------------------------------------------------------------------------------------------


def _object(node: _Node, *, outer: Mapping[str, Any] | None = None) -> tuple[Pattern, bool]:
    """Write a node as the object of a pattern, empty for everything; and whether that is all of it.

    `outer` are the fields around it, if it is one of the alternatives of an *or*.
    """
    parts = node.parts if isinstance(node, _All) else (node,)
    fields: dict[str, tuple[Any, ...]] = {}
    groups: list[_Any] = []
    exact = True
    for part in parts:
        if isinstance(part, _Leaf):
            if part.field in fields:
                exact = _narrow(fields, part) and exact
            else:
                fields[part.field] = part.matchers
        else:
            groups.append(part)
    pattern = _fields(fields, guarded=outer is not None and any(field not in _PLACES for field in outer))
    for group in groups:
        written = None if outer is not None or "$or" in pattern else _alternatives(group, fields)
        if written is None:
            exact = False
            continue
        pattern["$or"], whole = written
        exact = exact and whole
    return pattern, exact


def _narrow(fields: dict[str, tuple[Any, ...]], leaf: _Leaf) -> bool:
    """A second condition on one field: both hold for the values that both have, if they are plain; True if exact."""
    before = fields[leaf.field]
    if (excluded := _excluded(before)) is not None and (more := _excluded(leaf.matchers)) is not None:
        values = [*excluded, *(value for value in more if value not in excluded)]
        fields[leaf.field] = (_matcher("", values, True),)
        return True
    if all(_is_plain(matcher) for matcher in (*before, *leaf.matchers)):
        both = tuple(matcher for matcher in before if matcher in leaf.matchers)
        if both:
            fields[leaf.field] = both
            return True
    elif all(map(_is_plain, leaf.matchers)):
        fields[leaf.field] = leaf.matchers  # the narrower of the two
    return False


def _excluded(matchers: Sequence[str]) -> list[str] | None:
    """Return the texts that a lone anything-but excludes; None if it is something else."""
    found = json.loads(matchers[0]) if len(matchers) == 1 else None
    values = found.get("anything-but") if isinstance(found, dict) else None
    if isinstance(values, str):
        return [values]
    return values if isinstance(values, list) else None


def _is_plain(matcher: str) -> bool:
    return not matcher.startswith("{")


def _alternatives(group: _Any, outer: Mapping[str, Any]) -> tuple[list[Pattern], bool] | None:
    """Write the alternatives of an *or*; None if one of them cannot be written, or speaks of a field from outside."""
    written = []
    exact = True
    for part in group.parts:
        pattern, whole = _object(part, outer=outer)
        if not pattern or any(leaf.field in outer for leaf in _leaves(part)):
            return None
        written.append(pattern)
        exact = exact and whole
    return written, exact


def _leaves(node: _Node) -> list[_Leaf]:
    return [node] if isinstance(node, _Leaf) else [leaf for part in node.parts for leaf in _leaves(part)]


def _fields(fields: Mapping[str, tuple[Any, ...]], *, guarded: bool = False) -> Pattern:
    pattern: Pattern = {}
    detail: Pattern = {}
    for field, matchers in fields.items():
        place = pattern if field in _PLACES else detail
        place[field] = [json.loads(matcher) for matcher in matchers]
    if detail:
        pattern["detail"] = detail if guarded else {"specversion": ["1.0"], **detail}
    return pattern


# --- what is too long -------------------------------------------------------------------------------------------


def _shortened(node: _Node | None) -> Pattern | None:
    """Return a wider pattern that is short enough; None if that is everything.

    Of what must all hold, the longest is made wider, or left out: that makes most room for the others.
    """
    parts: list[_Node] = [] if node is None else list(node.parts) if isinstance(node, _All) else [node]
    while parts:
        pattern, _ = _object(_All(tuple(parts)))
        if pattern and len(text_of(pattern)) <= _ROOM:
            return pattern
        longest = max(range(len(parts)), key=lambda index: len(text_of(_object(parts[index])[0])))
        wider = _wider(parts[longest])
        parts[longest : longest + 1] = [] if wider is None else [wider]
    return None


def _wider(node: _Node) -> _Leaf | None:
    """Return a prefix that all values begin with; None if there is none, or it is one already."""
    if not isinstance(node, _Leaf):
        return None
    starts = [_start(json.loads(matcher)) for matcher in node.matchers]
    if any(start is None for start in starts):
        return None
    common = os.path.commonprefix([start for start in starts if start is not None])[:256]  # noqa: RUF071 - as meant
    is_same = len(starts) == 1 and not _is_plain(node.matchers[0]) and common == starts[0]
    if is_same or not common or (node.field not in _TOP.values() and _may_be_scalar_start(common)):
        return None
    return _Leaf(node.field, (_matcher("prefix", common, False),))


def _start(matcher: Any) -> str | None:
    if isinstance(matcher, dict):
        found = matcher.get("prefix")
        return found if isinstance(found, str) else None
    return matcher if isinstance(matcher, str) else None


def _may_be_scalar_start(text: str) -> bool:
    return _MAYBE_NUMBER.match(text) is not None or "true".startswith(text) or "false".startswith(text)


# --- the pattern of a rule --------------------------------------------------------------------------------------


def pattern_of(subscription: Subscription, topic: str | None) -> Pattern:
    """Return the pattern of a subscription's rule. `topic` is its name, where its bus has several; else None.

    Raises `DeclarationError` for a native filter that is no pattern, or a filter that ``detail-data`` cannot answer.
    """
    what = f"subscription {subscription}"
    native = subscription.native_filter.get("eventbridge")
    if native is not None:
        pattern = check_pattern(native, f"{what}: native_filter")
    elif subscription.filter is None:
        pattern = {}
    else:
        _check_answerable(subscription, what)
        pattern = compile_filter(subscription.filter).native or {}
    if topic is not None:
        pattern = _within_topic(pattern, topic, what)
    return pattern or EVERYTHING


def _check_answerable(subscription: Subscription, what: str) -> None:
    if wire_of(subscription.topic) != "detail-data":
        return
    assert subscription.filter is not None
    unanswerable = sorted({name for name in _names(subscription.filter) if name not in _TOP})
    if unanswerable:
        raise DeclarationError(
            f"{what}: its topic has wire='detail-data', which carries source and type but not {unanswerable[0]!r}: "
            "filter on source and type, on data with native_filter={'eventbridge': {...}}, or use the wire 'cloudevent'"
        )


def _names(filter: Filter) -> set[str]:
    if isinstance(filter, Comparison):
        return {name for name, _ in filter.pairs}
    if isinstance(filter, Not):
        return _names(filter.filter)
    assert isinstance(filter, Group)
    return {name for child in filter.filters for name in _names(child)}


def _within_topic(pattern: Pattern, topic: str, what: str) -> Pattern:
    detail = pattern.get("detail", {})
    whole = {**pattern, "detail": {**detail, TOPIC: [topic]}}
    if len(text_of(whole)) > MAX_PATTERN:
        raise DeclarationError(
            f"{what}: native_filter leaves no room for its topic, which shares its bus, within {MAX_PATTERN} characters"
        )
    return whole


def check_pattern(given: object, what: str) -> Pattern:
    """Return a pattern that the user wrote, or raise `DeclarationError`."""
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except ValueError as error:
            raise DeclarationError(f"{what} is no JSON: {error}") from None
    if not isinstance(given, Mapping) or not given:
        raise DeclarationError(
            f"{what} must be an event pattern, such as {{'detail': {{'state': ['done']}}}}, not {given!r}"
        )
    size = len(text_of(dict(given)))
    if size > MAX_PATTERN:
        raise DeclarationError(f"{what} has {size} characters; EventBridge takes {MAX_PATTERN}")
    return dict(given)


# --- the pattern of a subscriber (api=v2) -----------------------------------------------------------------------


def raw_of(pattern: Pattern) -> Pattern:
    """Return a pattern for the event as PutRawEvents carries it: without the envelope around it.

    What a rule matches on `detail-type` and under `detail` stands beside each other there.
    """
    found: Pattern = {}
    for field, value in pattern.items():
        if field == "$or":
            found["$or"] = [raw_of(one) for one in value]
        elif field == "detail":
            found |= value
        else:
            found["type" if field == "detail-type" else field] = value
    return found


def raw_pattern_of(subscription: Subscription, topic: str | None) -> Pattern | None:
    """Return the pattern of a subscriber's DATA filter; None for every event. `topic` as in `pattern_of`.

    Raises as `pattern_of`. A native filter is taken as it is: it speaks of the event without an envelope.
    """
    what = f"subscription {subscription}"
    native = subscription.native_filter.get("eventbridge")
    if native is not None:
        pattern = check_pattern(native, f"{what}: native_filter")
    elif subscription.filter is None:
        pattern = {}
    else:
        pattern = raw_of(compile_filter(subscription.filter).native or {})
    if topic is not None:
        pattern = {**pattern, TOPIC: [topic]}
        if len(text_of(pattern)) > MAX_PATTERN:
            raise DeclarationError(
                f"{what}: native_filter leaves no room for its topic, which shares its bus, within {MAX_PATTERN} "
                "characters"
            )
    return pattern or None
