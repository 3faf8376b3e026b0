"""`RemoteDeadLetters`: the dead letter of a subscription on a server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from crossbus.adapter import DeadLetterQueue, LeaseOutcome, PutBack, Received, SendOutcome, Wire
from crossbus.errors import NotFound
from crossbus.event import new_id
from crossbus_local.dead_letters import AT_ONCE, not_found, put_back_answers
from crossbus_local.protocol import (
    Deliveries,
    LeaseAnswers,
    PutBackAnswer,
    PutBackForm,
    PutBackOne,
    Records,
    data_decoder,
    path_of,
)

if TYPE_CHECKING:
    from crossbus_local.remote.adapter import RemoteAdapter

__all__ = ["RemoteDeadLetters"]

PAGE: Final = 1000
"""The most records of one request."""

_deliveries = data_decoder(Deliveries)
_answers = data_decoder(LeaseAnswers)
_put_back = data_decoder(PutBackAnswer)


class RemoteDeadLetters(DeadLetterQueue):
    """The dead letter of one subscription, as the contract has it."""

    batch = AT_ONCE

    def __init__(self, adapter: RemoteAdapter, name: str, topic: str, subscription: str) -> None:
        self._adapter = adapter
        self._path = path_of("dead-letters", name)
        self._home = topic, subscription

    async def browse(self, limit: int) -> Sequence[Received]:
        """Return up to `limit` records, oldest first, in as many requests as they need."""
        found: list[Received] = []
        while len(found) < limit:
            page = await self._page(min(limit - len(found), PAGE), found[-1].lease if found else "")
            if not page:
                break
            found.extend(page)
        return found

    async def pages(self, size: int = PAGE) -> AsyncGenerator[Sequence[Received], None]:
        """Give all records, oldest first. The next page is asked for while the one before it is worked on."""
        size = min(size, PAGE)
        page = await self._page(size, "")
        while page:
            ahead = asyncio.ensure_future(self._page(size, page[-1].lease))
            try:
                yield page
                page = await ahead
            finally:
                ahead.cancel()
                await asyncio.gather(ahead, return_exceptions=True)

    async def _page(self, most: int, after: str) -> Sequence[Received]:
        after = f"&after={quote(after)}" if after else ""
        path = f"{self._path}/records?limit={most}{after}"
        return (await self._adapter.client.read(path, _deliveries)).deliveries

    async def redeliver(self, wires: Sequence[Wire]) -> Sequence[SendOutcome]:
        """Put events into this subscription, at its end."""
        topic, name = self._home
        return await self._adapter.publish(path_of("topics", topic, "subscriptions", name, "events"), wires)

    async def delete(self, leases: Sequence[Any]) -> Sequence[LeaseOutcome]:
        """Remove records."""
        form = Records(list(leases))
        answer = await self._adapter.client.data(f"{self._path}/delete", form, _answers, id=new_id())
        return [LeaseOutcome(outcome) for outcome in answer.outcomes]

    async def put_back(self, records: Sequence[tuple[Any, Wire]]) -> Sequence[PutBack]:
        """Put events back and remove their records, in one step: nothing twice, whoever else does the same."""
        ones = [PutBackOne(lease, wire.body, wire.key, dict(wire.attributes)) for lease, wire in records]
        form = PutBackForm(*self._home, ones)
        try:
            answer = await self._adapter.client.data(f"{self._path}/put-back", form, _put_back, id=new_id())
        except NotFound as error:
            return [PutBack(sent) for sent in not_found(error, len(records))]
        return put_back_answers(answer.first, answer.there)
