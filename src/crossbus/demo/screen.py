"""What the demo looks like: plain lines of text, coloured where the terminal wants it, never wider than it is."""

from __future__ import annotations

import asyncio
import textwrap
import time
from collections.abc import Sequence
from typing import Final

from rich.console import Console
from rich.text import Text

__all__ = ["Mark", "Screen"]

_WIDEST: Final = 100
"""Columns of the longest line: wider ones are tiring to read."""
_PATIENCE: Final = 6.5
"""Seconds after which there are no more pauses: on a slow machine, too, the demo ends in under ten."""


class Mark:
    """How a handled event ended."""

    DONE: Final = "done"
    AGAIN: Final = "again"
    DEAD: Final = "dead"


_SIGNS: Final = {Mark.DONE: ("✓", "+"), Mark.AGAIN: ("↻", "~"), Mark.DEAD: ("✗", "x")}
_STYLES: Final = {Mark.DONE: "green", Mark.AGAIN: "yellow", Mark.DEAD: "red"}


class Screen:
    """Prints scenes. In a terminal it pauses between lines, unless `fast`."""

    def __init__(self, *, fast: bool = False, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False, markup=False, emoji=False)
        self._paced = self._console.is_terminal and not fast
        self._began = time.monotonic()
        self.width = max(40, min(self._console.width, _WIDEST))
        """Columns of a line."""
        self.unicode = "utf" in self._console.encoding.lower()
        """True if the terminal can show more than ASCII."""
        self._ellipsis = "…" if self.unicode else "~"
        self._scenes = 0

    async def beat(self, seconds: float) -> None:
        """Leave time to read."""
        if self._paced and time.monotonic() - self._began < _PATIENCE:
            await asyncio.sleep(seconds)

    def title(self, text: str, subtitle: str) -> None:
        """Begin."""
        self._print()
        self._wrapped(text, style="bold")
        self._wrapped(subtitle, style="dim")

    async def scene(self, title: str, code: str, *says: str) -> None:
        """Begin a scene: its title, the call that it is about, and what that call does, in plain words."""
        await self.beat(0.3)
        self._scenes += 1
        self._print()
        self._wrapped(f"{self._scenes}  {title}", style="bold")
        for line in code.splitlines():
            self._wrapped(line, indent=3, style="cyan", hang=4)
        for text in says:
            self.say(text)
        await self.beat(0.2)

    def say(self, text: str) -> None:
        """Explain."""
        self._wrapped(text, indent=3)

    def row(self, cells: Sequence[str], widths: Sequence[int], *, mark: str | None = None) -> None:
        """Print cells in columns; the last takes the room that is left and is wrapped in it."""
        sign = "" if mark is None else f"{_SIGNS[mark][not self.unicode]} "
        head = "   " + sign
        for cell, width in zip(cells[:-1], widths, strict=True):
            head += (cell if len(cell) <= width else cell[: width - 1] + self._ellipsis).ljust(width) + "  "
        if len(head) > self.width * 0.6:  # no room beside them: the last cell goes below
            self._line(head.rstrip(), mark)
            self._wrapped(cells[-1], indent=7, style="dim")
            return
        lines = textwrap.wrap(self._short(cells[-1], self.width - len(head)), self.width - len(head)) or [""]
        self._line(head + lines[0], mark)
        for line in lines[1:]:
            self._print(Text(" " * len(head) + line))

    def aside(self, text: str, width: int) -> None:
        """Print code below the last cell of a row whose first cell has a width."""
        self._wrapped(text, indent=5 + width, style="cyan", hang=4)

    def bullet(self, command: str, text: str) -> None:
        """Print a command and what it is for."""
        self._wrapped(command, indent=3, style="cyan", hang=4)
        self._wrapped(text, indent=7, style="dim")

    def problem(self, text: str) -> None:
        """Print what is wrong with the user's input."""
        self._wrapped(text, indent=3, style="red", hang=2)

    def blank(self) -> None:
        """Print an empty line."""
        self._print()

    def _short(self, text: str, room: int) -> str:
        """Cut the beginning of a word that has no room: the end of a type says more than its beginning."""
        return text if len(text) <= room or " " in text else self._ellipsis + text[len(text) - room + 1 :]

    def _line(self, text: str, mark: str | None) -> None:
        shown = Text(text)
        if mark is not None:
            shown.stylize(_STYLES[mark], 3, 4)
        self._print(shown)

    def _wrapped(self, text: str, *, indent: int = 0, style: str = "", hang: int = 0) -> None:
        room = self.width - indent
        lines = textwrap.wrap(text, room, subsequent_indent=" " * hang, break_on_hyphens=False) or [""]
        for line in lines:
            self._print(Text(" " * indent + line, style=style))

    def _print(self, text: Text | None = None) -> None:
        self._console.print(text if text is not None else "", soft_wrap=True)
