"""Whether a subscription is paused, and by whom: as the provider knows, and each `crossbus run` on this machine."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from crossbus.cli.control import ask_all, identity
from crossbus.cli.exits import note
from crossbus.cli.places import Place, standing
from crossbus.config import Configuration
from crossbus.errors import CrossbusError

__all__ = ["State", "States"]


@dataclass
class State:
    """How a subscription is consumed."""

    paused: bool | None = None
    """Whether the provider keeps it from all of its consumers; None where no provider can."""
    consumers: list[dict[str, Any]] = field(default_factory=list)
    """Of this user on this machine: program, process id, state, why, and how its breaker stands."""

    @property
    def text(self) -> str | None:
        """Say it in a few words; None if nothing is known."""
        parts = ["paused for all"] if self.paused else []
        # What was paused by a breaker says so, and why. Consumers that are kept from it run, and have nothing to do.
        counted = Counter(one["why"] or one["state"] for one in self.consumers)
        if self.paused:
            del counted["running"]
        parts += [f"{count} {state}" for state, count in counted.most_common()]
        return ", ".join(parts) or None


class States:
    """Looks at how subscriptions are consumed, again and again."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self._told = False

    async def look(self, chosen: Sequence[Place]) -> dict[tuple[str, str], State]:
        """Return the state of each."""
        states = {subscription.key: State() for _, subscription in chosen}
        runs, *found = await asyncio.gather(
            asyncio.to_thread(self._ask),
            *(standing(adapter) for adapter in {id(adapter): adapter for adapter, _ in chosen}.values()),
        )
        paused = {one.subscription.key: one.paused for listed in found for one in listed or ()}
        for _, subscription in chosen:
            states[subscription.key].paused = paused.get(subscription.key)
            self._add_consumers(states[subscription.key], str(subscription), runs)
        return states

    def _add_consumers(self, state: State, name: str, runs: Sequence[dict[str, Any]]) -> None:
        bus = identity(self._configuration.profile_for(name.partition("/")[0]))
        for run in runs:
            for process in run["processes"]:
                how = (process or {}).get(name)
                if how is not None and how["bus"] == bus:
                    of = {"program": run["program"], "pid": run["pid"]}
                    state.consumers.append(of | {key: how[key] for key in ("state", "why", "breaker")})

    def _ask(self) -> list[dict[str, Any]]:
        try:
            return ask_all({"do": "look"})
        except CrossbusError as error:  # how much waits is worth knowing all the same
            if not self._told:
                note(f"how the consumers on this machine do is not known: {error}")
                self._told = True
            return []
