"""`Remembered`: answers to requests that may come again because the answer was lost.

A request that changes something may carry an id. Sent again with the same id, it is answered as it was and not done
again: an event whose publishing was cut off is not published twice.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import Final, NamedTuple

from crossbus.errors import InvalidRequest

__all__ = ["Remembered"]

KEPT: Final = 300.0
"""Seconds. A client gives up sooner: crossbus after 60."""
MOST: Final = 100_000
"""The most answers that are kept. They are short: a number, or one for each lease."""


class _Kept(NamedTuple):
    when: float
    what: tuple[str, int]
    answer: bytes


class Remembered:
    """The answers of the last minutes, by the id of their request."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, _Kept] = OrderedDict()

    def find(self, id: str, path: str, body: bytes) -> bytes | None:
        """Return the answer that a request was given, or None if it is new.

        Raises `InvalidRequest` if the id was that of another request.
        """
        kept = self._kept.get(id)
        if kept is None:
            return None
        if kept.what != (path, hash(body)):
            raise InvalidRequest(
                f"Idempotency-Key {id!r} was used for another request; use a new one for each"
            )
        return kept.answer

    def keep(self, id: str, path: str, body: bytes, answer: bytes) -> None:
        """Remember an answer."""
        now = time.monotonic()
        self._kept[id] = _Kept(now, (path, hash(body)), answer)
        while self._kept:
            oldest = next(iter(self._kept.values()))
            if oldest.when >= now - KEPT and len(self._kept) <= MOST:
                return
            self._kept.popitem(last=False)
