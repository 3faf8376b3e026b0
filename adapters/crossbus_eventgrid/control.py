"""`Control`: the control plane, as provisioning needs it. On Azure it is ARM, on this machine ``/crossbus/v1/``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from crossbus_eventgrid.settings import Owned, QueueSettings

__all__ = ["Control", "Granted", "NoControl", "Standing"]


class Standing(NamedTuple):
    """A subscription that is there."""

    settings: QueueSettings
    owned: Owned
    """Whether crossbus made it."""
    is_temporary: bool = False


class Granted(NamedTuple):
    """What one role permits of the data plane, as patterns of data actions."""

    actions: Sequence[str]
    excluded: Sequence[str] = ()


class NoControl(Exception):
    """The control plane cannot be asked. The text says what to set or grant."""


class Control(ABC):
    """Topics and subscriptions of one namespace. Every method raises `NoControl` if it may not, or cannot."""

    owns_all: bool = False
    """True if every topic there may be deleted: a server on this machine is ours."""

    @abstractmethod
    async def topics(self) -> Mapping[str, Mapping[str, Standing]] | None:
        """Return the topics with their subscriptions; None if there is no control plane at all."""

    async def granted(self, topic: str) -> Sequence[Granted] | None:
        """Return what of the data plane these credentials may do with a topic; None where there are no roles."""
        return None

    @abstractmethod
    async def create_topic(self, name: str) -> None:
        """Make a topic."""

    @abstractmethod
    async def put_subscription(
        self,
        topic: str,
        name: str,
        settings: QueueSettings,
        owned: Owned = Owned.YES,
        expires: datetime | None = None,
    ) -> None:
        """Make a queue subscription, or change it; mark it as `owned`. Removed at `expires` at the latest."""

    @abstractmethod
    async def delete_topic(self, name: str) -> None:
        """Delete a topic with all that is in it. Harmless if it is not there."""

    @abstractmethod
    async def delete_subscription(self, topic: str, name: str) -> None:
        """Delete a subscription with all that waits in it. Harmless if it is not there."""

    @abstractmethod
    async def close(self) -> None:
        """End the connections."""
