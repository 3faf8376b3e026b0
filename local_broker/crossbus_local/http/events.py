"""What a publish request holds: one event, a batch, or an event in binary mode. Checked strictly, kept verbatim.

Events stay the bytes that were sent: the body is taken apart at the borders of events and not written anew, so that
integers of 64 bits, the order of keys and spacing arrive as they were.

Sources: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md and
https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md (binary mode).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import unquote_to_bytes

import msgspec

from crossbus.attributes import is_extension_name, is_time, shorten, string_problem
from crossbus.codecs import BATCH_CONTENT_TYPE, CONTENT_TYPE, decode_binary, decode_json, encode_json
from crossbus.data import is_json_tolerant
from crossbus.errors import DecodeError, EventError
from crossbus.event import Event
from crossbus.json_parts import elements_of, utf8_of
from crossbus.lenient import KNOWN
from crossbus_local.http.errors import ApiError
from crossbus_local.records import NO_ATTRIBUTES, LocalWire

__all__ = ["MOST_EVENTS", "published"]

MOST_EVENTS: Final = 1000
"""The most events of one request. Source: https://learn.microsoft.com/azure/event-grid/quotas-limits"""

_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_elements = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode = msgspec.json.Decoder().decode

_REQUIRED: Final = ("specversion", "id", "source", "type")
_TEXTS: Final = frozenset({"subject", "time", "datacontenttype", "dataschema", *_REQUIRED})


def published(headers: Iterable[tuple[bytes, bytes]], body: bytes) -> list[LocalWire]:
    """Return the events of a publish request.

    Raises `ApiError`: 415 for a content type that is none of the three forms, 400 for a body that is not what the
    content type says or holds anything but CloudEvents 1.0; the message names the first by its index.
    """
    content_type, binary = b"", False
    for name, value in headers:
        if name == b"content-type":
            content_type = value
        elif name == b"ce-specversion":
            binary = True
    media, _, parameters = content_type.decode("latin-1").partition(";")
    media = media.strip().lower()
    if media == BATCH_CONTENT_TYPE:
        _check_charset(parameters)
        return _batch(body)
    if media == CONTENT_TYPE:
        _check_charset(parameters)
        return [_one(_utf8(body))]
    if binary and not media.startswith("application/cloudevents"):
        return [_binary(headers, content_type.decode("latin-1").strip(), body)]
    raise ApiError(
        415,
        "UnsupportedMediaType",
        f"content type {shorten(media)} cannot be published: send {CONTENT_TYPE} (one event), {BATCH_CONTENT_TYPE} "
        "(an array), or binary mode with ce- headers",
    )


def _check_charset(parameters: str) -> None:
    name, _, value = parameters.strip().lower().partition("=")
    if name.strip() == "charset" and value.strip(' ";') not in ("utf-8", "utf8", "us-ascii"):
        raise ApiError(415, "UnsupportedMediaType", f"charset {shorten(value)} cannot be read; send UTF-8")


def _utf8(body: bytes) -> bytes:
    try:
        return utf8_of(body)
    except DecodeError as error:
        raise _bad(str(error)) from None


def _bad(message: str) -> ApiError:
    return ApiError(400, "BadRequest", message)


def _batch(body: bytes) -> list[LocalWire]:
    body = _utf8(body)
    try:
        elements: Any = _decode_elements(body)
    except (msgspec.DecodeError, RecursionError):
        try:
            elements = elements_of(body)
        except DecodeError as error:
            raise _bad(str(error)) from None
    if len(elements) > MOST_EVENTS:
        raise _bad(f"{len(elements):,} events in one request; {MOST_EVENTS:,} is the most")
    return [_one(bytes(raw), f"event {index}: ") for index, raw in enumerate(elements)]


def _one(raw: bytes, where: str = "") -> LocalWire:
    repairs: list[str] = []
    try:
        event = decode_json(raw, repairs=repairs)
        problem = _problem(raw) if repairs else None
    except DecodeError as error:
        problem = str(error)
    except (msgspec.DecodeError, RecursionError):  # numbers beyond all bounds, halves of surrogates
        problem = repairs[0]
    if problem is not None:
        raise _bad(f"{where}{problem}; nothing of the request was published")
    return _wire(raw.strip(b" \t\r\n"), event)


def _wire(body: bytes, event: Event) -> LocalWire:
    key = event._extensions.get("partitionkey") if event._extensions else None
    return LocalWire(body, NO_ATTRIBUTES, len(body), None if key is None else str(key), event)


def _problem(raw: bytes) -> str | None:
    """Say which rule of CloudEvents an event breaks that can be read all the same; None if it is one we let pass.

    An extension may be any number: an integer of more than 32 bits breaks a rule, but nobody.
    """
    for name, part in _decode_members(raw).items():
        if name not in KNOWN and not is_extension_name(name):
            return f"attribute name {shorten(name)} is not allowed: only the letters a-z and digits 0-9"
        if name == "data" or name == "data_base64":
            continue
        problem = _value_problem(name, bytes(part))
        if problem is not None:
            return f"{name} {problem}"
    return None


def _value_problem(name: str, part: bytes) -> str | None:
    value = _decode(part)
    if value is None:
        return None
    if isinstance(value, str):
        if name == "time" and not is_time(value):
            return f"{shorten(value)} is not an RFC 3339 timestamp"
        return "is empty" if value == "" and name in _TEXTS else string_problem(value)
    if name in _TEXTS:
        return f"is {type(value).__name__}, not a string"
    if isinstance(value, (dict, list)):
        return "is an object or an array, which no attribute can be"
    return None


# --- binary mode ------------------------------------------------------------------------------------------------


def _binary(headers: Iterable[tuple[bytes, bytes]], content_type: str, body: bytes) -> LocalWire:
    attributes: dict[str, str | bool | int] = {}
    for name, value in headers:
        if name.startswith(b"ce-"):
            own = name[3:].decode("latin-1")
            if own in attributes:
                raise _bad(f"there are several headers ce-{own}")
            attributes[own] = _header(own, value)
    if attributes.pop("datacontenttype", None) is not None:
        raise _bad("ce-datacontenttype is not allowed: in binary mode Content-Type is the type of the data")
    if content_type:
        attributes["datacontenttype"] = content_type
    if _says_json(content_type) and body and not is_json_tolerant(body):
        raise _bad(f"the body is not JSON, though its content type is {shorten(content_type)}")
    repairs: list[str] = []
    try:
        event = decode_binary(attributes, body, repairs=repairs)
        if repairs:
            raise _bad(repairs[0])
        return _wire(encode_json(event), event)
    except EventError as error:
        raise _bad(str(error)) from None


def _header(name: str, value: bytes) -> str:
    try:
        return unquote_to_bytes(value).decode("utf-8")
    except UnicodeDecodeError:
        raise _bad(f"the header ce-{name} is not UTF-8 in percent-encoding") from None


def _says_json(content_type: str) -> bool:
    media = content_type.partition(";")[0].strip().lower()
    return media == "application/json" or media.endswith("+json")
