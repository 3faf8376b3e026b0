"""The settings of a queue as one JSON object: how they are stored, and how they are sent between processes.

>>> from crossbus.filters import exact
>>> settings_to_json(QueueSettings(filter=exact(type="a"), dead_letter="dead"))["filter"]
{'exact': {'type': 'a'}}
>>> settings_from_json({"ordered": True}).ordered
True
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from crossbus.errors import DeclarationError, nearest
from crossbus.filter_parse import parse
from crossbus.filters import Filter
from crossbus_local.queue import QueueSettings

__all__ = ["canonical", "settings_from_json", "settings_to_json"]


def canonical(value: object) -> str:
    """Return the one JSON text of a value: keys sorted, nothing between them. Equal values have equal texts."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def settings_to_json(settings: QueueSettings) -> dict[str, Any]:
    """Return the settings as what a JSON object decodes to, every key present but `paused`, unless it is."""
    native = settings.eventgrid_filter
    paused = (
        {"paused": True} if settings.paused else {}
    )  # left out otherwise: earlier releases do not know it
    return paused | {
        "filter": None if settings.filter is None else json.loads(settings.filter.to_json()),
        "eventgrid_filter": None if native is None else json.loads(native),
        "ordered": settings.ordered,
        "backstop": settings.backstop,
        "retention": settings.retention,
        "dead_letter": settings.dead_letter,
        "lease": settings.lease,
    }


def settings_from_json(value: object) -> QueueSettings:
    """Read settings: what a JSON object decodes to. A key that is absent has its default.

    Raises `DeclarationError` in one line that names the key: for one that is unknown, and for a value that it cannot
    have. The rules inside `eventgrid_filter` are not checked here; that it is an object is.
    """
    if not isinstance(value, Mapping):
        raise DeclarationError(f"settings: must be a JSON object, not {_kind(value)}")
    for key in value:
        if key not in _READ:
            raise DeclarationError(f"settings: unknown key {key!r}; {nearest(str(key), _READ)}")
    return QueueSettings(**{key: _READ[key](key, one) for key, one in value.items()})


def _filter(key: str, value: object) -> Filter | None:
    if value is None:
        return None
    try:
        return parse(value)
    except DeclarationError as error:
        raise DeclarationError(f"settings: {error}") from None


def _eventgrid_filter(key: str, value: object) -> str | None:
    if value is not None and not isinstance(value, Mapping):
        raise _wrong(key, "an object, as Azure writes it, or null", value)
    return None if value is None else canonical(value)


def _boolean(key: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise _wrong(key, "true or false", value)
    return value


def _count(key: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise _wrong(key, "a whole number from 1", value)
    return value


def _seconds(key: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _wrong(key, "a number of seconds above 0", value)
    if not (math.isfinite(value) and value > 0):
        raise _wrong(key, "a number of seconds above 0", value)
    return float(value)


def _seconds_or_none(key: str, value: object) -> float | None:
    return None if value is None else _seconds(key, value)


def _text(key: str, value: object) -> str:
    if not isinstance(value, str):
        raise _wrong(key, "text", value)
    return value


_READ: Final[dict[str, Callable[[str, object], Any]]] = {
    "filter": _filter,
    "eventgrid_filter": _eventgrid_filter,
    "ordered": _boolean,
    "backstop": _count,
    "retention": _seconds_or_none,
    "dead_letter": _text,
    "lease": _seconds,
    "paused": _boolean,
}


def _wrong(key: str, allowed: str, value: object) -> DeclarationError:
    return DeclarationError(f"settings: {key} must be {allowed}, not {_kind(value)}")


def _kind(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, (Mapping, list, tuple)):
        return "an object" if isinstance(value, Mapping) else "an array"
    return repr(value)[:80]
