"""What an adapter can do, as plain data: readable without any cloud SDK, and the names that errors and the kit use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from crossbus.errors import UnsupportedError

__all__ = ["CAPABILITIES", "Capabilities", "DelayRange", "DelaySteps", "FilterSupport", "LeaseLimits"]

CAPABILITIES: Final[Mapping[str, str]] = {
    "ordering": "events with one partitionkey are delivered in order",
    "partial_publish": "a batch may be published in part, with an outcome for each event",
    "retry_delay": "a delivery can be given back with a delay of its own",
    "extend_lease": "the lease of a delivery can be extended",
    "attempts": "each delivery tells its attempt number",
    "backstop": "the provider dead-letters by itself after a number of receives",
    "filter": "the provider evaluates filters",
    "filter_change": "the filter of a subscription can be changed in place",
    "replay_time": "a subscription can be replayed from a time",
    "replay_position": "a subscription can be replayed from a position",
    "replay_ordered": "an ordered subscription can be replayed, in order",
    "backlog": "the number of waiting events can be asked for",
    "dead_letters": "dead letters can be listed, redriven and purged",
    "redeliver": "an event can be put into one subscription only",
    "temporary_subscriptions": "a subscription can be made that removes itself",
    "provision": "topics and subscriptions can be created",
    "push": "the provider can push deliveries",
    "processes": "several processes share the broker",
    "restarts": "the broker can be restarted, and keeps what it holds",
    "network": "there is a network between the program and the broker",
    "credentials": "there are credentials",
    "backstop_listed": "what the provider dead-letters by itself can be listed with the dead letters",
    "foreign": "what is no CloudEvent can arrive, sent by a program without crossbus",
}
"""Every capability by name. `UnsupportedError.capability` and the skips of the conformance kit use these names."""


@dataclass(frozen=True, slots=True)
class DelayRange:
    """Any delay from `minimum` to `maximum` seconds."""

    minimum: float = 0.0
    maximum: float = float("inf")

    def floor(self, delay: float) -> float:
        """Return the longest allowed delay that is not longer; the shortest one if all are longer."""
        return min(max(delay, self.minimum), self.maximum)


@dataclass(frozen=True, slots=True)
class DelaySteps:
    """Only these delays, in seconds, ascending."""

    steps: tuple[float, ...]

    def floor(self, delay: float) -> float:
        """Return the longest allowed delay that is not longer; the shortest one if all are longer."""
        return max((step for step in self.steps if step <= delay), default=self.steps[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseLimits:
    """How long a lease may be, in seconds."""

    minimum: float = 0.0
    maximum: float = float("inf")
    total: float = float("inf")
    """The longest that a delivery can be held by extending, counted from its receipt."""
    fixed: bool = False
    """True if the lease is a property of the subscription, so that a receiver cannot choose it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterSupport:
    """Which filters the provider evaluates itself."""

    operators: frozenset[str] = frozenset()
    """Of ``exact prefix suffix all any not``."""
    case_sensitive: bool = True
    max_size: int | None = None
    """The length of the provider's text, in bytes."""
    max_values: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What an adapter can do. Sizes are in bytes, times in seconds."""

    names: frozenset[str]
    """The capabilities it has, of `CAPABILITIES`."""
    publish_batch: int
    """The most events of one request."""
    publish_batch_bytes: int
    """The most bytes of one request, counted as `Wire.size`."""
    event_bytes: int
    """The most bytes of one event, counted as `Wire.size`."""
    attribute_bytes: int | None = None
    """The most bytes of one attribute's value; None for no limit but the event's."""
    attribute_count: int | None = None
    receive_batch: int
    """The most deliveries of one request."""
    receive_wait: tuple[float, float] = (0.0, float("inf"))
    """The shortest and the longest wait of one receive."""
    lease: LeaseLimits
    retry_delays: DelayRange | DelaySteps = DelayRange()
    backstop: tuple[int, int] | None = None
    """The fewest and the most receives after which the provider dead-letters."""
    filters: FilterSupport = FilterSupport()
    duplicates: bool = True
    """True if one consumer may be given an event twice although nothing failed."""
    backlog: Literal["exact", "approximate", "none"] = "none"
    name_rule: str = ""
    """A regular expression for the provider's own names; empty if it has no rule of its own."""
    name_length: int = 256
    ways_out: Mapping[str, str] = field(default_factory=dict)
    """By capability that it lacks, what to do instead: the end of the error's sentence."""
    emulator_gaps: Mapping[str, str] = field(default_factory=dict)
    """By capability, what the emulator in use lacks though the provider has it."""

    def has(self, name: str) -> bool:
        """True if the capability is there, and no gap of an emulator takes it away."""
        if name not in CAPABILITIES:
            raise ValueError(f"{name!r} is no capability")
        return name in self.names and name not in self.emulator_gaps

    def require(self, name: str, adapter: str, what: str) -> None:
        """Raise `UnsupportedError` naming who asks for what, unless the capability is there."""
        if not self.has(name):
            gap = self.emulator_gaps.get(name)
            why = f"its emulator has no {name} ({gap})" if gap else f"it has no {name} ({CAPABILITIES[name]})"
            way_out = f": {self.ways_out[name]}" if name in self.ways_out else ""
            raise UnsupportedError(f"{what}: {adapter} cannot do that; {why}{way_out}", capability=name)
