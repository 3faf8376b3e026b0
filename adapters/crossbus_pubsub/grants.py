"""The two grants without which Pub/Sub's own dead-lettering does nothing, and says nothing.

Pub/Sub's service agent must be allowed to publish to the dead letter's topic, and to acknowledge on the subscription.
Source: https://cloud.google.com/pubsub/docs/handling-failures#grant_forwarding_permissions
"""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from crossbus.adapter import Change
from crossbus.errors import ErrorCode, ProviderError, provider_error
from crossbus_pubsub.naming import Names

if TYPE_CHECKING:
    from crossbus_pubsub.client import Client

__all__ = ["Grant", "Grants"]

PUBLISHER: Final = "roles/pubsub.publisher"
SUBSCRIBER: Final = "roles/pubsub.subscriber"
_TRIES: Final = 3


class Grant(NamedTuple):
    """A role on a resource, to a member."""

    resource: str
    role: str
    agent: str


class Grants:
    """Sees that the service agent has its roles."""

    def __init__(self, client: Client, names: Names) -> None:
        self._client = client
        self._names = names
        self._agent: str | None = None

    async def plan(self, subscription: Any) -> list[Change]:
        """Return a change for each grant that a subscription with a dead-letter policy lacks."""
        return [
            Change(
                "update",
                "grant",
                one.resource,
                f"{one.role} to {one.agent}",
                functools.partial(self._grant, one.resource, one.role),
            )
            for one in await self.missing(subscription)
        ]

    async def missing(self, subscription: Any) -> list[Grant]:
        """Return the grants that a subscription with a dead-letter policy lacks."""
        agent = await self._find_agent()
        pairs = (
            (subscription.dead_letter_policy.dead_letter_topic, PUBLISHER),
            (subscription.name, SUBSCRIBER),
        )
        return [
            Grant(resource, role, agent)
            for resource, role in pairs
            if not await self._has(resource, role, agent)
        ]

    async def _find_agent(self) -> str:
        if self._agent is None:
            number = self._names.profile.parameters.get("project_number")
            if number is None and self._names.project.isdigit():
                number = self._names.project
            number = number or await self._ask_number()
            self._agent = f"serviceAccount:service-{number}@gcp-sa-pubsub.iam.gserviceaccount.com"
        return self._agent

    async def _ask_number(self) -> str:
        """Ask the Resource Manager for the number of the project."""
        try:
            found = await asyncio.to_thread(_project_number, self._names.project)
        except Exception as error:
            raise provider_error(
                ErrorCode.INVALID_REQUEST,
                f"pubsub: the number of project {self._names.project}, which names Pub/Sub's service agent, could not "
                f"be looked up ({' '.join(str(error).split())[:200]}): give it as project_number in the profile",
            ) from error
        return found

    async def _has(self, resource: str, role: str, agent: str) -> bool:
        try:
            policy = await self._client.call("GetIamPolicy", resource=resource)
        except ProviderError as error:
            if error.code is ErrorCode.NOT_FOUND:
                return False  # it is created before
            raise
        return any(one.role == role and agent in one.members for one in policy.bindings)

    async def _grant(self, resource: str, role: str) -> None:
        """Add one member to one role. The etag of the policy sees to it that nobody else's change is lost."""
        agent = await self._find_agent()
        for attempt in range(_TRIES):
            policy = await self._client.call("GetIamPolicy", resource=resource)
            if any(one.role == role and agent in one.members for one in policy.bindings):
                return
            binding = next(
                (one for one in policy.bindings if one.role == role and not one.condition.expression), None
            )
            if binding is None:
                binding = policy.bindings.add(role=role)
            binding.members.append(agent)
            try:
                await self._client.call("SetIamPolicy", resource=resource, policy=policy)
                return
            except ProviderError as error:
                if (
                    error.code is not ErrorCode.UNAVAILABLE or attempt == _TRIES - 1
                ):  # ABORTED: another was quicker
                    raise


def _project_number(project: str) -> str:
    import google.auth
    from google.auth.transport.requests import AuthorizedSession

    from crossbus_pubsub.credentials import SCOPES

    credentials, _ = google.auth.default(scopes=SCOPES)
    with AuthorizedSession(credentials) as session:  # type: ignore[no-untyped-call]
        answer = session.get(f"https://cloudresourcemanager.googleapis.com/v1/projects/{project}", timeout=20)
        answer.raise_for_status()
        return str(answer.json()["projectNumber"])
