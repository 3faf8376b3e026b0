"""What is said of an adapter and of an event, as attributes and as fields of a log record."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from crossbus.adapter import Description
from crossbus.errors import ErrorCode, provider_error
from crossbus.event import Event
from crossbus.outcomes import text_of
from crossbus.telemetry import names
from crossbus.telemetry.options import TelemetryOptions

__all__ = ["Attributes", "EventAttributes", "error_name", "exception_text", "of_adapter", "of_event"]

logger = logging.getLogger("crossbus")

Attributes = dict[str, Any]
EventAttributes = Callable[[Event], Attributes]

OTHER: Final = "_OTHER"
"""What the conventions call an error that has no name of few values."""


def of_adapter(description: Description, topic: str, subscription: str | None = None) -> Attributes:
    """Return what is the same for all events of a topic, or of a subscription."""
    consumed = subscription is not None
    attributes: Attributes = {
        names.SYSTEM: (consumed and description.consume_system) or description.system,
        names.DESTINATION: topic,
    }
    if subscription is not None:
        attributes[names.SUBSCRIPTION] = subscription
    if description.server_address is not None:
        attributes[names.SERVER_ADDRESS] = description.server_address
    if description.server_port is not None:
        attributes[names.SERVER_PORT] = description.server_port
    return attributes


def of_event(options: TelemetryOptions) -> EventAttributes:
    """Return what makes the attributes of an event: by these options, and as fast as they allow."""

    def plain(event: Event) -> Attributes:
        return {
            names.EVENT_ID: event._id,
            names.EVENT_SOURCE: event._source or "",
            names.EVENT_TYPE: event._type,
        }

    def with_subject(event: Event) -> Attributes:
        attributes = plain(event)
        if options.subject and event.subject is not None:
            attributes[names.EVENT_SUBJECT] = event.subject
        return attributes

    def redacted(event: Event) -> Attributes:
        asked = ((name, _redacted(options, name, value)) for name, value in with_subject(event).items())
        return {name: value for name, value in asked if value is not None}

    if options.redact is not None:
        return redacted
    return with_subject if options.subject else plain


def exception_text(error: BaseException, options: TelemetryOptions) -> str:
    """Return the text of an exception for a log message, as the `redact` hook leaves it."""
    text = text_of(error)
    if options.redact is None:
        return text
    found = _redacted(options, names.EXCEPTION_MESSAGE, text)
    return "(redacted)" if found is None else str(found)


def _redacted(options: TelemetryOptions, name: str, value: Any) -> Any:
    assert options.redact is not None
    try:
        return options.redact(name, value)
    except Exception as error:  # what cannot be redacted is not told, and no event may be lost over it
        logger.warning("the redact hook failed for %s, which is left out: %s", name, type(error).__name__)
        return None


def error_name(error: BaseException | ErrorCode) -> str:
    """Return what `error.type` shall be: the class of an exception; of a portable code, the class of its error."""
    if isinstance(error, ErrorCode):
        return OTHER if error is ErrorCode.UNKNOWN else type(provider_error(error, "")).__qualname__
    return type(error).__qualname__
