"""Declarations: topics, subscriptions, and how a subscription retries. Plain data, shared with every adapter."""

from __future__ import annotations

import dataclasses
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from crossbus.errors import DeclarationError
from crossbus.filters import Filter

__all__ = [
    "Breaker",
    "OnInvalid",
    "OnMismatch",
    "OnUnhandled",
    "RetryPolicy",
    "Subscription",
    "Topic",
    "Topology",
    "check_name",
]

OnInvalid = Literal["reject", "retry", "pause"]
"""What happens to data that does not fit the handler: dead letter, retry, or pause the subscription."""
OnUnhandled = Literal["reject", "drop"]
"""What happens to an event of a type that no handler takes: dead letter, or acknowledge."""
OnMismatch = Literal["release", "dead_letter", "drop"]
"""What happens to an event of an external subscription that its filter does not match."""

_NAME = re.compile(r"[a-z][a-z0-9-]{2,39}\Z")


def check_name(kind: str, name: object) -> str:
    """Return the logical name of a topic or subscription, or raise `DeclarationError`.

    The rule is the narrowest that every provider's own names leave room for: 3 to 40 characters, lower-case
    letters, digits and hyphens, a letter first, no double hyphen, no hyphen at the end.
    """
    if isinstance(name, str) and _NAME.match(name) and "--" not in name and not name.endswith("-"):
        return name
    raise DeclarationError(
        f"{kind} name {name!r} is not allowed: 3 to 40 characters, a-z, 0-9 and single hyphens, beginning with a "
        "letter and not ending with a hyphen"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often, and after what delays, a failed event is handled again.

    The delay before attempt n + 1 is drawn evenly from 0 to `first_delay * factor ** (n - 1)`, at most `max_delay`
    ("full jitter"); with `jitter=False` it is that value itself.
    """

    attempts: int | Literal["unlimited"] = 5
    """A failure whose attempt number has reached this goes to the dead letter."""
    first_delay: float = 1.0
    """Seconds."""
    factor: float = 2.0
    max_delay: float = 300.0
    """Seconds."""
    jitter: bool = True

    def __post_init__(self) -> None:
        if self.attempts != "unlimited" and (
            not isinstance(self.attempts, int) or isinstance(self.attempts, bool) or self.attempts < 1
        ):
            raise DeclarationError(
                f'RetryPolicy(attempts={self.attempts!r}): a whole number from 1, or "unlimited"'
            )
        for name, low in (("first_delay", 0), ("factor", 1), ("max_delay", 0)):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or not low <= value < float("inf"):
                raise DeclarationError(f"RetryPolicy({name}={value!r}): it must be a number from {low}")

    def delay(self, attempt: int) -> float:
        """Return the seconds to wait after the failure of an attempt (counted from 1)."""
        try:
            ceiling = min(self.max_delay, self.first_delay * self.factor ** (max(attempt, 1) - 1))
        except OverflowError:
            ceiling = self.max_delay
        return random.uniform(0, ceiling) if self.jitter else ceiling

    def exhausted(self, attempt: int | None) -> bool:
        """True if a failure at this attempt is the last. An unknown attempt number never is."""
        return self.attempts != "unlimited" and attempt is not None and attempt >= self.attempts


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """Pauses a subscription when `rejected` of its last `of` handled events were rejected."""

    rejected: int
    of: int

    def __post_init__(self) -> None:
        if not 1 <= self.rejected <= self.of:
            raise DeclarationError(
                f"Breaker(rejected={self.rejected}, of={self.of}): rejected must be from 1 to `of`"
            )


@dataclass(frozen=True, slots=True)
class Topic:
    """Where events are published.

    `kind` is ``dead_letter`` for the place where crossbus writes the records of a subscription; such a topic is
    named after it, and `subscription` is that subscription's name.
    """

    name: str
    profile: str | None = None
    """The profile that holds it; None for the default one."""
    resource: str | None = None
    """The provider's own name (ARN, path, URL) of a resource that exists; None to derive it from `name`."""
    external: bool = False
    """True if the resource is not crossbus's: never created, exported or pruned, only checked."""
    kind: Literal["topic", "dead_letter"] = "topic"
    subscription: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    """What only one adapter understands."""
    ordered: bool = False
    """Of a dead letter: whether its subscription is ordered, which some providers must know to make it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """A durable, named, filtered queue on a topic; its consumers compete. Times are in seconds."""

    topic: Topic
    name: str
    filter: Filter | None = None
    ordered: bool = False
    """Handle events of one `partitionkey` one after the other, in the order they were published."""
    retry: RetryPolicy = RetryPolicy()
    lease: float = 60.0
    """How long a delivery is ours before the provider hands it out again, unless it is extended."""
    retention: float | None = None
    """How long the provider keeps what is not acknowledged; None for its own default."""
    concurrency: int = 10
    """How many handlers run at once in one consumer."""
    timeout: float = 900.0
    """How long a handler may take."""
    batch: int = 100
    """The most events that a handler of `list[Event]` is given at once."""
    on_invalid: OnInvalid = "reject"
    on_unhandled: OnUnhandled = "reject"
    on_mismatch: OnMismatch | None = None
    breaker: Breaker | None = None
    backstop: int | None = None
    """After how many receives the provider's own dead-lettering steps in; None for 100, or its maximum."""
    resource: str | None = None
    dead_letter_resource: str | None = None
    external: bool = False
    native_filter: Mapping[str, Any] = field(default_factory=dict)
    """By adapter name, a filter in the provider's own language, used instead of the compiled one."""
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str]:
        """Topic name and subscription name: what identifies it."""
        return self.topic.name, self.name

    @property
    def dead_letter(self) -> Topic:
        """The topic into which crossbus writes the records of this subscription."""
        return Topic(
            name=f"{self.topic.name}--{self.name}--dead",
            profile=self.topic.profile,
            resource=self.dead_letter_resource,
            external=self.external and self.dead_letter_resource is not None,
            kind="dead_letter",
            subscription=self.name,
            options=self.topic.options,
            ordered=self.ordered,
        )

    def replace(self, **changes: Any) -> Subscription:
        """Return a copy with other values."""
        return dataclasses.replace(self, **changes)

    def __str__(self) -> str:
        return f"{self.topic.name}/{self.name}"


@dataclass(frozen=True, slots=True)
class Topology:
    """All topics and subscriptions that a program declares, or those of one profile."""

    topics: tuple[Topic, ...] = ()
    subscriptions: tuple[Subscription, ...] = ()
