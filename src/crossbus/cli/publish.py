"""`crossbus publish`: the events of a file or a pipe, to a topic."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from crossbus.bus import Bus
from crossbus.cli.exits import ExitCode, fail, note
from crossbus.cli.interrupts import interrupts
from crossbus.cli.logs import show_log
from crossbus.cli.notices import invisible
from crossbus.cli.reading import Format, Item, read_event, splitter
from crossbus.errors import (
    CrossbusError,
    EventError,
    NotFound,
    PartialPublishError,
    PermissionDenied,
    ProviderError,
    Unauthenticated,
)
from crossbus.event import Event

__all__ = ["publish_file"]

_CHUNK = 256 * 1024
"""Bytes read at once. What one read gives is published together."""
_AHEAD = 2
"""How many reads may wait to be published."""
_HOPELESS = (NotFound, PermissionDenied, Unauthenticated)
"""Errors that every further event would meet as well."""


@dataclass
class _Tally:
    """How far it came."""

    topic: str
    taken: int = 0
    published: int = 0
    last_line: int = 0

    def summary(self) -> str:
        return f"published {self.published:,} of {self.taken:,} to {self.topic}"

    def at_once(self) -> str:
        """What is said if it ends at once."""
        return f"stopped: {self.summary()} for certain; what was under way may have arrived"


def publish_file(
    topic: str,
    file: Path | None,
    *,
    format: Format = "auto",
    source: str | None = None,
    url: str | None = None,
    profile: str | None = None,
    config: str | None = None,
) -> ExitCode:
    """Publish the events of a file (None or ``-``: standard input) and say how many.

    Raises `CrossbusError` for what concerns all of them, and OSError if the file cannot be opened.
    """
    show_log()
    bus = Bus(url, profile=profile, config=config, source=source)
    bus.topic(topic)
    tally = _Tally(topic)
    with _opened(file) as stream:
        return asyncio.run(_publish(bus, tally, stream, format))


@contextlib.contextmanager
def _opened(file: Path | None) -> Iterator[BinaryIO]:
    if file is not None and str(file) != "-":
        with file.open("rb", buffering=0) as stream:
            yield stream
        return
    if sys.stdin.isatty():
        note("reading events from standard input, one a line; Ctrl-D ends it")
    # Not the buffered stream: its lock would be held by the reading thread when the process ends.
    with open(sys.stdin.fileno(), "rb", buffering=0, closefd=False) as stream:
        yield stream


async def _publish(bus: Bus, tally: _Tally, stream: BinaryIO, format: Format) -> ExitCode:
    async with bus:
        if (text := invisible(bus.adapter_for(tally.topic))) is not None:
            note(text)
            show_log("crossbus.local")  # that nobody subscribes there, either, goes without saying
        with interrupts(tally.at_once) as stop:
            async with contextlib.aclosing(_read(stream, format, stop)) as pieces:
                async for items in pieces:
                    await _publish_items(bus, tally, items)
    return _sum_up(tally, interrupted=stop.is_set())


def _sum_up(tally: _Tally, *, interrupted: bool) -> ExitCode:
    if interrupted:
        print(f"interrupted after line {tally.last_line:,}: {tally.summary()}", flush=True)
        return ExitCode.INTERRUPTED
    if tally.taken == 0:
        note("the input holds no events")
    print(tally.summary(), flush=True)
    return ExitCode.OK if tally.published == tally.taken else ExitCode.FAILED


async def _publish_items(bus: Bus, tally: _Tally, items: list[Item]) -> None:
    events: list[Event] = []
    lines: list[int] = []
    for item in items:
        tally.taken += 1
        repairs: list[str] = []
        try:
            events.append(read_event(item, source=bus.source, repairs=repairs))
            lines.append(item.line)
        except EventError as error:
            _name(item.line, error)
        for repair in repairs:
            note(f"line {item.line}: {repair}")
    errors = await _send(bus, tally, events)
    tally.last_line = items[-1].line
    for line, failure in zip(lines, errors, strict=True):
        if failure is not None:
            _name(line, failure)
    _give_up_if_hopeless(tally, errors)


async def _send(bus: Bus, tally: _Tally, events: list[Event]) -> list[BaseException | None]:
    """Publish, and return what went wrong with each."""
    if not events:
        return []
    try:
        await bus.publish_many(tally.topic, events)
        errors: list[BaseException | None] = [None] * len(events)
    except PartialPublishError as partial:
        errors = [result.error for result in partial.results]
    tally.published += errors.count(None)
    return errors


def _give_up_if_hopeless(tally: _Tally, errors: list[BaseException | None]) -> None:
    found = [error for error in errors if isinstance(error, ProviderError)]
    if any(isinstance(error, _HOPELESS) for error in found) or (found and len(found) == len(errors)):
        print(tally.summary(), flush=True)
        raise CrossbusError(f"gave up after line {tally.last_line:,}: {found[0]}") from found[0]


def _name(line: int, error: BaseException) -> None:
    fail(f"line {line}: {' '.join(str(error).split())}")


async def _read(stream: BinaryIO, format: Format, stop: asyncio.Event) -> AsyncGenerator[list[Item], None]:
    """Give what was read, as it comes, until the end or until told to stop."""
    reader = _Reader(stream, format)
    stopped = asyncio.ensure_future(stop.wait())
    try:
        while not stop.is_set():
            got = asyncio.ensure_future(reader.get())
            await asyncio.wait((got, stopped), return_when=asyncio.FIRST_COMPLETED)
            if not got.done():
                got.cancel()
                return
            if (items := got.result()) is None:
                return
            yield items
    finally:
        stopped.cancel()
        reader.abandon()


class _Reader:
    """Reads in a thread, so that a pipe may be slow. The thread is a daemon: a pipe may also never end."""

    def __init__(self, stream: BinaryIO, format: Format) -> None:
        self._loop = asyncio.get_running_loop()
        self._found: asyncio.Queue[list[Item] | BaseException | None] = asyncio.Queue()
        self._room = threading.Semaphore(_AHEAD)
        self._abandoned = False
        self._chunks = _chunks(stream, format)
        threading.Thread(target=self._work, name="crossbus-publish-reader", daemon=True).start()

    async def get(self) -> list[Item] | None:
        """Return the next items; None at the end. Raises what reading raised."""
        found = await self._found.get()
        self._room.release()
        if isinstance(found, BaseException):
            raise found
        return found

    def abandon(self) -> None:
        """Read no more."""
        self._abandoned = True
        self._room.release()

    def _work(self) -> None:
        found: list[Item] | BaseException | None = []
        while found is not None and not isinstance(found, BaseException):
            self._room.acquire()
            try:
                found = None if self._abandoned else next(self._chunks, None)
            except Exception as error:
                found = error
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._found.put_nowait, found)


def _chunks(stream: BinaryIO, format: Format) -> Iterator[list[Item]]:
    split = splitter(format)
    while chunk := stream.read(_CHUNK):
        if items := split.feed(chunk):
            yield items
    if items := split.finish():
        yield items
