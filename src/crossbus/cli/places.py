"""Connecting to what ``TOPIC/NAME`` means, without a program that declares it. Nothing is created.

Where several are looked at, ``MODULE:BUS`` means those that a program declares, and nothing means all that can be
found.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from crossbus.adapter import Adapter, ListsSubscriptions, Standing
from crossbus.asking import guarded
from crossbus.cli.notices import blind, in_memory
from crossbus.cli.options import one_place
from crossbus.clock import SystemClock
from crossbus.config import Configuration, load
from crossbus.connections import Connections
from crossbus.errors import ConfigurationError, DeclarationError
from crossbus.profiles import Profile
from crossbus.registry import adapter_class
from crossbus.topology import Subscription, Topic, check_name

__all__ = ["Place", "Places", "connected", "in_program", "standing"]

Place = tuple[Adapter, Subscription]
"""A subscription, and its open adapter."""


class Places:
    """What the configuration says, and the adapters that are open."""

    def __init__(
        self,
        configuration: Configuration,
        connections: Connections,
        declared: Sequence[Subscription] | None = None,
    ) -> None:
        self.configuration = configuration
        self._connections = connections
        self._declared = declared

    async def topic(self, name: str) -> tuple[Adapter, Topic]:
        """Return a topic as the configuration has it, and its open adapter. Raises `ConfigurationError`."""
        topic = _topic(self.configuration, name)
        profile = self._connections.profile_of(topic)
        _check_visible(profile)
        return await self._connections.adapter_of(topic), topic

    async def subscription(self, text: str) -> Place:
        """Return the subscription that ``TOPIC/NAME`` means, and its open adapter. Raises `ConfigurationError`."""
        return await self._place(_subscription(self.configuration, text))

    async def subscriptions(self, named: Sequence[str]) -> list[Place]:
        """Return those that are named; else those that the program declares; else all that can be found.

        These are what the provider lists, where it can, and what the configuration file does.

        Raises:
            ConfigurationError: none is named, the file lists none, and the provider does not tell what there is.
        """
        if named:
            return [await self.subscription(text) for text in named]
        if self._declared is not None:
            return [await self._place(subscription) for subscription in self._declared]
        adapter = self._connections.opened(None)
        assert adapter is not None
        listed = [
            _subscription(self.configuration, "/".join(key)) for key in self.configuration.subscriptions
        ]
        mapped = {(one.topic.resource, one.resource or one.name) for one in listed}
        found = {
            one.key: (adapter, one)
            for one, _ in await standing(adapter) or ()
            if (one.topic.resource, one.resource) not in mapped
        }
        found |= {one.key: await self._place(one) for one in listed}
        if not found and not isinstance(adapter, ListsSubscriptions):
            raise ConfigurationError(
                f"no subscription was named, and {self.configuration.label} lists none; write TOPIC/NAME, or "
                "MODULE:BUS for those that a program declares"
            )
        return [found[key] for key in sorted(found)]

    async def _place(self, subscription: Subscription) -> Place:
        profile = self._connections.profile_of(subscription.topic)
        _check_visible(profile)
        return await self._connections.adapter_of(subscription.topic), subscription


async def standing(adapter: Adapter) -> Sequence[Standing] | None:
    """Return the subscriptions that there are; None where the provider does not tell."""
    if not isinstance(adapter, ListsSubscriptions):
        return None
    return await guarded(adapter, adapter.subscriptions())


def in_program(where: Sequence[str]) -> tuple[str | None, list[str]]:
    """Divide what was named: the program, if one was, and the subscriptions. Raises `ConfigurationError`."""
    programs = [text for text in where if ":" in text]
    named = [text for text in where if ":" not in text]
    if len(programs) > 1 or (programs and named):
        raise ConfigurationError(
            f"{' '.join(where)}: give TOPIC/NAME, as many as you like, or one MODULE:BUS for all that it declares"
        )
    return (programs[0] if programs else None), named


@asynccontextmanager
async def connected(
    url: str | None, profile: str | None, config: str | None, program: str | None = None
) -> AsyncIterator[Places]:
    """Connect to the default profile, as `Bus` would, and close all at the end. A program is imported, not opened.

    Raises `ConfigurationError` if it is in the memory of a process, where another sees nothing.
    """
    declared: list[Subscription] | None = None
    if program is not None:
        from crossbus.cli.run import choose, inner, load_program

        choose(url, profile, config)
        bus = inner(
            await asyncio.to_thread(load_program, program, (url, profile))
        )  # it may use a loop itself
        configuration, declared = bus._configuration, [each.declaration for each in bus.subscriptions]
        if configuration is None:
            raise ConfigurationError(
                f"{program} brings an adapter of its own: name its subscriptions, TOPIC/NAME"
            )
    else:
        one_place(url, profile)
        configuration = load(url, profile=profile, config=config)
    _check_visible(configuration.default)
    connections = Connections(configuration, None, clock=SystemClock(), provision="never")
    await connections.open_default()
    try:
        yield Places(configuration, connections, declared)
    finally:
        await connections.close()


def _check_visible(profile: Profile) -> None:
    adapter = adapter_class(profile.scheme, profile.origin)(profile, clock=SystemClock())
    if in_memory(adapter):
        raise ConfigurationError(blind(adapter))
    path = profile.parameters.get("path") if adapter.is_local else None
    if path is not None and not Path(str(path)).exists():  # opening would make it
        raise ConfigurationError(f"there is no file {path}, so that there is nothing to see")


def _topic(configuration: Configuration, name: str) -> Topic:
    check_name("topic", name)
    configuration.check_topic(name)
    return configuration.apply_topic(Topic(name))


def _subscription(configuration: Configuration, text: str) -> Subscription:
    topic, slash, name = text.partition("/")
    if not slash:
        raise DeclarationError(f"{text!r} names no subscription; write TOPIC/NAME, such as orders/billing")
    check_name("subscription", name)
    made = Subscription(topic=_topic(configuration, topic), name=name)
    return configuration.apply_subscription(made)
