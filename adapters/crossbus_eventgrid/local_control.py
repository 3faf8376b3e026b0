"""The control plane of a server on this machine: ``/crossbus/v1/`` of `crossbus serve`. Others may have none."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote

import msgspec

from crossbus.errors import NotFound
from crossbus_eventgrid.compiling import native_text
from crossbus_eventgrid.control import Control, Standing
from crossbus_eventgrid.limits import LONGEST_RETENTION
from crossbus_eventgrid.rest import Rest
from crossbus_eventgrid.settings import Owned, QueueSettings

__all__ = ["LocalControl"]

_PATH: Final = "/crossbus/v1/topics"
_HEADERS: Final = {"Content-Type": "application/json", "Accept": "application/json"}
TEMPORARY: Final = 3600
"""Seconds after which the server removes a temporary subscription, should its maker have died."""


class LocalControl(Control):
    """Topics and subscriptions of `crossbus serve`."""

    owns_all = True

    def __init__(self, rest: Rest) -> None:
        self._rest = rest

    async def topics(self) -> Mapping[str, Mapping[str, Standing]] | None:
        """Return all topics with their subscriptions; None if the server has no such routes."""
        try:
            answer = await self._call("GET", "")
        except NotFound:
            return None
        found = msgspec.json.decode(answer)["topics"]
        return {
            topic: {name: _standing(one) for name, one in about["subscriptions"].items()}
            for topic, about in found.items()
        }

    async def create_topic(self, name: str) -> None:
        """Make a topic."""
        await self._call("PUT", _path(name), {})

    async def put_subscription(
        self,
        topic: str,
        name: str,
        settings: QueueSettings,
        owned: Owned = Owned.YES,
        expires: datetime | None = None,
    ) -> None:
        """Make a subscription, or change it. Temporary ones end after an hour, whenever `expires` is."""
        body = {
            "eventgrid_filter": msgspec.json.decode(settings.native) if settings.native else None,
            "backstop": settings.receives,
            "retention": settings.retention or LONGEST_RETENTION,
            # What the backstop moves; only `local+http:` can look at it, for Event Grid's protocol has no such thing.
            "dead_letter": f"{topic}--{name}--backstop",
            "lease": settings.lease,
        }
        query = "" if expires is None else f"?temporary={TEMPORARY}"
        await self._call("PUT", _path(topic, name) + query, body)

    async def delete_topic(self, name: str) -> None:
        """Delete a topic."""
        await self._call("DELETE", _path(name))

    async def delete_subscription(self, topic: str, name: str) -> None:
        """Delete a subscription."""
        await self._call("DELETE", _path(topic, name))

    async def close(self) -> None:
        """Nothing to end: the connection is the data plane's."""

    async def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> bytes:
        content = None if body is None else msgspec.json.encode(body)
        return await self._rest.call(method, _PATH + path, content, _HEADERS, f"{method} {_PATH}{path}")


def _path(topic: str, name: str | None = None) -> str:
    path = f"/{quote(topic, safe='')}"
    return path if name is None else f"{path}/subscriptions/{quote(name, safe='')}"


def _standing(one: Mapping[str, Any]) -> Standing:
    has = one["settings"]
    retention = has["retention"]
    settings = QueueSettings(
        lease=has["lease"],
        receives=has["backstop"],
        retention=None if retention is None else int(retention),
        native=native_text(has["eventgrid_filter"]),
    )
    return Standing(settings, owned=Owned.WITH_TOPIC, is_temporary=one["temporary"])
