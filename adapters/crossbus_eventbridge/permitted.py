"""What the credentials in use may do, asked of IAM: nothing is tried, and so nothing is sent.

Source: https://docs.aws.amazon.com/IAM/latest/APIReference/API_SimulatePrincipalPolicy.html
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from crossbus.checks import Result
from crossbus.errors import PermissionDenied, ProviderError
from crossbus_eventbridge.errors import aws_code
from crossbus_eventbridge.naming import Arn, Queue, bus_name

if TYPE_CHECKING:
    from crossbus.topology import Topic, Topology
    from crossbus_eventbridge.adapter import EventBridgeAdapter
    from crossbus_eventbridge.session import Identity

__all__ = ["permitted"]

PUBLISH: Final = ("events:PutEvents",)
CONSUME: Final = (
    "sqs:GetQueueUrl",
    "sqs:ReceiveMessage",
    "sqs:DeleteMessage",
    "sqs:ChangeMessageVisibility",
)
RECORD: Final = ("sqs:GetQueueUrl", "sqs:SendMessage")
_AT_ONCE: Final = 4
"""IAM is throttled early."""


async def permitted(adapter: EventBridgeAdapter, identity: Identity, topology: Topology) -> list[Result]:
    """Say of each topic and subscription whether it may be used."""
    asking = _Asking(adapter, identity)
    asked = []
    if adapter.options.api == "classic":
        asked += [
            asking.about("publish-permitted", one.name, PUBLISH, asking.bus(one)) for one in topology.topics
        ]
    for one in topology.subscriptions:
        queue = asking.queue(adapter.names.queue(one))
        dead = asking.queue(adapter.names.dead_queue(one.dead_letter))
        asked.append(asking.about("consume-permitted", str(one), CONSUME, queue))
        asked.append(asking.about("dead-letter-permitted", str(one), RECORD, dead))
    return list(await asyncio.gather(*asked))


class _Asking:
    def __init__(self, adapter: EventBridgeAdapter, identity: Identity) -> None:
        self._adapter = adapter
        self._identity = identity
        self._region = adapter.connection.clients.region
        self._partition = identity.arn.split(":")[1]
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._principal: str | None = None
        self._unknown = ""
        """Why IAM may not be asked, once it said so: it would say so each time."""

    def bus(self, topic: Topic) -> str:
        """Return the ARN of a topic's bus."""
        bus = self._adapter.names.bus(topic)
        return bus if Arn.parse(bus) is not None else self._arn("events", f"event-bus/{bus_name(bus)}")

    def queue(self, queue: Queue) -> str:
        """Return the ARN of a queue."""
        return self._arn("sqs", queue.name, queue.account)

    def _arn(self, service: str, resource: str, account: str = "") -> str:
        return (
            f"arn:{self._partition}:{service}:{self._region}:{account or self._identity.account}:{resource}"
        )

    async def about(self, check: str, name: str, actions: Sequence[str], resource: str) -> Result:
        """Ask for actions on one resource."""
        async with self._room:
            if self._unknown:
                return Result(check, "unknown", self._unknown, name)
            try:
                denied = await self._denied(actions, resource)
            except PermissionDenied as error:
                self._unknown = _unknown(error, self._identity.arn)
                return Result(check, "unknown", self._unknown, name)
            except ProviderError as error:
                return Result(check, "unknown", _unknown(error, self._identity.arn), name)
        if not denied:
            return Result(check, "ok", "", name)
        who = self._principal or self._identity.arn
        said = ", ".join(f"{action} ({decision})" for action, decision in denied)
        return Result(
            check,
            self._adapter.checks[check].state,
            f"the policies of {who} do not allow {said} on {resource}",
            name,
        )

    async def _denied(self, actions: Sequence[str], resource: str) -> list[tuple[str, str]]:
        if self._principal is None:
            self._principal = _principal(self._identity.arn)
        try:
            found = await self._simulate(self._principal, actions, resource)
        except ProviderError as error:
            # The session's ARN does not say the path of its role.
            if aws_code(error.__cause__ or error) != "NoSuchEntity" or ":role/" not in self._principal:
                raise
            name = self._principal.rpartition("/")[2]
            self._principal = (await self._adapter.connection.ask("iam", "GetRole", RoleName=name))["Role"][
                "Arn"
            ]
            found = await self._simulate(self._principal, actions, resource)
        return [(action, decision) for action, decision in found if decision != "allowed"]

    async def _simulate(self, principal: str, actions: Sequence[str], resource: str) -> list[tuple[str, str]]:
        answer = await self._adapter.connection.ask(
            "iam",
            "SimulatePrincipalPolicy",
            PolicySourceArn=principal,
            ActionNames=list(actions),
            ResourceArns=[resource],
        )
        found = {one["EvalActionName"]: one["EvalDecision"] for one in answer["EvaluationResults"]}
        return [(action, found.get(action, "not answered")) for action in actions]


def _principal(arn: str) -> str:
    """Return whose policies count: of a session of a role, that role."""
    head, _, rest = arn.partition(":assumed-role/")
    if not rest:
        return arn
    return f"{head.replace(':sts:', ':iam:')}:role/{rest.partition('/')[0]}"


def _unknown(error: ProviderError, arn: str) -> str:
    if aws_code(error.__cause__ or error) in ("AccessDenied", "AccessDeniedException"):
        return f"it needs iam:SimulatePrincipalPolicy to see what {arn} may do"
    return f"IAM does not say what {arn} may do: {error}"
