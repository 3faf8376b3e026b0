"""What `crossbus doctor` asks Pub/Sub beyond `inspect`: permissions, the service agent's roles, older generations.

Permissions are asked for with TestIamPermissions, which needs none, and which the emulator lacks.
Source: https://cloud.google.com/pubsub/docs/access-control#test-permissions
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from crossbus.checks import Result
from crossbus.errors import ErrorCode, ProviderError, Unauthenticated
from crossbus_pubsub import wanted
from crossbus_pubsub.checks import CHECKS
from crossbus_pubsub.grants import Grants
from crossbus_pubsub.naming import Names, short
from crossbus_pubsub.options import native_text

if TYPE_CHECKING:
    from crossbus.topology import Subscription, Topology
    from crossbus_pubsub.client import Client

__all__ = ["diagnose"]


async def diagnose(client: Client, names: Names, topology: Topology, *, emulator: bool) -> list[Result]:
    """Look at all that `inspect` does not. Raises what Pub/Sub says to credentials that are not good."""
    looks = _Looks(client, names)
    asked = [
        looks.generations(one) for one in topology.subscriptions if not one.external and not one.resource
    ]
    asked += [looks.listed(one) for one in topology.subscriptions if "generations" in one.options]
    found = [result for result in await asyncio.gather(*asked) if result is not None]
    if emulator:
        return found
    grants = Grants(client, names)
    asked = [
        looks.permitted("publish-permitted", one.name, names.topic(one), "pubsub.topics.publish")
        for one in topology.topics
    ]
    for one in topology.subscriptions:
        name, dead = looks.name(one), names.topic(one.dead_letter)
        asked.append(looks.permitted("consume-permitted", str(one), name, "pubsub.subscriptions.consume"))
        asked.append(looks.permitted("dead-letter-permitted", str(one), dead, "pubsub.topics.publish"))
        if not one.external and not one.resource:
            asked.append(looks.granted(grants, one))
    known = Result("credentials", "ok", f"project {names.project}")
    return [known, *found, *(result for result in await asyncio.gather(*asked) if result is not None)]


class _Looks:
    def __init__(self, client: Client, names: Names) -> None:
        self._client = client
        self._names = names
        self._listed: dict[str, asyncio.Task[list[str]]] = {}

    def name(self, declared: Subscription) -> str:
        """Return the full name of the current generation."""
        return self._names.subscription(declared, native_text(declared))

    async def permitted(self, check: str, name: str, resource: str, permission: str) -> Result | None:
        """Ask for one permission; nothing of what is not there, for `inspect` says so."""
        try:
            found = await self._client.call("TestIamPermissions", resource=resource, permissions=[permission])
        except Unauthenticated:
            raise
        except ProviderError as error:
            if error.code is ErrorCode.NOT_FOUND:
                return None
            return Result(check, "unknown", str(error), name)
        if permission in found.permissions:
            return Result(check, "ok", "", name)
        return Result(check, CHECKS[check].state, f"{permission} is missing on {resource}", name)

    async def granted(self, grants: Grants, declared: Subscription) -> Result:
        """Look for the two roles of the service agent."""
        goal = wanted.subscription(self._client, self._names, declared, native_text(declared))
        try:
            missing = await grants.missing(goal.request)
        except Unauthenticated:
            raise
        except ProviderError as error:
            return Result("agent-granted", "unknown", str(error), str(declared))
        said = "; ".join(f"{one.agent} lacks {one.role} on {one.resource}" for one in missing)
        return Result("agent-granted", "wrong" if missing else "ok", said, str(declared))

    async def generations(self, declared: Subscription) -> Result | None:
        """Look for older generations, where they may be listed."""
        try:
            older = await self._others(declared)
        except ProviderError as error:
            return _unlisted("generations", declared, error)
        said = (
            f"{', '.join(map(short, older))} was made for an older filter, and is still there"
            if older
            else ""
        )
        return Result("generations", "warning" if older else "ok", said, str(declared))

    async def listed(self, declared: Subscription) -> Result | None:
        """Look for older generations that the declaration does not name, though it names some."""
        try:
            older = await self._others(declared)
        except ProviderError as error:
            return _unlisted("generations-listed", declared, error)
        named = self._names.generations(declared)
        unknown = ", ".join(short(one) for one in older if one not in named)
        said = f"{unknown} is there, and not named" if unknown else ""
        return Result("generations-listed", "wrong" if unknown else "ok", said, str(declared))

    async def _others(self, declared: Subscription) -> list[str]:
        topic = self._names.topic(declared.topic)
        if topic not in self._listed:
            listing = self._client.listed("ListTopicSubscriptions", "subscriptions", topic=topic)
            self._listed[topic] = asyncio.ensure_future(listing)
        base, current = self._names.base(declared), self.name(declared)
        found = await self._listed[topic]
        return [one for one in found if self._names.is_generation(one, base) and one != current]


def _unlisted(check: str, declared: Subscription, error: ProviderError) -> Result | None:
    if error.code is ErrorCode.NOT_FOUND:
        return None
    if error.code is ErrorCode.PERMISSION_DENIED:
        return Result(
            check, "unknown", f"it needs pubsub.topics.get to list subscriptions: {error}", str(declared)
        )
    raise error
