"""An event as an entry of PutEvents, and what arrives in a queue as an event.

Writing: the whole event in JSON is the Detail; Source, DetailType and Time repeat what rules match on. A topic with
``wire="detail-data"`` has only the data as Detail, for rules and targets that exist.

Reading: EventBridge's envelope around an event; an event alone (a rule with an input path, and what is redriven); an
envelope around anything else, which is a native event of AWS, or one of ``detail-data``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from crossbus.adapter import Wire
from crossbus.codecs import decode_json, encode_json
from crossbus.errors import DecodeError, InvalidEvent
from crossbus.event import DataKind, Event, new_id
from crossbus.lenient import make
from crossbus.wire import REPLAY
from crossbus_eventbridge.limits import MAX_TYPE

__all__ = ["DETAIL_DATA_LOSES", "DataWire", "decode", "encode", "encode_message", "encode_raw", "group_of"]

TIME_BYTES: Final = 14
"""What AWS counts for a Time."""
DETAIL_DATA_LOSES: Final = (
    "id, subject, extensions with the trace context, datacontenttype, dataschema, and fractions of a second of "
    "the time"
)
"""What an event loses on a topic with ``wire="detail-data"``."""

_GROUP: Final = re.compile(r"[!-~]{1,128}\Z")
"""What may be a message group: letters, digits and the punctuation of ASCII."""
NO_ATTRIBUTES: Final[Mapping[str, Any]] = {}
_NOT_XML: Final = ((b"\xef\xbf\xbe", b"\\ufffe"), (b"\xef\xbf\xbf", b"\\uffff"))
"""The two characters beyond ASCII that SQS refuses; in JSON they can only stand in a text."""


class DataWire(Wire, gc=False):
    """A wire of ``detail-data``, with the event that it is only a part of."""

    event: Event | None = None


# --- writing ----------------------------------------------------------------------------------------------------


def encode(event: Event, topic: str | None, *, data_only: bool) -> Wire:
    """Make the entry of an event. `topic` is its name, where its bus has several; else None.

    Raises `InvalidEvent` for what EventBridge itself refuses.
    """
    source, type = event._source, event._type
    if len(type) > MAX_TYPE:
        raise InvalidEvent(
            f"event {event.id!r}: its type has {len(type)} characters; EventBridge takes {MAX_TYPE} as DetailType",
            attribute="type",
        )
    if source is not None and source[:4].lower() == "aws.":
        raise InvalidEvent(
            f"event {event.id!r}: source {source!r} begins with 'aws.', which EventBridge keeps for AWS's own services",
            attribute="source",
        )
    body = _data_of(event) if data_only else _escaped(encode_json(event))
    if topic is not None:
        body = _with_topic(body, topic)
    assert source is not None  # encode_json refuses an event without one
    attributes: dict[str, Any] = {"Source": source, "DetailType": type}
    size = len(body) + _length(source) + _length(type)
    time = _time_of(event)
    if time is not None:
        attributes["Time"] = time
        size += TIME_BYTES
    if data_only:
        return DataWire(body, attributes, size, None, event)
    return Wire(body, attributes, size)


def encode_message(event: Event, *, token: bool = False) -> Wire:
    """Make the message of an event that goes into a queue without a bus: a record, or a redriven event.

    With `token` it has one by which a FIFO queue knows it when it is sent again.
    """
    body = _escaped(encode_json(event))
    return Wire(body, {"DeduplicationId": new_id()} if token else NO_ATTRIBUTES, len(body))


def encode_raw(event: Event, topic: str | None) -> Wire:
    """Make the entry of an event for PutRawEvents: the event in JSON, as it is. `topic` as in `encode`.

    Each wire has a token, so that EventBridge drops what is sent again because an answer was lost; an event that is
    published twice has two. The `partitionkey` is the event group, or what stands for it where it cannot be one.
    """
    body = _escaped(encode_json(event))
    if topic is not None:
        body = _with_topic(body, topic)
    attributes = {"ContentType": "application/json", "DeduplicationId": new_id()}
    key = event.extensions.get("partitionkey") if event.extensions else None
    if key:
        attributes["EventGroupId"] = group_of(str(key))
    return Wire(body, attributes, len(body) + sum(map(len, attributes.values())), str(key) if key else None)


def group_of(key: str) -> str:
    """Return the event group of an ordering key: itself, or its hash if a FIFO queue does not take it.

    Source: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html (MessageGroupId)
    """
    return key if _GROUP.match(key) else hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def _data_of(event: Event) -> bytes:
    body = event.data_bytes
    if event._kind != DataKind.JSON or body.lstrip()[:1] != b"{":
        raise InvalidEvent(
            f"event {event.id!r}: its topic has wire='detail-data', where the data is the Detail of EventBridge and "
            f"must be a JSON object, not {event.data_kind.name.lower()}: publish an object, or use wire='cloudevent'",
            attribute="data",
        )
    if event._source is None:
        encode_json(event)  # says what is missing
    return _escaped(body)


def _with_topic(body: bytes, topic: str) -> bytes:
    # A topic's name holds nothing that JSON escapes.
    return b'{"crossbustopic":"' + topic.encode() + (b'",' if body[1:2] != b"}" else b'"') + body[1:]


def _escaped(body: bytes) -> bytes:
    if not body.isascii():
        for raw, escape in _NOT_XML:
            if raw in body:
                body = body.replace(raw, escape)
    return body


def _length(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8"))


def _time_of(event: Event) -> datetime | None:
    """Return the time as EventBridge takes it: whole seconds since 1970, in UTC; None if there is none, or before."""
    time = event._time
    found = time if time.__class__ is datetime else event.time
    if found is None or not 1970 < found.year < 9999:
        return None
    return found if found.tzinfo is UTC else found.astimezone(UTC)


# --- reading ----------------------------------------------------------------------------------------------------

_NONE: Final = msgspec.Raw(b"")


class _Envelope(msgspec.Struct, gc=False):
    detail: msgspec.Raw = _NONE
    detail_type: str = msgspec.field(name="detail-type", default="")
    source: str = ""
    id: str = ""
    time: str | None = None
    account: str | None = None
    region: str | None = None
    resources: list[str] = []
    replay_name: str | None = msgspec.field(name="replay-name", default=None)
    specversion: msgspec.Raw = _NONE


_decode_envelope = msgspec.json.Decoder(_Envelope).decode


def decode(body: bytes) -> Event:
    """Read a message. Raises `DecodeError` if it is no event in any of the forms."""
    try:
        envelope = _decode_envelope(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return decode_json(body)  # an event alone that is odd, or what says why it is none
    detail = bytes(envelope.detail)
    if bytes(envelope.specversion) or not detail:
        return decode_json(body)
    if b'": ' in body[:16]:
        # Who wrote the envelope with spaces (local stand-ins do) has written the detail anew with them.
        detail = msgspec.json.format(detail, indent=-1)
    try:
        event = decode_json(detail)
    except DecodeError:
        if b'"specversion"' in detail:
            raise
        event = _native(envelope, detail)
    return event if envelope.replay_name is None else event.with_attributes(**{REPLAY: envelope.replay_name})


def _native(envelope: _Envelope, detail: bytes) -> Event:
    """Make an event of an envelope whose detail is none: as AWS's own services write it, and ``detail-data``.

    Source: https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-events-structure.html
    """
    if not envelope.source or not envelope.detail_type or not envelope.id:
        raise DecodeError(
            "it is neither a CloudEvent nor an event of EventBridge (id, source and detail-type)"
        )
    values: dict[str, Any] = {
        "specversion": "1.0",
        "id": envelope.id,
        "source": envelope.source,
        "type": envelope.detail_type,
        "datacontenttype": "application/json",
    }
    optional = {
        "time": envelope.time,
        "awsaccount": envelope.account,
        "awsregion": envelope.region,
        "awsresources": " ".join(envelope.resources),
    }
    values |= {name: value for name, value in optional.items() if value}
    return make(values, DataKind.JSON, detail, None)
