"""Examining in tests: a program's bus, or declarations, and what was not well of it."""

from __future__ import annotations

from typing import NamedTuple

from crossbus.adapter import Adapter
from crossbus.checks import State
from crossbus.clock import Clock, SystemClock
from crossbus.config import Configuration, load
from crossbus.doctor import Examination, Target, examine
from crossbus.topology import Subscription, Topology
from support import run


class Bad(NamedTuple):
    """A check that is not well."""

    state: State
    name: str
    check: str


class Moved(SystemClock):
    """The real time, so many seconds off."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds

    def time(self) -> float:
        """The time, wrong."""
        return super().time() + self._seconds


def topology_of(*subscriptions: Subscription) -> Topology:
    """Return a topology of subscriptions and their topics."""
    topics = {one.topic.name: one.topic for one in subscriptions}
    return Topology(tuple(topics.values()), subscriptions)


def examined(
    place: Configuration | Adapter | str, *subscriptions: Subscription, clock: Clock | None = None
) -> list[Examination]:
    """Examine declarations at a URL, where a configuration says, or with an adapter."""
    adapter = place if isinstance(place, Adapter) else None
    if isinstance(place, Adapter):
        place = Configuration(default=place.profile)
    elif isinstance(place, str):
        place = load(place)
    target = Target(place, topology_of(*subscriptions), "crossbus provision shop:bus")
    return run(examine(target, clock, adapter=adapter), limit=120)


def bad(found: list[Examination], *but: str) -> list[Bad]:
    """Return what is not well, without the checks `but`."""
    return [
        Bad(one.state, one.name, one.check) for one in found if one.state != "ok" and one.check not in but
    ]


def of(found: list[Examination], check: str, name: str | None = None) -> Examination:
    """Return the one line of a check."""
    (line,) = (one for one in found if one.check == check and name in (None, one.name))
    return line
