"""`TreePrinter`: prints each trace as a tree in the terminal, once nothing more comes: `crossbus run --trace`.

What was not made in this process is not seen: of an event that was published elsewhere, only its place is shown.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence
from typing import Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from crossbus.telemetry import names

__all__ = ["TreePrinter", "tree_of"]

QUIET: Final = 0.3
"""Seconds after the last span of a trace until it is printed: it is settled a moment after it was handled."""
WIDTH: Final = 200
"""Columns of lines that go into a file or a pipe."""
MOST: Final = 1000
"""The most traces that wait to be printed; beyond that the one that waits longest is printed as it is."""


class _Waiting:
    __slots__ = ("last", "open", "spans")

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []
        self.open = 0
        self.last = 0.0


class TreePrinter(SpanProcessor):
    """Collects the spans of each trace, and prints them when all have ended.

    Args:
        console: Where; default: standard error.
    """

    def __init__(self, console: Console | None = None) -> None:
        width = None if sys.stderr.isatty() else WIDTH
        self._console = console or Console(stderr=True, highlight=False, width=width)
        self._traces: dict[int, _Waiting] = {}
        self._changed = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._work, name="crossbus trace", daemon=True)
        self._thread.start()

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """As OpenTelemetry's."""
        context = span.get_span_context()
        assert context is not None
        with self._changed:
            self._traces.setdefault(context.trace_id, _Waiting()).open += 1

    def on_end(self, span: ReadableSpan) -> None:
        """As OpenTelemetry's."""
        context = span.get_span_context()
        assert context is not None
        with self._changed:
            waiting = self._traces.setdefault(context.trace_id, _Waiting())
            waiting.open -= 1
            waiting.last = time.monotonic()
            waiting.spans.append(span)
            self._changed.notify()

    def shutdown(self) -> None:
        """Print what is left, and end."""
        with self._changed:
            self._ended = True
            self._changed.notify()
        self._thread.join(5.0)

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """As OpenTelemetry's; traces are printed when they are complete."""
        return True

    def _work(self) -> None:
        while True:
            with self._changed:
                due = self._due()
                if not due:
                    if self._ended:
                        return
                    self._changed.wait(QUIET if self._traces else None)
            for spans in due:
                self._console.print(tree_of(spans))

    def _due(self) -> list[list[ReadableSpan]]:
        now = time.monotonic()
        crowded = len(self._traces) - MOST
        due = [
            key
            for number, (key, one) in enumerate(self._traces.items())
            if one.spans and (self._ended or number < crowded or (not one.open and now - one.last >= QUIET))
        ]
        return [self._traces.pop(key).spans for key in due]


def tree_of(spans: Sequence[ReadableSpan]) -> Tree:
    """Return the tree of one trace's spans."""
    ordered = sorted(spans, key=lambda span: span.start_time or 0)
    here = {_id(span) for span in ordered}
    first = ordered[0].get_span_context()
    assert first is not None
    began = min(span.start_time or 0 for span in ordered)
    ended = max(span.end_time or 0 for span in ordered)
    top = Tree(
        Text.assemble(
            ("trace ", "bold"), (f"{first.trace_id:032x}", "bold cyan"), f"  {_time(ended - began)}"
        ),
        guide_style="dim",
    )
    places: dict[int, Tree] = {}

    def place(parent: trace.SpanContext | None) -> Tree:
        if parent is None:
            return top
        if parent.span_id not in places:
            places[parent.span_id] = top.add(
                Text(f"span {parent.span_id:016x}, in another process or not ended", "dim")
            )
        return places[parent.span_id]

    # Parents first, whenever they began: a receive is noted after what it led to.
    waiting = list(ordered)
    while waiting:
        ready = [
            s
            for s in waiting
            if s.parent is None or s.parent.span_id not in here or s.parent.span_id in places
        ]
        for span in ready or waiting[:1]:
            places[_id(span)] = place(span.parent).add(_line(span))
            waiting.remove(span)
    return top


def _id(span: ReadableSpan) -> int:
    context = span.get_span_context()
    assert context is not None
    return context.span_id


def _line(span: ReadableSpan) -> Text:
    about = span.attributes or {}
    error = about.get(names.ERROR_TYPE)
    failed = error is not None or span.status.status_code is trace.StatusCode.ERROR
    line = Text.assemble((span.name, "bold red" if failed else "bold"))
    line.append(f"  {_time((span.end_time or 0) - (span.start_time or 0))}", "dim")
    if error is not None:
        line.append(f"  {error}", "red")
    for name in (names.EVENT_TYPE, names.EVENT_ID):
        if name in about:
            line.append(f"  {_printable(str(about[name]))}")
    count, attempt = about.get(names.BATCH_COUNT), about.get(names.ATTEMPT)
    if count is not None:
        line.append(f"  {count} event{'' if count == 1 else 's'}")
    if isinstance(attempt, int) and attempt > 1:
        line.append(f"  attempt {attempt}", "yellow")
    context = span.get_span_context()
    assert context is not None
    elsewhere = sorted({link.context.trace_id for link in span.links} - {context.trace_id})
    if elsewhere:
        shown = ", ".join(f"{trace_id:032x}"[:8] for trace_id in elsewhere[:3])
        more = f" and {len(elsewhere) - 3} more" if len(elsewhere) > 3 else ""
        line.append(f"  links to {shown}{more}", "cyan")
    return line


def _printable(text: str) -> str:
    """Return a text without what could move the cursor: ids are whatever somebody sent."""
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in text)


def _time(nanoseconds: int) -> str:
    milliseconds = nanoseconds / 1e6
    return f"{milliseconds / 1000:.2f} s" if milliseconds >= 1000 else f"{milliseconds:.1f} ms"
