"""What another tool has to know to create a topic or a subscription: plain data, without the SDK or a connection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crossbus.topology import Subscription, Topic
from crossbus_pubsub import filters, wanted
from crossbus_pubsub.naming import Names
from crossbus_pubsub.options import check_options, flag, native_text

__all__ = ["exported"]


def exported(
    names: Names, declared: Topic | Subscription, previous: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return what `provision` would make of a declaration. Names are full where they are of another project.

    Raises `ConfigurationError`, `DeclarationError` or `UnsupportedError` for what Pub/Sub cannot hold.
    """
    check_options(declared)
    if isinstance(declared, Topic):
        kept = declared.options.get("retention")
        return {
            "topic": _named(names, names.topic(declared)),
            "retention_seconds": None if kept is None else round(kept),
        }
    check_options(declared.topic)
    names.topic(declared.topic)
    filter = native_text(declared)
    current = names.subscription(declared, filter)
    return {
        "subscription": _named(names, current),
        "filter": filter,
        "exact": _is_exact(declared),
        "retention_seconds": wanted.retention(declared),
        "retain_acked": flag(declared, "retain_acked", True),
        "exactly_once": flag(declared, "exactly_once", False),
        "backstop": wanted.receives(declared),
        "dead_letter_topic": _named(names, names.topic(declared.dead_letter)),
        "dead_letter_subscription": _named(names, names.dead_subscription(declared)),
        "dead_letter_retention_seconds": wanted.DEAD_RETENTION,
        "older_generations": _older(names, declared, current, previous),
    }


def _is_exact(declared: Subscription) -> bool:
    if declared.filter is None:
        return True
    return "pubsub" not in declared.native_filter and filters.compile(declared.filter).residual is None


def _older(
    names: Names, declared: Subscription, current: str, previous: Mapping[str, Any] | None
) -> dict[str, str]:
    """Return the predecessors of the current generation, each with its filter: events may wait in them yet."""
    if not previous or declared.resource:
        return {}
    known: dict[str, str] = dict(previous.get("older_generations") or {})
    if previous.get("subscription"):
        known[previous["subscription"]] = previous.get("filter") or ""
    base = names.base(declared)
    return {
        name: filter
        for name, filter in known.items()
        if (full := names.full("subscriptions", name)) != current and names.is_generation(full, base)
    }


def _named(names: Names, full: str) -> str:
    """Return a name as terraform takes it: alone in the project of the profile, else with its own project."""
    project, _, name = full.removeprefix("projects/").split("/", 2)
    return name if project == names.project else full
