"""The three wire forms of an event: JSON structured, JSON batch, and binary (attributes plus bytes).

Encoding then decoding gives an equal event. JSON payloads are embedded as they are, never decoded and written again,
so that 64-bit integers, floats and spacing survive.

Decoding is tolerant: what breaks a rule of CloudEvents but can be kept is kept, and noted in `repairs`. Nothing is
lost and nothing is made up: an event without id, source, type or specversion is a `DecodeError`.

Sources: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md (the JSON forms) and
https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md section "Message" (binary mode).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Annotated, Any, Final, Literal, cast

import msgspec

from crossbus.attributes import (
    INT32_MAX,
    INT32_MIN,
    is_extension_name,
    is_time,
    is_utf8,
    media_type,
    shorten,
)
from crossbus.data import is_json_tolerant
from crossbus.errors import DecodeError, InvalidEvent
from crossbus.event import NO_EXTENSIONS, SPECVERSION, Event
from crossbus.json_parts import elements_of, utf8_of
from crossbus.lenient import KNOWN, as_text, collision, decode_odd, foreign, kind_of, make, name_of
from crossbus.payload import ABSENT, BINARY, JSON, TEXT

__all__ = [
    "BATCH_CONTENT_TYPE",
    "CONTENT_TYPE",
    "binary_is_exact",
    "decode_batch",
    "decode_binary",
    "decode_json",
    "encode_batch",
    "encode_binary",
    "encode_json",
    "json_size",
]

CONTENT_TYPE: Final = "application/cloudevents+json"
"""The media type of one event in JSON."""
BATCH_CONTENT_TYPE: Final = "application/cloudevents-batch+json"
"""The media type of a JSON array of events."""


class _Written(msgspec.Struct, gc=False, omit_defaults=True):
    """The members that CloudEvents defines, for one call in C to write."""

    specversion: str
    id: str
    source: str
    type: str
    subject: str | None = None
    time: str | datetime | None = None  # a datetime in UTC is written as RFC 3339 with Z
    datacontenttype: str | None = None
    dataschema: str | None = None
    data: Any = msgspec.UNSET
    data_base64: bytes | msgspec.UnsetType = msgspec.UNSET


_Text = Annotated[str, msgspec.Meta(min_length=1)]


class _Defined(msgspec.Struct, gc=False):
    """The members that CloudEvents defines, for one call in C to read and check; extensions are passed over."""

    specversion: Literal["1.0"]
    id: _Text
    source: _Text
    type: _Text
    subject: str | None = None
    time: str | None = None
    datacontenttype: str | None = None
    dataschema: str | None = None
    data: msgspec.Raw = msgspec.Raw()
    data_base64: str | None = None


class _Usual(_Defined, gc=False, forbid_unknown_fields=True):
    """What nearly all events are: no extensions but those of tracing and ordering."""

    traceparent: str | None = None
    tracestate: str | None = None
    partitionkey: str | None = None


_UNSET: Final = msgspec.UNSET
_Raw = msgspec.Raw
_new = Event.__new__
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_decode_usual = msgspec.json.Decoder(_Usual).decode
_decode_defined = msgspec.json.Decoder(_Defined).decode
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_elements = msgspec.json.Decoder(list[msgspec.Raw]).decode


# --- JSON, encoding ---------------------------------------------------------------------------------------------


def encode_json(event: Event) -> bytes:
    """Encode an event as JSON, in UTF-8 (media type `CONTENT_TYPE`).

    Raises `InvalidEvent` if the event has no source yet.
    """
    kind = event._kind
    data: Any = _UNSET
    data_base64: Any = _UNSET
    if kind == JSON:
        data = _Raw(event._payload)
    elif kind == TEXT:
        data = event._payload.decode("utf-8")
    elif kind == BINARY:
        data_base64 = event._payload
    return _write(event, data, data_base64)


def encode_batch(events: Iterable[Event]) -> bytes:
    """Encode events as a JSON array (media type `BATCH_CONTENT_TYPE`). No events make an empty array.

    Raises `InvalidEvent` if an event has no source yet.
    """
    return b"[" + b",".join(map(encode_json, events)) + b"]"


def json_size(event: Event) -> int:
    """Count the bytes of `encode_json(event)` without copying its payload.

    Raises `InvalidEvent` if the event has no source yet.
    """
    kind, payload = event._kind, event._payload
    size = len(_write(event, _UNSET, _UNSET))
    if kind == JSON:
        return size + len(',"data":') + len(payload)
    if kind == TEXT:
        return size + len(',"data":') + len(_encode(payload.decode("utf-8")))
    if kind == BINARY:
        return size + len(',"data_base64":""') + 4 * ((len(payload) + 2) // 3)
    return size


def _write(event: Event, data: Any, data_base64: Any) -> bytes:
    source = event._source
    if source is None:
        raise _no_source(event)
    written = _encode(
        _Written(
            SPECVERSION,
            event._id,
            source,
            event._type,
            event._subject,
            event._time,
            event._datacontenttype,
            event._dataschema,
            data,
            data_base64,
        )
    )
    extensions = event._extensions
    return written[:-1] + b"," + _encode(extensions)[1:] if extensions else written


def _no_source(event: Event) -> InvalidEvent:
    return InvalidEvent(
        f"event {shorten(event._id)} has no source, which CloudEvents requires; pass source= to the Event or the Bus",
        attribute="source",
    )


# --- JSON, decoding ---------------------------------------------------------------------------------------------


def decode_json(body: bytes | str, *, repairs: list[str] | None = None) -> Event:
    """Decode one event in JSON.

    Args:
        body: A JSON object in UTF-8.
        repairs: Receives one line for each thing that breaks a rule of CloudEvents and was kept all the same, such
            as ``extension insertId was lower-cased``.

    Raises:
        DecodeError: the body is no CloudEvent 1.0. The message says why in one line, without the payload.
    """
    if body.__class__ is not bytes or not body.isascii():
        body = utf8_of(body)
    # All that is in order is read in the fewest steps. Whatever is odd goes the long way, which says what.
    read: _Defined
    extensions = NO_EXTENSIONS
    try:
        read = usual = _decode_usual(body)
        if not (usual.traceparent is None and usual.partitionkey is None and usual.tracestate is None):
            extensions = _usual_extensions(usual)
    except (msgspec.DecodeError, RecursionError):
        found = _read_extended(body)
        if found is None:
            return decode_odd(body, repairs)
        read, extensions = found
    if repairs is not None and not _is_clean(read, extensions):
        return decode_odd(body, repairs)
    datacontenttype = read.datacontenttype
    payload = bytes(read.data)
    kind = JSON if payload else ABSENT  # no JSON text is empty
    if datacontenttype != "application/json" or read.data_base64 is not None:
        kind, payload = kind_of(payload, read.data_base64, datacontenttype, repairs)
    made = _new(Event)
    made._id = read.id
    made._source = read.source
    made._type = read.type
    made._subject = read.subject
    made._time = read.time
    made._datacontenttype = datacontenttype
    made._dataschema = read.dataschema
    made._extensions = extensions
    made._kind = kind
    made._payload = payload
    return made


def _usual_extensions(usual: _Usual) -> dict[str, str | bool | int]:
    found = {
        "traceparent": usual.traceparent,
        "tracestate": usual.tracestate,
        "partitionkey": usual.partitionkey,
    }
    return {name: value for name, value in found.items() if value is not None}


def _read_extended(body: bytes) -> tuple[_Defined, dict[str, str | bool | int]] | None:
    """Read an event with any extensions; None if something about it is odd."""
    try:
        read = _decode_defined(body)
        extensions: dict[str, Any] = {}
        for name, raw in _decode_members(body).items():
            if name not in KNOWN:
                extensions[name] = value = _decode(raw)
                if (value.__class__ is not str and not _is_scalar(value)) or not is_extension_name(name):
                    return None
    except (msgspec.DecodeError, RecursionError):
        return None
    return read, extensions


def _is_scalar(value: Any) -> bool:
    """Tell whether a value that is no text can be that of an extension as it is."""
    return value.__class__ is bool or (value.__class__ is int and INT32_MIN <= value <= INT32_MAX)


def _is_clean(read: _Defined, extensions: dict[str, str | bool | int]) -> bool:
    """Tell whether there is surely nothing to note."""
    for text in (read.id, read.source, read.type):
        if not text.isprintable():
            return False
    for optional in (read.subject, read.datacontenttype, read.dataschema):
        if optional is not None and not (optional and optional.isprintable()):
            return False
    for extension in extensions.values():
        if isinstance(extension, str) and not extension.isprintable():
            return False
    return read.time is None or is_time(read.time)


def decode_batch(body: bytes | str, *, repairs: list[str] | None = None) -> list[Event | DecodeError]:
    """Decode a JSON array of events. An entry that is no event is returned as its `DecodeError`; the others go on.

    Args:
        body: A JSON array in UTF-8.
        repairs: As for `decode_json`; each line begins with the entry's index, as in ``event 3: ...``.

    Raises:
        DecodeError: the body as a whole is no JSON array in UTF-8.
    """
    raw = utf8_of(body)
    entries: Iterable[Any]
    try:
        entries = _decode_elements(raw)
    except (msgspec.DecodeError, RecursionError):
        entries = elements_of(raw)
    found: list[Event | DecodeError] = []
    for index, entry in enumerate(entries):
        own: list[str] | None = None if repairs is None else []
        try:
            found.append(decode_json(bytes(entry), repairs=own))
        except DecodeError as error:
            found.append(DecodeError(f"event {index}: {error}"))
            continue
        if own:
            repairs.extend(f"event {index}: {line}" for line in own)  # type: ignore[union-attr]
    return found


# --- binary -----------------------------------------------------------------------------------------------------


def encode_binary(event: Event) -> tuple[dict[str, str], bytes]:
    """Encode an event in binary mode: its attributes as text, by their plain names, and its payload as it is.

    `datacontenttype` is among the attributes; a binding puts it where it belongs, and adds its prefix to the others.
    Raises `InvalidEvent` if the event has no source yet.
    """
    if event._source is None:
        raise _no_source(event)
    found = event.attributes()
    for name, value in event._extensions.items():
        if value.__class__ is not str:
            found[name] = as_text(value)
    return cast("dict[str, str]", found), event._payload


def decode_binary(
    attributes: Mapping[str, str | bool | int], body: bytes, *, repairs: list[str] | None = None
) -> Event:
    """Decode an event in binary mode.

    The kind of the data follows from `datacontenttype`: JSON if it is a JSON type and the body is JSON, text if it is a
    text type and the body is UTF-8, else bytes. An empty body is no data.

    Args:
        attributes: By their plain names, `datacontenttype` among them, without a binding's prefix.
        body: The payload.
        repairs: As for `decode_json`.

    Raises:
        DecodeError: this is no CloudEvent 1.0.
    """
    values = dict(attributes) if _is_plain(attributes) else _repaired(attributes, repairs)
    body = bytes(body)
    return make(values, _binary_kind(values.get("datacontenttype"), body), body, repairs)


_ALL_TEXT: Final = {str}
_ATTRIBUTES: Final = KNOWN - {"data", "data_base64"}


def _is_plain(attributes: Mapping[str, Any]) -> bool:
    """Tell of most attributes at once that there is nothing to repair; False also for some that need none."""
    values = attributes.values()
    if {*map(type, values)} != _ALL_TEXT or not "".join(values).isprintable():
        return False
    return _ATTRIBUTES.issuperset(attributes) or all(map(is_extension_name, attributes.keys() - _ATTRIBUTES))


def _repaired(attributes: Mapping[str, Any], repairs: list[str] | None) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in attributes.items():
        own = name_of(name, repairs)
        if own == "data" or own == "data_base64":
            raise DecodeError(f"event has an attribute named {own}, which CloudEvents forbids")
        if own in values:
            raise collision(own)
        if value is None or (value.__class__ is str and value.isprintable()):
            values[own] = value
        else:
            values[own] = foreign(own, value, repairs)
    return values


def _binary_kind(datacontenttype: object, body: bytes) -> int:
    if not body:
        return ABSENT
    if not datacontenttype:
        return BINARY
    media = media_type(str(datacontenttype))
    if media.is_json:
        return JSON if is_json_tolerant(body) else BINARY
    return TEXT if media.is_text and media.utf8 and is_utf8(body) else BINARY


def binary_is_exact(event: Event) -> bool:
    """Tell whether binary mode restores the event exactly: kind of data and types of extensions included.

    Where it does not, an adapter uses JSON.
    """
    for value in event._extensions.values():
        if value.__class__ is not str:
            return False
    kind = event._kind
    if kind == JSON:
        return event._datacontenttype is not None and media_type(event._datacontenttype).is_json
    return _binary_kind(event._datacontenttype, event._payload) == kind
