"""An event loop in a thread beside the program, for what must answer also while the program's own loop is blocked."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["Call", "side_loop"]

Call = Callable[[Coroutine[Any, Any, Any]], Any]
"""Runs a coroutine in the loop, and returns its result."""


@contextmanager
def side_loop(name: str) -> Iterator[Call]:
    """Run a loop in a thread of this name for the length of a block; what still runs in it then is cancelled."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name=name, daemon=True)
    thread.start()

    def call(coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result()

    try:
        yield call
    finally:
        call(_cancel_all())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
