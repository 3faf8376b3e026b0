"""Middleware around a handler of several events: each event passes its own layers, and all meet in one call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from crossbus.delivery import Delivery
from crossbus.errors import DeclarationError

__all__ = ["call_together"]

CallNext = Callable[[Delivery], Awaitable[Any]]


async def call_together(
    deliveries: Sequence[Delivery],
    wrap: Callable[[CallNext], CallNext],
    call: Callable[[Sequence[Delivery]], Awaitable[Sequence[BaseException | None]]],
) -> list[BaseException | None]:
    """Run each delivery through its layers; `call` is given those that passed, once all have.

    Args:
        deliveries: What the layers are given, each alone.
        wrap: Puts the layers around what they call at last.
        call: Handles those that came through, and answers for each with None or what went wrong.

    Returns what came of each delivery: None, or what its layers raised.
    """
    loop = asyncio.get_running_loop()
    joined: dict[Delivery, asyncio.Future[None]] = {}
    pending = len(deliveries)
    all_in: asyncio.Future[None] = loop.create_future()

    def one_less() -> None:
        nonlocal pending
        pending -= 1
        if not pending and not all_in.done():
            all_in.set_result(None)

    async def join(delivery: Delivery) -> None:
        if delivery in joined:
            raise DeclarationError(
                "middleware called call_next twice; around a handler of list[Event], which runs once for all, it may "
                "call it once"
            )
        joined[delivery] = loop.create_future()
        one_less()
        await joined[delivery]

    chain = wrap(join)

    async def pass_layers(delivery: Delivery) -> None:
        try:
            await chain(delivery)
        finally:
            if delivery not in joined:
                one_less()

    tasks = [asyncio.create_task(pass_layers(delivery)) for delivery in deliveries]
    try:
        await all_in
        chosen = [delivery for delivery in deliveries if delivery in joined]
        outcomes = await call(chosen) if chosen else []
        for delivery, outcome in zip(chosen, outcomes, strict=True):
            if joined[delivery].done():
                continue  # its layers gave up waiting
            if outcome is None:
                joined[delivery].set_result(None)
            else:
                joined[delivery].set_exception(outcome)
        found = await asyncio.gather(*tasks, return_exceptions=True)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
    return [error if isinstance(error, BaseException) else None for error in found]
