"""`PubSubAdapter`: Google Cloud Pub/Sub, and its emulator."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, ClassVar, Final

from crossbus.adapter import (
    Adapter,
    Change,
    Compilation,
    DeadLetterQueue,
    Description,
    Finding,
    Received,
    ReplayFrom,
    SendOutcome,
    Wire,
)
from crossbus.capabilities import CAPABILITIES, Capabilities, DelaySteps, FilterSupport, LeaseLimits
from crossbus.checks import Check, Result
from crossbus.clock import Clock
from crossbus.errors import BusClosedError, DecodeError, ErrorCode, ProviderError
from crossbus.event import Event
from crossbus.filters import Filter
from crossbus.profiles import Profile
from crossbus.registry import not_installed
from crossbus.topology import Subscription, Topic, Topology
from crossbus_pubsub import diagnosing, encoding, exporting, filters, temporary
from crossbus_pubsub.checks import CHECKS
from crossbus_pubsub.connecting import connect, endpoint_of
from crossbus_pubsub.dead_letters import PubSubDeadLetters, PulledShelf
from crossbus_pubsub.errors import code_of
from crossbus_pubsub.naming import NAME_LENGTH, NAME_RULE, Names, short
from crossbus_pubsub.options import check_options, native_text
from crossbus_pubsub.provisioning import Provisioner
from crossbus_pubsub.receiver import PubSubReceiver
from crossbus_pubsub.replays import Replays
from crossbus_pubsub.sources import find_sources, others

if TYPE_CHECKING:
    from crossbus_pubsub.client import Client

__all__ = ["PubSubAdapter"]

AT_ONCE: Final = 50
"""Requests that one `send` has under way, for as many ordering keys."""
_ABSENT: Final = frozenset({"partial_publish", "backlog", "push", "restarts"})
_EMULATOR_WAIT: Final = 1.0
"""Seconds of a pull on the emulator: it hands an event to a pull that was given up meanwhile, so that closing waits."""


class PubSubAdapter(Adapter):
    """Google Cloud Pub/Sub, and its emulator.

    Args:
        profile: Its `target` is the project; empty for GOOGLE_CLOUD_PROJECT, or that of the credentials.
        clock: For leases.
        credentials: Of google-auth, to use instead of the application default credentials. They are sent wherever the
            profile points, a loopback address included.
    """

    name: ClassVar[str] = "pubsub"
    checks: Mapping[str, Check] = CHECKS
    permissions: Mapping[str, str] = {
        "temporary_subscriptions": "roles/pubsub.editor on the project, or pubsub.subscriptions.create, .consume and "
        ".delete there, and pubsub.topics.attachSubscription on the topic",
    }
    example_target: ClassVar[str] = "my-project"
    parameters: ClassVar[dict[str, str]] = {
        "endpoint": "HOST:PORT of a regional endpoint, or of an emulator; default pubsub.googleapis.com",
        "impersonate": "the e-mail address of a service account to act as",
        "project": "the project, if it does not stand in the URL before the ?",
        "project_number": "the number of the project, to grant its Pub/Sub service agent what the backstop needs",
        "prune": "force: prune removes a predecessor of a changed filter before its retention is over",
    }
    capabilities = Capabilities(
        names=frozenset(CAPABILITIES) - _ABSENT,
        publish_batch=1000,
        publish_batch_bytes=9_999_000,  # 10 MB, without what the request itself adds
        event_bytes=9_999_000,
        attribute_bytes=encoding.ATTRIBUTE_BYTES,
        attribute_count=encoding.ATTRIBUTE_COUNT - 5,
        receive_batch=1000,
        receive_wait=(0.0, 20.0),
        lease=LeaseLimits(minimum=10.0, maximum=600.0),
        retry_delays=DelaySteps(tuple(map(float, range(601)))),
        backstop=(5, 100),
        filters=FilterSupport(operators=filters.OPERATORS, max_size=filters.MAX_BYTES),
        name_rule=NAME_RULE,
        name_length=NAME_LENGTH,
    )

    def __init__(self, profile: Profile, *, clock: Clock, credentials: Any | None = None) -> None:
        super().__init__(profile, clock=clock)
        self._credentials = credentials
        self._endpoint = endpoint_of(profile)
        if self._endpoint.is_emulator:
            self.capabilities = _of_emulator(self.capabilities, credentials is not None)
        self._client: Client | None = None
        self._names: Names | None = None
        self._topics: dict[str, str] = {}
        self._shelves: dict[str, PulledShelf] = {}
        self._replays = Replays()

    # --- connection ---------------------------------------------------------------------------------------------

    @property
    def is_local(self) -> bool:
        """True for the emulator and for a loopback address."""
        return self._endpoint.is_emulator

    @property
    def client(self) -> Client:
        """The connection. Raises `BusClosedError` unless the adapter is open."""
        if self._client is None:
            raise BusClosedError(f"pubsub:{self.profile.target} is not open; open the bus first")
        return self._client

    @property
    def names(self) -> Names:
        """What declared things are called. Raises `BusClosedError` unless the adapter was opened."""
        if self._names is None:
            raise BusClosedError(f"pubsub:{self.profile.target} is not open; open the bus first")
        return self._names

    async def open(self) -> None:
        """Find project and credentials, and connect.

        Raises `AdapterNotInstalled` without google-cloud-pubsub, `Unauthenticated` without credentials, and
        `ConfigurationError` without a project.
        """
        if self._client is not None:
            return
        try:
            client, project = await connect(self.profile, self._endpoint, self._credentials)
        except ModuleNotFoundError as error:
            raise not_installed("pubsub", error, self.profile.origin) from error
        self._names = Names(self.profile, project)
        self._client = client

    async def close(self) -> None:
        """Disconnect. Idempotent."""
        client, self._client = self._client, None
        if client is not None:
            for shelf in self._shelves.values():
                await shelf.close()
            self._shelves.clear()
            await client.close()

    def describe(self) -> Description:
        """Say what telemetry shall call Pub/Sub."""
        return Description(
            system="gcp_pubsub", server_address=self._endpoint.host, server_port=self._endpoint.port
        )

    def error_code(self, error: BaseException) -> tuple[ErrorCode, bool] | None:
        """Return the portable code of an exception of grpc, google-api-core or google-auth."""
        return code_of(error)

    # --- publishing ---------------------------------------------------------------------------------------------

    def encode(self, topic: Topic, event: Event) -> Wire:
        """Make a message of an event: binary mode, or structured where that restores it exactly."""
        return encoding.encode(
            event, self.client.message, structured=topic.options.get("wire") == "structured"
        )

    async def send(self, topic: Topic, wires: Sequence[Wire]) -> Sequence[SendOutcome]:
        """Publish in one request for each ordering key, of which all or nothing is published.

        All messages of a request must have the same ordering key, or none.
        """
        name = self._topic_name(topic)
        groups: dict[str | None, list[Wire]] = {}
        for wire in wires:
            groups.setdefault(wire.key, []).append(wire)
        if len(groups) <= 1:
            return await self._publish(name, wires)
        found: dict[str | None, Iterator[SendOutcome]] = {}
        every = list(groups)
        for start in range(0, len(every), AT_ONCE):
            keys = every[start : start + AT_ONCE]
            answers = await asyncio.gather(*(self._publish(name, groups[key]) for key in keys))
            found.update(zip(keys, map(iter, answers), strict=True))
        return [next(found[wire.key]) for wire in wires]

    async def _publish(self, topic: str, wires: Sequence[Wire]) -> list[SendOutcome]:
        client = self.client
        request = encoding.request_of(client.topic_field(topic), wires, client.message)
        try:
            ids = (await client.publish(topic, request)).message_ids
        except ProviderError as error:
            return [SendOutcome("", error.code, str(error), error.retryable, error)] * len(wires)
        return [SendOutcome(id) for id in ids]

    def _topic_name(self, topic: Topic) -> str:
        if topic.resource:
            return self.names.topic(topic)
        found = self._topics.get(topic.name)
        if found is None:
            check_options(topic)
            found = self._topics[topic.name] = self.names.topic(topic)
        return found

    # --- consuming ----------------------------------------------------------------------------------------------

    async def open_receiver(self, subscription: Subscription, window: int) -> PubSubReceiver:
        """Begin to take deliveries. Raises `NotFound` if the subscription is not there."""
        check_options(subscription)
        text = native_text(subscription)
        sources = await find_sources(self.client, self.names, subscription, text)
        wanted = subscription.filter

        def matches(received: Received) -> bool:
            if wanted is None:
                return True
            try:
                return wanted.matches(encoding.decode(received))
            except DecodeError:
                return True  # foreign: what becomes of it is not decided here

        return PubSubReceiver(
            self.client,
            self.clock,
            sources,
            address=str(subscription),
            matches=matches,
            replay_of=self._replays.of,
        )

    def decode(self, received: Received) -> Event:
        """Read a message. Raises `DecodeError` if it is no CloudEvent."""
        return encoding.decode(received)

    def compile(self, filter: Filter) -> Compilation:
        """Divide a filter between Pub/Sub and us. The emulator may ignore its part, so there all is evaluated here."""
        compiled = filters.compile(filter)
        return compiled._replace(residual=filter) if self._endpoint.is_emulator else compiled

    # --- provisioning -------------------------------------------------------------------------------------------

    @property
    def _provisioner(self) -> Provisioner:
        return Provisioner(self.client, self.names, self.clock, emulator=self._endpoint.is_emulator)

    async def inspect(self, topology: Topology) -> Sequence[Finding]:
        """Look at every declared topic and subscription.

        Raises what makes a declared subscription unusable: `Conflict` for one of another topic, `UnsupportedError` for
        one that lacks what the declaration needs.
        """
        return await self._provisioner.inspect(topology)

    async def diagnose(self, topology: Topology) -> Sequence[Result]:
        """Ask what these credentials permit, whether the service agent has its roles, and for older generations."""
        emulator = self.is_local and self._credentials is None
        return await diagnosing.diagnose(self.client, self.names, topology, emulator=emulator)

    async def plan(self, topology: Topology, *, prune: bool = False) -> Sequence[Change]:
        """Say what `provision` would do. What was given by its own name, and exists, is left as it is."""
        return await self._provisioner.plan(topology, prune=prune)

    async def provision(self, changes: Sequence[Change]) -> None:
        """Carry out a plan that this adapter made."""
        for change in changes:
            await change.payload()

    async def generations(self, subscription: Subscription) -> Sequence[str]:
        """Return the predecessors of a subscription whose filter was changed, which are not pruned yet."""
        if subscription.external or subscription.resource:
            return []
        current = self.names.subscription(subscription, native_text(subscription))
        return sorted(map(short, await others(self.client, self.names, subscription, current)))

    def exported(
        self, declared: Topic | Subscription, previous: Mapping[str, Any] | None = None
    ) -> Mapping[str, Any]:
        """Return names, filter and settings, and the generations that `previous` knew and that may not be empty."""
        project = self.profile.target or self.profile.parameters.get("project") or self.example_target
        return exporting.exported(Names(self.profile, project), declared, previous)

    # --- optional, each keyed by a capability --------------------------------------------------------------------

    def dead_letters(self, subscription: Subscription) -> DeadLetterQueue:
        """Return the dead letter of a subscription."""
        name = self.names.dead_subscription(subscription)
        shelf = self._shelves.get(name)
        if shelf is None:
            shelf = self._shelves[name] = PulledShelf(self.client, name, self.clock, emulator=self.is_local)
        return PubSubDeadLetters(self, shelf, subscription)

    async def replay(self, subscription: Subscription, start: ReplayFrom) -> None:
        """Deliver past events again to this subscription only: all generations of it seek to the start.

        Raises `InvalidRequest` if the subscription does not keep what was acknowledged, or not for so long.
        """
        if subscription.ordered:
            self.capabilities.require("replay_ordered", self.name, f"replay of {subscription}")
        text = native_text(subscription)
        await self._replays.seek(
            self.client, self.names, subscription, text, start, self.clock, emulator=self.is_local
        )

    def temporary_subscription(
        self, topic: Topic, filter: Filter | None = None
    ) -> AbstractAsyncContextManager[Subscription]:
        """Make a subscription that is gone when the block ends, or after a day if the process dies in it."""
        return temporary.temporary(self.client, self.names, topic, filter)

    async def remove_temporary(self, subscription: Subscription) -> None:
        """Delete what a process left which died; after a day it is gone by itself."""
        await temporary.remove(self.client, self.names, subscription)


def _of_emulator(capabilities: Capabilities, credentials: bool) -> Capabilities:
    gaps = {"replay_ordered": "it does not implement Seek on a subscription with message ordering"}
    if not credentials:
        gaps["credentials"] = "it asks for none"
    return dataclasses.replace(capabilities, receive_wait=(0.0, _EMULATOR_WAIT), emulator_gaps=gaps)
