"""`Buses`: the ARNs of Custom Event Buses. AWS knows a bus by an ARN with an id that it made up, never by a name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from crossbus.errors import ErrorCode, NotFound, provider_error
from crossbus_eventbridge.naming import Arn
from crossbus_eventbridge.standing import pages

if TYPE_CHECKING:
    from crossbus.topology import Topic
    from crossbus_eventbridge.adapter import EventBridgeAdapter

__all__ = ["Buses"]


class Buses:
    """Looks up the buses of one connection."""

    def __init__(self, adapter: EventBridgeAdapter) -> None:
        self._adapter = adapter
        self._arns: dict[str, str] = {}

    async def arn(self, topic: Topic) -> str:
        """Return the ARN of a topic's bus, looked up once. Raises `NotFound` if it is not there."""
        name = self._adapter.names.bus(topic)
        if Arn.parse(name) is not None:
            return name
        found = self._arns.get(name)
        if found is None:
            listed = await self._named(name)
            if listed is None:
                raise provider_error(
                    ErrorCode.NOT_FOUND,
                    f"eventbridge: there is no Custom Event Bus {name!r} for topic {topic.name!r}; create it with "
                    "`await bus.provision()`, or check its name, the region and the account",
                )
            found = self._arns[name] = listed["EventBusArn"]
        return found

    def forget(self, topic: Topic) -> None:
        """Look a topic's bus up again when it is next needed."""
        self._arns.pop(self._adapter.names.bus(topic), None)

    async def state(self, topic: Topic) -> dict[str, Any] | None:
        """Return what AWS says of a topic's bus; None if it is not there."""
        self.forget(topic)
        try:
            arn = await self.arn(topic)
            found: dict[str, Any] = await self._adapter.connection.call(
                "events_v2_control", "DescribeEventBus", arn, EventBusArn=arn
            )
        except NotFound:
            return None
        return found

    async def _named(self, name: str) -> dict[str, Any] | None:
        listed = await pages(
            self._adapter, "events_v2_control", "ListEventBuses", "EventBuses", NamePrefix=name
        )
        return self.chosen(name, listed)

    @staticmethod
    def chosen(name: str, listed: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
        """Return the bus of this name: our own first, for a shared one may be called the same.

        Raises `Conflict` if several accounts share one.
        """
        same = [one for one in listed if one["Name"] == name and one.get("State") != "DELETING"]
        own = [one for one in same if "State" in one]  # of buses of others AWS tells no state
        if not own and len(same) > 1:
            raise provider_error(
                ErrorCode.CONFLICT,
                f"eventbridge: {len(same)} accounts share a bus {name!r} with this one: write the ARN of the one that "
                f"is meant, such as {same[0]['EventBusArn']}",
            )
        found = own or same
        return found[0] if found else None
