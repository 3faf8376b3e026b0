"""The portable profile: what every provider takes, checked when an event is published.

The limits stand in `crossbus.rules`. An event is checked at every publish, so the common case is decided by a
few comparisons that can only say "surely allowed"; anything else goes through the exact rules.
"""

from __future__ import annotations

import re
from datetime import datetime
from itertools import accumulate
from typing import Any

from crossbus.attributes import (
    canonical_extension,
    canonical_time,
    check_extension_name,
    check_string,
    media_type,
)
from crossbus.capabilities import Capabilities
from crossbus.codecs import json_size
from crossbus.data import is_json
from crossbus.errors import EventTooLarge, InvalidEvent
from crossbus.event import Event
from crossbus.rules import (
    ATTRIBUTE_BYTES,
    ATTRIBUTE_COUNT,
    EVENT_BYTES,
    INTEGER_MAX,
    INTEGER_MIN,
    NAME_CHARACTERS,
    NESTING,
    TYPE_CHARACTERS,
)
from crossbus.wire import OWN_PREFIX

__all__ = ["check_portable", "check_provider"]

_REMEMBERED = 4096
_types: set[str] = set()
_sources: set[str | None] = set()
_names: set[str] = set()
_SURE_CHARACTERS = ATTRIBUTE_BYTES // 4  # UTF-8 has at most four bytes a character
_SURE_PAYLOAD = 2 * NESTING  # data that is no longer can neither be nested deeper, nor be too large
_DIGITS_AS_ZERO = bytes(48 if 48 <= byte <= 57 else 32 for byte in range(256))
_19_DIGITS = b"0" * 19


def check_portable(event: Event) -> None:
    """Check an event against the portable profile: what every provider takes.

    Raises:
        InvalidEvent: an attribute or the data is not allowed. `attribute` names it.
        EventTooLarge: the event has more than 1,000,000 bytes as structured JSON.
    """
    id, subject, payload, extensions = event._id, event._subject, event._payload, event._extensions
    if (
        event._type in _types
        and event._source in _sources
        and 0 < len(id) <= _SURE_CHARACTERS
        and id.isprintable()
        # Only `Event(...)` holds a datetime: this one was checked when it was made, not decoded.
        and event._time.__class__ is datetime
        and (subject is None or (0 < len(subject) <= _SURE_CHARACTERS and subject.isprintable()))
        and (event._datacontenttype == "application/json" or event._datacontenttype is None)
        and event._dataschema is None
        and len(payload) <= _SURE_PAYLOAD
        and (not extensions or _are_surely_portable(extensions))
        and not _may_hold_long_integer(payload)
    ):
        return
    _check_portable(event)


def _are_surely_portable(extensions: dict[str, Any]) -> bool:
    for name, value in extensions.items():
        if not (
            name in _names
            and value.__class__ is str
            and len(value) <= _SURE_CHARACTERS
            and value.isprintable()
        ):
            return False
    return len(extensions) <= ATTRIBUTE_COUNT - 8


def _check_portable(event: Event) -> None:
    _check_attributes(event, ATTRIBUTE_BYTES, ATTRIBUTE_COUNT, " in the portable profile", _OR_PROVIDER)
    _check_names(event)
    _check_type(event._type)
    _check_source(event.source)
    _check_data(event, portable=True)
    if len(event._payload) > 100_000:
        # Below, it fits for sure: attributes add at most 90 * 2 KiB, and text in JSON grows at most sixfold.
        _check_size(event)


def check_provider(event: Event, capabilities: Capabilities) -> None:
    """Check an event against CloudEvents, and the attribute limits that an adapter's capabilities declare.

    This is ``validate="provider"``. The size is not checked here: the publisher compares `Wire.size` with
    `Capabilities.event_bytes`.

    Raises:
        InvalidEvent: an attribute or the data is not allowed. `attribute` names it.
    """
    _check_attributes(
        event, capabilities.attribute_bytes, capabilities.attribute_count, " on this provider", ""
    )
    _check_data(event, portable=False)


_OR_PROVIDER = ', or use validate="provider" if this topic stays on a provider that takes it'


# --- attributes ---


def _check_type(type: str) -> None:
    if len(type) > TYPE_CHARACTERS:
        raise InvalidEvent(
            f"type has {len(type)} characters; at most {TYPE_CHARACTERS} are allowed in the portable profile "
            f"(EventBridge's DetailType): shorten it{_OR_PROVIDER}",
            attribute="type",
        )
    _remember(_types, type)


def _check_source(source: str) -> None:
    if source.startswith("aws."):
        raise InvalidEvent(
            f"source {_shown(source)} begins with 'aws.', which EventBridge keeps for AWS: use one of your "
            f"own, such as {'/' + source[4:36]!r}{_OR_PROVIDER}",
            attribute="source",
        )
    _remember(_sources, source)


def _check_names(event: Event) -> None:
    for name in event._extensions:
        if len(name) > NAME_CHARACTERS:
            raise InvalidEvent(
                f"extension name {_shown(name)} has {len(name)} characters; at most {NAME_CHARACTERS} are allowed "
                f"in the portable profile (Pub/Sub's attribute keys): shorten it{_OR_PROVIDER}",
                attribute=name,
            )
        _remember(_names, name)


def _remember(known: set[Any], value: str) -> None:
    if len(known) >= _REMEMBERED:
        known.clear()
    known.add(value)


def _check_attributes(event: Event, limit: int | None, count: int | None, where: str, way_out: str) -> None:
    """Check that attributes obey CloudEvents, with values up to `limit` bytes, and up to `count` of them."""
    if not event._source:
        raise InvalidEvent(
            'source is missing: give the event one, or the Bus a default with Bus(source="/shop")',
            attribute="source",
        )
    sure = 0 if limit is None else limit // 4
    for name, value in _strings(event):
        if value is None:
            continue
        if not (value.__class__ is str and value and value.isprintable()):
            check_string(name, value)
        if limit is not None and len(value) > sure:
            _check_bytes(name, value, limit, where, way_out)
    if event._time.__class__ is str:
        canonical_time("time", event._time)
    if event._datacontenttype is not None and not media_type(event._datacontenttype).valid:
        raise InvalidEvent(
            f"datacontenttype {_shown(event._datacontenttype)} is no media type such as 'application/json'",
            attribute="datacontenttype",
        )
    for name, extension in event._extensions.items():
        _check_extension(name, extension)
        if limit is not None and extension.__class__ is str and len(extension) > sure:
            _check_bytes(name, extension, limit, where, way_out)
    if count is not None and len(event._extensions) > count - 8:
        found = len(event.attributes())
        if found > count:
            raise InvalidEvent(
                f"the event has {found} attributes, {len(event._extensions)} of them extensions; at most "
                f"{count} are allowed{where}: put the rest into the data{way_out}",
                attribute="extensions",
            )


def _strings(event: Event) -> tuple[tuple[str, str | None], ...]:
    time = event._time
    return (
        ("id", event._id),
        ("source", event._source),
        ("type", event._type),
        ("subject", event._subject),
        ("time", time if time.__class__ is str else None),
        ("datacontenttype", event._datacontenttype),
        ("dataschema", event._dataschema),
    )


def _check_bytes(name: str, value: str, limit: int, where: str, way_out: str) -> None:
    size = len(value.encode("utf-8"))
    if size > limit:
        raise InvalidEvent(
            f"{name} has {size} bytes in UTF-8; at most {limit} are allowed{where}: shorten it, or put it "
            f"into the data{way_out}",
            attribute=name,
        )


def _check_extension(name: str, value: Any) -> None:
    check_extension_name(name)
    if name.startswith(OWN_PREFIX):
        raise InvalidEvent(
            f"extension {_shown(name)} is reserved: names that begin with '{OWN_PREFIX}' are crossbus's "
            "own; choose another name",
            attribute=name,
        )
    canonical_extension(name, value)


def _shown(value: str) -> str:
    return repr(value) if len(value) <= 60 else f"{value[:57]!r}..."


# --- data ---


def _check_data(event: Event, *, portable: bool) -> None:
    payload = event._payload
    kind = event._kind
    if kind == 1 and portable:
        if len(payload) > _SURE_PAYLOAD and payload.count(b"[") + payload.count(b"{") > NESTING:
            _check_nesting(payload)
        if _may_hold_long_integer(payload):
            _check_integers(payload)
    # An event that was decoded has its time as text, or none, and its data may be anything.
    if event._time.__class__ is datetime:
        return
    if kind == 1 and not is_json(payload):
        raise InvalidEvent(
            "data is marked as JSON but is not JSON text in UTF-8: use a datacontenttype that fits it",
            attribute="data",
        )
    if kind == 2:
        try:
            payload.decode("utf-8")
        except UnicodeDecodeError:
            raise InvalidEvent(
                "data is marked as text but is not UTF-8: pass it as bytes", attribute="data"
            ) from None


def _may_hold_long_integer(payload: bytes) -> bool:
    """Say False if there is surely no run of 19 digits, the length of 2^63."""
    digits = _DIGITS_AS_ZERO
    # Every sixth byte is enough to look at first: of 19 digits in a row at least three are among those.
    # `find`, because `in` first tries to read its left side as a number, which takes twice as long.
    if payload[::6].translate(digits).find(b"000") < 0:
        return False
    return payload.translate(digits).find(_19_DIGITS) >= 0


def _without_strings(payload: bytes) -> bytes:
    """Return JSON text without its strings: brackets, numbers and punctuation only."""
    return b"".join(payload.replace(rb"\\", b"").replace(rb"\"", b"").split(b'"')[::2])


_LONG_NUMBER = re.compile(rb"(?<![\d.eE+-])-?\d{19,}[\d.eE+-]*")


def _check_integers(payload: bytes) -> None:
    for found in _LONG_NUMBER.finditer(_without_strings(payload)):
        text = found[0].decode("ascii")
        digits = text.lstrip("-")
        if not digits.isdigit():
            continue  # it has a fraction or an exponent
        # Not int(text): Python refuses thousands of digits.
        if len(digits) > 19 or not INTEGER_MIN <= int(text) <= INTEGER_MAX:
            shown = text if len(text) <= 40 else f"{text[:37]}... ({len(digits)} digits)"
            raise InvalidEvent(
                f"data holds the integer {shown}; from -2^63 to 2^63-1 are allowed in the portable profile "
                f"(EventBridge): pass it as a string{_OR_PROVIDER}",
                attribute="data",
            )


_BRACKETS = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")


def _check_nesting(payload: bytes) -> None:
    left = _without_strings(payload).translate(_BRACKETS, _NO_BRACKETS)
    for _ in range(NESTING):  # each round takes the innermost brackets away, at the speed of C
        left = left.replace(b"[]", b"")
        if not left:
            return
    deeper = max(accumulate(1 if bracket == 91 else -1 for bracket in left))
    if deeper > 0:  # else the brackets do not match: it is not JSON
        raise InvalidEvent(
            f"data is nested {NESTING + deeper} deep; at most {NESTING} levels are allowed in the portable "
            f"profile (EventBridge): flatten it, or pass the inner part as a string{_OR_PROVIDER}",
            attribute="data",
        )


def _check_size(event: Event) -> None:
    size = json_size(event)
    if size > EVENT_BYTES:
        grown = ""
        if event._kind == 3:
            grown = f" ({len(event._payload):,} of data, which base64 makes a third larger)"
        raise EventTooLarge(
            f"event {_shown(event._id)} has {size:,} bytes as structured JSON{grown}; at most "
            f"{EVENT_BYTES:,} are allowed in the portable profile: put the data elsewhere and publish a "
            f"reference to it{_OR_PROVIDER}",
            size=size,
            limit=EVENT_BYTES,
        )
