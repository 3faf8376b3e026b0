"""Publishing many events: batched, windowed, with a result for each."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable, Sized
from contextlib import aclosing
from typing import Any, Final

from crossbus.errors import BusClosedError, CrossbusError, PartialPublishError, PublishError
from crossbus.event import Event
from crossbus.publishing import Publisher, PublishResult, Receipt

__all__ = ["publish_all"]

WINDOW: Final = 1000
"""The most events that pass through middleware at once."""

Events = Iterable[Any] | AsyncIterable[Any]


async def publish_all(
    publisher: Publisher,
    events: Events,
    *,
    make_event: Callable[[Any], Event],
    through: Callable[[Event], Awaitable[Receipt]] | None,
) -> list[Receipt]:
    """Publish all; see `Bus.publish_many`. `through` is the publish middleware, where there is any."""
    results: list[PublishResult] = []
    if through is None:
        await _publish_batched(publisher, events, make_event, results)
    else:
        await _publish_each(through, events, make_event, results)
    failed = [result for result in results if result.error is not None]
    if failed:
        raise PartialPublishError(
            f"{len(failed)} of {len(results)} events were not published to {publisher.topic.name!r}; the first: "
            f"{failed[0].error}",
            results=results,
        )
    return [result.receipt for result in results if result.receipt is not None]


async def _publish_batched(
    publisher: Publisher, events: Events, make_event: Callable[[Any], Event], results: list[PublishResult]
) -> None:
    left = 0
    finished: asyncio.Future[None] | None = None

    def note(index: int, event_id: str, outcome: Any) -> None:
        nonlocal left
        results[index] = publisher.result(event_id, outcome)
        left -= 1
        if not left and finished is not None and not finished.done():
            finished.set_result(None)

    async with aclosing(_each(events)) as items:
        async for item in items:
            index = len(results)
            results.append(_PENDING)
            left += 1
            event_id = ""
            try:
                event = make_event(item)
                event_id = event.id
                await publisher.enqueue(event, functools.partial(note, index, event_id))
            except Exception as error:
                note(index, event_id, _as_error(error))
                if _is_over(error, events):
                    break
            if index % WINDOW == WINDOW - 1:
                await asyncio.sleep(0)  # enqueueing need not wait for anything: others get their turn
    if left:
        finished = asyncio.get_running_loop().create_future()
        await finished


async def _publish_each(
    through: Callable[[Event], Awaitable[Receipt]],
    events: Events,
    make_event: Callable[[Any], Event],
    results: list[PublishResult],
) -> None:
    room = asyncio.Semaphore(WINDOW)
    last: dict[object, asyncio.Task[None]] = {}
    over = False

    async def one(index: int, item: Any) -> None:
        nonlocal over
        event_id = ""
        key = None
        try:
            event = make_event(item)
            event_id = event.id
            key = event.get("partitionkey")
            if key is not None:
                # Middleware may take longer for one event than for the next: those of one key go one by one.
                before, last[key] = last.get(key), tasks[index]
                if before is not None:
                    await asyncio.wait([before])
            results[index] = PublishResult(event_id, await through(event), None)
        except Exception as error:
            results[index] = PublishResult(event_id, None, _as_error(error))
            over = over or _is_over(error, events)
        finally:
            if last.get(key) is tasks[index]:
                del last[key]
            del tasks[index]
            room.release()

    tasks: dict[int, asyncio.Task[None]] = {}
    async with aclosing(_each(events)) as items, asyncio.TaskGroup() as group:
        async for item in items:
            await room.acquire()
            if over:
                break
            index = len(results)
            results.append(_PENDING)
            tasks[index] = group.create_task(one(index, item))


def _as_error(error: Exception) -> CrossbusError:
    """Return what stands in a result for an exception, which middleware or an adapter may have raised."""
    if isinstance(error, CrossbusError):
        return error
    unforeseen = PublishError(f"publishing failed: {type(error).__name__}: {error}")
    unforeseen.__cause__ = error
    return unforeseen


def _is_over(error: Exception, events: Events) -> bool:
    """True if it is no use to read on: the bus is closed, and what is read from a stream is gone from it."""
    return isinstance(error, BusClosedError) and not isinstance(events, Sized)


async def _each(events: Events) -> AsyncGenerator[Any, None]:
    if isinstance(events, AsyncIterable):
        async for item in events:
            yield item
    else:
        for item in events:
            yield item


_PENDING = PublishResult("")
