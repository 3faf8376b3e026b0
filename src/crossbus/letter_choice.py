"""Which dead letters: by id, event type, reason, and when they were given up."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import datetime

from crossbus.deadletter import Head

__all__ = ["Choice", "ids_of"]


class Choice:
    """Which dead letters."""

    def __init__(
        self,
        type: str | None,
        reason: str | None,
        since: datetime | None,
        ids: frozenset[str] | None = None,
        until: float | None = None,
    ) -> None:
        self.ids = ids
        self._type = None if type is None else _pattern(type)
        self._reason = None if reason is None else _pattern(reason)
        self._since = None if since is None else since.timestamp()
        self.until = until
        self.all = type is None and reason is None and since is None and ids is None and until is None
        self._narrows = not (type is None and reason is None and since is None and ids is None)

    def takes(self, head: Head) -> bool:
        """Return whether a dead letter is among them."""
        return self.all or (not self.is_newer(head) and self._fits(head))

    def _fits(self, head: Head) -> bool:
        if not self._narrows:
            return True
        if self.ids is not None and not (head.id in self.ids or head.event_id in self.ids):
            return False
        if self._type is not None and not (head.type is not None and self._type(head.type)):
            return False
        if self._reason is not None and not self._reason(head.reason):
            return False
        if self._since is not None:
            time = _seconds(head.last_time)
            return time is not None and time >= self._since
        return True

    def is_newer(self, head: Head) -> bool:
        """True if it came after the beginning."""
        if self.until is None:
            return False
        time = _seconds(head.last_time)
        return time is not None and time > self.until


def _pattern(text: str) -> Callable[[str], object]:
    if "*" not in text:
        return text.__eq__
    return re.compile(".*".join(map(re.escape, text.split("*"))), re.DOTALL).fullmatch


def ids_of(given: Iterable[str] | None) -> frozenset[str] | None:
    """Return ids as they may be given: one, several, or None for no choice by id."""
    if given is None:
        return None
    return frozenset([given] if isinstance(given, str) else given)


def _seconds(text: str | None) -> float | None:
    try:
        return None if text is None else datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None
