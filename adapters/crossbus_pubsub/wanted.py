"""What a declared subscription shall be at Pub/Sub, and in what an existing one differs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from crossbus.checks import Difference
from crossbus.errors import UnsupportedError
from crossbus.topology import Subscription
from crossbus_pubsub.naming import Names, short
from crossbus_pubsub.options import flag

if TYPE_CHECKING:
    from crossbus_pubsub.client import Client

__all__ = [
    "DEAD_RETENTION",
    "DEFAULT_BACKSTOP",
    "NAMED",
    "OWNED",
    "RETENTION",
    "Wanted",
    "dead_subscription",
    "labels",
    "receives",
    "retention",
    "subscription",
]

OWNED: Final = "crossbus"
"""The label of all that `provision` made; its value is what it is."""
NAMED: Final = "crossbus-names"
"""The label that says which name template it was made by: pruning leaves alone what another made."""
DEFAULT_BACKSTOP: Final = 100
RETENTION: Final = 604_800
"""Seconds: Pub/Sub's own default, seven days."""
SHORTEST_RETENTION: Final = 600
"""Seconds. https://cloud.google.com/pubsub/docs/subscription-properties#message_retention_duration"""
DEAD_RETENTION: Final = 2_678_400
"""Seconds: the most that Pub/Sub has, 31 days. The emulator has seven."""


class Wanted:
    """A subscription as it shall be, as a request of the SDK, and which of its fields may be changed later."""

    MUTABLE: Final = (
        "ack_deadline_seconds",
        "message_retention_duration",
        "retain_acked_messages",
        "enable_exactly_once_delivery",
        "dead_letter_policy",
        "expiration_policy",
    )

    def __init__(self, request: Any) -> None:
        self.request = request

    def differs(self, there: Any) -> dict[str, str]:
        """Return by field, in words, how an existing subscription differs in what can be changed."""
        return {
            field: f"{_label(field)} {_shown(there, field)}, declared {_shown(self.request, field)}"
            for field in self.MUTABLE
            if _value(there, field) != _value(self.request, field)
        }

    def differences(self, there: Any) -> list[Difference]:
        """Return all in which an existing subscription differs, each by the name of its check."""
        found = [Difference(_CHECKS[field], text) for field, text in self.differs(there).items()]
        if there.filter != self.request.filter:
            about = f"filter {there.filter or 'none'}, declared {self.request.filter or 'none'}"
            found.append(Difference("filter", about))
        if there.enable_message_ordering != self.request.enable_message_ordering:
            has, wanted = there.enable_message_ordering, self.request.enable_message_ordering
            found.append(Difference("ordering", f"ordered {has}, declared {wanted}"))
        if there.detached:
            found.append(Difference("detached", "it was detached from its topic: nothing comes any more"))
        return found


def retention(declared: Subscription) -> int:
    """Return for how many seconds a subscription keeps what nobody acknowledges.

    Raises `UnsupportedError` for a time that Pub/Sub does not allow.
    """
    wanted = declared.retention or RETENTION
    if not SHORTEST_RETENTION <= wanted <= DEAD_RETENTION:
        raise UnsupportedError(
            f"subscription {declared}: a retention of {wanted:g} s; pubsub allows {SHORTEST_RETENTION} to "
            f"{DEAD_RETENTION} s (31 days)",
            capability="provision",
        )
    return round(wanted)


def receives(declared: Subscription) -> int:
    """Return after how many receives Pub/Sub dead-letters by itself."""
    return declared.backstop or DEFAULT_BACKSTOP


def labels(names: Names, kind: str) -> dict[str, str]:
    """Return the labels of what `provision` makes: a topic, a subscription, or a dead-letter."""
    return {OWNED: kind, NAMED: names.mark}


def subscription(client: Client, names: Names, declared: Subscription, filter: str) -> Wanted:
    """Return what a declared subscription shall be."""
    request = client.type("Subscription")(
        name=names.subscription(declared, filter),
        topic=names.topic(declared.topic),
        ack_deadline_seconds=math.ceil(declared.lease),
        retain_acked_messages=flag(declared, "retain_acked", True),
        enable_message_ordering=declared.ordered,
        enable_exactly_once_delivery=flag(declared, "exactly_once", False),
        filter=filter,
        labels=labels(names, "subscription"),
    )
    request.message_retention_duration.seconds = retention(declared)
    request.dead_letter_policy.dead_letter_topic = names.topic(declared.dead_letter)
    request.dead_letter_policy.max_delivery_attempts = receives(declared)
    request.expiration_policy.SetInParent()  # without a time: it never removes itself
    return Wanted(request)


def dead_subscription(
    client: Client, names: Names, declared: Subscription, lease: int, *, emulator: bool
) -> Any:
    """Return the subscription through which a dead letter is read: it keeps records as long as it can."""
    request = client.type("Subscription")(
        name=names.dead_subscription(declared),
        topic=names.topic(declared.dead_letter),
        ack_deadline_seconds=lease,
        labels=labels(names, "dead-letter"),
    )
    request.message_retention_duration.seconds = RETENTION if emulator else DEAD_RETENTION
    request.expiration_policy.SetInParent()
    return request


_CHECKS: Final = {
    "ack_deadline_seconds": "lease",
    "message_retention_duration": "retention",
    "retain_acked_messages": "acknowledged-kept",
    "enable_exactly_once_delivery": "exactly-once",
    "dead_letter_policy": "backstop",
    "expiration_policy": "expiration",
}
"""By field, the check that it belongs to."""


def _value(message: Any, field: str) -> Any:
    value = getattr(message, field)
    if field == "message_retention_duration":
        return value.seconds
    if field == "dead_letter_policy":
        return value.dead_letter_topic, value.max_delivery_attempts
    if field == "expiration_policy":
        return value.ttl.seconds
    return value


def _shown(message: Any, field: str) -> str:
    value = _value(message, field)
    if field == "dead_letter_policy":
        return f"after {value[1]} receives to {short(value[0])}" if value[0] else "none"
    if field == "expiration_policy":
        return f"after {value} s without a consumer" if value else "never"
    if field in ("ack_deadline_seconds", "message_retention_duration"):
        return f"{value} s"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _label(field: str) -> str:
    return {
        "ack_deadline_seconds": "lease",
        "message_retention_duration": "retention",
        "retain_acked_messages": "acknowledged events kept",
        "enable_exactly_once_delivery": "exactly once",
        "dead_letter_policy": "backstop",
        "expiration_policy": "deleted",
    }[field]
