"""`crossbus conformance`: the kit, on a broker or a real account."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import typer
from rich.console import Console

from crossbus.cli.exits import ExitCode, debugging, note
from crossbus.cli.logs import hide_log
from crossbus.clock import SystemClock
from crossbus.conformance import Harness, Report, Result, UrlHarness, run
from crossbus.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["check"]

_SIGNS = {"passed": ("✓", "+", "green"), "failed": ("✗", "x", "red"), "skipped": ("–", "-", "dim")}


def check(
    url: str, *, select: Sequence[str] = (), scale: float = 1.0, yes: bool = False, as_json: bool = False
) -> ExitCode:
    """Run the kit on what a URL names, and show the report.

    Args:
        url: The account or broker.
        select: Patterns of cases, such as ``order`` or ``retry/*``; empty for all.
        scale: How large the large cases are.
        yes: Do not ask before touching what is not local.
        as_json: Print the report as JSON, and what happens meanwhile on standard error.

    Raises:
        ConfigurationError: the URL is wrong, or no case is selected by `select`.
        CrossbusError: it cannot be connected to.
    """
    harness = UrlHarness(url, scale=scale)
    if not yes and not _is_local(harness):
        _ask(url)
    hide_log()  # the cases provoke what it warns of
    console = Console(stderr=as_json, highlight=False, markup=False, emoji=False)
    report = asyncio.run(_run(harness, select, console))
    if as_json:
        print(report.json())
    else:
        _show_failures(report, console)
        console.print(report.summary, soft_wrap=True)
    return ExitCode.OK if report.ok else ExitCode.FAILED


async def _run(harness: Harness, select: Sequence[str], console: Console) -> Report:
    adapter = harness.make_adapter("connect", SystemClock())
    await adapter.open()  # what is wrong with the connection is said once, not by every case
    await adapter.close()
    try:
        return await run(harness, select=list(select) or None, progress=lambda result: _show(result, console))
    except ValueError as error:
        raise ConfigurationError(str(error)) from None


def _is_local(harness: Harness) -> bool:
    return harness.make_adapter("ask", SystemClock()).is_local


def _ask(url: str) -> None:
    note(
        f"the kit creates topics, subscriptions and events of its own in {url}, whose names begin with kit-, and "
        "removes them at the end; it touches nothing else, and what it does is billed like any use"
    )
    if not _somebody_is_there():
        raise ConfigurationError(
            f"{url} is not local, and there is nobody to ask: --yes says that it may be touched"
        )
    if not typer.confirm("Go on?", err=True):
        raise typer.Abort


def _somebody_is_there() -> bool:
    """True if the question would be seen and can be answered."""
    return sys.stdin.isatty()


def _show(result: Result, console: Console) -> None:
    sign, plain, style = _SIGNS[result.status]
    console.print(sign if "utf" in console.encoding.lower() else plain, style=style, end=" ")
    if result.status == "skipped":
        console.print(f"{result.case.name}: skipped: {result.detail}", style="dim", soft_wrap=True)
    else:
        notes = f" ({'; '.join(result.notes)})" if result.notes else ""
        console.print(f"{result.case.name}: {result.status} in {result.seconds:.2f} s{notes}", soft_wrap=True)


def _show_failures(report: Report, console: Console) -> None:
    console.print()
    for result in report.failed:
        console.print(f"{result.case.name}: {result.case.title}", style="bold", soft_wrap=True)
        console.print(f"    {result.detail}", soft_wrap=True)
        if debugging():
            console.print(result.error, soft_wrap=True)
        console.print()
