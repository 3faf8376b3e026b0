"""What a subscription is to be at Event Grid: made of its declaration, and refused where Event Grid cannot be so."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, Final, NamedTuple

from crossbus.checks import Difference
from crossbus.errors import DeclarationError, UnsupportedError, nearest
from crossbus.topology import Subscription
from crossbus_eventgrid.compiling import compile_filter, native_text
from crossbus_eventgrid.limits import LONGEST_RETENTION, MAX_RECEIVES, SHORTEST_RETENTION

__all__ = ["MARK_KEY", "Owned", "QueueSettings", "dead_settings", "settings_of"]


class Owned(Enum):
    """Who made a subscription, as the mark on it says: a filter that every event passes, for Event Grid has no tags."""

    NO = ""
    """Somebody else: it bears no mark."""
    YES = "provisioned"
    WITH_TOPIC = "provisioned-with-topic"
    """crossbus made its topic too."""

    def mark(self) -> list[dict[str, Any]]:
        """Return the filter that says so, in a list; an empty one for none."""
        if self is Owned.NO:
            return []
        return [{"operatorType": "StringNotIn", "key": MARK_KEY, "values": [self.value]}]

    @classmethod
    def of(cls, filter: Mapping[str, Any]) -> Owned:
        """Read a filter; `NO` for one that is no mark."""
        return next((one for one in cls if filter in one.mark()), cls.NO)


MARK_KEY: Final = "crossbuswire"
"""An extension whose value is a number, so that no event is kept out by the mark."""

_NATIVE_KEYS: Final = ("includedEventTypes", "filters")


_CHECKS: Final = {
    "lease": "lease",
    "receives": "backstop",
    "retention": "retention",
    "native": "filter",
}
"""By setting, the check that it belongs to."""


class QueueSettings(NamedTuple):
    """The settings of a queue subscription. Times are in whole seconds."""

    lease: int
    """`receiveLockDurationInSeconds`"""
    receives: int = MAX_RECEIVES
    """`maxDeliveryCount`"""
    retention: int | None = None
    """`eventTimeToLive`; None for the topic's retention."""
    native: str = ""
    """`filtersConfiguration` as JSON, without our mark; empty for none."""

    def differences(self, has: QueueSettings) -> list[Difference]:
        """Say in what another differs from this, the wanted one."""
        return [
            Difference(
                _CHECKS[name],
                f"{name} {getattr(has, name) or 'none'}, declared {getattr(self, name) or 'none'}",
            )
            for name in self._fields
            if getattr(has, name) != getattr(self, name)
            and (name != "retention" or self.retention is not None)
        ]


def settings_of(subscription: Subscription) -> QueueSettings:
    """Return the settings that a declaration asks for.

    Raises:
        UnsupportedError: It needs more receives of an event than Event Grid allows, or a time that it cannot keep.
        DeclarationError: Its native filter is none of Event Grid's.
    """
    receives = MAX_RECEIVES if subscription.backstop is None else subscription.backstop
    _check_attempts(subscription, receives)
    retention = subscription.retention
    if retention is not None and not SHORTEST_RETENTION <= retention <= LONGEST_RETENTION:
        raise UnsupportedError(
            f"subscription {subscription}: a retention of {retention:g} s; eventgrid allows {SHORTEST_RETENTION:g} to "
            f"{LONGEST_RETENTION:g} s (7 days)",
            capability="provision",
        )
    for name, value in (("lease", subscription.lease), ("retention", retention)):
        if value is not None and value != int(value):
            raise UnsupportedError(
                f"subscription {subscription}: a {name} of {value:g} s; eventgrid takes whole seconds",
                capability="provision",
            )
    return QueueSettings(
        lease=int(subscription.lease),
        receives=receives,
        retention=None if retention is None else int(retention),
        native=_native(subscription),
    )


def dead_settings(lease: float) -> QueueSettings:
    """Return the settings of the subscription that reads a dead letter: kept as long as the topic keeps anything."""
    return QueueSettings(lease=int(lease))


def _check_attempts(subscription: Subscription, receives: int) -> None:
    attempts = subscription.retry.attempts
    if attempts == "unlimited" or attempts > receives:
        raise UnsupportedError(
            f"subscription {subscription} has a limit of {attempts} attempts; eventgrid drops an event after "
            f"{receives} receives (maxDeliveryCount), which would lose it: use RetryPolicy(attempts={receives}) or "
            "fewer",
            capability="backstop",
        )


def _native(subscription: Subscription) -> str:
    own = subscription.native_filter.get("eventgrid")
    if own is None:
        return "" if subscription.filter is None else native_text(compile_filter(subscription.filter))
    what = f"subscription {subscription}: native_filter['eventgrid']"
    if not isinstance(own, Mapping):
        raise DeclarationError(f"{what} must be a dict with {' and '.join(_NATIVE_KEYS)}, as Azure writes it")
    for key in own:
        if key not in _NATIVE_KEYS:
            raise DeclarationError(f"{what} has an unknown key {key!r}; {nearest(str(key), _NATIVE_KEYS)}")
    return native_text(dict(own))
