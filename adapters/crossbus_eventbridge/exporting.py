"""What another tool has to know to create a bus or a subscription: plain data, without the SDK or a connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crossbus.topology import Subscription, Topic
from crossbus_eventbridge.filters import compile_filter
from crossbus_eventbridge.making import pattern_text
from crossbus_eventbridge.naming import Arn
from crossbus_eventbridge.options import wire_of
from crossbus_eventbridge.settings import dead_attributes, queue_attributes, receives

if TYPE_CHECKING:
    from crossbus_eventbridge.adapter import EventBridgeAdapter

__all__ = ["exported"]


def exported(adapter: EventBridgeAdapter, declared: Topic | Subscription) -> dict[str, Any]:
    """Return what `provision` would make of a declaration.

    Raises `ConfigurationError` or `DeclarationError` for what EventBridge with SQS cannot hold.
    """
    names = adapter.names
    if isinstance(declared, Topic):
        wire_of(declared)
        bus = names.bus(declared)
        return {
            "bus": bus,
            "shared": names.is_shared(declared),
            "archive_days": adapter.options.archive,
            # Who writes the ARN of a bus means one that is there: `provision` makes none either.
            "external": declared.external or Arn.parse(bus) is not None,
        }
    names.bus(declared.topic)
    attributes = queue_attributes(declared, "")
    retention = attributes.get("MessageRetentionPeriod")
    return {
        "rule": names.rule(declared),
        "queue": names.queue(declared).name,
        "pattern": pattern_text(adapter, declared),
        "exact": _is_exact(declared),
        "retention_seconds": None if retention is None else int(retention),
        "backstop": receives(declared),
        "kms_key": attributes.get("KmsMasterKeyId"),
        "dead_letter_queue": names.dead_queue(declared.dead_letter).name,
        "dead_letter_retention_seconds": int(dead_attributes(declared)["MessageRetentionPeriod"]),
    }


def _is_exact(declared: Subscription) -> bool:
    if declared.filter is None:
        return True
    return "eventbridge" not in declared.native_filter and compile_filter(declared.filter).residual is None
