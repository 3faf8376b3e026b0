"""Stopping at a signal: what `Bus.run` and `SyncBus.run` share."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["stop_at_signals"]

logger = logging.getLogger("crossbus")


@contextmanager
def stop_at_signals(stop: Callable[[], object]) -> Iterator[None]:
    """Call `stop` at the first SIGTERM or SIGINT in a block; the second has its usual effect.

    Does nothing outside of the main thread. Not `loop.add_signal_handler`: it cannot put back what was there before,
    such as asyncio's own handler of Ctrl-C, and Windows has none.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[signal.Signals, Any] = {}

    def restore() -> None:
        for number, handler in before.items():
            # None: a handler that was not installed from Python, and cannot be put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        before.clear()

    def received(number: int, frame: object) -> None:
        logger.info("%s received: draining", signal.Signals(number).name)
        restore()
        stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        before[number] = signal.signal(number, received)
    try:
        yield
    finally:
        restore()
