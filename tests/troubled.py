"""A network, a server and credentials that do not exist, before the local broker: what the kit's cases about them need.

The cases run on real ones as well; here time moves as fast as the work is done, so that a wrong adapter fails soon.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, ClassVar, TypeVar

from tests.harnesses import LocalHarness

from crossbus.adapter import (
    Adapter,
    Change,
    Finding,
    LeaseOutcome,
    Received,
    Receiver,
    SendOutcome,
    Settlement,
    Wire,
)
from crossbus.capabilities import Capabilities
from crossbus.clock import Clock, SystemClock, sleep
from crossbus.conformance import Cut, Stop, WrappedAdapter, WrappedReceiver
from crossbus.errors import ErrorCode, ProviderError, provider_error
from crossbus.topology import Subscription, Topic, Topology

T = TypeVar("T")
TROUBLE = frozenset({"network", "restarts", "credentials"})
LATENCY = 0.01
REQUEST_TIMEOUT = 30.0


class Trouble:
    """What befalls one world."""

    def __init__(self) -> None:
        self.cut: Cut | None = None
        self.delay = 0.0
        self.rate: float | None = None
        self.key = 1
        """The credentials that are good at the moment."""
        self.changed = asyncio.Event()
        """Set, and made anew, whenever connections break or come back."""
        self.ended: list[Stop] = []
        """How the server ended, each time that it did."""

    def change(self, cut: Cut | None) -> None:
        self.cut = cut
        self.changed.set()
        self.changed = asyncio.Event()


def refused(what: str) -> ProviderError:
    return provider_error(ErrorCode.UNAVAILABLE, what, retryable=True)


class TroubledReceiver(WrappedReceiver):
    def __init__(self, inner: Receiver, adapter: TroubledAdapter) -> None:
        super().__init__(inner)
        self.adapter = adapter

    async def receive(self, max: int, wait: float) -> Sequence[Received]:
        return await self.adapter.asked(lambda: self.inner.receive(max, wait))

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[LeaseOutcome]:
        return await self.adapter.asked(lambda: self.inner.settle(settlements))

    async def extend(self, leases: Sequence[Any], seconds: float) -> Sequence[LeaseOutcome]:
        return await self.adapter.asked(lambda: self.inner.extend(leases, seconds))


class TroubledAdapter(WrappedAdapter):
    """Right in everything: it gives up what is not answered, says so, and asks again."""

    receiver: ClassVar[type[TroubledReceiver]] = TroubledReceiver

    def __init__(self, inner: Adapter, trouble: Trouble) -> None:
        super().__init__(inner)
        self.trouble = trouble
        self.key = trouble.key
        self.capabilities = troubled(inner.capabilities)

    def error_code(self, error: BaseException) -> tuple[ErrorCode, bool] | None:
        return self.inner.error_code(error)

    async def asked(self, request: Callable[[], Awaitable[T]], size: int = 200) -> T:
        """Bring a request to the server and its answer back, as far as the network lets them pass."""
        trouble = self.trouble
        await self._pass(size)
        self.refresh()
        if self.key != trouble.key:
            raise provider_error(ErrorCode.UNAUTHENTICATED, "these credentials have expired", retryable=False)
        changed = asyncio.ensure_future(trouble.changed.wait())
        answer = asyncio.ensure_future(request())
        try:
            await asyncio.wait({changed, answer}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done() or trouble.cut is not None:
                await self._broken()
            return answer.result()
        finally:
            changed.cancel()
            answer.cancel()
            await asyncio.gather(changed, answer, return_exceptions=True)

    def refresh(self) -> None:
        """Take the newest credentials."""
        self.key = self.trouble.key

    async def _pass(self, size: int) -> None:
        trouble = self.trouble
        await sleep(self.clock, LATENCY + 2 * trouble.delay + (size / trouble.rate if trouble.rate else 0.0))
        if trouble.cut in ("refused", "swallowed"):
            await self._broken()

    async def _broken(self) -> None:
        """Learn that no answer comes: at once where the network says so, else by the clock."""
        if self.trouble.cut == "swallowed":
            await self.silence()
        while self.trouble.cut == "unanswered":
            await sleep(self.clock, 0.1)
        raise refused("the connection was lost")

    @classmethod
    def broken(cls, harness: TroubledHarness, what: str) -> Adapter:
        """Make an adapter whose credentials lack something."""
        return BrokenAdapter(LocalHarness.make_adapter(harness, "", SystemClock()), cls.complaint(what))

    @staticmethod
    def complaint(what: str) -> str:
        return f"the credentials are {what}: set CROSSBUS_KEY"

    async def silence(self) -> None:
        await sleep(self.clock, REQUEST_TIMEOUT)

    async def send(self, topic: Topic, wires: Sequence[Wire]) -> Sequence[SendOutcome]:
        return await self.asked(lambda: self.inner.send(topic, wires), sum(wire.size for wire in wires))

    async def open_receiver(self, subscription: Subscription, window: int) -> Receiver:
        receiver = await self.asked(lambda: self.inner.open_receiver(subscription, window))
        return self.receiver(receiver, self)

    async def inspect(self, topology: Topology) -> Sequence[Finding]:
        return await self.asked(lambda: self.inner.inspect(topology))

    async def plan(self, topology: Topology, *, prune: bool = False) -> Sequence[Change]:
        return await self.asked(lambda: self.inner.plan(topology, prune=prune))


class BrokenAdapter(WrappedAdapter):
    def __init__(self, inner: Adapter, complaint: str) -> None:
        super().__init__(inner)
        self.complaint = complaint

    async def open(self) -> None:
        raise provider_error(ErrorCode.UNAUTHENTICATED, self.complaint, retryable=False)


def troubled(capabilities: Capabilities) -> Capabilities:
    return dataclasses.replace(capabilities, names=capabilities.names | TROUBLE)


class TroubledHarness(LocalHarness):
    """The local broker behind a network that does not exist."""

    name = "local: with a network"
    scale = 0.1

    def __init__(self, adapter: type[TroubledAdapter] = TroubledAdapter) -> None:
        self.name = adapter.__name__
        self.adapter = adapter
        self.troubles: dict[str, Trouble] = {}

    @property
    def capabilities(self) -> Capabilities:
        return troubled(super().capabilities)

    def trouble(self, world: str) -> Trouble:
        return self.troubles.setdefault(world, Trouble())

    def make_adapter(self, world: str, clock: Clock) -> Adapter:
        return self.adapter(super().make_adapter(world, clock), self.trouble(world))

    @contextlib.asynccontextmanager
    async def cut(self, world: str, how: Cut = "refused") -> AsyncIterator[None]:
        trouble = self.trouble(world)
        trouble.change(how)
        try:
            yield
        finally:
            trouble.change(None)

    @contextlib.asynccontextmanager
    async def slow(
        self, world: str, *, delay: float = 0.0, bytes_per_second: float | None = None
    ) -> AsyncIterator[None]:
        trouble = self.trouble(world)
        trouble.delay, trouble.rate = delay, bytes_per_second
        try:
            yield
        finally:
            trouble.delay, trouble.rate = 0.0, None

    async def restart(self, world: str, how: Stop = "terminate") -> None:
        trouble = self.trouble(world)
        trouble.change("refused")
        trouble.ended.append(how)
        await asyncio.sleep(0.05)
        trouble.change(None)

    async def expire_credentials(self, world: str) -> None:
        self.trouble(world).key += 1

    def broken_credentials(self, what: str) -> tuple[Adapter, str]:
        return self.adapter.broken(self, what), what
