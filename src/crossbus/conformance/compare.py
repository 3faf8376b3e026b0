"""Comparing what was sent with what came, and saying where they differ."""

from __future__ import annotations

from typing import Any

from crossbus.event import Event

__all__ = ["AWKWARD", "same_events", "same_value"]

AWKWARD: tuple[str, ...] = (
    "/",
    "//",
    "../../etc/passwd",
    "back\\slash",
    "\\\\server\\share",
    "'single'",
    '"double"',
    '{"json": "looking"}',
    "a,b;c=d&e?f#g",
    "%20%2F%00",
    " space before",
    "space after ",
    "two  spaces",
    "0123",
    "true",
    "null",
    "-1",
    "1e3",
    "ünïcödé",
    "日本語",
    "Ελληνικά",
    "עברית",
    "😀 \U0001f9d1\u200d\U0001f4bb",
    "e\u0301 is not \u00e9",
    "no\u00a0break\u200bzero\ufeffmark",
    "".join(map(chr, range(0x20, 0x7F))),
    "$aws.x ${var} #{x} {{y}} <z>",
)
"""Strings that providers, codecs and shells trip over; all are CloudEvents Strings."""


def same_events(sent: list[Event], received: list[Event]) -> None:
    """Fail, naming the attribute, unless each event came as it was sent."""
    for before, after in zip(sent, received, strict=True):
        same_event(before, after)


def same_event(sent: Event, received: Event) -> None:
    """Fail, naming the attribute, unless the event came as it was sent."""
    before, after = sent.attributes(), received.attributes()
    for name in before.keys() | after.keys():
        was, came = before.get(name), after.get(name)
        assert was == came and type(was) is type(came), (
            f"event {sent.id!r}: {name} was sent as {_shown(was)} and came as {_shown(came)}"
        )
    assert sent.data_kind is received.data_kind, (
        f"event {sent.id!r}: data was sent as {sent.data_kind.name} and came as {received.data_kind.name} "
        f"({_shown(sent.data_bytes)} as {_shown(received.data_bytes)})"
    )
    same_value(f"event {sent.id!r}: data", sent.data, received.data)
    assert sent == received, f"event {sent.id!r} came changed: {sent!r} as {received!r}"


def same_value(where: str, sent: Any, received: Any) -> None:
    """Fail, saying where, unless two JSON values are equal and of the same types."""
    assert type(sent) is type(received), (
        f"{where} was sent as {type(sent).__name__} {_shown(sent)} and came as {type(received).__name__} "
        f"{_shown(received)}"
    )
    if isinstance(sent, dict):
        assert sent.keys() == received.keys(), (
            f"{where} was sent with keys {sorted(sent)} and came with {sorted(received)}"
        )
        for key, value in sent.items():
            same_value(f"{where}[{key!r}]", value, received[key])
    elif isinstance(sent, list):
        assert len(sent) == len(received), (
            f"{where} was sent with {len(sent)} items and came with {len(received)}"
        )
        for index, (one, other) in enumerate(zip(sent, received, strict=True)):
            same_value(f"{where}[{index}]", one, other)
    elif isinstance(sent, float):
        assert sent.hex() == received.hex(), f"{where} was sent as {sent!r} and came as {received!r}"
    else:
        assert sent == received, f"{where} was sent as {_shown(sent)} and came as {_shown(received)}"


def _shown(value: Any) -> str:
    if value is None:
        return "absent"
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:120]}… ({len(text)} characters)"
