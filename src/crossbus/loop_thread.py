"""The event loop that programs without asyncio use: one daemon thread per process, also after a fork."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from crossbus.errors import BusClosedError

__all__ = ["LoopThread", "end_loop_thread", "loop_thread"]

P = ParamSpec("P")
T = TypeVar("T")


class LoopThread:
    """An event loop that runs in a daemon thread until the process ends."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.ended = False
        """True when the program is ending, and nothing runs here any more."""
        self._thread = threading.Thread(target=self._run, name="crossbus loop", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            self.loop.close()

    @property
    def is_current(self) -> bool:
        """True in the loop's own thread."""
        return threading.current_thread() is self._thread

    def submit(
        self, function: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **options: P.kwargs
    ) -> concurrent.futures.Future[T]:
        """Begin to run a coroutine function in the loop, with the caller's context variables.

        Raises `BusClosedError` when the program is ending.
        """
        if self.ended:
            raise BusClosedError("the program is ending, and the bus was closed")
        return asyncio.run_coroutine_threadsafe(function(*args, **options), self.loop)

    def wait(self, future: concurrent.futures.Future[T]) -> T:
        """Wait for what was submitted; an interrupted wait (Ctrl-C) cancels it."""
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def end(self) -> None:
        """Cancel what still runs and end the thread: waiting for it later, when daemon threads stand still, hangs."""
        self.ended = True
        cancelling = asyncio.run_coroutine_threadsafe(_cancel_all(), self.loop)
        concurrent.futures.wait([cancelling], timeout=2.0)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(1.0)


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=1.0)


_lock = threading.Lock()
_current: LoopThread | None = None
_parents: list[LoopThread] = []


def loop_thread() -> LoopThread:
    """Return this process's loop, started at the first call."""
    global _current
    with _lock:
        if _current is None:
            _current = LoopThread()
        return _current


def end_loop_thread() -> None:
    """End this process's loop for good, if there is one. For the end of the program."""
    if _current is not None and not _current.ended:
        _current.end()


def _forget() -> None:
    global _lock, _current
    _lock = threading.Lock()  # another thread may have held the old one when the process forked
    if _current is not None:
        _parents.append(_current)  # kept: closing it here would touch the parent's loop
        _current = None


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_forget)
