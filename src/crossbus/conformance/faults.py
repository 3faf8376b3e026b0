"""`FaultyAdapter`: an adapter with faults put in by a seed, so that a run in one process has something to survive.

Everything that it does is legitimate for a provider that declares `duplicates`: a Bus must lose nothing over it.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from crossbus.adapter import (
    Adapter,
    Change,
    Compilation,
    Finding,
    LeaseOutcome,
    Received,
    Receiver,
    SendOutcome,
    Settlement,
    Wire,
)
from crossbus.capabilities import Capabilities
from crossbus.clock import Clock, sleep
from crossbus.conformance.harness import Harness
from crossbus.conformance.wrap import WrappedAdapter, WrappedReceiver
from crossbus.errors import ErrorCode
from crossbus.filters import Filter
from crossbus.topology import Subscription, Topic, Topology

__all__ = ["Faults", "FaultyAdapter", "FaultyHarness"]

STREAK: Final = 3
"""No fault strikes more often than this in a row, so that what is tried again succeeds in the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """How often each fault strikes, from 0.0 (never) to 1.0, and the seed that decides when."""

    seed: int = 1
    partial: float = 0.1
    """A wire of a request is refused as throttled."""
    throttle: float = 0.05
    """A whole request is refused as throttled."""
    lost_answer: float = 0.02
    """A request is carried out, but the answer says that the provider was unavailable: the event comes twice."""
    duplicate: float = 0.02
    """A wire is taken twice."""
    lost_lease: float = 0.03
    """An acknowledgement finds its lease ended: the event comes again."""
    settle_failed: float = 0.05
    """Settling fails, and may be tried again."""
    extend_failed: float = 0.05
    """Extending fails, and may be tried again."""
    slow_receive: float = 0.1
    """A receive waits a little before it begins."""
    weak_filters: bool = True
    """The provider evaluates no filter at all."""


class _Dice:
    """Draws faults by a seed, never too many in a row."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._streaks: dict[str, int] = {}

    def strikes(self, what: str, probability: float) -> bool:
        hit = self._random.random() < probability and self._streaks.get(what, 0) < STREAK
        self._streaks[what] = self._streaks.get(what, 0) + 1 if hit else 0
        return hit


class FaultyAdapter(WrappedAdapter):
    """An adapter with faults put in."""

    def __init__(self, inner: Adapter, faults: Faults | None = None) -> None:
        super().__init__(inner)
        self.faults = faults or Faults()
        self.dice = _Dice(self.faults.seed)
        self.capabilities = weakened(inner.capabilities, self.faults)
        self.struck: dict[str, int] = {}
        """How often each fault struck."""

    def strikes(self, fault: str) -> bool:
        """Draw, and count, whether a fault strikes now."""
        hit = self.dice.strikes(fault, getattr(self.faults, fault))
        if hit:
            self.struck[fault] = self.struck.get(fault, 0) + 1
        return hit

    async def send(self, topic: Topic, wires: Sequence[Wire]) -> Sequence[SendOutcome]:
        """Publish, with some wires refused, some taken twice, and some answers lost."""
        if self.strikes("throttle"):
            return [_THROTTLED] * len(wires)
        refused = [len(wires) > 1 and self.strikes("partial") for _ in wires]
        passed = [wire for wire, no in zip(wires, refused, strict=True) if not no]
        outcomes = iter(await self.inner.send(topic, passed) if passed else ())
        answers = [_THROTTLED if no else next(outcomes) for no in refused]
        twice = [
            wire for wire, no in zip(wires, refused, strict=True) if not no and self.strikes("duplicate")
        ]
        if twice:
            await self.inner.send(topic, twice)
        if self.strikes("lost_answer"):
            return [_LOST_ANSWER] * len(wires)
        return answers

    async def open_receiver(self, subscription: Subscription, window: int) -> Receiver:
        """Open a receiver with faults put in."""
        receiver = await self.inner.open_receiver(self._weak(subscription), window)
        return FaultyReceiver(receiver, self)

    def compile(self, filter: Filter) -> Compilation:
        """Leave the whole filter to the portable layer."""
        return Compilation(None, "", filter) if self.faults.weak_filters else self.inner.compile(filter)

    async def inspect(self, topology: Topology) -> Sequence[Finding]:
        """Look, as if no filter were declared."""
        return await self.inner.inspect(self._weak_all(topology))

    async def plan(self, topology: Topology, *, prune: bool = False) -> Sequence[Change]:
        """Plan, as if no filter were declared."""
        return await self.inner.plan(self._weak_all(topology), prune=prune)

    def _weak(self, subscription: Subscription) -> Subscription:
        return subscription.replace(filter=None) if self.faults.weak_filters else subscription

    def _weak_all(self, topology: Topology) -> Topology:
        return Topology(
            topology.topics, tuple(self._weak(subscription) for subscription in topology.subscriptions)
        )


class FaultyReceiver(WrappedReceiver):
    """A receiver with faults put in."""

    def __init__(self, inner: Receiver, adapter: FaultyAdapter) -> None:
        super().__init__(inner)
        self.adapter = adapter

    async def receive(self, max: int, wait: float) -> Sequence[Received]:
        """Receive, sometimes late."""
        if self.adapter.strikes("slow_receive"):
            await sleep(self.adapter.clock, min(0.2, wait))
        return await self.inner.receive(max, wait)

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[LeaseOutcome]:
        """Settle, sometimes without success, and sometimes too late."""
        passed: list[Settlement] = []
        answers: list[LeaseOutcome | None] = []
        for settlement in settlements:
            if self.adapter.strikes("settle_failed"):
                answers.append(LeaseOutcome.FAILED)
            elif settlement.delay is None and self.adapter.strikes("lost_lease"):
                passed.append(Settlement(settlement.lease, 0.0))
                answers.append(LeaseOutcome.LOST)
            else:
                passed.append(settlement)
                answers.append(None)
        done = await self.inner.settle(passed) if passed else ()
        results = iter(done)
        return [next(results) if answer is None else self._lost(answer, results) for answer in answers]

    @staticmethod
    def _lost(answer: LeaseOutcome, results: Any) -> LeaseOutcome:
        if answer is LeaseOutcome.LOST:
            next(results)
        return answer

    async def extend(self, leases: Sequence[Any], seconds: float) -> Sequence[LeaseOutcome]:
        """Extend, sometimes without success."""
        passed = [lease for lease in leases if not self.adapter.strikes("extend_failed")]
        done = dict(zip(passed, await self.inner.extend(passed, seconds) if passed else (), strict=True))
        return [done.get(lease, LeaseOutcome.FAILED) for lease in leases]


_THROTTLED = SendOutcome(code=ErrorCode.THROTTLED, message="throttled (a fault put in)", retryable=True)
_LOST_ANSWER = SendOutcome(code=ErrorCode.UNAVAILABLE, message="no answer (a fault put in)", retryable=True)


def weakened(capabilities: Capabilities, faults: Faults) -> Capabilities:
    """Return what an adapter can still promise with faults put in."""
    may_duplicate = any((faults.lost_answer, faults.duplicate, faults.lost_lease))
    return dataclasses.replace(capabilities, duplicates=capabilities.duplicates or may_duplicate)


class FaultyHarness(Harness):
    """Another harness, with faults put into each of its adapters, each by a seed of its own."""

    def __init__(self, inner: Harness, faults: Faults | None = None) -> None:
        self.inner = inner
        self.faults = faults or Faults()
        self.adapters: list[FaultyAdapter] = []
        self._seed = self.faults.seed
        self.name = f"{inner.name} with faults"
        self.what_lies_under = f"{inner.what_lies_under}, with faults put in"
        self.scale = inner.scale
        self.patience = inner.patience * 2
        self.worlds = inner.worlds
        self.lease = inner.lease

    def make_adapter(self, world: str, clock: Clock) -> Adapter:
        """Make a faulty adapter."""
        self._seed += 1
        adapter = FaultyAdapter(
            self.inner.make_adapter(world, clock), dataclasses.replace(self.faults, seed=self._seed)
        )
        self.adapters.append(adapter)
        return adapter

    @property
    def capabilities(self) -> Capabilities:
        """What is left of the inner harness's."""
        return weakened(self.inner.capabilities, self.faults)

    def make_clock(self) -> Any | None:
        """As the inner harness."""
        return self.inner.make_clock()

    def names(self) -> str:
        """As the inner harness."""
        return self.inner.names()

    def __getattribute__(self, name: str) -> Any:
        if name in _SEAMS:
            return getattr(object.__getattribute__(self, "inner"), name)
        return object.__getattribute__(self, name)


_SEAMS = frozenset(
    {
        "clean",
        "send_raw",
        "provider_errors",
        "url",
        "environment",
        "restart",
        "cut",
        "slow",
        "expire_credentials",
        "broken_credentials",
    }
)
