"""`crossbus provision`: creates what a program declares, after it was shown and agreed to."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from crossbus.adapter import Adapter, Change
from crossbus.asking import guarded
from crossbus.bus import Bus
from crossbus.cli.exits import ExitCode, note
from crossbus.cli.interrupts import interrupts
from crossbus.cli.logs import show_log
from crossbus.cli.notices import blind, in_memory
from crossbus.cli.showing import console, form_of, print_json, print_line, print_table, table
from crossbus.cli.topology_export import loaded
from crossbus.connections import check_capabilities
from crossbus.errors import ConfigurationError
from crossbus.exporting.generated import keep_generations, without_generated
from crossbus.topology import Topology
from crossbus.urls import URL_PROFILE

if TYPE_CHECKING:
    from crossbus.cli.options import OutputChoice

__all__ = ["provision"]

_COLUMNS = ("action", "kind", "name", "detail")


class _Step:
    """One change, and whether it was carried out."""

    def __init__(self, adapter: Adapter, change: Change) -> None:
        self.adapter = adapter
        self.change = change
        self.done = False

    def row(self, *, several: bool) -> tuple[str, ...]:
        """Return its columns, with the profile where the plan is of several."""
        row = (self.change.action, self.change.kind, self.change.name, self.change.detail)
        return (*row, self.adapter.profile.name) if several else row

    def as_json(self) -> dict[str, object]:
        """Return it as `-o json` has it."""
        row = dict(zip(_COLUMNS, self.row(several=False), strict=True))
        return {**row, "profile": self.adapter.profile.name, "done": self.done}


def provision(
    program: str,
    output: OutputChoice | None,
    *,
    yes: bool,
    prune: bool,
    dry_run: bool,
    url: str | None,
    profile: str | None,
    config: str | None,
) -> ExitCode:
    """Show what is to be created, changed and, with `prune`, deleted; ask; do it.

    Raises what `load_bus` raises, what the adapter refuses, and `ConfigurationError` if there is nobody to ask.
    """
    show_log()
    bus = loaded(program, url, profile, config)
    return asyncio.run(_provision(bus, program, form_of(output), yes=yes, prune=prune, dry_run=dry_run))


async def _provision(bus: Bus, program: str, form: str, *, yes: bool, prune: bool, dry_run: bool) -> ExitCode:
    topology = without_generated(bus._configuration, bus.topology)
    if not topology.topics:
        raise ConfigurationError(f"{program} declares no topic and no subscription")
    await bus._connections.open_default()
    try:
        steps = await _plan(bus, topology, prune=prune)
        if form != "json":
            _show(steps, form)
        elif steps and not yes and not dry_run and sys.stdin.isatty():
            console(stderr=True).print(table(*_table(steps)))  # who is asked sees what about
        try:
            ended = await _carry_out(steps, yes=yes) if steps and not dry_run else ExitCode.OK
        finally:
            if form == "json":
                for step in steps:
                    print_json(step.as_json())
        if not steps:
            note("nothing to do: all that is declared is there")
        elif dry_run:
            note("nothing was changed")
        if not dry_run:
            for line in keep_generations(bus._configuration, await _generations(bus, topology)):
                note(line)
        return ended
    finally:
        await bus._connections.close()


async def _plan(bus: Bus, topology: Topology, *, prune: bool) -> list[_Step]:
    for subscription in topology.subscriptions:
        check_capabilities(await bus._connections.adapter_of(subscription.topic), subscription)
    steps = []
    for adapter, changes in await bus._connections.plan(topology, prune=prune):
        if in_memory(adapter):
            raise ConfigurationError(blind(adapter))
        steps += [_Step(adapter, change) for change in changes]
    return steps


def _table(steps: Sequence[_Step]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the columns of a plan, and its rows."""
    several = len({step.adapter.profile.name for step in steps}) > 1
    return (*_COLUMNS, "profile") if several else _COLUMNS, [step.row(several=several) for step in steps]


def _show(steps: Sequence[_Step], form: str) -> None:
    columns, rows = _table(steps)
    if form == "lines":
        for row in rows:
            print_line(*row)
    elif rows:
        print_table(columns, rows)


def _question(steps: Sequence[_Step]) -> str:
    """Say how much would be done, and where."""
    counts = Counter(step.change.action for step in steps)
    parts = [f"{counts[one]} to {one}" for one in ("create", "update", "delete") if counts[one]]
    if counts["delete"]:
        parts[-1] += " with what is in it"
    places = {
        adapter.name if (name := adapter.profile.name) == URL_PROFILE else f"profile {name} ({adapter.name})"
        for adapter in (step.adapter for step in steps)
    }
    return f"{', '.join(parts)}, in {' and '.join(sorted(places))}"


async def _carry_out(steps: Sequence[_Step], *, yes: bool) -> ExitCode:
    if not yes:
        sys.stdout.flush()
        said = _question(steps)
        if not sys.stdin.isatty():
            raise ConfigurationError(
                f"{said}: there is nobody to ask; --yes carries it out, --dry-run only shows it"
            )
        if not typer.confirm(f"{said}. Go on?", err=True):
            raise typer.Abort
    done = 0

    def far() -> str:
        return f"{done} of {len(steps)} changes are made; run it again to make the rest, none is made twice"

    with interrupts(far) as stop:
        try:
            for step in steps:
                if stop.is_set():
                    break
                await guarded(step.adapter, step.adapter.provision([step.change]))
                step.done = True
                done += 1
        finally:
            note(f"{done} of {done} changes are made" if done == len(steps) else far())
    return ExitCode.OK if done == len(steps) else ExitCode.INTERRUPTED


async def _generations(bus: Bus, topology: Topology) -> dict[str, list[str]]:
    """Return the older generations that there are, by subscription."""
    found = {}
    for subscription in topology.subscriptions:
        adapter = await bus._connections.adapter_of(subscription.topic)
        found[str(subscription)] = list(await guarded(adapter, adapter.generations(subscription)))
    return found
