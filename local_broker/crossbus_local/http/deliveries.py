"""Deliveries as Event Grid hands them out, and their lock tokens.

A lock token names the message beside the lease. Leases are numbered anew when a broker in memory starts again, and an
old token must not acknowledge another event.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import msgspec

from crossbus.adapter import Received
from crossbus.attributes import is_utf8
from crossbus_local.queue import Queue

__all__ = ["answer_of", "error_of", "is_deliverable", "lease_of"]

_TOKEN: Final = re.compile(r"[1-9][0-9]{0,18}-(?:0|[1-9a-f][0-9a-f]{0,15})\Z")
_encode = msgspec.json.Encoder().encode
_check = msgspec.json.Decoder(msgspec.Raw).decode


def answer_of(deliveries: Iterable[Received]) -> bytes:
    """Return the body of the answer to a receive. Events are put into it as they were sent."""
    return b'{"value":[' + b",".join(map(_delivered, deliveries)) + b"]}"


def _delivered(one: Received) -> bytes:
    token = f"{one.message_id}-{one.lease:x}".encode()
    return b'{"brokerProperties":{"lockToken":"%b","deliveryCount":%d},"event":%b}' % (
        token,
        one.attempt or 1,
        _event(one),
    )


def _event(one: Received) -> bytes:
    """Return the event; what the broker adds, as of a replay, stands at its end."""
    if not one.attributes:
        return one.body
    members = one.body.rstrip()[:-1].rstrip()
    comma = b"" if members.endswith(b"{") else b","  # of an object without members
    return members + comma + _encode(dict(one.attributes))[1:]


def is_deliverable(one: Received) -> bool:
    """True for a JSON object. The protocol carries nothing else, and crossbus's own takes any bytes."""
    if not (one.body.lstrip()[:1] == b"{" and is_utf8(one.body)):
        return False
    try:
        _check(one.body)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def lease_of(token: str, queue: Queue) -> int | None:
    """Return the lease of a lock token, if the queue has it."""
    if _TOKEN.match(token) is None:
        return None
    message, _, lease = token.partition("-")
    held = queue.held(int(lease, 16))
    return int(lease, 16) if held is not None and str(held.message.sequence) == message else None


def error_of(token: str) -> dict[str, str]:
    """Say why a lock token failed."""
    if _TOKEN.match(token) is None:
        return {"code": "BadToken", "message": "this is no lock token of this broker"}
    return {"code": "TokenLost", "message": "the lock has expired, or was settled already"}
