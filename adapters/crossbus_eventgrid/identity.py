"""The id of a message. Event Grid has none: `id` and `source` of the event identify it, as in CloudEvents."""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b
from typing import Final

import msgspec

__all__ = ["message_id"]

_LONGEST: Final = 200
"""Characters of an event's id that are shown as they are."""


class _Identity(msgspec.Struct, gc=False):
    id: str
    source: str


_decode = msgspec.json.Decoder(_Identity).decode


def message_id(body: bytes) -> str:
    """Return ``ID~HASH`` of an event in JSON: its id, and eight characters for its source. The same at each delivery.

    Bytes that are no event have a hash alone.
    """
    try:
        identity = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return f"~{_hash(body)}"
    id = identity.id
    if len(id) > _LONGEST or not id.isprintable():
        return f"~{_hash(body)}"
    return f"{id}~{_of_source(identity.source)}"


@lru_cache(maxsize=1024)
def _of_source(source: str) -> str:
    return _hash(source.encode("utf-8", "surrogatepass"))[:8]


def _hash(data: bytes) -> str:
    return blake2b(data, digest_size=12).hexdigest()
