"""What another tool has to know to create a topic or a subscription: plain data, without the SDK or a connection."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from crossbus.topology import Subscription, Topic
from crossbus_eventgrid.dead_letters import DEAD_SUBSCRIPTION
from crossbus_eventgrid.settings import settings_of

if TYPE_CHECKING:
    from crossbus_eventgrid.adapter import EventGridAdapter

__all__ = ["exported"]


def exported(adapter: EventGridAdapter, declared: Topic | Subscription) -> dict[str, Any]:
    """Return what `provision` would make of a declaration, but for its mark: that says that crossbus made it.

    Raises `ConfigurationError`, `DeclarationError` or `UnsupportedError` for what Event Grid cannot hold.
    """
    if isinstance(declared, Topic):
        return {"topic": adapter.topic_name(declared)}
    adapter.topic_name(declared.topic)
    settings = settings_of(declared)
    native: dict[str, Any] = json.loads(settings.native) if settings.native else {}
    is_of_texts = all(_is_of_texts(one) for one in native.get("filters", []))
    listed = native if is_of_texts else {}
    return {
        "subscription": adapter.subscription_name(declared),
        "included_event_types": listed.get("includedEventTypes", []),
        "filters": [_snake(one) for one in listed.get("filters", [])],
        **({} if is_of_texts else {"native": settings.native}),
        "exact": declared.filter is None,  # Event Grid ignores case, so that a filter is evaluated again
        "retention_seconds": settings.retention,
        "backstop": settings.receives,
        "dead_letter_topic": adapter.topic_name(declared.dead_letter),
        "dead_letter_subscription": DEAD_SUBSCRIPTION,
    }


def _is_of_texts(filter: dict[str, Any]) -> bool:
    """True for a filter as crossbus compiles it. Terraform's types do not hold others beside it, but for a text."""
    return set(filter) == {"operatorType", "key", "values"} and all(
        isinstance(one, str) for one in filter["values"]
    )


def _snake(filter: dict[str, Any]) -> dict[str, Any]:
    """Return a filter with its keys as terraform writes them: `operator_type`, `key`, `values`."""
    return {"operator_type" if key == "operatorType" else key: value for key, value in filter.items()}
