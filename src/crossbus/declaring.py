"""Declaring topics, subscriptions and hooks: the part of a `Bus` that needs no connection."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from crossbus.config import Configuration
from crossbus.delivery import ForeignMessage
from crossbus.errors import DeclarationError, nearest
from crossbus.event import Event
from crossbus.filters import Filter
from crossbus.handlers import HandleMiddleware
from crossbus.subscriptions import SubscriptionHandle
from crossbus.topology import (
    Breaker,
    OnInvalid,
    OnMismatch,
    OnUnhandled,
    RetryPolicy,
    Subscription,
    Topic,
    Topology,
    check_name,
)

__all__ = ["Declarations", "check_choice"]

H = TypeVar("H", bound=Callable[..., Any])


class Declarations:
    """What a program declares. A `Bus` is one."""

    def __init__(self, configuration: Configuration | None) -> None:
        self._configuration = configuration
        self._topics: dict[str, Topic] = {}
        self._subscriptions: dict[tuple[str, str], SubscriptionHandle] = {}
        self._start_hooks: list[Callable[[Any], Any]] = []
        self._stop_hooks: list[Callable[[Any], Any]] = []

    def topic(
        self,
        name: str,
        *,
        profile: str | None = None,
        resource: str | None = None,
        external: bool = False,
        options: Mapping[str, Any] | None = None,
    ) -> Topic:
        """Declare a topic, so that opening creates it where that is allowed, or sees that it exists.

        Declaring it again, the same way or with nothing but its name, is harmless. Returns the declaration, with
        what the configuration says of it. Raises `DeclarationError` for a name that is not allowed, or that the
        configuration, listing topics, does not list.
        """
        check_name("topic", name)
        given = Topic(
            name, profile=profile, resource=resource, external=external, options=dict(options or {})
        )
        if self._configuration is not None:
            self._configuration.check_topic(name)
            given = self._configuration.apply_topic(given)
        known = self._topics.get(name)
        if known is not None and known != given:
            if given == self._plain_topic(name):
                return known
            if known != self._plain_topic(name):
                raise DeclarationError(f"topic {name!r} is declared twice, differently: {known} and {given}")
        self._topics[name] = given
        return given

    def _plain_topic(self, name: str) -> Topic:
        plain = Topic(name)
        return plain if self._configuration is None else self._configuration.apply_topic(plain)

    def subscribe(
        self,
        topic: str,
        name: str,
        *,
        filter: Filter | None = None,
        ordered: bool = False,
        retry: RetryPolicy | None = None,
        lease: float = 60.0,
        concurrency: int = 10,
        timeout: float = 900.0,
        batch: int = 100,
        retention: float | None = None,
        on_invalid: OnInvalid = "reject",
        on_unhandled: OnUnhandled = "reject",
        on_mismatch: OnMismatch | None = None,
        breaker: Breaker | None = None,
        backstop: int | None = None,
        mapping: Callable[[ForeignMessage], Event] | None = None,
        middleware: Sequence[HandleMiddleware] = (),
        native_filter: Mapping[str, Any] | None = None,
        resource: str | None = None,
        dead_letter_resource: str | None = None,
        external: bool = False,
    ) -> SubscriptionHandle:
        """Declare a subscription and its topic. The result is a decorator that adds its handler.

        Args:
            topic: The topic's name.
            name: The subscription's name, unique within the topic.
            filter: Which events it gets; None for all.
            ordered: Handle events of one `partitionkey` one after the other, as published.
            retry: How often and when a failed event comes again. Default: 5 attempts, 1 s, 2 s, 4 s ... at most
                300 s, drawn evenly below that ("full jitter").
            lease: Seconds that a delivery is ours; kept alive while it is in hand.
            concurrency: Handlers that run at once.
            timeout: Seconds that a handler may take. An `async def` is then cancelled and the event retried.
            batch: The most events that a handler of ``list[Event]`` gets at once.
            retention: Seconds that the provider keeps what nobody acknowledges; None for its default.
            on_invalid: What happens to data that does not fit: ``reject``, ``retry``, or ``pause``, which stops the
                subscription and gives the event back.
            on_unhandled: What happens to a type that no handler takes: ``reject`` or ``drop``.
            on_mismatch: For an external subscription: what happens to events that the filter does not match.
            breaker: Pauses the subscription when too many events are rejected. Default: none.
            backstop: Receives after which the provider dead-letters by itself. Default: 100, or its maximum.
            mapping: Makes an Event of a message that is no CloudEvent. Default: such a message goes to the dead
                letter.
            middleware: Wraps the handling of this subscription, the first outermost.
            native_filter: By adapter name, a filter in the provider's own language, instead of the compiled one.
            resource: The provider's name of a subscription that exists.
            dead_letter_resource: The provider's name of a dead letter that exists.
            external: The resource is not crossbus's: never created, changed or pruned.

        Raises:
            DeclarationError: a name or value is not allowed, or the subscription is declared already.
        """
        declared = self.topic(topic)
        check_name("subscription", name)
        key = (topic, name)
        if key in self._subscriptions:
            raise DeclarationError(
                f"subscription {topic}/{name} is declared already; keep what bus.subscribe returned and use its .on()"
            )
        if filter is not None and not isinstance(filter, Filter):
            raise DeclarationError(
                f"subscription {topic}/{name}: filter is {type(filter).__name__}; make one with exact(), prefix(), "
                "suffix(), all_(), any_(), not_(), or crossbus.filters.parse()"
            )
        _check_number(key, "lease", lease, low=0, above=True)
        _check_number(key, "timeout", timeout, low=0, above=True)
        _check_number(key, "concurrency", concurrency, low=1, whole=True)
        _check_number(key, "batch", batch, low=1, whole=True)
        if retention is not None:
            _check_number(key, "retention", retention, low=0, above=True)
        if backstop is not None:
            _check_number(key, "backstop", backstop, low=1, whole=True)
        _check_kind(key, "retry", retry, RetryPolicy)
        _check_kind(key, "breaker", breaker, Breaker)
        check_choice(f"{topic}/{name}: on_invalid", on_invalid, ("reject", "retry", "pause"))
        check_choice(f"{topic}/{name}: on_unhandled", on_unhandled, ("reject", "drop"))
        check_choice(f"{topic}/{name}: on_mismatch", on_mismatch, (None, "release", "dead_letter", "drop"))
        subscription = Subscription(
            topic=declared,
            name=name,
            filter=filter,
            ordered=ordered,
            retry=retry or RetryPolicy(),
            lease=float(lease),
            concurrency=concurrency,
            timeout=float(timeout),
            batch=batch,
            retention=retention,
            on_invalid=on_invalid,
            on_unhandled=on_unhandled,
            on_mismatch=on_mismatch,
            breaker=breaker,
            backstop=backstop,
            resource=resource,
            dead_letter_resource=dead_letter_resource,
            external=external,
            native_filter=dict(native_filter or {}),
        )
        if self._configuration is not None:
            subscription = self._configuration.apply_subscription(subscription)
        handle = SubscriptionHandle(subscription, mapping=mapping, middleware=tuple(middleware))
        self._subscriptions[key] = handle
        return handle

    def on_start(self, hook: H) -> H:
        """Add a function of the bus, plain or async, that runs at the end of opening. Usable as a decorator."""
        self._start_hooks.append(hook)
        return hook

    def on_stop(self, hook: H) -> H:
        """Add a function of the bus, plain or async, that runs when consuming has ended, before the adapters close."""
        self._stop_hooks.append(hook)
        return hook

    @property
    def topology(self) -> Topology:
        """All that is declared."""
        return Topology(
            tuple(self._topics.values()), tuple(handle.declaration for handle in self._subscriptions.values())
        )

    @property
    def subscriptions(self) -> list[SubscriptionHandle]:
        """The declared subscriptions with their handlers."""
        return list(self._subscriptions.values())

    def _declared(self, topic: str, name: str) -> SubscriptionHandle:
        handle = self._subscriptions.get((topic, name))
        if handle is None:
            known = [f"{t}/{n}" for t, n in self._subscriptions]
            raise DeclarationError(
                f"subscription {topic}/{name} is not declared; {nearest(f'{topic}/{name}', known)}"
            )
        return handle


def check_choice(name: str, value: object, allowed: tuple[object, ...]) -> None:
    """Raise `DeclarationError` unless a value is one of those allowed."""
    if value not in allowed:
        raise DeclarationError(f"{name}={value!r} is not allowed; one of {', '.join(map(repr, allowed))}")


def _check_number(
    key: tuple[str, str], name: str, value: object, *, low: float, above: bool = False, whole: bool = False
) -> None:
    kinds: tuple[type, ...] = (int,) if whole else (int, float)
    good = isinstance(value, kinds) and not isinstance(value, bool) and low <= value < float("inf")  # type: ignore[operator]
    if not good or (above and value == low):
        kind = "a whole number" if whole else "a number of seconds"
        raise DeclarationError(
            f"{key[0]}/{key[1]}: {name}={value!r} must be {kind} {'above' if above else 'from'} {low:g}"
        )


def _check_kind(key: tuple[str, str], name: str, value: object, kind: type) -> None:
    if value is not None and not isinstance(value, kind):
        raise DeclarationError(
            f"{key[0]}/{key[1]}: {name} is {type(value).__name__}; it must be a {kind.__name__}"
        )
