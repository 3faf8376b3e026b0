"""`crossbus stats`: how much waits, is in hand, and is dead."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from crossbus.adapter import Adapter, Backlog
from crossbus.asking import guarded
from crossbus.cli.exits import ExitCode, fail, note
from crossbus.cli.interrupts import terminate_as_interrupted
from crossbus.cli.logs import show_log
from crossbus.cli.places import Place, connected, in_program
from crossbus.cli.showing import console, form_of, print_json, print_line, table
from crossbus.cli.states import State, States
from crossbus.errors import CrossbusError
from crossbus.topology import Subscription

if TYPE_CHECKING:
    from crossbus.cli.options import OutputChoice

__all__ = ["show_stats"]

_COLUMNS = ("subscription", "waiting", "in hand", "oldest", "dead", "state")


class _Row(NamedTuple):
    name: str
    backlog: Backlog
    state: State


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
        program, named = in_program(where)
        async with connected(url, profile, config, program) as places:
            chosen = await places.subscriptions(named)
            _note_what_lacks(chosen)
            if not chosen:
                note("there are no subscriptions")
            states = States(places.configuration)
            if every is None:
                rows, code = await _look(chosen, states)
                _print(rows, form)
                return code
            if form == "table":
                return await _watch_table(chosen, states, every)
            while True:
                rows, _ = await _look(chosen, states)
                _print(rows, form, datetime.now(UTC))
                await asyncio.sleep(every)

    try:
        return asyncio.run(main())
    except KeyboardInterrupt:
        if every is None:
            raise
        return ExitCode.OK


def _note_what_lacks(chosen: Sequence[Place]) -> None:
    for adapter in {adapter.name: adapter for adapter, _ in chosen}.values():
        if not adapter.capabilities.has("backlog"):
            way_out = adapter.capabilities.ways_out.get("backlog", "its own monitoring does")
            note(f"{adapter.name} does not tell how much waits: {way_out}")
        elif adapter.capabilities.backlog == "approximate":
            note(f"{adapter.name} counts approximately")


async def _look(chosen: Sequence[Place], states: States) -> tuple[list[_Row], ExitCode]:
    backlogs = asyncio.gather(*(_backlog(*each) for each in chosen), return_exceptions=True)
    found, how = await asyncio.gather(backlogs, states.look(chosen))
    rows, code = [], ExitCode.OK
    for (_, subscription), backlog in zip(chosen, found, strict=True):
        if isinstance(backlog, CrossbusError):
            fail(f"{subscription}: {' '.join(str(backlog).split())}")
            code = ExitCode.FAILED
        elif isinstance(backlog, BaseException):
            raise backlog
        else:
            rows.append(_Row(str(subscription), backlog, how[subscription.key]))
    return rows, code


async def _backlog(adapter: Adapter, subscription: Subscription) -> Backlog:
    if not adapter.capabilities.has("backlog"):
        return Backlog()
    return await guarded(adapter, adapter.backlog(subscription))


async def _watch_table(chosen: Sequence[Place], states: States, every: float) -> ExitCode:
    from rich.live import Live

    with Live(console=console(), auto_refresh=False, transient=False) as live:
        while True:
            rows, _ = await _look(chosen, states)
            live.update(table(_COLUMNS, map(_cells, rows), right=(1, 2, 3, 4)), refresh=True)
            await asyncio.sleep(every)


def _print(rows: Sequence[_Row], form: str, at: datetime | None = None) -> None:
    if form == "table":
        console().print(table(_COLUMNS, map(_cells, rows), right=(1, 2, 3, 4)))
    for row in rows:
        waiting, in_hand, oldest, dead = row.backlog
        if form == "lines":
            age = None if oldest is None else f"{oldest:.0f}"
            cells = (row.name, waiting, in_hand, age, dead, row.state.text)
            print_line(*([f"{at:%H:%M:%S}"] if at else []), *cells)
        elif form == "json":
            members = {
                "subscription": row.name,
                "waiting": waiting,
                "in_hand": in_hand,
                "oldest_age": oldest,
                "dead": dead,
                "paused": row.state.paused,
                "consumers": row.state.consumers,
            }
            print_json({**({"time": at} if at else {}), **members})
    if at is not None:
        print(end="", flush=True)


def _cells(row: _Row) -> tuple[object, ...]:
    waiting, in_hand, oldest, dead = row.backlog
    return row.name, waiting, in_hand, _age(oldest), dead, row.state.text


def _age(seconds: float | None) -> str | None:
    """Return an age as a person says it: ``42 s``, ``7 min``, ``3.5 h``, ``2 d``."""
    if seconds is None:
        return None
    for size, name in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {name}"
    return f"{seconds:.0f} s"
