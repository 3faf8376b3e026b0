"""`crossbus topology diff`: two documents, a document and a program, or a program and what its provider has."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from crossbus.adapter import Adapter
from crossbus.asking import guarded
from crossbus.bus import Bus
from crossbus.cli.exits import ExitCode, note
from crossbus.cli.logs import hide_log
from crossbus.cli.notices import blind, in_memory
from crossbus.cli.showing import one_line, print_json
from crossbus.cli.topology_export import exported, loaded
from crossbus.connections import check_capabilities
from crossbus.errors import ConfigurationError, PermissionDenied, UnsupportedError
from crossbus.exporting import Document
from crossbus.exporting.differences import Difference, differences
from crossbus.exporting.files import read
from crossbus.exporting.generated import without_generated
from crossbus.topology import Topology

if TYPE_CHECKING:
    from crossbus.cli.options import OutputChoice

__all__ = ["diff"]


def diff(
    first: str,
    second: str | None,
    output: OutputChoice | None,
    *,
    cloud: bool,
    of: str | None,
    url: str | None,
    profile: str | None,
    config: str | None,
) -> ExitCode:
    """Print in what two documents differ, or a program and its provider. `FAILED` if they do.

    Raises `ConfigurationError` for what cannot be compared, what `load_bus` raises, and what the adapter refuses.
    """
    if cloud:
        if second is not None or _is_file(first):
            raise ConfigurationError(
                "--cloud compares one program with its provider: give MODULE:BUS, and no file"
            )
        found = asyncio.run(_with_cloud(loaded(first, url, profile, config)))
    elif second is None:
        raise ConfigurationError(
            "what to compare with is missing: FILE FILE, FILE MODULE:BUS, or MODULE:BUS --cloud"
        )
    elif not _is_file(first):
        raise ConfigurationError(f"there is no file {first!r}; the document of before comes first")
    else:
        before = read(Path(first))
        found = differences(before, _document(second, before, of, url, profile, config))
    _show(found, output)
    return ExitCode.FAILED if found else ExitCode.OK


def _is_file(text: str) -> bool:
    """True for what can only be meant as a file: one that is there, or is called as no module is."""
    return Path(text).exists() or text.endswith((".json", ".yaml", ".yml")) or "/" in text


def _document(
    given: str, before: Document, of: str | None, url: str | None, profile: str | None, config: str | None
) -> Document:
    if _is_file(given):
        return read(Path(given))
    return exported(loaded(given, url, profile, config), of, before).document


async def _with_cloud(bus: Bus) -> list[Difference]:
    hide_log()  # what there is to say is printed
    topology = without_generated(bus._configuration, bus.topology)
    connections = bus._connections
    await connections.open_default()
    try:
        found: list[Difference] = []
        for adapter, part in await connections.divided(topology):
            if in_memory(adapter):
                raise ConfigurationError(blind(adapter))
            for subscription in part.subscriptions:
                check_capabilities(adapter, subscription)
            for one in await guarded(adapter, adapter.inspect(part)):
                change = {"missing": "removed", "differs": "changed", "unknown": "unknown"}.get(one.state)
                if change is not None:
                    detail = f"{one.resource} is missing" if one.state == "missing" else one.detail
                    found.append(Difference(change, one.kind, one.name, detail=detail))  # type: ignore[arg-type]
            found += await _too_much(adapter, part)
        return found
    finally:
        await connections.close()


async def _too_much(adapter: Adapter, part: Topology) -> list[Difference]:
    """Return what pruning would delete; if that may not be looked up, that it is unknown."""
    try:
        steps = await guarded(adapter, adapter.plan(part, prune=True))
    except (PermissionDenied, ConfigurationError, UnsupportedError) as error:
        detail = f"whether there is more than is declared cannot be seen: {error}"
        return [Difference("unknown", "topology", "", detail=detail)]
    detail = "made by crossbus, and declared no more"
    return [
        Difference("added", "resource", f"{step.kind} {step.name}", detail=detail)
        for step in steps
        if step.action == "delete"
    ]


def _show(found: Sequence[Difference], output: OutputChoice | None) -> None:
    if output is not None and output.value == "json":
        for one in found:
            print_json(one._asdict())
        return
    for one in found:
        print(one_line(str(one)))
    if not found:
        note("no difference")
