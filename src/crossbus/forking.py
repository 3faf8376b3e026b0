"""What a fork does to an open bus: in the child it is the parent's, and refuses."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from weakref import WeakSet

from crossbus.errors import BusClosedError

if TYPE_CHECKING:
    from crossbus.bus import Bus

__all__ = ["closed_error", "is_the_parents", "note_open"]

_open: WeakSet[Bus] = WeakSet()
_parents: list[Bus] = []
"""In a child: the buses that its parent had open. Kept, for what they hold must not be closed here."""


def note_open(bus: Bus) -> None:
    """Remember a bus that is being opened. Raises `BusClosedError` if a parent process had opened it."""
    if is_the_parents(bus):
        raise closed_error(bus, "opening")
    _open.add(bus)


def is_the_parents(bus: Bus) -> bool:
    """True if this bus was open when this process was forked."""
    return any(each is bus for each in _parents)


def closed_error(bus: Bus, what: str) -> BusClosedError:
    """Make the error of using a bus that is not open."""
    if is_the_parents(bus):
        return BusClosedError(
            f"{what}: this bus was opened in the parent process, before a fork; make and open one in this process, or "
            "open it only after the fork"
        )
    return BusClosedError(f"{what}: the bus is not open; use `async with bus:` or await bus.open()")


def _forked() -> None:
    _parents.extend(bus for bus in _open if bus.is_open)
    _open.clear()
    for bus in _parents:
        bus._is_open = False


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_forked)
