"""Event loops in threads, for tests that are plain functions; nothing that goes wrong in them is lost."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from crossbus.loop_thread import loop_thread

__all__ = ["OwnLoop", "SharedLoop"]

T = TypeVar("T")

_LOOK = 0.2
"""Seconds between two looks at whether the thread still lives."""


class _Loop:
    """What both have in common: `_loop`, which runs in `_thread`."""

    _loop: asyncio.AbstractEventLoop
    _thread: threading.Thread

    def __init__(self) -> None:
        self._wrong: list[BaseException] = []
        self._died: BaseException | None = None

    def complete(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine, and wait for its result."""
        if threading.current_thread() is self._thread:
            coroutine.close()
            raise RuntimeError(
                "a handler called the test's bus, whose loop it runs in: let it `await` the program's own Bus"
            )
        try:
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        except RuntimeError:
            self._raise_death(coroutine)
            raise
        try:
            while not concurrent.futures.wait([future], timeout=_LOOK).done:
                if not self._thread.is_alive():
                    self._raise_death(coroutine)
            return future.result()
        except concurrent.futures.CancelledError:
            self._raise_death(coroutine)
            raise
        except BaseException:
            future.cancel()  # of use only if we were interrupted
            raise

    def _raise_death(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Raise what ended the loop, if that is what happened to a coroutine."""
        self._thread.join(timeout=1)  # the loop may be on its way down
        if self._thread.is_alive():
            return
        coroutine.close()
        how = "" if self._died is None else f" by {type(self._died).__name__}: {self._died}"
        raise RuntimeError(f"the loop of the test's bus was ended{how}") from self._died

    def _went_wrong(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self._wrong.append(context.get("exception") or RuntimeError(context["message"]))

    def raise_what_went_wrong(self) -> None:
        """Raise the exceptions that nobody awaited."""
        if self._wrong:
            wrong, self._wrong = self._wrong, []
            raise wrong[0] if len(wrong) == 1 else BaseExceptionGroup("in the loop of the test's bus", wrong)


class OwnLoop(_Loop):
    """An event loop in a thread of its own, from the beginning to `close`."""

    def __init__(self) -> None:
        super().__init__()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._main, name="crossbus test", daemon=True)
        self._thread.start()
        self._ready.wait()

    def _main(self) -> None:
        try:
            with asyncio.Runner() as runner:
                self._loop = runner.get_loop()
                self._loop.set_exception_handler(self._went_wrong)
                runner.run(self._serve())
        except BaseException as error:  # a handler raised SystemExit, say, which ends its loop
            self._died = error

    async def _serve(self) -> None:
        self._end = asyncio.Event()
        self._ready.set()
        await self._end.wait()

    def close(self) -> None:
        """End the loop and the thread; tasks that still run are cancelled."""
        with contextlib.suppress(RuntimeError):  # it has ended already
            self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()


class SharedLoop(_Loop):
    """The one loop of every `SyncBus` in this process, borrowed."""

    def __init__(self) -> None:
        super().__init__()
        shared = loop_thread()
        self._loop, self._thread = shared.loop, shared._thread
        self._before = self._loop.get_exception_handler()
        self._loop.set_exception_handler(self._went_wrong)

    def close(self) -> None:
        """Give the loop back."""
        self._loop.set_exception_handler(self._before)
