"""One CloudEvents publish/subscribe interface for EventBridge, Pub/Sub, Event Grid and a local broker."""

import importlib
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crossbus.adapter import Backlog, Change
    from crossbus.bus import Bus, PublishMiddleware
    from crossbus.capabilities import CAPABILITIES, Capabilities
    from crossbus.deadletter import DeadLetter, Reason
    from crossbus.deduplicate import Deduplicate, DuplicateStore, MemoryStore
    from crossbus.deduplicate_postgres import PostgresStore
    from crossbus.deduplicate_sqlite import SQLiteStore
    from crossbus.delivery import Delivery, ForeignMessage
    from crossbus.errors import (
        AdapterNotInstalled,
        BusClosedError,
        ConfigurationError,
        Conflict,
        CrossbusError,
        DataError,
        DeadlineExceeded,
        DeclarationError,
        DecodeError,
        ErrorCode,
        EventError,
        EventTooLarge,
        InvalidEvent,
        InvalidRequest,
        NotFound,
        PartialPublishError,
        PermissionDenied,
        ProviderError,
        PublishError,
        Throttled,
        Unauthenticated,
        Unavailable,
        UnsupportedError,
    )
    from crossbus.event import DataKind, Event
    from crossbus.event_types import event_type
    from crossbus.explain import Explanation
    from crossbus.filters import Filter, all_, any_, exact, not_, prefix, suffix
    from crossbus.handlers import HandleMiddleware
    from crossbus.health import Health, SubscriptionHealth
    from crossbus.letter_summary import DeadLetterGroup, DeadLetterSummary
    from crossbus.letters import DeadLetters, Tally
    from crossbus.outcomes import Reject, Retry
    from crossbus.publishing import PublishResult, Receipt
    from crossbus.subscriptions import SubscriptionHandle
    from crossbus.sync import SyncBus
    from crossbus.telemetry.options import TelemetryOptions
    from crossbus.topology import Breaker, RetryPolicy, Subscription, Topic, Topology

__version__ = "0.1.0"

__all__ = [
    "CAPABILITIES",
    "AdapterNotInstalled",
    "Backlog",
    "Breaker",
    "Bus",
    "BusClosedError",
    "Capabilities",
    "Change",
    "ConfigurationError",
    "Conflict",
    "CrossbusError",
    "DataError",
    "DataKind",
    "DeadLetter",
    "DeadLetterGroup",
    "DeadLetterSummary",
    "DeadLetters",
    "DeadlineExceeded",
    "DeclarationError",
    "DecodeError",
    "Deduplicate",
    "Delivery",
    "DuplicateStore",
    "ErrorCode",
    "Event",
    "EventError",
    "EventTooLarge",
    "Explanation",
    "Filter",
    "ForeignMessage",
    "HandleMiddleware",
    "Health",
    "InvalidEvent",
    "InvalidRequest",
    "MemoryStore",
    "NotFound",
    "PartialPublishError",
    "PermissionDenied",
    "PostgresStore",
    "ProviderError",
    "PublishError",
    "PublishMiddleware",
    "PublishResult",
    "Reason",
    "Receipt",
    "Reject",
    "Retry",
    "RetryPolicy",
    "SQLiteStore",
    "Subscription",
    "SubscriptionHandle",
    "SubscriptionHealth",
    "SyncBus",
    "Tally",
    "TelemetryOptions",
    "Throttled",
    "Topic",
    "Topology",
    "Unauthenticated",
    "Unavailable",
    "UnsupportedError",
    "__version__",
    "all_",
    "any_",
    "event_type",
    "exact",
    "not_",
    "prefix",
    "suffix",
]

_NAMES = {
    "adapter": "Backlog Change",
    "bus": "Bus PublishMiddleware",
    "capabilities": "CAPABILITIES Capabilities",
    "deadletter": "DeadLetter Reason",
    "deduplicate": "Deduplicate DuplicateStore MemoryStore",
    "deduplicate_postgres": "PostgresStore",
    "deduplicate_sqlite": "SQLiteStore",
    "delivery": "Delivery ForeignMessage",
    "errors": (
        "AdapterNotInstalled BusClosedError ConfigurationError Conflict CrossbusError DataError "
        "DeadlineExceeded DeclarationError DecodeError ErrorCode EventError EventTooLarge "
        "InvalidEvent InvalidRequest NotFound PartialPublishError PermissionDenied ProviderError "
        "PublishError Throttled Unauthenticated Unavailable UnsupportedError"
    ),
    "event": "DataKind Event",
    "event_types": "event_type",
    "explain": "Explanation",
    "filters": "Filter all_ any_ exact not_ prefix suffix",
    "handlers": "HandleMiddleware",
    "health": "Health SubscriptionHealth",
    "letter_summary": "DeadLetterGroup DeadLetterSummary",
    "letters": "DeadLetters Tally",
    "outcomes": "Reject Retry",
    "publishing": "PublishResult Receipt",
    "subscriptions": "SubscriptionHandle",
    "sync": "SyncBus",
    "telemetry.options": "TelemetryOptions",
    "topology": "Breaker RetryPolicy Subscription Topic Topology",
}
"""By module, what stands in it: the imports above once more, for the names are imported when they are asked for."""
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names.split()}

if not TYPE_CHECKING:  # a checker that saw it would take any name for one of ours

    def __getattr__(name):
        """Import a public name, or a module of the package, when it is first asked for."""
        if name in _MODULE_OF:
            found = getattr(importlib.import_module(f"crossbus.{_MODULE_OF[name]}"), name)
            return globals().setdefault(name, found)
        if not name.startswith("_"):
            try:
                return importlib.import_module(f"crossbus.{name}")
            except ModuleNotFoundError as missing:
                if missing.name != f"crossbus.{name}":
                    raise
        raise AttributeError(
            f"module 'crossbus' has no attribute {name!r}", name=name, obj=sys.modules[__name__]
        )


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
