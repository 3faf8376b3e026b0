"""The adapters that a bus has open, and what is declared on each: checking, provisioning, finding."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from crossbus.adapter import Adapter, Change
from crossbus.asking import guarded
from crossbus.capabilities import Capabilities
from crossbus.clock import Clock
from crossbus.config import Configuration
from crossbus.errors import BusClosedError, DeclarationError, ErrorCode, UnsupportedError, provider_error
from crossbus.profiles import Profile
from crossbus.registry import adapter_class
from crossbus.topology import Subscription, Topic, Topology

__all__ = ["Connections", "Provision"]

logger = logging.getLogger("crossbus")

Provision = Literal["auto", "always", "never"]
"""Whether opening creates what is declared: on local brokers and emulators only, always, or never."""


class Connections:
    """One adapter for each profile in use."""

    def __init__(
        self,
        configuration: Configuration | None,
        adapter: Adapter | None,
        *,
        clock: Clock,
        provision: Provision,
    ) -> None:
        self._configuration = configuration
        self._given = adapter
        self._clock = clock
        self._provision = provision
        self._made: dict[str, Adapter] = {}
        """Kept when closed: a private local broker still has its events when it is opened again."""
        self._open: dict[str, Adapter] = {}
        self._is_open = False
        self._ensured: set[str | tuple[str, str]] = set()
        self._lock = asyncio.Lock()

    def profile_of(self, topic: Topic | None) -> Profile:
        """Return the profile that holds a topic; for None, the default one."""
        if self._configuration is None:
            assert self._given is not None
            return self._given.profile
        return self._configuration.default if topic is None else self._configuration.profile_for(topic)

    async def open_default(self) -> None:
        """Open the default profile, whatever is declared: who opens a bus learns at once whether it can connect."""
        self._lock = asyncio.Lock()  # belongs to the event loop that opens
        self._is_open = True
        await self._open_profile(self.profile_of(None))

    async def adapter_of(self, topic: Topic) -> Adapter:
        """Return the open adapter of a topic, opening it if need be."""
        return await self._open_profile(self.profile_of(topic))

    async def _open_profile(self, profile: Profile) -> Adapter:
        if profile.name not in self._open:
            async with self._lock:
                if profile.name not in self._open:
                    self._check_open()
                    adapter = self._made.get(profile.name) or self._make(profile)
                    await guarded(adapter, adapter.open())
                    self._made[profile.name] = adapter
                    if not self._is_open:
                        await _close(adapter)
                    self._check_open()
                    self._open[profile.name] = adapter
        return self._open[profile.name]

    def _check_open(self) -> None:
        if not self._is_open:  # closed while somebody was on the way to here
            raise BusClosedError("the bus was closed meanwhile")

    def _make(self, profile: Profile) -> Adapter:
        return self._given or adapter_class(profile.scheme, profile.origin)(profile, clock=self._clock)

    def opened(self, topic: Topic | None) -> Adapter | None:
        """Return the adapter of a topic, for None that of the default profile, if it is open."""
        return self._open.get(self.profile_of(topic).name)

    @property
    def adapters(self) -> list[Adapter]:
        """All that are open."""
        return list(self._open.values())

    async def close(self) -> None:
        """Close all, each even if another fails to."""
        self._is_open = False
        adapters, self._open = self._open, {}
        self._ensured.clear()
        for adapter in adapters.values():
            await _close(adapter)

    async def ensure(self, topics: Iterable[Topic], subscriptions: Iterable[Subscription]) -> None:
        """Check what is declared, and see that it exists: created where that is allowed, else looked for."""
        new_topics = [topic for topic in topics if topic.name not in self._ensured]
        new_subscriptions = [s for s in subscriptions if s.key not in self._ensured]
        for adapter, topology in await self._divide(new_topics, new_subscriptions):
            for subscription in topology.subscriptions:
                check_capabilities(adapter, subscription)
            if self._provision == "always" or (self._provision == "auto" and adapter.is_local):
                await guarded(adapter, self._create(adapter, topology))
            else:
                await guarded(adapter, self._look(adapter, topology))
        self._ensured.update(topic.name for topic in new_topics)
        self._ensured.update(subscription.key for subscription in new_subscriptions)

    async def plan(
        self, topology: Topology, *, prune: bool = False
    ) -> list[tuple[Adapter, Sequence[Change]]]:
        """Say what provisioning would do, by adapter."""
        return [
            (adapter, await guarded(adapter, adapter.plan(part, prune=prune)))
            for adapter, part in await self.divided(topology)
        ]

    async def divided(self, topology: Topology) -> list[tuple[Adapter, Topology]]:
        """Divide what is declared between the adapters that hold it, which are opened if need be."""
        return await self._divide(topology.topics, topology.subscriptions)

    async def _divide(
        self, topics: Iterable[Topic], subscriptions: Iterable[Subscription]
    ) -> list[tuple[Adapter, Topology]]:
        parts: dict[int, tuple[Adapter, list[Topic], list[Subscription]]] = {}
        for topic in topics:
            adapter = await self.adapter_of(topic)
            parts.setdefault(id(adapter), (adapter, [], []))[1].append(topic)
        for subscription in subscriptions:
            adapter = await self.adapter_of(subscription.topic)
            parts.setdefault(id(adapter), (adapter, [], []))[2].append(subscription)
        return [(adapter, Topology(tuple(ts), tuple(ss))) for adapter, ts, ss in parts.values()]

    async def _create(self, adapter: Adapter, topology: Topology) -> None:
        await adapter.provision(await adapter.plan(topology))

    async def _look(self, adapter: Adapter, topology: Topology) -> None:
        unknown: dict[str, str] = {}
        for finding in await adapter.inspect(topology):
            if finding.state == "missing":
                raise provider_error(
                    ErrorCode.NOT_FOUND,
                    f"{finding.kind} {finding.name!r} does not exist on {adapter.name} (looked for "
                    f"{finding.resource}); create it with crossbus provision or await bus.provision(), or as you "
                    "create other resources",
                )
            if finding.state == "unknown":
                unknown.setdefault(finding.detail, finding.name)
            elif finding.state == "differs":
                logger.warning(
                    "%s %s differs from its declaration: %s", finding.kind, finding.name, finding.detail
                )
        for detail, name in unknown.items():
            logger.warning("cannot check %s on %s, going on: %s", name, adapter.name, detail)


async def _close(adapter: Adapter) -> None:
    try:
        await adapter.close()
    except Exception:
        logger.exception("closing %s failed", adapter.name)


def check_capabilities(adapter: Adapter, subscription: Subscription) -> None:
    """Refuse at start what the adapter cannot do for a subscription."""
    for problem in problems(adapter, subscription):
        raise problem


def problems(adapter: Adapter, subscription: Subscription) -> Iterator[DeclarationError]:
    """Give all that an adapter cannot do for a subscription, each as the error that says so."""
    has = adapter.capabilities
    name = f"subscription {subscription}"
    if subscription.ordered:
        yield from _lacking(has, "ordering", adapter.name, f"{name} is ordered")
    if subscription.retry.attempts != "unlimited" and not has.has("attempts"):
        yield UnsupportedError(
            f"{name} has a limit of {subscription.retry.attempts} attempts, but {adapter.name} does not tell attempt "
            'numbers there; use RetryPolicy(attempts="unlimited")',
            capability="attempts",
        )
    low, high = has.lease.minimum, has.lease.maximum
    if not low <= subscription.lease <= high:
        yield UnsupportedError(
            f"{name}: a lease of {subscription.lease:g} s; {adapter.name} allows {low:g} to {high:g} s",
            capability="extend_lease",
        )
    if subscription.backstop is not None:
        yield from _lacking(has, "backstop", adapter.name, f"{name} has a backstop")
        if has.backstop is not None and not has.backstop[0] <= subscription.backstop <= has.backstop[1]:
            yield UnsupportedError(
                f"{name}: a backstop of {subscription.backstop} receives; {adapter.name} allows {has.backstop[0]} to "
                f"{has.backstop[1]}",
                capability="backstop",
            )
    if subscription.external and subscription.filter is not None and subscription.on_mismatch is None:
        yield DeclarationError(
            f"{name} is external and has a filter: say what happens to the events it does not match, which are "
            'somebody\'s: on_mismatch="release", "dead_letter" or "drop"'
        )


def _lacking(has: Capabilities, capability: str, adapter: str, what: str) -> Iterator[UnsupportedError]:
    try:
        has.require(capability, adapter, what)
    except UnsupportedError as error:
        yield error
