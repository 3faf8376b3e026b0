"""What only Pub/Sub understands: the options of topics and subscriptions, and filters in its own language."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from crossbus.errors import DeclarationError, nearest
from crossbus.topology import Subscription, Topic
from crossbus_pubsub import filters

__all__ = ["check_options", "flag", "native_text"]

TOPIC: Final[Mapping[str, str]] = {
    "wire": "binary (default) or structured",
    "retention": "seconds for which the topic keeps events, for subscriptions that do not: 600 to 2,678,400",
}
SUBSCRIPTION: Final[Mapping[str, str]] = {
    "exactly_once": "true for exactly-once delivery",
    "retain_acked": "false to keep no acknowledged events, so that nothing can be replayed",
    "generations": "a list of older subscriptions to read too, where listing is forbidden",
    "dead_letter_subscription": "the subscription through which the dead letter is read",
}


def check_options(declared: Topic | Subscription) -> None:
    """Raise `DeclarationError` for an option that Pub/Sub does not have, or that has a wrong value."""
    what = f"topic {declared.name!r}" if isinstance(declared, Topic) else f"subscription {declared}"
    known = TOPIC if isinstance(declared, Topic) else SUBSCRIPTION
    for name, value in declared.options.items():
        if name not in known:
            raise DeclarationError(f"{what}: pubsub has no option {name!r}; {nearest(name, known)}")
        if not _fits(name, value):
            raise DeclarationError(f"{what}: the option {name} is {value!r}; it must be {known[name]}")


def _fits(name: str, value: Any) -> bool:
    if name == "wire":
        return value in ("binary", "structured")
    if name == "retention":
        return isinstance(value, (int, float)) and not isinstance(value, bool) and 600 <= value <= 2_678_400
    if name in ("exactly_once", "retain_acked"):
        return isinstance(value, bool)
    if name == "generations":
        return isinstance(value, (list, tuple)) and all(isinstance(one, str) for one in value)
    return isinstance(value, str) and bool(value)


def flag(subscription: Subscription, name: str, default: bool) -> bool:
    """Return an option that is true or false."""
    return bool(subscription.options.get(name, default))


def native_text(subscription: Subscription) -> str:
    """Return the filter that Pub/Sub is given: ``native_filter["pubsub"]``, or else what `compile` makes."""
    native = subscription.native_filter.get("pubsub")
    if native is not None:
        return filters.check_text(native, f"native_filter of subscription {subscription}")
    return "" if subscription.filter is None else filters.compile(subscription.filter).text
