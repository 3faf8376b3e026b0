"""What the broker keeps in memory. Small on purpose: a million waiting events are a million `Message`s."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec

from crossbus.adapter import Wire
from crossbus.event import Event

__all__ = ["NO_ATTRIBUTES", "Copy", "DeadRecord", "Entry", "Line", "LocalWire", "Message", "place_of"]

NO_ATTRIBUTES: Final[Mapping[str, Any]] = MappingProxyType({})
"""The attributes of a message that has none: one object for all."""


class LocalWire(Wire, gc=False):
    """An event as structured JSON, with the event itself for the filters."""

    event: Event | None = None


class Message(msgspec.Struct, gc=False):
    """One published message: shared by the history of its topic and all queues that hold it. Never changed."""

    sequence: int
    """Its place among all messages of the broker; as text its message id, and its position for a replay."""
    body: bytes
    published: float
    """When it was accepted, in seconds since the epoch."""
    key: str | None
    attributes: Mapping[str, Any]


class Copy(Message, gc=False):
    """A replayed message: the same message, at another place of a queue."""

    place: int
    """A number of its own, from the same series as `sequence`."""
    original: Message
    """What the history holds."""


def place_of(message: Message) -> int:
    """Return the number by which a queue's messages stand in the order in which they were put into it."""
    return message.place if isinstance(message, Copy) else message.sequence


class Line(msgspec.Struct, gc=False):
    """The messages of one ordering key in one ordered queue, behind the one whose turn it is.

    The first message of the key is an `Entry` elsewhere: ready, delayed or in hand. The line is there as long as
    the first is, so that its being there is what holds the key.
    """

    key: str
    behind: deque[Message] | None = None
    """None rather than empty, for many keys have one message and an empty deque is 600 bytes."""


class Entry(msgspec.Struct, gc=False):
    """A message of one queue that was received at least once, or is the first of its ordering key."""

    message: Message
    attempts: int
    """How often it was received."""
    expires: float
    """When its lease ends, by the clock's `monotonic`. Means something only while it is in hand."""
    line: Line | None


class DeadRecord(msgspec.Struct, gc=False):
    """A message in a dead letter."""

    message: Message
    attempts: int
    """How often it was received before the backstop moved it; 0 for a record that a consumer wrote."""
