"""Events of the `cloudevents` package: theirs become ours, ours become theirs. Neither needs the package installed.

An `Event` satisfies the package's protocol `cloudevents.core.base.BaseCloudEvent` as it is, so its bindings take one
without conversion. `to_cloudevent` is for code that asks for their class.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crossbus.errors import InvalidEvent
from crossbus.event import SPECVERSION, Event

if TYPE_CHECKING:
    from cloudevents.core.v1.event import CloudEvent

__all__ = ["from_cloudevent", "is_cloudevent", "to_cloudevent"]

_GETTERS = (
    "get_id",
    "get_source",
    "get_type",
    "get_specversion",
    "get_attributes",
    "get_data",
)
_ARGUMENTS = ("id", "source", "type", "subject", "time", "datacontenttype", "dataschema")


def is_cloudevent(value: object) -> bool:
    """Tell whether an object is an event by the protocol `BaseCloudEvent` of `cloudevents` 2; an `Event` is one."""
    return not isinstance(value, type) and all(callable(getattr(value, getter, None)) for getter in _GETTERS)


def from_cloudevent(event: object) -> Event:
    """Make an `Event` of any object that satisfies the protocol `BaseCloudEvent` of `cloudevents` 2.

    An `Event` is returned as it is. Data of None is no data: the package does not tell the two apart. An event
    without a time gets none.

    Raises:
        InvalidEvent: it breaks a rule of CloudEvents 1.0, some of which the package does not check.
        TypeError: the object is no such event.
    """
    if isinstance(event, Event):
        return event
    if not is_cloudevent(event):
        raise TypeError(
            f"{type(event).__name__} is no event: pass a crossbus Event, or one of the cloudevents package, version 2"
        )
    found = dict(event.get_attributes())  # type: ignore[attr-defined]
    version = found.pop("specversion", None)
    if version != SPECVERSION:
        raise InvalidEvent(
            f"the event has specversion {version!r}; crossbus publishes {SPECVERSION} only",
            attribute="specversion",
        )
    arguments: dict[str, Any] = {name: found.pop(name, None) for name in _ARGUMENTS}
    for name in ("id", "source", "type"):
        if arguments[name] is None:  # Event would make an id, and publishing a source
            raise InvalidEvent(f"the event has no {name}, which CloudEvents requires", attribute=name)
    data = event.get_data()  # type: ignore[attr-defined]
    if data is not None:
        arguments["data"] = data
    return Event(**arguments, extensions={name: value for name, value in found.items() if value is not None})


def to_cloudevent(event: Event) -> CloudEvent:
    """Make a `cloudevents.core.v1.event.CloudEvent` of an event.

    Theirs can hold less: the time is cut to microseconds, a missing one becomes now, and JSON null becomes no data.

    Raises:
        ImportError: the `cloudevents` package, version 2, is not installed.
        InvalidEvent: the event has no source, or a time that is none.
    """
    try:
        from cloudevents.core.v1.event import CloudEvent
    except ImportError as error:
        raise ImportError(
            "to_cloudevent needs the cloudevents package, version 2: pip install 'cloudevents>=2.2'",
            name=error.name,
        ) from None
    attributes = event.get_attributes()
    if "source" not in attributes:
        raise InvalidEvent(
            "the event has no source, which CloudEvents requires; pass source= to the Event",
            attribute="source",
        )
    if event.time is None and event.time_text is not None:
        raise InvalidEvent(
            "the event's time is no RFC 3339 timestamp; cloudevents holds no other", attribute="time"
        )
    return CloudEvent(attributes, event.data)
