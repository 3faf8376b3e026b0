"""A subscription that is consumed on a scripted adapter, and what its tests ask for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.scripted import ScriptedAdapter

from crossbus import Bus, Event, RetryPolicy
from crossbus.deadletter import RECORD_TYPE

NO_JITTER = RetryPolicy(first_delay=2.0, jitter=False)


def event(id: str = "e-1", key: str | None = None, **fields: Any) -> Event:
    extensions = {**fields.pop("extensions", {})} | ({} if key is None else {"partitionkey": key})
    return Event(**{"id": id, "type": "t", "source": "/s", "extensions": extensions, **fields})


async def until(condition: Any, *, limit: float = 5.0) -> None:
    """Wait until something is so."""
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        await asyncio.sleep(0.002)


def record_of(adapter: ScriptedAdapter) -> dict[str, Any]:
    """Return the data of the only dead-letter record."""
    records = adapter.records()
    assert len(records) == 1, records
    assert records[0].type == RECORD_TYPE
    data: dict[str, Any] = records[0].data
    return data


@asynccontextmanager
async def consuming(adapter: ScriptedAdapter, handler: Any = None, **declared: Any) -> AsyncIterator[Bus]:
    """Consume one subscription, orders/billing."""
    options = {
        name: declared.pop(name) for name in ("drain_limit", "clock", "handle_middleware") if name in declared
    }
    bus = Bus(adapter=adapter, **options)
    handle = bus.subscribe("orders", "billing", **declared)
    if handler is not None:
        handle(handler)
    async with bus, bus.running():
        yield bus
