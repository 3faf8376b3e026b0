"""Connecting to what ``TOPIC/NAME`` means, without a program that declares it. Nothing is created."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from crossbus.adapter import Adapter
from crossbus.cli.notices import blind, in_memory
from crossbus.clock import SystemClock
from crossbus.config import Configuration, load
from crossbus.connections import Connections
from crossbus.errors import ConfigurationError, DeclarationError
from crossbus.profiles import Profile
from crossbus.registry import adapter_class
from crossbus.topology import Subscription, Topic, check_name

__all__ = ["Places", "connected"]


class Places:
    """What the configuration says, and the adapters that are open."""

    def __init__(self, configuration: Configuration, connections: Connections) -> None:
        self.configuration = configuration
        self._connections = connections

    async def topic(self, name: str) -> tuple[Adapter, Topic]:
        """Return a topic as the configuration has it, and its open adapter. Raises `ConfigurationError`."""
        topic = _topic(self.configuration, name)
        profile = self._connections.profile_of(topic)
        _check_visible(profile)
        return await self._connections.adapter_of(topic), topic

    async def subscription(self, text: str) -> tuple[Adapter, Subscription]:
        """Return the subscription that ``TOPIC/NAME`` means, and its open adapter. Raises `ConfigurationError`."""
        subscription = _subscription(self.configuration, text)
        adapter, _ = await self.topic(subscription.topic.name)
        return adapter, subscription


@asynccontextmanager
async def connected(url: str | None, profile: str | None, config: str | None) -> AsyncIterator[Places]:
    """Connect to the default profile, as `Bus` would, and close all at the end.

    Raises `ConfigurationError` if it is in the memory of a process, where another sees nothing.
    """
    if url is not None and profile is not None:
        raise ConfigurationError("--url and --profile both say which bus to use; give one of them")
    configuration = load(url, profile=profile, config=config)
    _check_visible(configuration.default)
    connections = Connections(configuration, None, clock=SystemClock(), provision="never")
    await connections.open_default()
    try:
        yield Places(configuration, connections)
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
