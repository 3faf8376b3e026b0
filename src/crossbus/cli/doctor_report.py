"""The report of `crossbus doctor`: grouped by profile and resource, with marks on a terminal, and words in a pipe."""

from __future__ import annotations

import itertools
import shutil
import sys
import textwrap
from collections import Counter
from collections.abc import Sequence
from typing import Final

import typer

from crossbus.checks import State
from crossbus.cli.showing import one_line
from crossbus.doctor import Examination

__all__ = ["report", "summary"]

_WORDS: Final[dict[State, str]] = {"ok": "well", "warning": "warning", "wrong": "wrong", "unknown": "unknown"}
_MARKS: Final[dict[State, str]] = {"ok": "✓", "warning": "!", "wrong": "✗", "unknown": "?"}
_COLOURS: Final[dict[State, str]] = {"ok": "green", "warning": "yellow", "wrong": "red", "unknown": "cyan"}


def report(found: Sequence[Examination]) -> None:
    """Print it."""
    marks = _Marks()
    for profile, of_profile in itertools.groupby(found, key=lambda one: one.profile):
        lines = list(of_profile)
        if profile:
            adapter = lines[0].resource
            marks.title(0, f"profile {profile}" + (f" ({adapter})" if adapter else ""))
        for (about, name), group in itertools.groupby(lines, key=lambda one: (one.about, one.name)):
            each = list(group)
            if name:
                resource = each[0].resource
                marks.title(2, f"{about} {name}" + (f" ({resource})" if resource not in ("", name) else ""))
            _group(marks, each)
    print(summary(found))


def _group(marks: _Marks, lines: Sequence[Examination]) -> None:
    """Print what is well in one line, and the rest one by one, the worst first."""
    well = [one for one in lines if one.state == "ok"]
    if well:
        marks.line("ok", ", ".join(map(_named, well)))
    for state in ("wrong", "warning", "unknown"):
        # One permission that is missing hides several things, and is said once.
        said: dict[tuple[str, ...], list[Examination]] = {}
        for one in lines:
            if one.state == state:
                key = (one.text, one.mend) if state == "unknown" else (one.check,)
                said.setdefault(key, []).append(one)
        for each in said.values():
            first = each[0]
            marks.line(first.state, f"{', '.join(one.check for one in each)}: {first.text or first.what}")
            if len(each) == 1:
                marks.more("why:  ", first.why)
            marks.more("mend: ", first.mend)
            if first.terraform:
                marks.more("terraform: ", first.terraform)


def _named(one: Examination) -> str:
    """Name a check that is well; of credentials also whose they are, and of an endpoint what is special there."""
    return f"{one.check} ({one.text})" if one.text and one.check in ("credentials", "endpoint") else one.check


def summary(found: Sequence[Examination]) -> str:
    """Return the last line: how many were checked, and how they are."""
    counts = Counter(one.state for one in found)
    parts = [
        f"{counts[state]} {_plural(word, counts[state])}" for state, word in _WORDS.items() if counts[state]
    ]
    return f"{len(found)} checked: {', '.join(parts)}"


def _plural(word: str, count: int) -> str:
    return f"{word}s" if word == "warning" and count != 1 else word


class _Marks:
    """Prints lines: with marks and colours, filled to its width, on a terminal; with words, unbroken, in a pipe."""

    def __init__(self) -> None:
        self._terminal = sys.stdout.isatty()
        self._width = shutil.get_terminal_size().columns if self._terminal else 0
        encoding = (sys.stdout.encoding or "").lower().replace("-", "")
        self._marks = _MARKS if self._terminal and encoding == "utf8" else _WORDS
        self._room = 4 + max(map(len, self._marks.values()))

    def title(self, indent: int, text: str) -> None:
        """Print what the lines below are about."""
        typer.secho(f"{'':{indent}}{one_line(text)}", bold=True)

    def line(self, state: State, text: str) -> None:
        """Print one result."""
        mark = self._marks[state]
        styled = typer.style(f"{mark:{self._room - 4}}", fg=_COLOURS[state])
        self._print(f"    {styled} ", " " * (self._room + 1), text)

    def more(self, title: str, text: str) -> None:
        """Print what belongs to the line above."""
        indent = " " * (self._room + 1)
        self._print(indent + title, indent + " " * len(title), text)

    def _print(self, begin: str, indent: str, text: str) -> None:
        text = one_line(text)
        if self._width:
            room = max(self._width - len(indent), 30)
            text = f"\n{indent}".join(textwrap.wrap(text, room, break_on_hyphens=False) or [""])
        typer.echo(begin + text)
