"""What commands print: tables for people, lines for pipes, JSON for programs; and how long work is going."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from crossbus.cli.exits import note
from crossbus.errors import ConfigurationError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from crossbus.cli.options import OutputChoice

__all__ = [
    "Progress",
    "console",
    "form_of",
    "one_line",
    "print_json",
    "print_line",
    "print_table",
    "read_time",
    "table",
    "time_text",
]

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_AGO = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])\Z")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_TIMES = frozenset({"given up", "first", "last"})
_WHOLE = _TIMES | {"attempts", "count"}
"""The columns that are never broken over lines."""
_SHORT = len("11-26 03:00:00")
_NARROW = 100
"""Columns of a terminal below which a table's times leave out the year, and say the zone in the head."""
_ROOM = 10
"""Columns of a terminal beside the heads of a table: what is less is too narrow for whole heads."""
_encode = msgspec.json.Encoder().encode


def form_of(output: OutputChoice | None) -> str:
    """Return what was asked for, or what suits where the output goes."""
    if output is not None:
        return output.value
    return "table" if sys.stdout.isatty() else "lines"


def console(*, stderr: bool = False) -> Console:
    """Return what prints tables. No text of an event is markup to it."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, markup=False, emoji=False)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[int] = ()) -> Table:
    """Make a table; the columns whose numbers are in `right` hold numbers."""
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    width = console().width
    short = {number for number, name in enumerate(columns) if name in _TIMES and width < _NARROW}
    heads = [f"{name} (UTC)" if number in short else name for number, name in enumerate(columns)]
    # Heads are broken only where they would leave too little to the cells, which would be cut off then.
    least = sum(max(len(head), _SHORT if n in short else 0) + 2 for n, head in enumerate(heads))
    fits = least + _ROOM <= width
    for number, name in enumerate(columns):
        made.add_column(
            heads[number],
            min_width=len(heads[number]) if fits else None,
            justify="right" if number in right else "left",
            overflow="fold",
            no_wrap=name in _WHOLE,
        )
    for row in rows:
        cells = [_cell(value) for value in row]
        made.add_row(*(cell[5:].rstrip("Z") if n in short else cell for n, cell in enumerate(cells)))
    return made


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[int] = ()
) -> None:
    """Print a table."""
    console().print(table(columns, rows, right=right))


def print_line(*values: object) -> None:
    """Print a line of columns between tabs. None is an empty column, and no text is more than one line."""
    print("\t".join("" if value is None else one_line(str(value)) for value in values))


def print_json(value: object) -> None:
    """Print a value as one line of JSON."""
    print(_encode(value).decode())


def one_line(text: str) -> str:
    """Return a text without what would break a line, or steer a terminal."""
    return _CONTROL.sub(lambda found: "\\n" if found[0] == "\n" else f"\\x{ord(found[0]):02x}", text)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, int):
        return f"{value:,}"
    return one_line(str(value))


def time_text(value: datetime | None) -> str | None:
    """Return a time to the second, in UTC."""
    return None if value is None else value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def read_time(option: str, text: str | None) -> datetime | None:
    """Read a time with its zone, or how long ago it was: ``2026-11-26T03:00Z``, ``2h``. Raises `ConfigurationError`."""
    if text is None:
        return None
    ago = _AGO.match(text.strip())
    if ago is not None:
        try:
            return datetime.now(UTC) - timedelta(seconds=float(ago[1]) * _SECONDS[ago[2]])
        except OverflowError:
            raise ConfigurationError(f"{option} {text}: that is too long ago") from None
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ConfigurationError(
            f"{option} {text!r} is no time: write 2026-11-26T03:00Z, or how long ago, such as 30m, 2h or 1d"
        ) from None
    if found.utcoffset() is None:
        raise ConfigurationError(f"{option} {text} has no time zone: write {text}Z for UTC, or {text}+01:00")
    return found


class Progress:
    """Says on standard error how far long work is: on a terminal in one line that changes, else now and then."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._terminal = sys.stderr.isatty()
        self._began = self._last = time.monotonic()
        self._shown = False

    def at(self, count: int, **others: int) -> None:
        """Note that so many are done, and of other things so many."""
        now = time.monotonic()
        if now - self._last < (0.2 if self._terminal else 10.0):
            return
        self._last = now
        beside = "".join(f", {number:,} {name}" for name, number in others.items() if number)
        text = f"{self._what} {count:,}{beside} ({count / (now - self._began):,.0f}/s)"
        if self._terminal:
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
            self._shown = True
        else:
            note(text)

    def end(self) -> None:
        """Take the line away."""
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self._shown = False
