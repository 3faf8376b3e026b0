"""What of a topology a namespace lacks, has otherwise, or has too much."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from crossbus.adapter import Change, Finding
from crossbus.checks import Difference, texts
from crossbus.topology import Subscription, Topology
from crossbus_eventgrid.control import Control, NoControl, Standing
from crossbus_eventgrid.dead_letters import DEAD_SUBSCRIPTION
from crossbus_eventgrid.settings import Owned, QueueSettings, dead_settings, settings_of

if TYPE_CHECKING:
    from crossbus_eventgrid.adapter import EventGridAdapter

__all__ = ["inspect", "plan"]

_There = Mapping[str, Mapping[str, Standing]]
_Wanted = Sequence[tuple[Subscription, QueueSettings]]


async def inspect(adapter: EventGridAdapter, topology: Topology) -> list[Finding]:
    """Look at every declared topic and subscription; `unknown` for all if the control plane cannot be asked."""
    wanted = [(subscription, settings_of(subscription)) for subscription in topology.subscriptions]
    try:
        there = await adapter.control().topics()
    except NoControl as problem:
        there, why = None, str(problem)
    else:
        why = "the server has no control plane that could be asked"
    found = []
    for topic in topology.topics:
        name = adapter.topic_name(topic)
        if there is None:
            found.append(Finding("topic", topic.name, name, "unknown", why))
        elif name not in there:
            absent = Difference("topic", f"topic {name} is missing")
            found.append(Finding("topic", topic.name, name, "missing", differences=(absent,)))
        else:
            found.append(Finding("topic", topic.name, name, "ok"))
    for subscription, settings in wanted:
        found.append(_look(adapter, subscription, settings, there, why))
    return found


def _look(
    adapter: EventGridAdapter,
    subscription: Subscription,
    settings: QueueSettings,
    there: _There | None,
    why: str,
) -> Finding:
    home, name = adapter.topic_name(subscription.topic), adapter.subscription_name(subscription)
    resource = f"{home}/{name}"
    if there is None:
        return Finding("subscription", str(subscription), resource, "unknown", why)
    standing = there.get(home, {}).get(name)
    if standing is None:
        absent = Difference("subscription", f"event subscription {resource} is missing")
        return Finding("subscription", str(subscription), resource, "missing", differences=(absent,))
    adapter.noted(home, name, standing.settings.lease)
    differs = settings.differences(standing.settings)
    dead = adapter.topic_name(subscription.dead_letter)
    if DEAD_SUBSCRIPTION not in there.get(dead, {}):
        about = f"its dead letter, topic {dead} with subscription {DEAD_SUBSCRIPTION}, is missing"
        differs.append(Difference("dead-letter", about))
    return Finding.of("subscription", str(subscription), resource, differs)


async def plan(
    adapter: EventGridAdapter, control: Control, topology: Topology, *, prune: bool
) -> list[Change]:
    """Say what is to be done. Every payload is a function that does it, and may be called twice."""
    wanted = [(subscription, settings_of(subscription)) for subscription in topology.subscriptions]
    there = await control.topics()
    if there is None:
        return []
    plans = _Plan(adapter, control, there)
    changes = [*plans.topics(topology), *plans.subscriptions(wanted)]
    return [*changes, *plans.prune(topology)] if prune else changes


class _Plan:
    def __init__(self, adapter: EventGridAdapter, control: Control, there: _There) -> None:
        self._adapter = adapter
        self._control = control
        self._there = there

    def topics(self, topology: Topology) -> Iterator[Change]:
        declared = [*topology.topics, *(one.topic for one in topology.subscriptions)]
        declared += [one.dead_letter for one in topology.subscriptions]
        names = {self._adapter.topic_name(topic): topic for topic in declared}
        for name, topic in names.items():
            if name not in self._there and not topic.external:
                kind = "topic" if topic.kind == "topic" else "dead-letter topic"
                yield Change("create", kind, name, payload=partial(self._control.create_topic, name))

    def subscriptions(self, wanted: _Wanted) -> Iterator[Change]:
        for subscription, settings in wanted:
            dead = subscription.dead_letter
            if not dead.external:
                lease = self._adapter.capabilities.lease.minimum
                yield from self._put(self._adapter.topic_name(dead), DEAD_SUBSCRIPTION, dead_settings(lease))
            home = self._adapter.topic_name(subscription.topic)
            name = self._adapter.subscription_name(subscription)
            if not subscription.external:
                yield from self._put(home, name, settings)
            elif (standing := self._there.get(home, {}).get(name)) is not None:
                self._adapter.noted(home, name, standing.settings.lease)

    def _put(self, topic: str, name: str, settings: QueueSettings) -> Iterator[Change]:
        standing = self._there.get(topic, {}).get(name)
        if standing is None:
            owned = Owned.WITH_TOPIC if self._made(topic) else Owned.YES
            detail = f"filter {settings.native}" if settings.native else ""
            do = partial(self._control.put_subscription, topic, name, settings, owned)
            yield Change("create", "event subscription", f"{topic}/{name}", detail, do)
            return
        differs = settings.differences(standing.settings)
        if differs:
            do = partial(self._control.put_subscription, topic, name, settings, standing.owned)
            yield Change("update", "event subscription", f"{topic}/{name}", "; ".join(texts(differs)), do)

    def _made(self, topic: str) -> bool:
        """True if crossbus makes a topic, or has made it, as the mark on one of its subscriptions says."""
        there = self._there.get(topic)
        return there is None or any(one.owned is Owned.WITH_TOPIC for one in there.values())

    def prune(self, topology: Topology) -> Iterator[Change]:
        """Delete what crossbus made and nobody declares, as the marks on subscriptions say."""
        names = self._adapter
        declared = {
            (names.topic_name(one.topic), names.subscription_name(one)) for one in topology.subscriptions
        }
        dead = {names.topic_name(one.dead_letter) for one in topology.subscriptions}
        topics = {home for home, _ in declared} | {names.topic_name(one) for one in topology.topics} | dead
        for topic, there in self._there.items():
            if topic not in topics and self._deletable(topic, there):
                yield self._delete_topic(topic, set(there) == {DEAD_SUBSCRIPTION})
                continue
            for name, standing in there.items():
                kept = standing.is_temporary or (name == DEAD_SUBSCRIPTION and topic in dead)
                if standing.owned is not Owned.NO and not kept and (topic, name) not in declared:
                    do = partial(self._control.delete_subscription, topic, name)
                    detail = "loses what waits in it"
                    yield Change("delete", "event subscription", f"{topic}/{name}", detail, do)

    def _deletable(self, topic: str, there: Mapping[str, Standing]) -> bool:
        """True if crossbus made a topic and nobody else has a subscription on it."""
        others = any(one.owned is Owned.NO or one.is_temporary for one in there.values())
        return not others and (self._control.owns_all or self._made(topic))

    def _delete_topic(self, topic: str, is_dead: bool) -> Change:
        kind = "dead-letter topic" if is_dead else "topic"
        do = partial(self._control.delete_topic, topic)
        return Change(
            "delete", kind, topic, "loses the records in it" if is_dead else "loses what is in it", do
        )
