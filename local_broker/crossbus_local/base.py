"""`BrokerAdapter`: what the adapters of the local broker share, whether it runs in this process or behind a server.

The wire form, the names and the settings of queues are the same, so that a program finds what another has made.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Final

from crossbus.adapter import Adapter, Change, Compilation, Finding, Received, Standing, Wire
from crossbus.capabilities import CAPABILITIES, Capabilities, DelayRange, FilterSupport, LeaseLimits
from crossbus.checks import Check
from crossbus.clock import Clock
from crossbus.codecs import decode_json, encode_json
from crossbus.event import Event
from crossbus.filter_parse import parse
from crossbus.filters import Filter
from crossbus.names import logical_name, resource_name, subscription_resource
from crossbus.profiles import Profile
from crossbus.topology import Subscription, Topic, Topology
from crossbus.wire import REPLAY
from crossbus_local import provisioning
from crossbus_local.queue import DEFAULT_BACKSTOP, QueueSettings
from crossbus_local.records import NO_ATTRIBUTES, LocalWire

__all__ = ["EVENT_BYTES", "PUBLISH_BATCH", "RECEIVE_BATCH", "REPLAYS", "BrokerAdapter", "broker_capabilities"]

EVENT_BYTES: Final = 1_048_576
"""The most bytes of one event."""
PUBLISH_BATCH: Final = 1000
"""The most events of one publish."""
RECEIVE_BATCH: Final = 1000
"""The most deliveries of one receive."""
REPLAYS: Final = frozenset({"replay_time", "replay_position"})
"""What a broker that keeps no history lacks."""


def broker_capabilities(absent: frozenset[str]) -> Capabilities:
    """Return what the local broker can do, all but what is `absent`."""
    return Capabilities(
        names=frozenset(CAPABILITIES) - absent,
        publish_batch=PUBLISH_BATCH,
        publish_batch_bytes=8_000_000,  # with an ordering key as long as its event, still a request of 16 MiB
        event_bytes=EVENT_BYTES,
        receive_batch=RECEIVE_BATCH,
        lease=LeaseLimits(),
        retry_delays=DelayRange(),
        backstop=(1, 1_000_000),
        filters=FilterSupport(operators=frozenset({"exact", "prefix", "suffix", "all", "any", "not"})),
        duplicates=False,
        backlog="exact",
    )


class BrokerAdapter(Adapter):
    """An adapter of the local broker. See the module's text."""

    checks: Mapping[str, Check] = provisioning.CHECKS

    def __init__(self, profile: Profile, *, clock: Clock) -> None:
        super().__init__(profile, clock=clock)
        self._resources: dict[str, str] = {}
        self._names = provisioning.Names(self._topic_name, self._subscription_name, self._settings)

    # --- the wire form ------------------------------------------------------------------------------------------

    def encode(self, topic: Topic, event: Event) -> Wire:
        """Make structured JSON of an event."""
        body = encode_json(event)
        key = event._extensions.get("partitionkey") if event._extensions else None
        return LocalWire(body, NO_ATTRIBUTES, len(body), None if key is None else str(key), event)

    def decode(self, received: Received) -> Event:
        """Read a delivery. Raises `DecodeError` if it is no CloudEvent in JSON."""
        event = decode_json(received.body)
        replay = received.attributes.get(REPLAY) if received.attributes else None
        return event if replay is None else event.with_attributes(**{REPLAY: replay})

    def compile(self, filter: Filter) -> Compilation:
        """The broker evaluates every filter itself."""
        return Compilation(native=filter, text=filter.to_json(), residual=None)

    # --- provisioning -------------------------------------------------------------------------------------------

    @abstractmethod
    async def _found(self) -> provisioning.Snapshot:
        """Return what the broker has."""

    async def inspect(self, topology: Topology) -> Sequence[Finding]:
        """Look at every declared topic and subscription."""
        return list(provisioning.inspect(await self._found(), topology, self._names))

    async def plan(self, topology: Topology, *, prune: bool = False) -> Sequence[Change]:
        """Say what `provision` would do. What a deletion loses stands in its detail; temporary subscriptions stay."""
        return list(provisioning.plan(await self._found(), topology, self._names, prune=prune))

    async def subscriptions(self) -> Sequence[Standing]:
        """Return what the broker has, as a program would declare it."""
        found = (await self._found()).topics
        return [
            Standing(self._declared_as(topic, home, name, queue.settings), queue.settings.paused)
            for home, info in sorted(found.items())
            if (topic := logical_name(home, self.profile)) is not None  # else it is another profile's
            for name, queue in sorted(info.queues.items())
            if not queue.temporary
        ]

    def _declared_as(self, topic: str, home: str, name: str, settings: QueueSettings) -> Subscription:
        return Subscription(
            topic=Topic(topic, resource=home),
            name=name,
            filter=settings.filter,
            ordered=settings.ordered,
            lease=settings.lease,
            backstop=settings.backstop,
            retention=settings.retention,
            resource=name,
            dead_letter_resource=settings.dead_letter or None,
        )

    # --- names --------------------------------------------------------------------------------------------------

    def _topic_name(self, topic: Topic) -> str:
        name = resource_name(topic, self.profile, self.capabilities.name_length)
        if not topic.resource:
            self._resources[topic.name] = name
        return name

    def _subscription_name(self, subscription: Subscription) -> str:
        return subscription_resource(
            subscription, self.profile, self.capabilities.name_length, within_topic=True
        )

    def _place(self, subscription: Subscription) -> tuple[str, str]:
        return self._topic_name(subscription.topic), self._subscription_name(subscription)

    def _settings(self, subscription: Subscription) -> QueueSettings:
        return QueueSettings(
            filter=_filter(subscription),
            ordered=subscription.ordered,
            backstop=DEFAULT_BACKSTOP if subscription.backstop is None else subscription.backstop,
            retention=subscription.retention,
            dead_letter=self._topic_name(subscription.dead_letter),
            lease=subscription.lease,
        )


def _filter(subscription: Subscription) -> Filter | None:
    """The broker's own language of filters is CloudEvents' one."""
    native = subscription.native_filter.get("local")
    if native is None:
        return subscription.filter
    return native if isinstance(native, Filter) else parse(native)
