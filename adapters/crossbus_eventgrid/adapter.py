"""`EventGridAdapter`: an Azure Event Grid namespace, by pull delivery."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from crossbus.adapter import (
    Adapter,
    Change,
    Compilation,
    DeadLetterQueue,
    Description,
    Finding,
    Received,
    SendOutcome,
    Wire,
)
from crossbus.asking import code_of
from crossbus.checks import Check, Result
from crossbus.clock import Clock
from crossbus.codecs import BATCH_CONTENT_TYPE, decode_json, encode_json
from crossbus.errors import (
    BusClosedError,
    ConfigurationError,
    CrossbusError,
    ErrorCode,
    NotFound,
    PermissionDenied,
    ProviderError,
)
from crossbus.event import Event, new_id
from crossbus.filters import Filter
from crossbus.names import resource_name, subscription_resource
from crossbus.profiles import Profile
from crossbus.registry import not_installed
from crossbus.topology import Subscription, Topic, Topology
from crossbus_eventgrid import diagnosing, exporting, provisioning
from crossbus_eventgrid.arm import ArmControl, ArmPlace
from crossbus_eventgrid.checks import CHECKS
from crossbus_eventgrid.compiling import compile_filter, native_text
from crossbus_eventgrid.control import Control, NoControl
from crossbus_eventgrid.dead_letters import EventGridDeadLetters, TopicShelf
from crossbus_eventgrid.endpoint import read_endpoint
from crossbus_eventgrid.failures import code_of_error
from crossbus_eventgrid.identity import message_id
from crossbus_eventgrid.limits import EVENTGRID, limits_of
from crossbus_eventgrid.local_control import LocalControl
from crossbus_eventgrid.receiver import EventGridReceiver
from crossbus_eventgrid.rest import Place, Rest
from crossbus_eventgrid.settings import settings_of

__all__ = ["EventGridAdapter"]

_NO_ATTRIBUTES: dict[str, str] = {}
_CONTENT_TYPE = f"{BATCH_CONTENT_TYPE}; charset=utf-8"


class EventGridAdapter(Adapter):
    """An Event Grid namespace. See the module's text."""

    name: ClassVar[str] = "eventgrid"
    checks: Mapping[str, Check] = CHECKS
    permissions: Mapping[str, str] = {
        "temporary_subscriptions": "Microsoft.EventGrid/namespaces/topics/eventSubscriptions/write and /delete "
        "(EventGrid Contributor) on the namespace, and EventGrid Data Receiver on the topic",
    }
    example_target: ClassVar[str] = "namespace.region-1.eventgrid.azure.net"
    parameters: ClassVar[dict[str, str]] = {
        "endpoint": "the URL of the namespace, instead of a host name; http:// on this machine only",
        "subscription_id": "the Azure subscription of the namespace, to provision; default AZURE_SUBSCRIPTION_ID",
        "resource_group": "the resource group of the namespace, to provision",
        "backstop_storage": "the resource id of a storage account for what was received too often",
        "backstop_container": "the blob container in it",
        "shortest_lock": "seconds, of a server on this machine that was started with shorter locks than Azure's 60",
        "shortest_wait": "seconds, of a server on this machine that was started with shorter waits than Azure's 10",
    }
    capabilities = EVENTGRID
    environ: Mapping[str, str] = os.environ
    """Where the key is read, when the adapter is opened and again when it is refused."""

    def __init__(self, profile: Profile, *, clock: Clock) -> None:
        super().__init__(profile, clock=clock)
        self.endpoint = read_endpoint(profile)
        self._rest: Rest | None = None
        self.capabilities = limits_of(profile, self.endpoint)
        self._control: Control | None = None
        self._shelves: dict[str, TopicShelf] = {}
        self._locks: dict[tuple[str, str], float] = {}
        """How long locks of subscriptions last, by topic and name, where the control plane has told."""
        if bool(profile.parameters.get("backstop_storage")) != bool(
            profile.parameters.get("backstop_container")
        ):
            raise ConfigurationError(
                f"{profile.origin or 'eventgrid'}: backstop_storage and backstop_container belong together; set both"
            )

    # --- connection ---------------------------------------------------------------------------------------------

    @property
    def is_local(self) -> bool:
        """True for a server on this machine: the Bus creates what is declared."""
        return self.endpoint.is_loopback

    @property
    def rest(self) -> Rest:
        """The data plane. Raises `BusClosedError` unless the adapter is open."""
        if self._rest is None:
            raise BusClosedError(f"eventgrid:{self.endpoint.host} is not open; open the bus first")
        return self._rest

    async def open(self) -> None:
        """Make the SDK's client. Sends nothing, so that it needs no permission.

        Raises `AdapterNotInstalled` without the SDK, and `ConfigurationError` for a key that is none.
        """
        rest = Rest(self.endpoint, self.environ)
        try:
            await rest.open()
        except ModuleNotFoundError as error:
            raise not_installed(self.name, error, self.profile.origin) from error
        self._rest = rest

    async def close(self) -> None:
        """End the connections."""
        shelves, self._shelves = self._shelves, {}
        for shelf in shelves.values():
            await shelf.close()
        control, self._control = self._control, None
        if control is not None:
            await control.close()
        rest, self._rest = self._rest, None
        if rest is not None:
            await rest.close()

    def describe(self) -> Description:
        """Say what telemetry shall call the namespace."""
        return Description(
            system="eventgrid", server_address=self.endpoint.host, server_port=self.endpoint.port
        )

    def error_code(self, error: BaseException) -> tuple[ErrorCode, bool] | None:
        """Return the portable code of an exception of azure-core or azure-identity."""
        return code_of_error(error)

    # --- publishing ---------------------------------------------------------------------------------------------

    def encode(self, topic: Topic, event: Event) -> Wire:
        """Make structured JSON of an event. Its size is that in a batch, with its comma."""
        body = encode_json(event)
        return Wire(body, _NO_ATTRIBUTES, len(body) + 1)

    async def send(self, topic: Topic, wires: Sequence[Wire]) -> Sequence[SendOutcome]:
        """Publish a batch, all of it or nothing. A batch whose answer was lost may have been published."""
        return await self.publish(self.topic_name(topic), wires)

    async def publish(self, name: str, wires: Sequence[Wire]) -> list[SendOutcome]:
        """Publish a batch to the topic of this name."""
        rest = self.rest
        body = b"[" + b",".join([wire.body for wire in wires]) + b"]"
        try:
            answer = await rest.operate(Place.topic(name), "publish", body, content_type=_CONTENT_TYPE)
            if answer.strip() and not answer.lstrip().startswith(b"{"):
                raise ProviderError(
                    f"{rest.endpoint.host} took the events as no namespace would: not with {{}}"
                )
        except Exception as error:
            known = code_of(self, error)
            if known is None:
                raise
            text = str(error) if isinstance(error, CrossbusError) else f"{type(error).__name__}: {error}"
            return [SendOutcome("", known[0], text, known[1], error)] * len(wires)
        return [SendOutcome(message_id(wire.body)) for wire in wires]

    # --- consuming ----------------------------------------------------------------------------------------------

    async def open_receiver(self, subscription: Subscription, window: int) -> EventGridReceiver:
        """Begin to take deliveries. The first `receive` raises `NotFound` if the subscription is not there."""
        return EventGridReceiver(
            self.rest, self.place(subscription), self._lock(subscription), self.capabilities
        )

    def noted(self, topic: str, name: str, lock: float) -> None:
        """Remember how long the locks of a subscription last."""
        self._locks[topic, name] = lock

    def _lock(self, subscription: Subscription) -> float:
        """Return how long a lock surely lasts: no answer of the data plane says it, nor whether it was renewed late.

        Of a subscription that others made and that could not be looked at, no longer than Event Grid's shortest.
        """
        place = self.topic_name(subscription.topic), self.subscription_name(subscription)
        otherwise = self.capabilities.lease.minimum if subscription.external else subscription.lease
        return min(subscription.lease, self._locks.get(place, otherwise))

    def decode(self, received: Received) -> Event:
        """Read a delivery. Raises `DecodeError` if it is no CloudEvent."""
        return decode_json(received.body)

    def compile(self, filter: Filter) -> Compilation:
        """Bring a filter into Event Grid's form. The residual is the whole filter, for Event Grid ignores case."""
        native = compile_filter(filter)
        return Compilation(native, native_text(native), filter)

    # --- provisioning -------------------------------------------------------------------------------------------

    async def inspect(self, topology: Topology) -> Sequence[Finding]:
        """Look at every declared topic and subscription: on Azure through ARM, which a key does not open."""
        return await provisioning.inspect(self, topology)

    async def diagnose(self, topology: Topology) -> Sequence[Result]:
        """Ask whether these credentials are good, and what they permit."""
        return await diagnosing.diagnose(self, topology)

    async def plan(self, topology: Topology, *, prune: bool = False) -> Sequence[Change]:
        """Say what `provision` would do. Nothing on a server of this machine that has no ``/crossbus/v1/``.

        With `prune`, what crossbus made is deleted. On Azure the marks on subscriptions say so: a topic that never had
        one cannot be told from others, and stays. Raises
        `ConfigurationError` or `PermissionDenied` if the control plane cannot be asked.
        """
        with self._controlling() as control:
            return await provisioning.plan(self, control, topology, prune=prune)

    async def provision(self, changes: Sequence[Change]) -> None:
        """Carry out a plan that this adapter made, one step after the other."""
        with self._controlling():
            for change in changes:
                await change.payload()

    def exported(
        self, declared: Topic | Subscription, previous: Mapping[str, Any] | None = None
    ) -> Mapping[str, Any]:
        """Return names, filter and settings."""
        return exporting.exported(self, declared)

    def control(self) -> Control:
        """Return the control plane, made when first needed. Raises `NoControl` if the profile does not say where."""
        if self._control is None:
            rest = self.rest
            self._control = LocalControl(rest) if self.is_local else self._arm()
        return self._control

    def _arm(self) -> Control:
        return ArmControl(ArmPlace.of(self.profile, self.endpoint))

    @contextmanager
    def _controlling(self) -> Iterator[Control]:
        try:
            yield self.control()
        except NoControl as problem:
            text = f"eventgrid:{self.endpoint.host} cannot be provisioned: {problem}"
            if problem.__cause__ is None:
                raise ConfigurationError(text) from problem
            raise PermissionDenied(text) from problem

    # --- optional -----------------------------------------------------------------------------------------------

    def dead_letters(self, subscription: Subscription) -> DeadLetterQueue:
        """Return the dead letter of a subscription."""
        return EventGridDeadLetters(self, subscription)

    def temporary_subscription(
        self, topic: Topic, filter: Filter | None = None
    ) -> AbstractAsyncContextManager[Subscription]:
        """Make a subscription that is gone when the block ends, or a day later if that never comes.

        Needs the control plane, as `provision`. Raises as `plan`.
        """
        return self._temporary(topic, filter)

    @asynccontextmanager
    async def _temporary(self, topic: Topic, filter: Filter | None) -> AsyncIterator[Subscription]:
        lease = self.capabilities.lease.minimum
        subscription = Subscription(topic=topic, name=f"temp-{new_id()[:12]}", filter=filter, lease=lease)
        place = self.topic_name(topic), self.subscription_name(subscription)
        expires = datetime.fromtimestamp(self.clock.time(), UTC) + timedelta(days=1)
        with self._controlling() as control:
            await control.put_subscription(*place, settings_of(subscription), expires=expires)
        try:
            yield subscription
        finally:
            await self.remove_temporary(subscription)

    async def remove_temporary(self, subscription: Subscription) -> None:
        """Delete the subscription that a process left which died; after a day it is gone by itself."""
        with self._controlling() as control, suppress(NotFound):
            await control.delete_subscription(
                self.topic_name(subscription.topic), self.subscription_name(subscription)
            )

    def shelf(self, topic: str) -> TopicShelf:
        """Return what is held of the dead letter in this topic; one for all who look into it."""
        if topic not in self._shelves:
            self._shelves[topic] = TopicShelf(self, topic)
        return self._shelves[topic]

    # --- names --------------------------------------------------------------------------------------------------

    def topic_name(self, topic: Topic) -> str:
        """Return the name of a topic in the namespace."""
        limits = self.capabilities
        return resource_name(topic, self.profile, limits.name_length, rule=limits.name_rule)

    def subscription_name(self, subscription: Subscription) -> str:
        """Return the name of a subscription, unique within its topic."""
        limits = self.capabilities
        return subscription_resource(
            subscription, self.profile, limits.name_length, within_topic=True, rule=limits.name_rule
        )

    def place(self, subscription: Subscription) -> Place:
        """Return the path of a subscription."""
        return Place.subscription(self.topic_name(subscription.topic), self.subscription_name(subscription))
