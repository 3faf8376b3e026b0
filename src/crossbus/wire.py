"""Extension names that cross the wire: those that crossbus adds and takes off again, and the trace context."""

from __future__ import annotations

from typing import Final, NamedTuple

from crossbus.event import Event

__all__ = [
    "OWN_PREFIX",
    "REPLAY",
    "SUBSCRIPTION",
    "TOPIC",
    "TRACEPARENT",
    "TRACESTATE",
    "WIRE",
    "WIRE_VERSION",
    "Own",
    "take_own",
]

OWN_PREFIX: Final = "crossbus"
"""Extension names that begin so are crossbus's own; publishing refuses them."""

WIRE: Final = "crossbuswire"
"""The version of the wire form. Absent means 1."""
WIRE_VERSION: Final = 1
"""The newest version that this release reads. A release reads a form before any release writes it."""
TOPIC: Final = "crossbustopic"
"""The topic, where several share one provider resource."""
SUBSCRIPTION: Final = "crossbussub"
"""The one subscription (`topic/name`) that a redriven or replayed copy is for; others drop it."""
REPLAY: Final = "crossbusreplay"
"""The id of the replay that delivered a copy, so that duplicate suppression lets it pass."""

TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"
"""The CloudEvents Distributed Tracing extension: the context in which an event was published. Never rewritten.
https://github.com/cloudevents/spec/blob/main/cloudevents/extensions/distributed-tracing.md"""


class Own(NamedTuple):
    """What the extensions of our own said."""

    wire: int = 1
    subscription: str | None = None
    replay: str | None = None


_NONE = Own()


def take_own(event: Event) -> tuple[Event, Own]:
    """Take our extensions off an event; the same event if it has none."""
    extensions = event._extensions
    if not extensions or not any(name.startswith(OWN_PREFIX) for name in extensions):
        return event, _NONE
    version = str(extensions.get(WIRE, "1"))
    own = Own(
        wire=int(version) if version.isascii() and version.isdigit() else WIRE_VERSION + 1,
        subscription=_text(extensions.get(SUBSCRIPTION)),
        replay=_text(extensions.get(REPLAY)),
    )
    return event.without_extensions(*(name for name in extensions if name.startswith(OWN_PREFIX))), own


def _text(value: object) -> str | None:
    return None if value is None else str(value)
