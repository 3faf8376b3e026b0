"""`crossbus replay`: past events again, to one subscription."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from crossbus.adapter import ReplayFrom
from crossbus.asking import guarded
from crossbus.cli.exits import ExitCode
from crossbus.cli.logs import show_log
from crossbus.cli.places import connected
from crossbus.cli.showing import form_of, print_json, read_time
from crossbus.errors import ConfigurationError

if TYPE_CHECKING:
    from crossbus.cli.options import OutputChoice

__all__ = ["replay_events"]


def replay_events(
    where: str,
    output: OutputChoice | None,
    *,
    time: str | None,
    position: str | None,
    url: str | None,
    profile: str | None,
    config: str | None,
) -> ExitCode:
    """Begin a replay, and say how many events it is, where the provider tells.

    Raises `UnsupportedError` where it cannot replay so, and `InvalidRequest` for a start that is no longer there.
    """
    show_log()
    if (time is None) == (position is None):
        raise ConfigurationError("a replay begins at --time or at --position: give one of the two")
    start = ReplayFrom(read_time("--time", time), position)

    async def main() -> int | None:
        async with connected(url, profile, config) as places:
            adapter, subscription = await places.subscription(where)
            capability = "replay_time" if start.time is not None else "replay_position"
            adapter.capabilities.require(capability, adapter.name, f"replay of {subscription}")
            return await guarded(adapter, adapter.replay(subscription, start))

    count = asyncio.run(main())
    if form_of(output) == "json":
        print_json({"subscription": where, "replayed": count})
    elif count is None:
        print(f"replaying to {where}: the provider does not say how many events")
    else:
        print(f"replaying {count:,} events to {where}")
    return ExitCode.OK
