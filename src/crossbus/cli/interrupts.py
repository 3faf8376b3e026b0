"""Ctrl-C in the middle of work that must not stop half way: the first asks it to end, the second ends it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Iterator

from crossbus.cli.exits import ExitCode, note

__all__ = ["interrupts", "terminate_as_interrupted"]


def terminate_as_interrupted() -> None:
    """Have SIGTERM end this process as Ctrl-C does: what it holds is given back, and what it made is removed."""
    signal.signal(signal.SIGTERM, lambda number, frame: signal.raise_signal(signal.SIGINT))


@contextlib.contextmanager
def interrupts(at_once: Callable[[], str]) -> Iterator[asyncio.Event]:
    """Set an event at the first SIGINT or SIGTERM; end the process at the second, saying what `at_once` says."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def received(number: int, frame: object) -> None:
        if stop.is_set():
            print(at_once(), flush=True)
            os._exit(ExitCode.INTERRUPTED)  # anything gentler would wait for what hangs
        stop.set()  # first, for the second signal may come before the note is out
        note("stopping: finishing what is under way (once more stops at once)")
        loop.call_soon_threadsafe(lambda: None)  # wakes the loop, which may sleep

    for number in before:
        signal.signal(number, received)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
