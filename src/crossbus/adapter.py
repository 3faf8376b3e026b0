"""The contract of an adapter: the narrow waist between the portable layer and a provider.

An adapter makes wire calls and returns what the wire said. The portable layer does what must be equal everywhere:
validation, batching, retry, back-off, concurrency, keeping leases, order per key, dead-lettering, telemetry, drain.

An adapter is a class named by an entry point of the group ``crossbus.adapters``. It imports its SDK in `open`, not
at import, so that its `capabilities` can be read without it. All methods are called from one event loop, the one in
which `open` was called; several calls of `send`, and of one receiver's `settle` and `extend`, may run at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from enum import Enum
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

import msgspec

from crossbus.capabilities import CAPABILITIES, Capabilities
from crossbus.checks import Check, Difference, Result, texts
from crossbus.clock import Clock
from crossbus.errors import ErrorCode, UnsupportedError, provider_error
from crossbus.event import Event
from crossbus.filters import Filter
from crossbus.profiles import Profile
from crossbus.topology import Subscription, Topic, Topology

__all__ = [
    "Adapter",
    "Backlog",
    "Change",
    "Compilation",
    "DeadLetterQueue",
    "Finding",
    "LeaseOutcome",
    "ListsSubscriptions",
    "Looking",
    "PausesForAll",
    "PutBack",
    "Received",
    "Receiver",
    "ReplayFrom",
    "SendOutcome",
    "Settlement",
    "Standing",
    "Wire",
]


class Wire(msgspec.Struct, gc=False):
    """An event as one provider carries it. Made by `Adapter.encode`, used up by `Adapter.send`."""

    body: bytes
    attributes: Mapping[str, Any]
    """What travels beside the body: the provider's own attributes, names as on the wire."""
    size: int
    """Bytes, counted as the provider counts them against its limits."""
    key: str | None = None
    """The ordering key, where the adapter has `ordering` and the event a `partitionkey`."""


class SendOutcome(NamedTuple):
    """What became of one wire: published if `code` is None."""

    message_id: str = ""
    """The provider's id of the published message."""
    code: ErrorCode | None = None
    message: str = ""
    """What the provider said, and what the user can do."""
    retryable: bool = False
    cause: BaseException | None = None


class Received(msgspec.Struct, gc=False):
    """A delivery as the provider handed it out."""

    lease: Any
    """What the receiver needs to settle or extend it: hashable, opaque to the portable layer."""
    body: bytes
    attributes: Mapping[str, Any]
    message_id: str
    """The provider's id of the message; the same at each delivery of one message."""
    attempt: int | None = None
    """How often it was received, this time included; None where the provider does not tell."""
    lease_seconds: float = 60.0
    """How long the lease lasts from now."""
    key: str | None = None
    published: float | None = None
    """When the provider accepted it, in seconds since the epoch; None where it does not tell."""
    trace_header: str | None = None
    """The trace header of AWS X-Ray that came beside it, if one did. Telemetry links to it where the event itself has
    no trace context."""


class Settlement(NamedTuple):
    """How a delivery ends: acknowledged if `delay` is None, else given back after that many seconds.

    The portable layer asks only for delays that `Capabilities.retry_delays` has.
    """

    lease: Any
    delay: float | None = None


class LeaseOutcome(Enum):
    """What a provider said to settling or extending one lease."""

    OK = "ok"
    LOST = "lost"
    """The lease had ended: another consumer may have the event. An answer, not an error."""
    FAILED = "failed"
    """It did not work, and may be tried again."""


class Receiver(ABC):
    """Takes deliveries from one subscription. Leases belong to it; it buffers nothing that it does not report."""

    @abstractmethod
    async def receive(self, max: int, wait: float) -> Sequence[Received]:
        """Return up to `max` deliveries, as soon as there is one, or none after `wait` seconds.

        Cancelling it loses no lease: a delivery that was taken but not returned comes again at once.
        """

    @abstractmethod
    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[LeaseOutcome]:
        """Acknowledge deliveries, or give them back; answers for each, in order. Settling twice is harmless."""

    @abstractmethod
    async def extend(self, leases: Sequence[Any], seconds: float) -> Sequence[LeaseOutcome]:
        """Make leases last `seconds` from now; answers for each, in order."""

    @abstractmethod
    async def close(self) -> None:
        """Free what the receiver holds. Deliveries that are not settled come again when their leases end."""


class Compilation(NamedTuple):
    """A filter, divided between the provider and us."""

    native: Any
    """What the provider is given: a superset of the filter; None if it gets everything."""
    text: str
    """`native` as the provider's documentation writes it, for people. Empty if there is none."""
    residual: Filter | None
    """What must still be evaluated here; None if the provider's answer is exact."""


class Change(NamedTuple):
    """One step of a provisioning plan."""

    action: Literal["create", "update", "delete"]
    kind: str
    """What it is, in the provider's words: ``topic``, ``queue``, ``rule``."""
    name: str
    """The provider's name of it."""
    detail: str = ""
    payload: Any = None
    """What the adapter needs to carry it out."""


class Finding(NamedTuple):
    """What `inspect` saw of one declared topic or subscription."""

    kind: Literal["topic", "subscription"]
    name: str
    """The logical name: ``orders``, or ``orders/billing``."""
    resource: str
    """The provider's name of it."""
    state: Literal["ok", "missing", "unknown", "differs"]
    """`unknown` if a permission to look is lacking."""
    detail: str = ""
    """What differs, or which permission is lacking."""
    differences: Sequence[Difference] = ()
    """What differs, or what is missing, one by one, each by the name of its check. `crossbus doctor` shows them."""

    @classmethod
    def of(
        cls,
        kind: Literal["topic", "subscription"],
        name: str,
        resource: str,
        differences: Sequence[Difference],
    ) -> Finding:
        """Make the finding of something that is there: `ok`, or `differs` with all that does in its detail."""
        state: Literal["ok", "differs"] = "differs" if differences else "ok"
        return cls(kind, name, resource, state, "; ".join(texts(differences)), tuple(differences))


@runtime_checkable
class PausesForAll(Protocol):
    """An adapter whose provider can keep a subscription from all of its consumers, in whichever process."""

    async def pause_for_all(self, subscription: Subscription, paused: bool) -> bool:
        """Have the provider hand out nothing of a subscription, or go on. True if that is new."""
        ...


class Standing(NamedTuple):
    """A subscription that there is, whether or not a program here declares it."""

    subscription: Subscription
    paused: bool
    """True if the provider keeps it from all of its consumers."""


@runtime_checkable
class ListsSubscriptions(Protocol):
    """An adapter that can say which subscriptions there are."""

    async def subscriptions(self) -> Sequence[Standing]:
        """Return all that belong to the profile, temporary ones aside, in the order of their names."""
        ...


class Backlog(NamedTuple):
    """How much waits in a subscription. None where the provider does not tell."""

    waiting: int | None = None
    in_hand: int | None = None
    oldest_age: float | None = None
    """Seconds since the oldest waiting event was published."""
    dead: int | None = None


class ReplayFrom(msgspec.Struct, frozen=True):
    """Where a replay begins: at a time, or at a position that the provider gave.

    A position is a message id on the local broker, and the name of a snapshot on Pub/Sub.
    """

    time: datetime | None = None
    position: str | None = None

    def __post_init__(self) -> None:
        if (self.time is None) == (self.position is None):
            raise ValueError("ReplayFrom takes a time or a position, one of the two")
        if self.time is not None and self.time.utcoffset() is None:
            raise ValueError("ReplayFrom(time=...) has no time zone; make it aware")


class Looking(NamedTuple):
    """What a look into a dead letter costs others, where the provider shows a record only by handing it out."""

    hides: float = 0.0
    """Seconds for which others may not see a record that was looked at, if the process that looks dies. Otherwise it
    comes back when the look ends. 0 where a look hides nothing."""
    most: int | None = None
    """The most records that one look can leave where they are: it ends there. None if it reaches all."""


class PutBack(NamedTuple):
    """What became of a record that was to be put back."""

    outcome: SendOutcome | None
    """Whether its event was put back; None if the record was gone, and nothing was done."""
    removed: LeaseOutcome = LeaseOutcome.OK
    """Whether the record was removed then; `LOST` if somebody else had it meanwhile, and may have put it back too."""


class DeadLetterQueue(ABC):
    """The dead letter of one subscription, to look at and to clear."""

    looking: Looking = Looking()
    batch: int = 10
    """How many records are put back, or removed, at once: where `put_back` is not one step at the provider, so many
    may be put back twice if the process is killed in it."""

    @abstractmethod
    async def browse(self, limit: int) -> Sequence[Received]:
        """Return up to `limit` records, oldest first, without removing or hiding any.

        `Received.lease` is what `delete` takes; it stays valid while the record is there.
        """

    async def pages(self, size: int = 1000) -> AsyncGenerator[Sequence[Received], None]:
        """Give all records, up to `size` at once, in an order that costs the provider nothing: it may be any.

        Memory does not grow with the number of records. What was given may be removed meanwhile; what comes into the
        dead letter meanwhile may be given too. Close it (`contextlib.aclosing`) to end the look early.
        """
        found = await self.browse(1_000_000_000)
        for start in range(0, len(found), size):
            yield found[start : start + size]

    @abstractmethod
    async def redeliver(self, wires: Sequence[Wire]) -> Sequence[SendOutcome]:
        """Put events into this subscription and no other."""

    @abstractmethod
    async def delete(self, leases: Sequence[Any]) -> Sequence[LeaseOutcome]:
        """Remove records; answers for each."""

    async def put_back(self, records: Sequence[tuple[Any, Wire]]) -> Sequence[PutBack]:
        """Put events back into this subscription, and remove the records with these leases; answers for each.

        First all events of one call, then their records: a stop between leaves both. A provider that can do it in one
        step overrides this.
        """
        outcomes = await self.redeliver([wire for _, wire in records])
        done = [lease for (lease, _), sent in zip(records, outcomes, strict=True) if sent.code is None]
        removed = iter(await self.delete(done) if done else ())
        return [
            PutBack(sent, LeaseOutcome.OK if sent.code is not None else next(removed)) for sent in outcomes
        ]


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """What telemetry says of an adapter, in the words of OpenTelemetry's messaging conventions."""

    system: str
    """`messaging.system`"""
    consume_system: str = ""
    """`messaging.system` of deliveries, where it is another one."""
    server_address: str | None = None
    server_port: int | None = None
    attributes: Mapping[str, str] = {}


class Adapter(ABC):
    """One connection to a provider. See the module's text for who does what."""

    name: ClassVar[str]
    """The name of its entry point, which is the scheme of its URLs."""
    parameters: ClassVar[Mapping[str, str]] = {}
    """The URL parameters that it takes, each with one line of help. Any other is an error."""
    example_target: ClassVar[str] = ""
    """What may stand as the target of a URL of it: `exported` is asked of adapters that have no place of their own."""
    permissions: Mapping[str, str] = {}
    """By capability, what the provider's administrator has to permit for it, in the provider's words: for people. An
    instance may have others of its own (an API variant)."""
    checks: Mapping[str, Check] = {}
    """By name, what `inspect` and `diagnose` look at, for `crossbus doctor`. An instance may have others of its own."""
    capabilities: Capabilities
    """Readable on the class. An instance may have narrower ones of its own (an API variant, an emulator)."""

    def __init__(self, profile: Profile, *, clock: Clock) -> None:
        self.profile = profile
        self.clock = clock

    # --- connection ---------------------------------------------------------------------------------------------

    @property
    def is_local(self) -> bool:
        """True for an in-process broker, an emulator or a loopback endpoint: the Bus may create what is declared."""
        return False

    @abstractmethod
    async def open(self) -> None:
        """Connect. Imports the SDK; creates and changes nothing at the provider."""

    @abstractmethod
    async def close(self) -> None:
        """Disconnect. Idempotent."""

    @abstractmethod
    def describe(self) -> Description:
        """Say what telemetry shall call this provider."""

    @abstractmethod
    def error_code(self, error: BaseException) -> tuple[ErrorCode, bool] | None:
        """Return the portable code of an exception of the SDK, and whether to retry; None if it is not the SDK's."""

    # --- publishing ---------------------------------------------------------------------------------------------

    @abstractmethod
    def encode(self, topic: Topic, event: Event) -> Wire:
        """Bring an event into the provider's form. Raises nothing for an event that the portable profile allows."""

    @abstractmethod
    async def send(self, topic: Topic, wires: Sequence[Wire]) -> Sequence[SendOutcome]:
        """Publish once, without retrying: one request. Answers for each wire, in order.

        An exception counts as the outcome of all of them, by its `error_code`.
        """

    # --- consuming ----------------------------------------------------------------------------------------------

    @abstractmethod
    async def open_receiver(self, subscription: Subscription, window: int) -> Receiver:
        """Begin to take deliveries. `window` is the most that will be in hand at once.

        Raises `NotFound` if the subscription is not there; or the first `receive` does.
        """

    @abstractmethod
    def decode(self, received: Received) -> Event:
        """Read a delivery. Raises `DecodeError` if it is no CloudEvent."""

    @abstractmethod
    def compile(self, filter: Filter) -> Compilation:
        """Divide a filter between the provider and us."""

    # --- provisioning -------------------------------------------------------------------------------------------

    async def inspect(self, topology: Topology) -> Sequence[Finding]:
        """Look at every declared topic and subscription. Changes nothing."""
        return []

    async def diagnose(self, topology: Topology) -> Sequence[Result]:
        """Look at what `inspect` does not: whose credentials these are, what they permit, what is near its limit.

        Changes nothing and sends no event, so that a permission is asked for and not tried; what may not be looked at
        is a result that says so. For `crossbus doctor`: nothing that a program needs to start. Raises what the provider
        said if it answers nobody.
        """
        return []

    async def plan(self, topology: Topology, *, prune: bool = False) -> Sequence[Change]:
        """Say what `provision` would create or update, and with `prune` what it would delete. Changes nothing."""
        raise self._lacks("provision", "plan")

    async def provision(self, changes: Sequence[Change]) -> None:
        """Carry out a plan. Running it twice is harmless."""
        raise self._lacks("provision", "provision")

    async def generations(self, subscription: Subscription) -> Sequence[str]:
        """Return the provider's names of what consumers of a subscription read besides: what a changed filter left.

        Only who provisions may be allowed to list it; what he sees is written beside the configuration as
        ``options.generations``. Empty where a filter can be changed.
        """
        return ()

    def exported(
        self, declared: Topic | Subscription, previous: Mapping[str, Any] | None = None
    ) -> Mapping[str, Any] | None:
        """Return what another tool has to know to create a topic or a subscription as `provision` would.

        The provider's names, the native filter and what `provision` sets besides: plain data for JSON, as
        ``docs/reference/topology-document.md`` lists it for each provider. The same each time; without a connection,
        an SDK or a credential. `previous` is what it said of this subscription before, for a provider where what was
        made then must stay for a while. None if there is nothing that could be created.

        Raises what opening would raise for a declaration that the provider cannot hold.
        """
        return None

    # --- optional, each keyed by a capability --------------------------------------------------------------------

    def dead_letters(self, subscription: Subscription) -> DeadLetterQueue:
        """Return the dead letter of a subscription (capability `dead_letters`)."""
        raise self._lacks("dead_letters", f"dead letters of {subscription}")

    async def replay(self, subscription: Subscription, start: ReplayFrom) -> int | None:
        """Deliver past events again to this subscription only (`replay_time`, `replay_position`).

        Returns how many, where the provider tells.
        """
        raise self._lacks("replay_time" if start.time else "replay_position", f"replay of {subscription}")

    async def backlog(self, subscription: Subscription) -> Backlog:
        """Count what waits in a subscription (capability `backlog`)."""
        raise self._lacks("backlog", f"backlog of {subscription}")

    def temporary_subscription(
        self, topic: Topic, filter: Filter | None = None
    ) -> AbstractAsyncContextManager[Subscription]:
        """Make a subscription that is gone when the block ends (capability `temporary_subscriptions`)."""
        raise self._lacks("temporary_subscriptions", f"temporary subscription on {topic.name}")

    async def remove_temporary(self, subscription: Subscription) -> None:
        """Remove what `temporary_subscription` made in a process that died. Harmless if it is gone."""
        raise self._lacks("temporary_subscriptions", f"temporary subscription {subscription}")

    async def send_foreign(self, topic: Topic, body: bytes, attributes: Mapping[str, Any]) -> None:
        """Put a message that is no CloudEvent in front of a topic's subscriptions (capability `foreign`).

        As a program without crossbus would; the conformance kit asks for it, and nothing else. Sends it as it is, which
        suits providers that take any bytes; where only the queue behind a topic does, the adapter puts it there.
        """
        outcome = (await self.send(topic, [Wire(body, attributes, len(body))]))[0]
        if outcome.code is not None:
            raise provider_error(outcome.code, f"the foreign message was refused: {outcome.message}")

    def push_decoder(self, subscription: Subscription) -> Any:
        """Return what reads and verifies pushed deliveries (capability `push`)."""
        raise self._lacks("push", f"push to {subscription}")

    def _lacks(self, capability: str, what: str) -> UnsupportedError:
        return UnsupportedError(
            f"{what}: {self.name} has no {capability} ({CAPABILITIES[capability]})", capability=capability
        )
