"""Dead letters: the record that crossbus writes of an event that it gave up, and how it is read."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, Literal

import msgspec

from crossbus.adapter import Adapter, Received, Wire
from crossbus.codecs import decode_json, encode_json
from crossbus.errors import DecodeError, EventError
from crossbus.event import Event
from crossbus.outcomes import text_of
from crossbus.topology import Subscription
from crossbus.wire import TRACEPARENT, TRACESTATE, take_own

__all__ = [
    "RECORD_TYPE",
    "DeadLetter",
    "Head",
    "Reason",
    "make_record",
    "read_head",
    "read_record",
    "wire_of",
]

RECORD_TYPE: Final = "dev.crossbus.deadletter.v1"
"""The type of the events that crossbus writes into a dead letter."""
ERROR_LIMIT: Final = 4000
"""Characters of an error's text that a record keeps."""


class Reason:
    """Why an event was given up, where the handler gave no reason of its own with `Reject`."""

    FAILED: Final = "failed"
    """The last attempt failed."""
    UNDECODABLE: Final = "undecodable"
    """It is no CloudEvent, and there is no `mapping`, or that failed."""
    INVALID: Final = "invalid data"
    """The data does not fit the handler."""
    UNHANDLED: Final = "no handler for its type"
    MISMATCH: Final = "not matched by the filter"
    BACKSTOP: Final = "backstop"
    """The provider moved it, after more receives than the backstop allows."""


_NO_EVENT = msgspec.Raw(b"")


class _Record(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The data of a record: one form for all providers."""

    reason: str
    topic: str
    subscription: str
    error: str | None = None
    handler: str | None = None
    attempts: int | None = None
    first_time: str | None = None
    last_time: str | None = None
    message_id: str | None = None
    traceparent: str | None = None
    tracestate: str | None = None
    event: msgspec.Raw = _NO_EVENT
    body_base64: str | None = None
    attributes: dict[str, str] | None = None


class _OriginalHead(msgspec.Struct, gc=False):
    """What a summary needs of an original."""

    id: str = ""
    type: str | None = None


class _RecordHead(msgspec.Struct, gc=False):
    """What a summary needs of a record."""

    reason: str
    handler: str | None = None
    last_time: str | None = None
    event: _OriginalHead | None = None


class _StructuredHead(msgspec.Struct, gc=False):
    """A record in structured JSON."""

    specversion: Literal["1.0"]
    type: Literal["dev.crossbus.deadletter.v1"]
    data: _RecordHead


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(_Record)
_head_decoder = msgspec.json.Decoder(_RecordHead)
_structured_head_decoder = msgspec.json.Decoder(_StructuredHead)


def make_record(
    subscription: Subscription,
    received: Received,
    event: Event | None,
    *,
    reason: str,
    error: BaseException | None,
    handler: str | None,
    now: float,
) -> Event:
    """Make the record of a delivery that is given up: with the event as it is if it is one, else with its bytes."""
    record = _Record(
        reason=reason[:ERROR_LIMIT],
        topic=subscription.topic.name,
        subscription=subscription.name,
        error=None if error is None else f"{type(error).__name__}: {text_of(error)}"[:ERROR_LIMIT],
        handler=handler,
        attempts=received.attempt,
        first_time=None if received.published is None else _time(received.published),
        last_time=_time(now),
        message_id=received.message_id,
    )
    extensions: dict[str, str] = {}
    if event is not None:
        record.event = msgspec.Raw(encode_json(event))
        for name in (TRACEPARENT, TRACESTATE):
            if name in event.extensions:
                extensions[name] = str(event.extensions[name])
        record.traceparent = extensions.get(TRACEPARENT)
        record.tracestate = extensions.get(TRACESTATE)
    else:
        record.body_base64 = base64.b64encode(received.body).decode("ascii")
        record.attributes = {name: str(value) for name, value in received.attributes.items()}
    return Event(
        # Written twice after a crash, it has one id: whoever reads can tell.
        id=f"{subscription.topic.name}--{subscription.name}/{received.message_id}",
        type=RECORD_TYPE,
        source=f"/crossbus/{subscription.topic.name}/{subscription.name}",
        time=datetime.fromtimestamp(now, UTC),
        datacontenttype="application/json",
        data=_encoder.encode(_clean(record)),
        extensions={name: value for name, value in extensions.items() if value.isprintable()},
    )


def _clean(record: _Record) -> _Record:
    """Replace lone surrogates in texts that came from exceptions: JSON cannot hold them."""
    for name in ("reason", "error", "handler"):
        value = getattr(record, name)
        if value is not None:
            setattr(record, name, value.encode("utf-8", "replace").decode("utf-8"))
    return record


class DeadLetter(msgspec.Struct, frozen=True):
    """An event that was given up."""

    id: str
    """Identifies it within its dead letter, for `redrive` and `purge`."""
    reason: str
    """The text of `Reject`, or one of `Reason`."""
    topic: str
    subscription: str
    error: str | None
    """The exception of the last attempt, if one was raised."""
    handler: str | None
    attempts: int | None
    first_time: datetime | None
    """When the provider first accepted the event, where it tells."""
    last_time: datetime | None
    """When it was given up."""
    event: Event | None
    """The event; None if it could not be decoded."""
    body: bytes | None
    """The original bytes, if it could not be decoded."""
    attributes: Mapping[str, str]
    """What stood beside those bytes."""
    traceparent: str | None
    received: Received
    """What the provider holds."""


def read_record(adapter: Adapter, subscription: Subscription, received: Received) -> DeadLetter:
    """Read what stands in a dead letter: a record, or what the provider's backstop moved there."""
    where = (subscription.topic.name, subscription.name)
    try:
        event, _ = take_own(adapter.decode(received))
    except DecodeError:
        return _backstop(where, received, None)
    if event.type != RECORD_TYPE:
        return _backstop(where, received, event)
    try:
        record = _decoder.decode(event.data_bytes)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _backstop(where, received, event)
    original: Event | None = None
    body = None if record.body_base64 is None else _unbase64(record.body_base64)
    if bytes(record.event):
        try:
            original = decode_json(bytes(record.event))
        except EventError:
            body = bytes(record.event)
    return DeadLetter(
        id=received.message_id,
        reason=record.reason,
        topic=record.topic,
        subscription=record.subscription,
        error=record.error,
        handler=record.handler,
        attempts=record.attempts,
        first_time=_datetime(record.first_time),
        last_time=_datetime(record.last_time),
        event=original,
        body=body,
        attributes=record.attributes or {},
        traceparent=record.traceparent,
        received=received,
    )


class Head(msgspec.Struct, gc=False):
    """What tells dead letters apart, read without their events: a summary reads many."""

    id: str
    reason: str
    type: str | None
    """The type of the event; None if it could not be decoded."""
    event_id: str | None
    handler: str | None
    last_time: str | None
    """When it was given up, as RFC 3339 in UTC; where only the provider knows, when it came into the dead letter."""


def read_head(adapter: Adapter, received: Received) -> Head:
    """Read of a record what tells it from others."""
    event: Event | None = None
    if (
        not received.attributes
    ):  # most providers carry it so, and making an event of it takes longer than all else
        try:
            return _head(received, _structured_head_decoder.decode(received.body).data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
    try:
        event = adapter.decode(received)
        if event.type == RECORD_TYPE:
            return _head(received, _head_decoder.decode(event.data_bytes))
    except (DecodeError, msgspec.DecodeError, UnicodeDecodeError):
        pass
    came = None if received.published is None else _time(received.published)
    if event is None:
        return Head(received.message_id, Reason.BACKSTOP, None, None, None, came)
    return Head(received.message_id, Reason.BACKSTOP, event.type, event.id, None, came)


def _head(received: Received, record: _RecordHead) -> Head:
    original = record.event
    if original is None:
        return Head(received.message_id, record.reason, None, None, record.handler, record.last_time)
    return Head(
        received.message_id,
        record.reason,
        original.type,
        original.id or None,
        record.handler,
        record.last_time,
    )


def wire_of(adapter: Adapter, subscription: Subscription, letter: DeadLetter) -> Wire:
    """Return the original of a dead letter as the provider carries it."""
    if letter.event is not None:
        return adapter.encode(subscription.topic, letter.event)
    body = letter.body or b""
    return Wire(body, letter.attributes, len(body))


def _backstop(where: tuple[str, str], received: Received, event: Event | None) -> DeadLetter:
    traceparent = None if event is None else event.extensions.get(TRACEPARENT)
    return DeadLetter(
        id=received.message_id,
        reason=Reason.BACKSTOP,
        topic=where[0],
        subscription=where[1],
        error=None,
        handler=None,
        attempts=None,
        first_time=None if received.published is None else datetime.fromtimestamp(received.published, UTC),
        last_time=None,
        event=event,
        body=None if event is not None else received.body,
        attributes={name: str(value) for name, value in received.attributes.items()},
        traceparent=None if traceparent is None else str(traceparent),
        received=received,
    )


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def _datetime(text: str | None) -> datetime | None:
    try:
        return None if text is None else datetime.fromisoformat(text)
    except ValueError:
        return None


def _unbase64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return text.encode("utf-8")
