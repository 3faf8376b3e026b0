"""`Source`: one Pub/Sub subscription that a receiver reads; several, when a filter was changed with a backlog.

Pub/Sub cannot change a filter. `provision` makes a successor beside the old subscription, labelled with when. Until the
old one is pruned, consumers read both, and drop of the old one what the new one has too: what was published since.
"""

from __future__ import annotations

import logging
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from crossbus.errors import ErrorCode, ProviderError, UnsupportedError, provider_error
from crossbus.topology import Subscription
from crossbus_pubsub.naming import Names

if TYPE_CHECKING:
    from crossbus_pubsub.client import Client

__all__ = [
    "DELETED_TOPIC",
    "MADE",
    "OVERLAP",
    "REPLAYED",
    "Replay",
    "Source",
    "find_sources",
    "made_of",
    "others",
]

logger = logging.getLogger("crossbus")

MADE: Final = "crossbus-made"
"""The label of a subscription that says when it was made: in seconds since the epoch, or as `TERRAFORM_TIME`."""
TERRAFORM_TIME: Final = "%Y%m%dt%H%M%Sz"
"""What terraform can write, which knows no seconds since the epoch: ``20261126t151500z``, in UTC."""
REPLAYED: Final = "crossbus-replay"
"""The label of a subscription that says which replay was the last, so that consumers know its deliveries."""
OVERLAP: Final = 60.0
"""Seconds after a successor was made in which events are taken from both: clocks differ."""
UNKNOWN_LEASE: Final = 10.0
"""The shortest acknowledgement deadline there is: what is counted on where it cannot be looked up."""
DELETED_TOPIC: Final = "_deleted-topic_"
_REPLAY = re.compile(r"([0-9a-z-]{1,36})_([0-9]{1,12})_([0-9]{1,12})\Z")


class Replay(NamedTuple):
    """A replay: what was published between two times came again. In seconds since the epoch."""

    id: str
    since: int
    until: int

    def text(self) -> str:
        """Write it as the value of a label."""
        return f"{self.id}_{self.since}_{self.until}"

    @classmethod
    def read(cls, text: str) -> Replay | None:
        """Read the value of a label; None if there is none."""
        match = _REPLAY.match(text)
        return cls(match[1], int(match[2]), int(match[3])) if match else None


class Source:
    """One Pub/Sub subscription, and what a receiver needs to know of it."""

    __slots__ = ("lease", "made", "name", "replay", "until")

    def __init__(
        self,
        name: str,
        lease: float,
        made: float = 0.0,
        until: float = float("inf"),
        replay: Replay | None = None,
    ) -> None:
        self.name = name
        self.lease = lease
        """Its acknowledgement deadline in seconds."""
        self.made = made
        self.until = until
        """What was published from then on, in seconds since the epoch, is in a successor too."""
        self.replay = replay
        """The last replay, as its label says."""


async def find_sources(client: Client, names: Names, subscription: Subscription, filter: str) -> list[Source]:
    """Return what to read for a subscription: the current generation, then its predecessors, oldest first.

    Raises `NotFound` if the current one is not there, `Conflict` if it is one of another topic, and `UnsupportedError`
    if it cannot keep what the declaration promises.
    """
    name = names.subscription(subscription, filter)
    there = await _get(client, name, subscription)
    if there is None:
        return [
            Source(name, UNKNOWN_LEASE),
            *(Source(one, UNKNOWN_LEASE) for one in names.generations(subscription)),
        ]
    check(there, names, subscription)
    current = _source(there)
    older = []
    for other in await others(client, names, subscription, name):
        found = await _get(client, other, subscription, missing_ok=True)
        if found is None or (made_of(found) or 0.0) > current.made:
            continue  # newer, of a release that is being rolled out: what is in it is not ours to judge
        until = current.made + OVERLAP if current.made else float("inf")
        older.append(_source(found, until))
    return [current, *sorted(older, key=lambda source: source.made)]


async def is_there(client: Client, names: Names, subscription: Subscription, filter: str) -> bool:
    """Return whether any generation of a subscription is there, whatever its filter; True if we may not look."""
    try:
        await client.call("GetSubscription", subscription=names.subscription(subscription, filter))
    except ProviderError as error:
        if error.code is not ErrorCode.NOT_FOUND:
            return True
    else:
        return True
    if subscription.resource:
        return False
    base = names.base(subscription)
    try:
        all_ = await client.listed(
            "ListTopicSubscriptions", "subscriptions", topic=names.topic(subscription.topic)
        )
    except ProviderError as error:
        return error.code is not ErrorCode.NOT_FOUND
    return any(names.is_generation(name, base) for name in all_) or bool(names.generations(subscription))


async def others(client: Client, names: Names, subscription: Subscription, current: str) -> list[str]:
    """Return the full names of all generations of a subscription but the current one: those its options name, or all.

    None, with a warning, if they may not be listed.
    """
    named = [name for name in names.generations(subscription) if name != current]
    if named or subscription.resource:
        return named
    base = names.base(subscription)
    try:
        all_ = await client.listed(
            "ListTopicSubscriptions", "subscriptions", topic=names.topic(subscription.topic)
        )
    except ProviderError as error:
        if error.code is ErrorCode.PERMISSION_DENIED:
            logger.warning(
                "%s: cannot see whether older generations of it wait to be read, going on: %s",
                subscription,
                error,
            )
            return []
        raise
    return [name for name in all_ if names.is_generation(name, base) and name != current]


async def _get(client: Client, name: str, subscription: Subscription, missing_ok: bool = False) -> Any | None:
    """Return a subscription as it is; None if a permission to look is lacking."""
    try:
        return await client.call("GetSubscription", subscription=name)
    except ProviderError as error:
        if error.code is ErrorCode.PERMISSION_DENIED:
            logger.warning("%s: cannot look at %s, going on without: %s", subscription, name, error)
            return None
        if error.code is ErrorCode.NOT_FOUND and missing_ok:
            return None
        raise


def check(there: Any, names: Names, subscription: Subscription) -> None:
    """Raise unless a subscription as it is can be consumed as it is declared."""
    wanted = names.topic(subscription.topic)
    if there.topic == DELETED_TOPIC:
        raise provider_error(
            ErrorCode.NOT_FOUND,
            f"pubsub: the topic of {there.name} was deleted, so that nothing comes into it any more; delete the "
            "subscription, and create both with `await bus.provision()`",
        )
    if there.topic != wanted:
        raise provider_error(
            ErrorCode.CONFLICT,
            f"pubsub: {there.name} is a subscription of {there.topic}, but {subscription} is declared on {wanted}; "
            "correct the topic's resource, or the subscription's",
        )
    if subscription.ordered and not there.enable_message_ordering:
        raise UnsupportedError(
            f"subscription {subscription} is ordered, but {there.name} was created without message ordering, which "
            "Pub/Sub cannot change: use another name, or delete it once it is empty",
            capability="ordering",
        )
    if subscription.retry.attempts != "unlimited" and not there.dead_letter_policy.dead_letter_topic:
        raise UnsupportedError(
            f"subscription {subscription} has a limit of {subscription.retry.attempts} attempts, but {there.name} has "
            "no dead-letter policy, and Pub/Sub counts attempts only with one: add one, or use "
            'RetryPolicy(attempts="unlimited")',
            capability="attempts",
        )


def _source(there: Any, until: float = float("inf")) -> Source:
    replay = Replay.read(there.labels.get(REPLAYED, ""))
    return Source(there.name, float(there.ack_deadline_seconds), made_of(there), until, replay)


def made_of(there: Any) -> float:
    """Return when `provision`, or terraform, made a subscription; 0 if the label does not say it."""
    text = there.labels.get(MADE, "")
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        return datetime.strptime(text, TERRAFORM_TIME).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return 0.0
