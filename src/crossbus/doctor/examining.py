"""The examination: the profiles in use, one after the other; what an adapter saw becomes a line for each check."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import NamedTuple

from crossbus.adapter import Adapter, Finding
from crossbus.asking import guarded
from crossbus.checks import About, Result, State
from crossbus.clock import Clock, SystemClock
from crossbus.config import Configuration
from crossbus.doctor.catalog import PORTABLE, catalog, check_of_error
from crossbus.doctor.declared import declared
from crossbus.doctor.found import USELESS, of_finding, of_place, one_by_one, unseen
from crossbus.doctor.machine import packages, python
from crossbus.errors import CrossbusError
from crossbus.profiles import Profile
from crossbus.registry import adapter_class, extra_of
from crossbus.topology import Subscription, Topic, Topology

__all__ = ["Examination", "Target", "examine", "line_of"]


class Target(NamedTuple):
    """What is examined, and how the user calls it."""

    configuration: Configuration
    topology: Topology
    provision: str = "crossbus provision MODULE:BUS"
    """The command that provisions it."""


class Examination(NamedTuple):
    """One check, and what came of it, ready to be shown."""

    profile: str
    about: About
    name: str
    """The logical name of a topic or subscription; empty otherwise."""
    resource: str
    """The provider's name of it, where it was looked at."""
    check: str
    state: State
    what: str
    """What is the case if it is well."""
    text: str
    """What was seen."""
    why: str = ""
    mend: str = ""
    terraform: str = ""


async def examine(
    target: Target, clock: Clock | None = None, *, adapter: Adapter | None = None
) -> list[Examination]:
    """Examine a topology where its configuration says. Changes nothing; whatever goes wrong is a line.

    `clock` is held against the provider's. An `adapter` that is given, not opened, is that of every profile.
    """
    clock = SystemClock() if clock is None else clock
    found = [line_of(python())]
    try:
        parts = list(_divide(target))
    except CrossbusError as error:
        return [*found, line_of(Result("configuration", "wrong", str(error)))]
    for profile, topology in parts:
        found += await _Profile(target, profile, topology, adapter).examine(clock)
    return found


def line_of(result: Result) -> Examination:
    """Make the line of a portable check that belongs to no adapter."""
    check = PORTABLE[result.check]
    bad = result.state != "ok"
    return Examination(
        "",
        check.about,
        "",
        "",
        result.check,
        result.state,
        check.what,
        result.text,
        check.why if bad else "",
        (result.mend or check.mend) if bad else "",
    )


def _divide(target: Target) -> Iterator[tuple[Profile, Topology]]:
    """Give the profiles in use, the default one first, each with what lives there."""
    configuration, topology = target.configuration, target.topology
    profiles = {configuration.default.name: configuration.default}
    home = {}
    for topic in (*topology.topics, *(one.topic for one in topology.subscriptions)):
        profile = configuration.profile_for(topic)
        profiles.setdefault(profile.name, profile)
        home[topic.name] = profile.name
    for name, profile in profiles.items():
        topics = tuple(one for one in topology.topics if home[one.name] == name)
        subscriptions = tuple(one for one in topology.subscriptions if home[one.topic.name] == name)
        yield profile, Topology(topics, subscriptions)


class _Profile:
    """One profile, and what lives there."""

    def __init__(self, target: Target, profile: Profile, topology: Topology, adapter: Adapter | None) -> None:
        self._given = adapter
        self._target = target
        self._profile = profile
        self._topology = topology
        self._checks = PORTABLE
        self._results: list[Result] = []
        self._resources = {"": f"{profile.scheme}:{profile.target}".removesuffix(":")}
        self._declared: dict[str, Topic | Subscription] = {
            **{one.name: one for one in topology.topics},
            **{str(one): one for one in topology.subscriptions},
        }

    async def examine(self, clock: Clock) -> list[Examination]:
        """Examine all of it, as far as one gets."""
        try:
            await self._examine(clock)
        except CrossbusError as error:
            self._results.append(_of_error(error))
        self._results += unseen(self._results, len(self._declared))
        order = {name: number for number, name in enumerate(["", *self._declared])}
        lines = sorted(self._results, key=lambda one: order.get(one.name, len(order)))
        return [self._line(one) for one in lines]

    async def _examine(self, clock: Clock) -> None:
        before = packages(self._profile.scheme)
        if before and before[0].state != "ok":
            self._results += before
            return
        make = adapter_class(self._profile.scheme, self._profile.origin)
        adapter = self._given or make(self._profile, clock=clock)
        self._checks = catalog(adapter.checks)
        before.append(Result("configuration", "ok", self._profile.origin))
        if (nothing := _nothing_there(adapter)) is not None:
            self._results += [*before, Result("endpoint", "ok", nothing)]
            self._results += declared(adapter, self._topology)
            return
        try:
            await guarded(adapter, adapter.open())
            self._results += before
            self._results += declared(adapter, self._topology)
            await self._ask(adapter)
        finally:
            await adapter.close()

    async def _ask(self, adapter: Adapter) -> None:
        """Ask an adapter that is open: what there is, and of what can be, what is permitted and how full it is."""
        findings = [finding async for finding in self._inspect(adapter)]
        for finding in findings:
            self._resources[finding.name] = finding.resource
            self._results += of_finding(adapter.checks, finding, self._declared[finding.name])
        if len(findings) == len(self._declared):  # else something is there, and cannot be used
            self._results += of_place(findings)
        seen = {finding.name for finding in findings}
        rest = Topology(
            tuple(one for one in self._topology.topics if one.name in seen),
            tuple(one for one in self._topology.subscriptions if str(one) in seen),
        )
        try:
            self._results += await guarded(adapter, adapter.diagnose(rest))
        except CrossbusError as error:
            if check_of_error(error) in USELESS:
                raise
            self._results.append(Result("looked", "unknown", str(error)))
        here = "on this machine: opening the bus makes what is missing" if adapter.is_local else ""
        self._results.append(Result("endpoint", "ok", here))

    async def _inspect(self, adapter: Adapter) -> AsyncIterator[Finding]:
        """Give what there is; where something cannot be so, all others."""
        try:
            for finding in await guarded(adapter, adapter.inspect(self._topology)):
                yield finding
            return
        except CrossbusError as error:
            if check_of_error(error) in ("credentials", "endpoint"):
                raise
        for part in one_by_one(self._topology):
            name = part.topics[0].name if part.topics else str(part.subscriptions[0])
            try:
                for finding in await guarded(adapter, adapter.inspect(part)):
                    yield finding
            except CrossbusError as error:
                self._results.append(Result("declaration", "wrong", str(error), name))

    def _line(self, result: Result) -> Examination:
        check = self._checks[result.check]
        about: About = "profile" if not result.name else "subscription" if "/" in result.name else "topic"
        why = mend = terraform = ""
        if result.state != "ok":
            declared = self._declared.get(result.name)
            way_out = PORTABLE["looked"].mend if result.state == "unknown" else check.mend
            why, mend = check.why, result.mend or way_out
            if "{provision}" in mend and declared is not None and declared.external:
                mend = "it is external, so that crossbus leaves it alone: see to it where it is made"
            elif check.terraform and result.state != "unknown":
                terraform = check.terraform
            mend = mend.replace("{provision}", self._target.provision)
            mend = mend.replace("{extra}", extra_of(self._profile.scheme))
        return Examination(
            self._profile.name,
            about,
            result.name,
            self._resources.get(result.name, ""),
            result.check,
            result.state,
            check.what,
            result.text,
            why,
            mend,
            terraform,
        )


def _of_error(error: CrossbusError) -> Result:
    check = check_of_error(error)
    return Result(check, "unknown" if check == "looked" else "wrong", str(error))


def _nothing_there(adapter: Adapter) -> str | None:
    """Say why there is nothing to be looked at: opening makes it all."""
    path = adapter.profile.parameters.get("path")
    if not adapter.is_local or adapter.capabilities.has("processes"):
        return None
    if path is None:
        return "in the memory of the program: opening the bus makes all that is declared"
    return None if Path(str(path)).exists() else f"there is no file {path} yet: opening the bus makes it"
