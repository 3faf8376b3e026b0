"""Filters in Pub/Sub's own language, and what of a filter it can hold.

The language compares attributes of a message, case-sensitively: ``attributes.k = "v"``,
``hasPrefix(attributes.k, "p")``, ``NOT``, ``AND``, ``OR``. It has no suffix, does not see the data, ends at 256 bytes,
and wants parentheses where AND and OR meet. NOT of an absent attribute is true, as it is here.

Source: https://cloud.google.com/pubsub/docs/subscription-message-filter
"""

from __future__ import annotations

import itertools
import re
from typing import Final

from crossbus.adapter import Compilation
from crossbus.errors import DeclarationError
from crossbus.filters import All, Any, Comparison, Exact, Filter, Not, Prefix, split
from crossbus_pubsub.encoding import PREFIX

__all__ = ["MAX_BYTES", "OPERATORS", "check_text", "compile", "text_of"]

MAX_BYTES: Final = 256
OPERATORS: Final = frozenset({"exact", "prefix", "all", "any", "not"})

_PLAIN = re.compile(r"[A-Za-z0-9_-]+\Z")
_UNLIKE: Final = frozenset({"datacontenttype"})
"""In structured mode the message's content-type is that of the event, not that of its data."""


def compile(filter: Filter) -> Compilation:
    """Divide a filter: a text of at most 256 bytes that lets every matching event through, and what is left."""
    divided = split(filter, OPERATORS, accepts=_accepts)
    if divided.native is None:
        return Compilation(None, "", filter)
    text = text_of(divided.native)
    if len(text.encode()) <= MAX_BYTES:
        return Compilation(divided.native, text, divided.residual)
    native = _shortened(divided.native)
    return Compilation(None, "", filter) if native is None else Compilation(native, text_of(native), filter)


def _shortened(filter: Filter) -> Filter | None:
    """Return a wider filter whose text fits; None if that is everything.

    Of what must all hold, the longest is made wider, or left out: that makes most room for the others.
    """
    parts = _conjuncts(filter)
    while parts:
        native = All(parts) if len(parts) > 1 else parts[0]
        if len(text_of(native).encode()) <= MAX_BYTES:
            return native
        longest = max(range(len(parts)), key=lambda index: len(text_of(parts[index])))
        wider = _wider(parts[longest])
        parts[longest : longest + 1] = [] if wider is None else [wider]
    return None


def _conjuncts(filter: Filter) -> list[Filter]:
    if isinstance(filter, All):
        return [part for child in filter.filters for part in _conjuncts(child)]
    if isinstance(filter, Comparison) and len(filter.pairs) > 1:
        return [type(filter)({name: value}) for name, value in filter.pairs]
    return [filter]


def _wider(part: Filter) -> Filter | None:
    """Return a prefix that all which match begin with: of a long text, or of many texts of one attribute."""
    if isinstance(part, (Exact, Prefix)):
        ((name, value),) = part.pairs
        return Prefix({name: value[: len(value) // 2]}) if len(value) > 16 else None
    if not isinstance(part, Any):
        return None
    pairs = [
        child.pairs[0]
        for child in part.filters
        if isinstance(child, (Exact, Prefix)) and len(child.pairs) == 1
    ]
    if len(pairs) < len(part.filters) or len({name for name, _ in pairs}) > 1:
        return None
    first, last = min(value for _, value in pairs), max(value for _, value in pairs)
    same = itertools.takewhile(lambda both: both[0] == both[1], zip(first, last, strict=False))
    common = "".join(one for one, _ in same)
    return Prefix({pairs[0][0]: common}) if common else None


def _accepts(comparison: Comparison) -> bool:
    return comparison.pairs[0][0] not in _UNLIKE


# --- text -------------------------------------------------------------------------------------------------------


def text_of(filter: Filter) -> str:
    """Write a filter that Pub/Sub can evaluate, in its language."""
    if isinstance(filter, Not):
        return f"NOT {_operand(filter.filter)}"
    if isinstance(filter, Comparison):
        parts = [_comparison(type(filter), name, value) for name, value in filter.pairs]
        return " AND ".join(parts)
    assert isinstance(filter, (All, Any))
    if len(filter.filters) == 1:
        return text_of(filter.filters[0])
    word = " AND " if isinstance(filter, All) else " OR "
    return word.join(map(_operand, filter.filters))


def _comparison(kind: type[Comparison], name: str, value: str) -> str:
    key = f"attributes.{_key(PREFIX + name)}"
    return f"{key} = {_quoted(value)}" if kind is Exact else f"hasPrefix({key}, {_quoted(value)})"


def _operand(filter: Filter) -> str:
    text = text_of(filter)
    return text if _is_atom(filter) else f"({text})"


def _is_atom(filter: Filter) -> bool:
    if isinstance(filter, (All, Any)):
        return len(filter.filters) == 1 and _is_atom(filter.filters[0])
    return isinstance(filter, Comparison) and len(filter.pairs) == 1


def _key(name: str) -> str:
    return name if _PLAIN.match(name) else _quoted(name)


def _quoted(text: str) -> str:
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(character: str) -> str:
    """Escape what a string literal must: backslash, quotation mark, and what does not print."""
    if character in '\\"':
        return f"\\{character}"
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def check_text(text: object, what: str) -> str:
    """Return a filter that the user wrote in Pub/Sub's language, or raise `DeclarationError`."""
    if not isinstance(text, str):
        raise DeclarationError(
            f"{what} must be text in Pub/Sub's language, such as 'attributes.ce-type = \"a\"', not "
            f"{type(text).__name__}"
        )
    size = len(text.encode())
    if size > MAX_BYTES:
        raise DeclarationError(
            f"{what} has {size} bytes; Pub/Sub takes {MAX_BYTES}: give a wider one, and the exact one as filter="
        )
    return text
