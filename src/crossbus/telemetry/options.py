"""`TelemetryOptions`: what a program, or `crossbus.toml`, says of spans, metrics and logs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from crossbus.errors import ConfigurationError

__all__ = ["Mode", "Redact", "TelemetryOptions"]

Mode = Literal["auto", "parent", "link"]
"""How a handler's span belongs to the publisher's. See `TelemetryOptions.mode`."""
Redact = Callable[[str, Any], Any]
"""Is given the name of an attribute and its value, and returns what shall stand there; None for nothing at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetryOptions:
    """What crossbus tells OpenTelemetry and the log. For ``Bus(telemetry=...)``.

    In `crossbus.toml` a profile has a table ``telemetry`` with the same keys but `redact`; what it says goes before
    what the program says.

    Raises:
        ConfigurationError: a value is not allowed.
    """

    mode: Mode = "auto"
    """``parent``: a handler's span is a child of the publisher's, and links to it: one trace. ``link``: it begins a
    trace of its own, or belongs to the ambient one, and links to the publisher's. ``auto``: ``link`` inside a span of
    kind SERVER, which is the trace of whoever pushed the event; else ``parent``."""
    subject: bool = False
    """Whether the event's `subject`, which often names a person or an account, stands in spans and logs."""
    redact: Redact | None = None
    """Called with each attribute that comes from an event (``cloudevents.event_id``, ...) before it stands in a span or
    a log record, and with ``exception.message`` for the text of an exception before it is logged."""
    baggage: tuple[str, ...] = ()
    """The keys of OpenTelemetry's baggage that travel with events; all others stay here. Whoever can read the events
    can read them."""
    backlog: float = 60.0
    """Seconds between two looks at the backlog of what is consumed, which are requests to the provider; only with
    metrics switched on, and where the provider tells. 0: never."""

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise _wrong("mode", "'auto', 'parent' or 'link'", self.mode)
        if not isinstance(self.subject, bool):
            raise _wrong("subject", "True or False", self.subject)
        if self.redact is not None and not callable(self.redact):
            raise _wrong("redact", "a function of a name and a value", self.redact)
        if isinstance(self.baggage, str) or not all(isinstance(key, str) and key for key in self.baggage):
            raise _wrong("baggage", "the keys that may travel, such as ('tenant',)", self.baggage)
        object.__setattr__(self, "baggage", tuple(self.baggage))
        number = isinstance(self.backlog, (int, float)) and not isinstance(self.backlog, bool)
        if not number or not math.isfinite(self.backlog) or self.backlog < 0:
            raise _wrong("backlog", "a number of seconds from 0", self.backlog)

    def with_settings(self, settings: Mapping[str, Any]) -> TelemetryOptions:
        """Return these options with what a profile says instead."""
        return dataclasses.replace(self, **settings) if settings else self


def _wrong(name: str, allowed: str, given: object) -> ConfigurationError:
    return ConfigurationError(f"TelemetryOptions({name}={given!r}): it must be {allowed}")
