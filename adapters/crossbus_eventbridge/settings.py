"""What a queue is to be like: its attributes, as SQS has them, and what of a queue that is there differs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final

from crossbus.checks import Difference
from crossbus.errors import DeclarationError
from crossbus.topology import Subscription
from crossbus_eventbridge.limits import (
    DEFAULT_BACKSTOP,
    EVENTBRIDGE,
    LONGEST_RETENTION,
    MESSAGE_BYTES,
    SHORTEST_RETENTION,
    USUAL_BYTES,
)

__all__ = ["dead_attributes", "differences", "hazards", "queue_attributes", "receives", "short_lived"]

_TITLES: Final = {
    "VisibilityTimeout": "lease",
    "MessageRetentionPeriod": "retention",
    "MaximumMessageSize": "maximum message size",
    "RedrivePolicy": "backstop",
    "SqsManagedSseEnabled": "encryption by SQS",
    "KmsMasterKeyId": "KMS key",
}
_CHECKS: Final = {
    "VisibilityTimeout": "lease",
    "MessageRetentionPeriod": "retention",
    "MaximumMessageSize": "message-size",
    "RedrivePolicy": "backstop",
    "SqsManagedSseEnabled": "encryption",
    "KmsMasterKeyId": "encryption",
}
"""By attribute, the check that it belongs to."""


def queue_attributes(subscription: Subscription, dead_arn: str) -> dict[str, str]:
    """Return the attributes of a subscription's queue. Raises `DeclarationError` for a retention that SQS has not."""
    wanted = {
        "VisibilityTimeout": str(math.ceil(subscription.lease)),
        "MaximumMessageSize": str(MESSAGE_BYTES),
        "RedrivePolicy": _redrive(subscription, dead_arn),
        **_encryption(subscription),
    }
    if subscription.retention is not None:
        wanted["MessageRetentionPeriod"] = str(_retention(subscription))
    return wanted


def dead_attributes(subscription: Subscription) -> dict[str, str]:
    """Return the attributes of a dead letter's queue: it keeps as long as SQS can."""
    return {
        "MessageRetentionPeriod": str(int(LONGEST_RETENTION)),
        "MaximumMessageSize": str(MESSAGE_BYTES),
        **_encryption(subscription),
    }


def receives(subscription: Subscription) -> int:
    """Return after how many receives SQS moves a message into the dead letter by itself."""
    return DEFAULT_BACKSTOP if subscription.backstop is None else subscription.backstop


def _redrive(subscription: Subscription, dead_arn: str) -> str:
    policy = {"deadLetterTargetArn": dead_arn, "maxReceiveCount": receives(subscription)}
    return json.dumps(policy, separators=(",", ":"))


def _encryption(subscription: Subscription) -> dict[str, str]:
    key = subscription.options.get("kms_key")
    return {"SqsManagedSseEnabled": "true"} if key is None else {"KmsMasterKeyId": str(key)}


def _retention(subscription: Subscription) -> int:
    assert subscription.retention is not None
    if not SHORTEST_RETENTION <= subscription.retention <= LONGEST_RETENTION:
        raise DeclarationError(
            f"subscription {subscription}: a retention of {subscription.retention:g} s; SQS keeps messages for "
            f"{SHORTEST_RETENTION:.0f} to {LONGEST_RETENTION:.0f} s (14 days)"
        )
    return round(subscription.retention)


def differences(has: Mapping[str, str], wanted: Mapping[str, str], *, dead: bool = False) -> list[Difference]:
    """Return what of a queue, or of the queue of a `dead` letter, is otherwise than wanted."""
    return [
        Difference(
            "dead-letter-retention" if dead and name == "MessageRetentionPeriod" else _CHECKS[name],
            f"{_TITLES[name]} {_shown(name, has.get(name))}, declared {_shown(name, value)}",
            "warning" if name == "MaximumMessageSize" else None,  # if it is dangerous, `hazards` says so
        )
        for name, value in wanted.items()
        if _shown(name, has.get(name)) != _shown(name, value)
    ]


def _shown(name: str, value: str | None) -> str:
    if value is None or value == "":
        return "none"
    if name != "RedrivePolicy":
        return value
    policy: dict[str, Any] = json.loads(value)
    return f"{policy.get('maxReceiveCount')} receives into {policy.get('deadLetterTargetArn')}"


def hazards(name: str, has: Mapping[str, str], *, by_role: bool = False) -> list[Difference]:
    """Return what of a queue loses events in silence. `by_role`: EventBridge sends with a role (api=v2)."""
    found = []
    size = int(has.get("MaximumMessageSize", MESSAGE_BYTES))
    if size < MESSAGE_BYTES:
        found.append(
            Difference(
                "message-size",
                f"queue {name} takes messages of {size:,} bytes; EventBridge drops a larger one in silence, and an "
                f"event may have {EVENTBRIDGE.event_bytes:,}: set its MaximumMessageSize to {MESSAGE_BYTES}",
                "warning" if size >= USUAL_BYTES else "wrong",
            )
        )
    if has.get("KmsMasterKeyId") == "alias/aws/sqs" and not by_role:
        found.append(
            Difference(
                "encryption",
                f"queue {name} is encrypted with alias/aws/sqs, which EventBridge may not use: use SSE-SQS, or a key "
                "whose policy allows events.amazonaws.com kms:GenerateDataKey and kms:Decrypt",
            )
        )
    return found


def short_lived(
    name: str, has: Mapping[str, str], dead: str, dead_has: Mapping[str, str]
) -> list[Difference]:
    """Return whether a dead letter keeps what the backstop moves no longer than its source kept it.

    SQS counts the retention of what it moves from when it was first sent, so that it may be gone as it arrives.
    """
    kept, kept_dead = (int(one.get("MessageRetentionPeriod", 0)) for one in (has, dead_has))
    if not kept or not kept_dead or kept_dead > kept:
        return []
    return [
        Difference(
            "dead-letter-retention",
            f"queue {dead} keeps a message for {kept_dead} s since it was first sent, and queue {name} for {kept} s",
        )
    ]
