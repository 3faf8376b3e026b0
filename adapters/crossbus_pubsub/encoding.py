"""The CloudEvents Pub/Sub binding: events to messages and back.

Binary mode: attribute ``ce-NAME`` for each attribute, ``content-type`` for `datacontenttype`, and the data as it is.
What binary mode cannot restore exactly goes in structured mode, with all ``ce-`` attributes beside it, so that
filters see the same either way.

Source: https://github.com/googleapis/google-cloudevents/blob/main/docs/spec/pubsub.md
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from crossbus.adapter import Received, Wire
from crossbus.codecs import (
    CONTENT_TYPE,
    binary_is_exact,
    decode_binary,
    decode_json,
    encode_binary,
    encode_json,
)
from crossbus.errors import DecodeError
from crossbus.event import Event
from crossbus.wire import OWN_PREFIX

__all__ = ["ATTRIBUTE_BYTES", "ATTRIBUTE_COUNT", "PREFIX", "PubSubWire", "decode", "encode", "request_of"]

PREFIX: Final = "ce-"
STRUCTURED: Final = f"{CONTENT_TYPE}; charset=UTF-8"
ATTRIBUTE_BYTES: Final = 1024
ATTRIBUTE_COUNT: Final = 100
"""Limits of a message: https://cloud.google.com/pubsub/quotas#resource_limits"""

_MESSAGE_OVERHEAD: Final = 64
"""Bytes that a request adds to a message, and the service with its id and its time."""
_EVENTS_INSIDE: Final = "application/cloudevents"


class PubSubWire(Wire, gc=False):
    """An event as a message of the SDK, made and written once."""

    packed: bytes = b""


class _Prefixed(dict[str, str]):
    """Names of attributes as a message has them. A dict, for it is asked for every attribute of every event."""

    def __missing__(self, name: str) -> str:
        if len(self) > 10_000:  # names are the publisher's, and need not be few
            self.clear()
            self["datacontenttype"] = "content-type"
        prefixed = self[name] = PREFIX + name
        return prefixed


_prefixed = _Prefixed(datacontenttype="content-type")


class _Plain(dict[str, str]):
    """The other way round; empty for what is no attribute of an event."""

    def __missing__(self, name: str) -> str:
        if len(self) > 10_000:
            self.clear()
        plain = self[name] = name[len(PREFIX) :] if name.startswith(PREFIX) else ""
        return plain


_plain = _Plain()


def encode(event: Event, message: Any, *, structured: bool = False) -> PubSubWire:
    """Make a message of an event. `message` is the SDK's class `PubsubMessage`."""
    plain, body = encode_binary(event)
    attributes = {_prefixed[name]: value for name, value in plain.items()}
    content = event._datacontenttype
    if (
        structured
        or not binary_is_exact(event)
        or (content is not None and content.lower().startswith(_EVENTS_INSIDE))
    ):
        body = encode_json(event)
        attributes["content-type"] = STRUCTURED
        attributes = fitting(attributes)
    extensions = event._extensions
    found = extensions.get("partitionkey") if extensions else None
    key = None if found is None else str(found)
    made = message(data=body)
    if key is not None:
        made.ordering_key = key
    into = made.attributes
    for name, value in attributes.items():  # one by one: half of what handing over the dict costs
        into[name] = value
    packed = made.SerializeToString()
    return PubSubWire(body, attributes, len(packed) + _MESSAGE_OVERHEAD, key, packed)


def fitting(attributes: dict[str, str]) -> dict[str, str]:
    """Return those attributes that a message can have: in structured mode the event is whole without them."""
    if len(attributes) <= ATTRIBUTE_COUNT - 2 and all(
        len(value) <= ATTRIBUTE_BYTES // 4 for value in attributes.values()
    ):
        return attributes
    small = {
        name: value
        for name, value in attributes.items()
        if len(value.encode()) <= ATTRIBUTE_BYTES and len(name.encode()) <= 256
    }
    first = ["content-type", *(name for name in small if name != "content-type")]
    return {name: small[name] for name in first[: ATTRIBUTE_COUNT - 2]}


def request_of(topic: bytes, wires: Sequence[Wire], message: Any) -> bytes:
    """Write a `PublishRequest`: its topic, which is written already, and the messages, which mostly are too.

    In protobuf, fields that stand after each other are one message; `messages` is field 2, with its length before it.
    """
    parts = [topic]
    for wire in wires:
        packed = wire.packed if isinstance(wire, PubSubWire) else _packed(wire, message)
        parts += (_MESSAGES, _varint(len(packed)), packed)
    return b"".join(parts)


def _packed(wire: Wire, message: Any) -> bytes:
    """Write the message of a wire that `encode` did not make."""
    attributes = {str(name): str(value) for name, value in wire.attributes.items()}
    made = message(data=wire.body, attributes=attributes, ordering_key=wire.key or "")
    return bytes(made.SerializeToString())


_MESSAGES: Final = b"\x12"
_VARINTS: dict[int, bytes] = {}


def _varint(number: int) -> bytes:
    found = _VARINTS.get(number)
    if found is None:
        low, rest = number & 0x7F, number >> 7
        found = bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])
        if number < 16_384:
            _VARINTS[number] = found
    return found


def decode(received: Received) -> Event:
    """Read a message. Raises `DecodeError` if it is no CloudEvent."""
    attributes = received.attributes
    content = attributes.get("content-type")
    if content is not None and content.lower().startswith(_EVENTS_INSIDE):
        if not _is_json(content):
            raise DecodeError(
                f"message has content-type {content!r}; of structured events only JSON can be read"
            )
        return _with_own(decode_json(received.body), attributes)
    values = {_plain[name]: value for name, value in attributes.items()}
    values.pop("", None)
    if "specversion" not in values:
        raise DecodeError("message is no CloudEvent: it has neither the attribute ce-specversion nor the content-type "
                          "application/cloudevents+json")  # fmt: skip
    if content is not None:
        values["datacontenttype"] = content
    return decode_binary(values, received.body)


def _is_json(content: str) -> bool:
    return content.partition(";")[0].strip().lower() == CONTENT_TYPE


def _with_own(event: Event, attributes: Mapping[str, Any]) -> Event:
    """Add what crossbus wrote beside a structured event."""
    start = PREFIX + OWN_PREFIX
    own = {name[3:]: value for name, value in attributes.items() if name.startswith(start)}
    return event.with_attributes(**own) if own else event
