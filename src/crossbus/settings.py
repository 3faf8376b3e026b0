"""What `crossbus.toml` may say of a topic and of a subscription, each key with what it must be.

Every message names the file and the whole path of the key: ``crossbus.toml: topics.orders.external must be
true or false, not 'yes'``.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple, TypeVar

from crossbus import filters
from crossbus.errors import ConfigurationError, DeclarationError, nearest
from crossbus.filters import Filter
from crossbus.topology import Breaker, OnInvalid, OnMismatch, OnUnhandled, Subscription, Topic

__all__ = [
    "Place",
    "SubscriptionSettings",
    "TopicSettings",
    "merged",
    "read_subscription",
    "read_telemetry",
    "read_topic",
    "show",
]

_BARE = re.compile(r"[A-Za-z0-9_-]+\Z")
_S = TypeVar("_S", "TopicSettings", "SubscriptionSettings")


@dataclass(frozen=True, slots=True)
class Place:
    """A key of a configuration, for messages: which file, and the path of tables to it."""

    file: str
    path: tuple[str, ...] = ()
    parts: tuple[tuple[str, Mapping[str, Any]], ...] = field(default=(), compare=False, repr=False)
    """The label and the content of each file, where a configuration has several."""

    def at(self, key: object) -> Place:
        """Return the place of a key in this table."""
        return Place(self.file, (*self.path, str(key)), self.parts)

    @property
    def where(self) -> str:
        """The file that says the key: where there are several, the first that does."""
        return next((label for label, content in self.parts if _says(content, self.path)), self.file)

    @property
    def said(self) -> str:
        """The file and the key: ``crossbus.toml: topics.orders.wire``."""
        return f"{self.where}: {self.key}"

    @property
    def key(self) -> str:
        """The path as TOML writes it: ``subscriptions."orders/billing".lease``."""
        return ".".join(part if _BARE.match(part) else f'"{part}"' for part in self.path)

    def error(self, text: str) -> ConfigurationError:
        """Make the error that says `text` of this key."""
        return ConfigurationError(f"{self.said} {text}")

    def table(self, value: object) -> Mapping[str, Any]:
        """Return `value` if it is a table, or raise."""
        if isinstance(value, Mapping):
            return value
        raise self.error(f"must be a table, not {show(value)}")

    def unknown(self, key: object, allowed: Mapping[str, Any] | list[str]) -> ConfigurationError:
        """Make the error of a key that this table does not have."""
        here = self.at(key)
        return ConfigurationError(f"{here.where}: unknown key {here.key}; {nearest(str(key), allowed)}")


def _says(content: object, path: tuple[str, ...]) -> bool:
    for key in path:
        if isinstance(content, list):
            return True  # a list stands whole in one file
        if not isinstance(content, Mapping) or key not in content:
            return False
        content = content[key]
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicSettings:
    """What the file says of one topic. None: it says nothing, and the program's value holds."""

    profile: str | None = None
    resource: str | None = None
    external: bool | None = None
    validate: Literal["portable", "provider"] | None = None
    """Which rules its events must keep when published. Not part of `Topic`: the Bus reads it here."""
    wire: str | None = None
    """How the adapter writes events; handed to it as ``options["wire"]``."""
    options: Mapping[str, Any] = field(default_factory=dict)

    def apply(self, topic: Topic) -> Topic:
        """Return the topic with these settings over the program's."""
        wire = {} if self.wire is None else {"wire": self.wire}
        return dataclasses.replace(
            topic,
            **_given(self, ("profile", "resource", "external")),
            options={**topic.options, **self.options, **wire},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionSettings:
    """What the file says of one subscription. None: it says nothing, and the program's value holds."""

    filter: Filter | None = None
    ordered: bool | None = None
    retry: Mapping[str, Any] = field(default_factory=dict)
    """Only the arguments of `RetryPolicy` that the file has."""
    lease: float | None = None
    retention: float | None = None
    concurrency: int | None = None
    timeout: float | None = None
    batch: int | None = None
    on_invalid: OnInvalid | None = None
    on_unhandled: OnUnhandled | None = None
    on_mismatch: OnMismatch | None = None
    breaker: Breaker | None = None
    backstop: int | None = None
    resource: str | None = None
    dead_letter_resource: str | None = None
    external: bool | None = None
    native_filter: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    def apply(self, subscription: Subscription, place: Place) -> Subscription:
        """Return the subscription with these settings over the program's.

        The filter and the order are part of what the handler relies on: where file and program say different
        things, neither is taken silently.
        """
        for key, unset in (("filter", None), ("ordered", False)):
            ours, theirs = getattr(self, key), getattr(subscription, key)
            if ours is not None and theirs != unset and ours != theirs:
                raise place.at(key).error(
                    f"is {_say(ours)}, but the program says {_say(theirs)}: say it in one place only"
                )
        return subscription.replace(
            **_given(self, _PLAIN),
            retry=dataclasses.replace(subscription.retry, **self.retry),
            native_filter={**subscription.native_filter, **self.native_filter},
            options={**subscription.options, **self.options},
        )


_MERGED: Final = ("retry", "native_filter", "options")
_PLAIN: Final = tuple(f.name for f in dataclasses.fields(SubscriptionSettings) if f.name not in _MERGED)


def merged(base: _S, over: _S) -> _S:
    """Return `base` with what `over` says instead; tables are merged key by key."""
    changes: dict[str, Any] = {}
    for each in dataclasses.fields(over):
        value = getattr(over, each.name)
        if isinstance(value, Mapping):
            changes[each.name] = {**getattr(base, each.name), **value}
        elif value is not None:
            changes[each.name] = value
    return dataclasses.replace(base, **changes)


def read_topic(value: object, place: Place) -> TopicSettings:
    """Read the table of a topic. Raises `ConfigurationError`."""
    return TopicSettings(**_read(value, place, _TOPIC))


def read_subscription(value: object, place: Place) -> SubscriptionSettings:
    """Read the table of a subscription. Raises `ConfigurationError`."""
    return SubscriptionSettings(**_read(value, place, _SUBSCRIPTION))


def read_telemetry(value: object, place: Place) -> Mapping[str, Any]:
    """Read the table `telemetry` of a profile: keys as of `TelemetryOptions`. Raises `ConfigurationError`."""
    return _read(value, place, _TELEMETRY)


def show(value: object) -> str:
    """Say in a message what stands where something else should: as TOML calls it, and short."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, (list, tuple)):
        return "a list"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _say(value: Filter | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _given(settings: TopicSettings | SubscriptionSettings, names: tuple[str, ...]) -> dict[str, Any]:
    values = {name: getattr(settings, name) for name in names}
    return {name: value for name, value in values.items() if value is not None}


# --- what each key must be ---


class _Kind(NamedTuple):
    wanted: str
    """Completes ``topics.orders.external must be ...``."""
    fits: Callable[[Any], bool]
    read: Callable[[Any, Place], Any] | None = None
    """What makes the setting of a value that fits; None if it is the value itself."""


def _read(value: object, place: Place, kinds: Mapping[str, _Kind]) -> dict[str, Any]:
    result = {}
    for key, item in place.table(value).items():
        kind = kinds.get(key)
        if kind is None:
            raise place.unknown(key, list(kinds))
        here = place.at(key)
        if not kind.fits(item):
            raise here.error(f"must be {kind.wanted}, not {show(item)}")
        result[key] = kind.read(item, here) if kind.read else item
    return result


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _one_of(*allowed: str) -> _Kind:
    listed = " or ".join((", ".join(map(repr, allowed[:-1])), repr(allowed[-1])))
    return _Kind(listed, lambda value: isinstance(value, str) and value in allowed)


def _number_from(low: int) -> _Kind:
    return _Kind(f"a number from {low}", lambda value: _is_number(value) and value >= low)


def _is_filter(value: object) -> bool:
    return isinstance(value, Filter) or (isinstance(value, (Mapping, list)) and len(value) > 0)


def _read_filter(value: object, place: Place) -> Filter | None:
    if isinstance(value, Filter):
        return value
    try:
        return filters.parse(value)
    except DeclarationError as error:
        raise place.error(f"is no filter: {error}") from error


def _read_breaker(value: object, place: Place) -> Breaker:
    given = _read(value, place, {"rejected": COUNT, "of": COUNT})
    if len(given) != 2:
        raise place.error("must have both rejected and of: { rejected = 8, of = 10 }")
    try:
        return Breaker(**given)
    except DeclarationError as error:
        raise place.error(f"is not allowed: {error}") from error


FLAG: Final = _Kind("true or false", lambda value: isinstance(value, bool))
TEXT: Final = _Kind("a text that is not empty", lambda value: isinstance(value, str) and value != "")
COUNT: Final = _Kind("a whole number from 1", lambda value: _is_whole(value) and value >= 1)
SECONDS: Final = _Kind("a number of seconds above 0", lambda value: _is_number(value) and value > 0)
TABLE: Final = _Kind("a table", lambda value: isinstance(value, Mapping))

_RETRY: Final[Mapping[str, _Kind]] = {
    "attempts": _Kind(
        "a whole number from 1, or 'unlimited'",
        lambda value: value == "unlimited" or (_is_whole(value) and value >= 1),
    ),
    "first_delay": _number_from(0),
    "factor": _number_from(1),
    "max_delay": _number_from(0),
    "jitter": FLAG,
}

_TOPIC: Final[Mapping[str, _Kind]] = {
    "profile": TEXT,
    "resource": TEXT,
    "external": FLAG,
    "validate": _one_of("portable", "provider"),
    "wire": TEXT,
    "options": TABLE,
}

_TELEMETRY: Final[Mapping[str, _Kind]] = {
    "mode": _one_of("auto", "parent", "link"),
    "subject": FLAG,
    "baggage": _Kind(
        "a list of the keys that may travel, such as ['tenant']",
        lambda value: isinstance(value, list) and all(isinstance(key, str) and key for key in value),
        lambda value, _: tuple(value),
    ),
    "backlog": _number_from(0),
}

_SUBSCRIPTION: Final[Mapping[str, _Kind]] = {
    "filter": _Kind(
        "a filter such as { exact = { type = 'com.acme.order.placed' } }",
        _is_filter,
        _read_filter,
    ),
    "ordered": FLAG,
    "retry": TABLE._replace(read=lambda value, place: _read(value, place, _RETRY)),
    "lease": SECONDS,
    "retention": SECONDS,
    "concurrency": COUNT,
    "timeout": SECONDS,
    "batch": COUNT,
    "on_invalid": _one_of("reject", "retry", "pause"),
    "on_unhandled": _one_of("reject", "drop"),
    "on_mismatch": _one_of("release", "dead_letter", "drop"),
    "breaker": TABLE._replace(read=_read_breaker),
    "backstop": COUNT,
    "resource": TEXT,
    "dead_letter_resource": TEXT,
    "external": FLAG,
    "native_filter": TABLE,
    "options": TABLE,
}
