"""`EventBridgeAdapter`: AWS EventBridge's buses, consumed through an SQS queue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, ClassVar
from urllib.parse import urlsplit

from crossbus.adapter import (
    Adapter,
    Backlog,
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
from crossbus.asking import code_of
from crossbus.checks import Check, Result
from crossbus.clock import Clock
from crossbus.errors import BusClosedError, CrossbusError, ErrorCode, provider_error
from crossbus.event import Event
from crossbus.filters import Filter
from crossbus.profiles import Profile
from crossbus.topology import Subscription, Topic, Topology
from crossbus_eventbridge import backlogs, diagnosing, encoding
from crossbus_eventbridge.api import EventBridgeApi
from crossbus_eventbridge.classic import Classic
from crossbus_eventbridge.connection import Connection
from crossbus_eventbridge.dead_letters import EventBridgeDeadLetters, QueueShelf
from crossbus_eventbridge.errors import code_of as code_of_error
from crossbus_eventbridge.limits import EVENTBRIDGE
from crossbus_eventbridge.naming import Names, queue_of
from crossbus_eventbridge.options import PARAMETERS, Options, is_loopback
from crossbus_eventbridge.publishing import send_messages
from crossbus_eventbridge.queues import Queues
from crossbus_eventbridge.receiver import EventBridgeReceiver
from crossbus_eventbridge.v2 import V2Api

__all__ = ["EventBridgeAdapter"]


class EventBridgeAdapter(Adapter):
    """EventBridge and SQS in one region. See the module's text.

    Args:
        profile: Its URL or profile.
        clock: The clock of the Bus.
        session: A `boto3.Session` to use instead of the default chain. It renews its own credentials.

    Raises:
        ConfigurationError: a parameter is wrong.
    """

    name: ClassVar[str] = "eventbridge"
    parameters: ClassVar[dict[str, str]] = dict(PARAMETERS)
    permissions = Classic.permissions
    checks: Mapping[str, Check] = Classic.checks
    capabilities = EVENTBRIDGE

    def __init__(self, profile: Profile, *, clock: Clock, session: Any | None = None) -> None:
        super().__init__(profile, clock=clock)
        self.options = Options.of(profile)
        self.names = Names(profile, self.options.api)
        self.api: EventBridgeApi = V2Api(self) if self.options.api == "v2" else Classic(self)
        self.capabilities, self.permissions = self.api.capabilities, self.api.permissions
        self.checks = self.api.checks
        self._session = session
        self._connection: Connection | None = None
        self._queues: Queues | None = None
        self._shelves: dict[str, QueueShelf] = {}

    # --- connection ---------------------------------------------------------------------------------------------

    @property
    def is_local(self) -> bool:
        """True if both services are on this machine: the Bus creates what is declared."""
        if self._connection is not None:
            return self._connection.is_local
        return self.options.endpoint is not None and is_loopback(self.options.endpoint)

    @property
    def connection(self) -> Connection:
        """The connection. Raises `BusClosedError` unless the adapter is open."""
        if self._connection is None:
            raise BusClosedError("eventbridge: the adapter is not open; open the bus first")
        return self._connection

    @property
    def queues(self) -> Queues:
        """The queues of the connection. Raises `BusClosedError` unless the adapter is open."""
        if self._queues is None:
            raise BusClosedError("eventbridge: the adapter is not open; open the bus first")
        return self._queues

    async def open(self) -> None:
        """Make boto3's clients. Asks AWS for nothing, so that it needs no permission.

        Raises `AdapterNotInstalled` without boto3, `ConfigurationError` without a region, `Unauthenticated` without
        credentials.
        """
        connection = Connection(self.options, self._session)
        try:
            await connection.open()
        except BaseException:
            await connection.close()
            raise
        self._connection = connection
        self._queues = Queues(connection)
        self.api.opened()

    async def close(self) -> None:
        """End the connections. Long polls that nobody waits for end by themselves, and give back what they bring."""
        shelves, self._shelves = self._shelves, {}
        for shelf in shelves.values():
            await shelf.close()
        connection, self._connection = self._connection, None
        self._queues = None
        if connection is not None:
            await connection.close()

    def describe(self) -> Description:
        """Say what telemetry shall call EventBridge, and the queues that deliveries come from."""
        if self._connection is None:
            return Description(system="aws_eventbridge", consume_system="aws_sqs")
        clients = self._connection.clients
        parts = urlsplit(clients.endpoints()[0])
        return Description(
            system="aws_eventbridge",
            consume_system="aws_sqs",
            server_address=parts.hostname,
            server_port=parts.port or (443 if parts.scheme == "https" else 80),
            attributes={"cloud.region": clients.region},
        )

    def error_code(self, error: BaseException) -> tuple[ErrorCode, bool] | None:
        """Return the portable code of an exception of botocore."""
        return code_of_error(error)

    # --- publishing ---------------------------------------------------------------------------------------------

    def encode(self, topic: Topic, event: Event) -> Wire:
        """Make the entry of an event, or the message of a dead letter's record.

        Raises `InvalidEvent` for what EventBridge refuses, and for data that is no JSON object where the topic's wire
        is ``detail-data``.
        """
        if topic.kind == "dead_letter":
            return encoding.encode_message(event, token=topic.ordered)
        return self.api.encode(topic, event)

    async def send(self, topic: Topic, wires: Sequence[Wire]) -> Sequence[SendOutcome]:
        """Publish: entries to the topic's bus, records to the queue of a dead letter."""
        try:
            if topic.kind == "dead_letter":
                return await send_messages(self.connection, self.queues, self.names.dead_queue(topic), wires)
            return await self.api.send(topic, wires)
        except Exception as error:
            known = code_of(self, error)
            if known is None:
                raise
            text = str(error) if isinstance(error, CrossbusError) else f"{type(error).__name__}: {error}"
            return [SendOutcome("", known[0], text, known[1], error)] * len(wires)

    # --- consuming ----------------------------------------------------------------------------------------------

    async def open_receiver(self, subscription: Subscription, window: int) -> EventBridgeReceiver:
        """Begin to take deliveries. Raises `NotFound` if the queue is not there."""
        queue = self.names.queue(subscription)
        url = await self.queues.url(queue)
        options = self.options
        return EventBridgeReceiver(
            self.connection, url, queue.name, subscription.lease, options.wait, options.pollers
        )

    def decode(self, received: Received) -> Event:
        """Read a delivery. Raises `DecodeError` if it is no event."""
        return encoding.decode(received.body)

    def compile(self, filter: Filter) -> Compilation:
        """Bring a filter into the form of an event pattern."""
        return self.api.compile(filter)

    # --- provisioning -------------------------------------------------------------------------------------------

    async def inspect(self, topology: Topology) -> Sequence[Finding]:
        """Look at every bus, rule, queue, dead letter and policy that is declared."""
        return await self.api.inspect(topology)

    async def diagnose(self, topology: Topology) -> Sequence[Result]:
        """Ask whose credentials these are, what IAM says that they permit, and how far the limits are."""
        return await diagnosing.diagnose(self, topology)

    async def plan(self, topology: Topology, *, prune: bool = False) -> Sequence[Change]:
        """Say what `provision` would do. With `prune`, what crossbus made (its tags say so) and nobody declares."""
        return await self.api.plan(topology, prune=prune)

    async def provision(self, changes: Sequence[Change]) -> None:
        """Carry out a plan that this adapter made, one step after the other."""
        for change in changes:
            await change.payload()

    def exported(
        self, declared: Topic | Subscription, previous: Mapping[str, Any] | None = None
    ) -> Mapping[str, Any]:
        """Return names, pattern and settings. Raises `UnsupportedError` with ``api=v2``."""
        return self.api.exported(declared)

    # --- optional -----------------------------------------------------------------------------------------------

    def dead_letters(self, subscription: Subscription) -> DeadLetterQueue:
        """Return the dead letter of a subscription."""
        return EventBridgeDeadLetters(self, subscription)

    async def replay(self, subscription: Subscription, start: ReplayFrom) -> None:
        """Start a replay of the bus's archive to this subscription's rule alone. Goes on by itself.

        Raises `NotFound` if the bus has no archive.
        """
        await self.api.replay(subscription, start)

    async def backlog(self, subscription: Subscription) -> Backlog:
        """Count what waits in the queue, about."""
        return await backlogs.backlog(self, subscription)

    async def send_foreign(self, topic: Topic, body: bytes, attributes: Mapping[str, Any]) -> None:
        """Put a message into every queue that the topic's bus delivers to: a bus itself takes nothing but events."""
        wire = Wire(body, encoding.NO_ATTRIBUTES, len(body))
        for arn in await self.api.targets(topic):
            queue = queue_of(arn, f"topic {topic.name!r}", self.options.api)
            for outcome in await send_messages(self.connection, self.queues, queue, [wire]):
                if outcome.code is not None:
                    raise provider_error(outcome.code, f"the foreign message was refused: {outcome.message}")

    def temporary_subscription(
        self, topic: Topic, filter: Filter | None = None
    ) -> AbstractAsyncContextManager[Subscription]:
        """Make a rule and a queue that are gone when the block ends; `prune` finds them if that never comes."""
        return self.api.temporary(topic, filter)

    async def remove_temporary(self, subscription: Subscription) -> None:
        """Delete the rule, or the subscriber, and the queue that a process left which died."""
        await self.api.remove_temporary(subscription)

    def shelf(self, queue: str, url: str) -> QueueShelf:
        """Return what is held of the dead letter in this queue; one for all who look into it."""
        if queue not in self._shelves:
            self._shelves[queue] = QueueShelf(self.connection, url, queue)
        return self._shelves[queue]
