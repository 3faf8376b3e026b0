"""Threads for handlers that are plain functions."""

from __future__ import annotations

import asyncio
import contextvars
import queue
import threading
from collections.abc import Callable
from typing import Any

__all__ = ["Threads"]


class Threads:
    """A few daemon threads, made as they are needed.

    Not `concurrent.futures`: the interpreter waits for its threads at exit, so that one handler that hangs would
    keep a drained program from ending.
    """

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._count = 0
        self._idle = 0
        self._lock = threading.Lock()

    async def run(self, function: Callable[[Any], Any], argument: Any) -> Any:
        """Call a function in a thread, with the context variables of the caller; return what it returns."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        context = contextvars.copy_context()

        def job() -> None:
            result: Any = None
            error: BaseException | None = None
            try:
                result = context.run(function, argument)
            except BaseException as raised:
                # A future cannot carry StopIteration.
                error = (
                    RuntimeError("StopIteration in a handler")
                    if isinstance(raised, StopIteration)
                    else raised
                )
            try:
                loop.call_soon_threadsafe(_resolve, future, result, error)
            except RuntimeError:
                pass  # the loop has ended without us; the event will come again

        with self._lock:
            if self._idle > 0:
                self._idle -= 1
            elif self._count < self._most:
                threading.Thread(target=self._work, name=self._name, daemon=True).start()
                self._count += 1  # after it: a thread that cannot be started is none to wait for
        self._jobs.put(job)
        return await future

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            with self._lock:
                self._idle += 1

    def close(self) -> None:
        """Let the threads end, each after what it is doing."""
        for _ in range(self._count):
            self._jobs.put(None)


def _resolve(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)
