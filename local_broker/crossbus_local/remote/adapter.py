"""`RemoteAdapter`: the local broker behind ``crossbus serve``, for any number of processes.

Everything that ``local:`` can do, over ``/crossbus/v1/``; and other processes, restarts and a network besides.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

from crossbus.adapter import (
    Backlog,
    Change,
    DeadLetterQueue,
    Description,
    ReplayFrom,
    SendOutcome,
    Wire,
)
from crossbus.clock import Clock
from crossbus.errors import BusClosedError, CrossbusError, ErrorCode, NotFound, ProviderError
from crossbus.event import Event, new_id
from crossbus.filters import Filter
from crossbus.profiles import Profile
from crossbus.registry import not_installed
from crossbus.topology import Subscription, Topic, Topology
from crossbus_local import provisioning
from crossbus_local.base import REPLAYS, BrokerAdapter, broker_capabilities
from crossbus_local.dead_letters import not_found, outcomes
from crossbus_local.protocol import (
    Publish,
    Published,
    WireForm,
    backlog_from_json,
    data_decoder,
    path_of,
    snapshot_from_json,
)
from crossbus_local.provisioning import Snapshot, Step
from crossbus_local.queue import QueueSettings
from crossbus_local.records import LocalWire
from crossbus_local.remote.address import Address
from crossbus_local.remote.dead_letters import RemoteDeadLetters
from crossbus_local.settings_json import settings_to_json

if TYPE_CHECKING:
    from crossbus_local.remote.client import Client
    from crossbus_local.remote.receiver import RemoteReceiver

__all__ = ["RemoteAdapter"]

_ABSENT: Final = frozenset({"push", "credentials"})
TEMPORARY: Final = 60.0
"""Seconds after which a temporary subscription ends whose process has died."""

_log = logging.getLogger("crossbus.local")
_published = data_decoder(Published)
_T = TypeVar("_T")


class RemoteWire(LocalWire, gc=False):
    """An event on its way to a server."""

    request: tuple[str, int, int] | None = None
    """The request that failed without saying whether it was carried out: its id, the place in it, and its length."""


class RemoteAdapter(BrokerAdapter):
    """The local broker in another process. See the module's text."""

    name: ClassVar[str] = "local+http"
    parameters: ClassVar[dict[str, str]] = {}
    capabilities = broker_capabilities(_ABSENT)

    def __init__(self, profile: Profile, *, clock: Clock) -> None:
        super().__init__(profile, clock=clock)
        self._address = Address.of(profile)
        self._client: Client | None = None
        self._broker = ""
        """Which broker has what was declared: another one if a server lost its memory."""
        self._planned = Topology()
        self._declared: list[Step] = []
        """What makes all that was provisioned on a server that has lost it."""
        self._temporaries: dict[str, dict[str, Any]] = {}
        """The temporary subscriptions that are open: their paths, and their settings."""
        self._restoring = asyncio.Lock()

    # --- connection ---------------------------------------------------------------------------------------------

    @property
    def is_local(self) -> bool:
        """True if the server is on this machine: the Bus creates what is declared."""
        return self._address.is_loopback

    @property
    def client(self) -> Client:
        """The connections. Raises `BusClosedError` unless the adapter is open."""
        if self._client is None:
            raise BusClosedError(f"local+http://{self._address} is not open; open the bus first")
        return self._client

    async def open(self) -> None:
        """Connect, and see that it is a server that we can use.

        Raises `Unavailable` if nothing answers, `Unauthenticated` if it wants a key, and `InvalidRequest` if it is
        something else or speaks another version of the protocol. The key is that of the variable `CROSSBUS_KEY`.
        """
        try:
            from crossbus_local.remote.client import Client
        except ModuleNotFoundError as error:
            raise not_installed(self.name, error, self.profile.origin) from error
        client = Client(self._address)
        try:
            info = await client.handshake()
        except BaseException:
            await client.close()
            raise
        self._client, self._broker, self._restoring = client, info.broker, asyncio.Lock()
        lacks = REPLAYS if info.history == 0 else frozenset()
        if info.storage == "memory":
            lacks |= {"restarts"}
        names = type(self).capabilities.names - lacks
        self.capabilities = dataclasses.replace(self.capabilities, names=names)

    async def close(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    def describe(self) -> Description:
        """Say what telemetry shall call the broker."""
        return Description(
            system="crossbus", server_address=self._address.host, server_port=self._address.port
        )

    def error_code(self, error: BaseException) -> tuple[ErrorCode, bool] | None:
        """Return the code of an error of the server, or of the connection."""
        if isinstance(error, ProviderError):
            return error.code, error.retryable
        from crossbus_local.remote.client import code_of

        return code_of(error)

    # --- publishing ---------------------------------------------------------------------------------------------

    def encode(self, topic: Topic, event: Event) -> Wire:
        """Make structured JSON of an event."""
        made = super().encode(topic, event)
        return RemoteWire(made.body, made.attributes, made.size, made.key)

    async def send(self, topic: Topic, wires: Sequence[Wire]) -> Sequence[SendOutcome]:
        """Publish in one request, never in part. A topic that is not there is `NOT_FOUND` for all.

        The same wires sent again after a failure that left open whether they were published are not published twice.
        """
        name = topic.resource or self._resources.get(topic.name) or self._topic_name(topic)
        if topic.kind == "topic":
            return await self.publish(path_of("topics", name, "events"), wires)
        return await self.publish(path_of("dead-letters", name, "records"), wires)

    async def publish(self, path: str, wires: Sequence[Wire]) -> Sequence[SendOutcome]:
        """Put events into what has this path."""
        client = self.client
        id = _earlier(wires) or new_id()
        form = Publish([_form(wire) for wire in wires])
        try:
            answer = await self.again_if_restarted(lambda: client.data(path, form, _published, id=id))
        except NotFound as error:
            return not_found(error, len(wires))
        except BaseException:
            for n, wire in enumerate(wires):
                if isinstance(wire, RemoteWire):
                    wire.request = id, n, len(wires)
            raise
        return outcomes(answer.first, len(wires))

    # --- consuming ----------------------------------------------------------------------------------------------

    async def open_receiver(self, subscription: Subscription, window: int) -> RemoteReceiver:
        """Begin to take deliveries. The first receive raises `NotFound` if the subscription is not there."""
        from crossbus_local.remote.receiver import RemoteReceiver

        _ = self.client
        return RemoteReceiver(self, *self._place(subscription), subscription.lease)

    # --- provisioning -------------------------------------------------------------------------------------------

    async def _found(self) -> Snapshot:
        return snapshot_from_json(await self.client.json("GET", path_of("topics")))

    async def plan(self, topology: Topology, *, prune: bool = False) -> Sequence[Change]:
        """Say what `provision` would do. What a deletion loses stands in its detail; temporary subscriptions stay."""
        self._planned = topology
        return await super().plan(topology, prune=prune)

    async def provision(self, changes: Sequence[Change]) -> None:
        """Carry out a plan that this adapter made. Raises `NotFound` if an external topic is not there."""
        for change in changes:
            await self._carry_out(change.payload)
        steps = [*self._declared, *provisioning.wanted(self._planned, self._names)]
        self._declared = [step for n, step in enumerate(steps) if not _replaced(step, steps[n + 1 :])]
        self._planned = Topology()

    async def _carry_out(self, step: Step) -> None:
        method, kind = step.method.split("_", 1)
        verb = "DELETE" if method == "delete" else "PUT"
        names = [argument for argument in step.arguments if isinstance(argument, str)]
        settings = [argument for argument in step.arguments if isinstance(argument, QueueSettings)]
        path = {
            "topic": ("topics", *names),
            "dead_letter": ("dead-letters", *names),
            "subscription": ("topics", names[0], "subscriptions", *names[1:]),
        }[kind]
        body = settings_to_json(settings[0]) if settings else None
        await self.client.json(verb, path_of(*path), body)

    async def again_if_restarted(self, ask: Callable[[], Awaitable[_T]]) -> _T:
        """Ask; if what is asked for is gone because a server on this machine lost its memory, make it and ask again.

        A developer restarts his server, and his programs go on.
        """
        try:
            return await ask()
        except NotFound:
            restored = bool(self._declared) and self.is_local and await self._restored()
            for path, settings in list(
                self._temporaries.items()
            ):  # which no server keeps when it is restarted
                await self._put_temporary(path, settings)
            if not restored and not self._temporaries:
                raise
        return await ask()

    async def _restored(self) -> bool:
        """Make what was declared if the server has another broker than that which had it."""
        seen = self._broker
        async with self._restoring:
            if seen != self._broker:  # somebody else did it while we waited
                return True
            broker = (await self.client.handshake()).broker
            if broker == self._broker:
                return False
            for step in self._declared:
                await self._carry_out(step)
            self._broker = broker
        _log.warning(
            "the server at %s was started anew and had lost what is declared, with the events in it: made again; it "
            "keeps them with --path",
            self._address,
        )
        return True

    # --- optional, each keyed by a capability --------------------------------------------------------------------

    def dead_letters(self, subscription: Subscription) -> DeadLetterQueue:
        """Return the dead letter of a subscription."""
        return RemoteDeadLetters(self, self._topic_name(subscription.dead_letter), *self._place(subscription))

    async def replay(self, subscription: Subscription, start: ReplayFrom) -> int:
        """Deliver past events again to this subscription only. Returns how many.

        Raises `InvalidRequest` for a position that is none, or a start that the history no longer reaches.
        """
        body = {"position": start.position} if start.time is None else {"time": start.time.timestamp()}
        path = f"{self._path(subscription)}/replay"
        answer = await self.client.json("POST", path, body, id=new_id())
        return int(answer["count"])

    async def pause_for_all(self, subscription: Subscription, paused: bool) -> bool:
        """Have the server hand out nothing of a subscription, or go on. True if that is new.

        Raises `NotFound` if the subscription is not there.
        """
        path = f"{self._path(subscription)}/{'pause' if paused else 'resume'}"
        return bool((await self.client.json("POST", path))["changed"])

    async def backlog(self, subscription: Subscription) -> Backlog:
        """Count what waits in a subscription, exactly."""
        return backlog_from_json(await self.client.json("GET", f"{self._path(subscription)}/backlog"))

    def temporary_subscription(
        self, topic: Topic, filter: Filter | None = None
    ) -> AbstractAsyncContextManager[Subscription]:
        """Make a subscription that is gone when the block ends, or soon after the process has died.

        Raises `NotFound` if the topic is not there.
        """
        return self._temporary(topic, filter)

    @asynccontextmanager
    async def _temporary(self, topic: Topic, filter: Filter | None) -> AsyncIterator[Subscription]:
        subscription = Subscription(topic=topic, name=f"temp-{new_id()[:12]}", filter=filter)
        # It has no dead letter that anyone would look into, so its backstop never comes.
        settings = settings_to_json(QueueSettings(filter=filter, backstop=2**62))
        client, path = self.client, self._path(subscription)

        async def keep() -> None:
            while True:
                await asyncio.sleep(TEMPORARY / 3)
                try:
                    await self._put_temporary(path, settings)
                except CrossbusError as error:  # whatever it is may be mended before the subscription ends
                    _log.warning("%s could not be kept, and is tried again soon: %s", subscription, error)

        await self._put_temporary(path, settings)
        self._temporaries[path] = settings
        keeping = asyncio.get_running_loop().create_task(keep(), name=f"crossbus keep {subscription}")
        try:
            yield subscription
        finally:
            del self._temporaries[path]
            keeping.cancel()
            with suppress(ProviderError, BusClosedError):  # it ends by itself
                await client.json("DELETE", path)

    async def remove_temporary(self, subscription: Subscription) -> None:
        """Delete the subscription that a process left which died; after a minute it is gone by itself."""
        with suppress(NotFound):
            await self.client.json("DELETE", self._path(subscription))

    async def _put_temporary(self, path: str, settings: dict[str, Any]) -> None:
        await self.client.json("PUT", f"{path}?temporary={TEMPORARY:g}", settings)

    def _path(self, subscription: Subscription) -> str:
        topic, name = self._place(subscription)
        return path_of("topics", topic, "subscriptions", name)


def _form(wire: Wire) -> WireForm:
    if not wire.attributes:
        return WireForm(wire.body, wire.key)
    return WireForm(wire.body, wire.key, dict(wire.attributes))


def _earlier(wires: Sequence[Wire]) -> str | None:
    """Return the id of the request that sent exactly these wires before, without an answer."""
    first = wires[0].request if wires and isinstance(wires[0], RemoteWire) else None
    if first is None:
        return None
    id, _, length = first
    same = len(wires) == length and all(
        isinstance(wire, RemoteWire) and wire.request == (id, n, length) for n, wire in enumerate(wires)
    )
    return id if same else None


def _replaced(step: Step, later: Sequence[Step]) -> bool:
    """True if a later step is about the same thing."""
    names = [argument for argument in step.arguments if isinstance(argument, str)]
    return any(
        step.method == other.method and names == [one for one in other.arguments if isinstance(one, str)]
        for other in later
    )
