"""`crossbus stats`: how much waits, is in hand, and is dead."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from crossbus.adapter import Adapter, Backlog
from crossbus.asking import guarded
from crossbus.cli.exits import ExitCode, fail, note, show_log
from crossbus.cli.interrupts import terminate_as_interrupted
from crossbus.cli.places import Places, connected
from crossbus.cli.showing import console, form_of, print_json, print_line, table
from crossbus.errors import ConfigurationError, CrossbusError
from crossbus.topology import Subscription

if TYPE_CHECKING:
    from crossbus.cli.options import OutputChoice

__all__ = ["show_stats"]

_COLUMNS = ("subscription", "waiting", "in hand", "oldest", "dead")


class _Row(NamedTuple):
    name: str
    backlog: Backlog


def show_stats(
    where: Sequence[str],
    output: OutputChoice | None,
    *,
    every: float | None,
    url: str | None,
    profile: str | None,
    config: str | None,
) -> ExitCode:
    """Show the backlog of subscriptions, once or every so many seconds until Ctrl-C."""
    show_log()
    terminate_as_interrupted()
    form = form_of(output)

    async def main() -> ExitCode:
        async with connected(url, profile, config) as places:
            chosen = [await places.subscription(each) for each in where or _configured(places)]
            _note_what_lacks(chosen)
            if every is None:
                rows, code = await _look(chosen)
                _print(rows, form)
                return code
            if form == "table":
                return await _watch_table(chosen, every)
            while True:
                rows, _ = await _look(chosen)
                _print(rows, form, datetime.now(UTC))
                await asyncio.sleep(every)

    try:
        return asyncio.run(main())
    except KeyboardInterrupt:
        if every is None:
            raise
        return ExitCode.OK


def _configured(places: Places) -> list[str]:
    found = [f"{topic}/{name}" for topic, name in places.configuration.subscriptions]
    if not found:
        raise ConfigurationError(
            f"no subscription was named, and {places.configuration.label} lists none; write TOPIC/NAME"
        )
    return found


def _note_what_lacks(chosen: Sequence[tuple[Adapter, Subscription]]) -> None:
    for adapter in {adapter.name: adapter for adapter, _ in chosen}.values():
        if not adapter.capabilities.has("backlog"):
            way_out = adapter.capabilities.ways_out.get("backlog", "its own monitoring does")
            note(f"{adapter.name} does not tell how much waits: {way_out}")
        elif adapter.capabilities.backlog == "approximate":
            note(f"{adapter.name} counts approximately")


async def _look(chosen: Sequence[tuple[Adapter, Subscription]]) -> tuple[list[_Row], ExitCode]:
    found = await asyncio.gather(*(_backlog(*each) for each in chosen), return_exceptions=True)
    rows, code = [], ExitCode.OK
    for (_, subscription), backlog in zip(chosen, found, strict=True):
        if isinstance(backlog, CrossbusError):
            fail(f"{subscription}: {' '.join(str(backlog).split())}")
            code = ExitCode.FAILED
        elif isinstance(backlog, BaseException):
            raise backlog
        else:
            rows.append(_Row(str(subscription), backlog))
    return rows, code


async def _backlog(adapter: Adapter, subscription: Subscription) -> Backlog:
    if not adapter.capabilities.has("backlog"):
        return Backlog()
    return await guarded(adapter, adapter.backlog(subscription))


async def _watch_table(chosen: Sequence[tuple[Adapter, Subscription]], every: float) -> ExitCode:
    from rich.live import Live

    with Live(console=console(), auto_refresh=False, transient=False) as live:
        while True:
            rows, _ = await _look(chosen)
            live.update(table(_COLUMNS, map(_cells, rows), right=(1, 2, 3, 4)), refresh=True)
            await asyncio.sleep(every)


def _print(rows: Sequence[_Row], form: str, at: datetime | None = None) -> None:
    if form == "table":
        console().print(table(_COLUMNS, map(_cells, rows), right=(1, 2, 3, 4)))
    for row in rows:
        waiting, in_hand, oldest, dead = row.backlog
        if form == "lines":
            age = None if oldest is None else f"{oldest:.0f}"
            print_line(*([f"{at:%H:%M:%S}"] if at else []), row.name, waiting, in_hand, age, dead)
        elif form == "json":
            members = {
                "subscription": row.name,
                "waiting": waiting,
                "in_hand": in_hand,
                "oldest_age": oldest,
                "dead": dead,
            }
            print_json({**({"time": at} if at else {}), **members})
    if at is not None:
        print(end="", flush=True)


def _cells(row: _Row) -> tuple[object, ...]:
    waiting, in_hand, oldest, dead = row.backlog
    return row.name, waiting, in_hand, _age(oldest), dead


def _age(seconds: float | None) -> str | None:
    """Return an age as a person says it: ``42 s``, ``7 min``, ``3.5 h``, ``2 d``."""
    if seconds is None:
        return None
    for size, name in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {name}"
    return f"{seconds:.0f} s"
