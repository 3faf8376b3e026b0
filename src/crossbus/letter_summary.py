"""Counting dead letters by what they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from crossbus.adapter import Received
from crossbus.deadletter import Head

__all__ = ["Counting", "DeadLetterGroup", "DeadLetterSummary"]

GROUPS: Final = 1000
"""The most groups of a summary; what is in none of them is counted as `others`."""


@dataclass
class DeadLetterGroup:
    """Dead letters of one reason, event type and handler."""

    reason: str
    type: str | None
    """The type of the events; None if they could not be decoded."""
    handler: str | None
    count: int = 0
    first: datetime | None = None
    """When the first of them was given up."""
    last: datetime | None = None
    """When the last of them was given up."""


@dataclass
class DeadLetterSummary:
    """What is in a dead letter, largest group first."""

    groups: list[DeadLetterGroup] = field(default_factory=list)
    count: int = 0
    """Of all, those in no group included."""
    others: int = 0
    """Dead letters in no group: there were too many different reasons."""
    complete: bool = True
    """False if there may be more than one look can reach. See `DeadLetters.looking`."""


class Counting:
    """Counts heads by what they share."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, str | None, str | None], list[str | int]] = {}
        self._count = 0
        self._others = 0

    def add(self, page: Sequence[tuple[Head, Received]]) -> None:
        """Count those of a page."""
        groups = self._groups
        self._count += len(page)
        for head, _ in page:
            # Without the Z a time with a fraction is greater than one without.
            time = (head.last_time or "").removesuffix("Z")
            key = head.reason, head.type, head.handler
            group = groups.get(key)
            if group is None:
                if len(groups) >= GROUPS:
                    self._others += 1
                    continue
                group = groups[key] = [0, "", ""]
            group[0] += 1  # type: ignore[operator]
            if time:
                if not group[1] or time < group[1]:  # type: ignore[operator]
                    group[1] = time
                if time > group[2]:  # type: ignore[operator]
                    group[2] = time

    def summary(self, *, complete: bool) -> DeadLetterSummary:
        """Return what was counted."""
        groups = [
            DeadLetterGroup(*key, int(count), _datetime(str(first)), _datetime(str(last)))
            for key, (count, first, last) in self._groups.items()
        ]
        groups.sort(key=lambda group: (-group.count, group.reason, group.type or ""))
        return DeadLetterSummary(groups, self._count, self._others, complete)


def _datetime(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(f"{text}Z") if text else None
    except ValueError:
        return None
