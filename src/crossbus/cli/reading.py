"""Reading events from a file or a pipe, a piece at a time: JSON lines, a JSON event, a JSON batch.

A `Splitter` is fed bytes as they come and gives back `Item`s, each the bytes of what should be one event with the
line it begins on. It holds no more than one event, so a file may be larger than the memory. What is wrong with one
item is said of that item; the others go on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, Literal, NamedTuple, Protocol

import msgspec

from crossbus.codecs import decode_json
from crossbus.errors import ConfigurationError, DecodeError
from crossbus.event import Event

__all__ = ["LONGEST", "Format", "Item", "Splitter", "read_event", "splitter"]

Format = Literal["auto", "lines", "json"]
"""JSON lines; JSON events and batches, over as many lines as they like; or to be found out by looking."""

LONGEST: Final = 8_000_000
"""Bytes of the longest item that is read. The largest event has 1,000,000; escapes may make its text longer."""


class Item(NamedTuple):
    """What should be one event."""

    line: int
    """The line on which it begins, from 1."""
    body: bytes
    problem: str = ""
    """Why it cannot be read; empty if it can."""


def read_event(item: Item, *, source: str | None = None, repairs: list[str] | None = None) -> Event:
    """Decode an item. Raises `DecodeError`.

    Args:
        item: What the splitter gave.
        source: The source of an event that has none; without it such an event is refused.
        repairs: As for `crossbus.codecs.decode_json`.
    """
    if item.problem:
        raise DecodeError(item.problem)
    try:
        return decode_json(item.body, repairs=repairs)
    except DecodeError:
        if source is None or (body := _with_source(item.body, source)) is None:
            raise
    return decode_json(body, repairs=repairs)


def _with_source(body: bytes, source: str) -> bytes | None:
    """Put a source before the other members of an object, without touching them; None if it has one, or is none."""
    try:
        members = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not members or "source" in members:
        return None
    return b'{"source":' + msgspec.json.encode(source) + b"," + body.lstrip()[1:]


class Splitter(Protocol):
    """Divides bytes into items as they come."""

    def feed(self, chunk: bytes) -> list[Item]:
        """Take more bytes; return what is complete."""
        ...

    def finish(self) -> list[Item]:
        """Say that there are no more bytes; return the rest."""
        ...


def splitter(format: Format = "auto") -> Splitter:
    """Return what reads a format."""
    if format == "auto":
        return _Detecting()
    return _Lines() if format == "lines" else _Values()


class _Lines:
    """One event a line. Empty lines are skipped."""

    def __init__(self) -> None:
        self._line = 1
        self._rest = bytearray()
        self._skipping = False

    def feed(self, chunk: bytes) -> list[Item]:
        items: list[Item] = []
        *lines, rest = chunk.split(b"\n")
        for end in lines:
            self._take(end, items)
            self._line += 1
        self._keep(rest, items)
        return items

    def finish(self) -> list[Item]:
        items: list[Item] = []
        self._take(b"", items)
        return items

    def _take(self, end: bytes, items: list[Item]) -> None:
        line = bytes(self._rest + end) if self._rest else end
        self._rest.clear()
        if not self._skipping and (body := line.strip()):
            items.append(Item(self._line, body) if len(body) <= LONGEST else _too_long(self._line))
        self._skipping = False

    def _keep(self, rest: bytes, items: list[Item]) -> None:
        if self._skipping:
            return
        self._rest += rest
        if len(self._rest) > LONGEST:
            items.append(_too_long(self._line))
            self._rest.clear()
            self._skipping = True


_STRUCTURE: Final = re.compile(rb'["{}\[\]\n,]')
_IN_STRING: Final = re.compile(rb'["\\\n]')
_SPACE: Final = b" \t\r\n"


class _Values:
    """JSON values one after the other, each over as many lines as it likes; an array is a batch of events.

    It knows only strings and brackets: whether an item is JSON is for the codec to say.
    """

    def __init__(self) -> None:
        self._line = 1
        self._buffer = bytearray()
        self._scanned = 0
        self._begin: int | None = None
        self._begin_line = 1
        self._depth = 0
        self._in_string = False
        self._in_array = False
        self._broken = False

    def feed(self, chunk: bytes) -> list[Item]:
        items: list[Item] = []
        if self._broken:
            return items
        self._buffer += chunk
        self._scan(items)
        if not self._broken:
            self._forget()
            if len(self._buffer) > LONGEST:
                self._break(_too_long(self._begin_line), items)
        return items

    def finish(self) -> list[Item]:
        items: list[Item] = []
        if self._broken:
            return items
        if self._begin is not None and (self._depth > self._in_array or self._in_string):
            items.append(Item(self._begin_line, b"", "the JSON that begins here is not complete"))
        else:
            self._end(len(self._buffer), items)
            if self._in_array:
                items.append(Item(self._line, b"", "the batch is not complete: its last ] is missing"))
        return items

    def _scan(self, items: list[Item]) -> None:
        buffer = self._buffer
        while not self._broken:
            match = (_IN_STRING if self._in_string else _STRUCTURE).search(buffer, self._scanned)
            if match is None:
                self._start(len(buffer))
                self._scanned = len(buffer)
                return
            if match[0] == b"\\":
                if match.end() == len(buffer):  # what it escapes has not come yet
                    self._scanned = match.start()
                    return
                self._scanned = match.end() + (buffer[match.end()] != 10)
                continue
            self._start(match.start())
            self._scanned = match.end()
            self._step(match[0], match.start(), items)

    def _start(self, until: int) -> None:
        """Find where an item begins, before `until`."""
        if self._begin is None:
            stripped = self._buffer[self._scanned : until].lstrip(_SPACE)
            if stripped:
                self._begin, self._begin_line = until - len(stripped), self._line

    def _step(self, mark: bytes, at: int, items: list[Item]) -> None:
        if mark == b"\n":
            self._line += 1
            if self._begin is not None and self._depth == self._in_array and not self._in_string:
                self._end(at, items)
            return
        if mark == b"[" and self._depth == 0 and self._begin is None:
            self._in_array, self._depth = True, 1
            return
        if mark == b"," and self._depth == self._in_array:
            self._end(at, items)
            return
        if mark == b"]" and self._in_array and self._depth == 1:
            self._end(at, items)
            self._in_array, self._depth = False, 0
            return
        if self._begin is None:
            self._begin, self._begin_line = at, self._line
        if mark == b'"':
            self._in_string = not self._in_string
        elif mark in b"{[":
            if self._depth == self._in_array and at > self._begin:
                self._end(at, items)
                self._begin, self._begin_line = at, self._line
            self._depth += 1
        elif mark in b"}]":
            self._depth -= 1
            if self._depth < self._in_array:
                self._break(Item(self._line, b"", f"a {mark.decode()} that closes nothing"), items)
            elif self._depth == self._in_array:
                self._end(at + 1, items)

    def _end(self, at: int, items: list[Item]) -> None:
        if self._begin is not None:
            body = bytes(self._buffer[self._begin : at]).strip(_SPACE)
            if body:
                items.append(Item(self._begin_line, body))
        self._begin = None

    def _break(self, item: Item, items: list[Item]) -> None:
        items.append(item._replace(problem=f"{item.problem}; nothing after it can be read"))
        self._broken = True
        self._buffer.clear()

    def _forget(self) -> None:
        keep = self._scanned if self._begin is None else self._begin
        del self._buffer[:keep]
        self._scanned -= keep
        if self._begin is not None:
            self._begin = 0


_UTF16: Final = (b"\xff\xfe", b"\xfe\xff")
_FIRST_LINES: Final = re.compile(rb"\s*(?P<first>[^\n]*)\n\s*(?P<second>\S)")


class _Detecting:
    """Waits for enough to tell JSON lines from JSON, then leaves the rest to the one that reads it."""

    def __init__(self) -> None:
        self._waiting = bytearray()
        self._chosen: Splitter | None = None

    def feed(self, chunk: bytes) -> list[Item]:
        if self._chosen is not None:
            return self._chosen.feed(chunk)
        self._waiting += chunk
        if (format := _detect(bytes(self._waiting[: LONGEST + 1]))) is None:
            return []
        return self._choose(format)

    def finish(self) -> list[Item]:
        items = [] if self._chosen is not None else self._choose("json")
        assert self._chosen is not None
        return items + self._chosen.finish()

    def _choose(self, format: Format) -> list[Item]:
        waiting = bytes(self._waiting)
        self._waiting.clear()
        self._chosen = splitter(format)
        return self._chosen.feed(waiting.removeprefix(b"\xef\xbb\xbf"))


def _detect(start: bytes) -> Format | None:
    """Tell the format by how it starts; None if more is needed."""
    if start[:2] in _UTF16:
        raise ConfigurationError("the input is UTF-16; JSON events are UTF-8: save it as UTF-8")
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text[:1] == b"[":
        return "json"
    if b"\n" not in text:
        return "lines" if _complete(text) or len(start) > LONGEST else None
    if _complete(text[: text.index(b"\n")]):
        return "lines"
    if (match := _FIRST_LINES.match(text)) is None:
        return "lines" if len(start) > LONGEST else None
    # Inside an object no line begins with a brace unless the one before it ends with one of these.
    torn = match["second"] == b"{" and match["first"].rstrip()[-1:] not in (b":", b"[", b",")
    return "lines" if torn or not text.startswith(b"{") else "json"


def _complete(line: bytes) -> bool:
    """True if every bracket that the line opens is closed in it."""
    return line[:1] == b"{" and any(item.body and not item.problem for item in _whole(line))


def _whole(line: bytes) -> Iterator[Item]:
    values = _Values()
    yield from values.feed(line)


def _too_long(line: int) -> Item:
    return Item(line, b"", f"longer than {LONGEST:,} bytes; an event has at most 1,000,000")
