"""What of a topology an engine lacks, has otherwise, or has too much."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple

from crossbus.adapter import Change, Finding
from crossbus.checks import Check, Difference, texts
from crossbus.topology import Subscription, Topic, Topology
from crossbus_local.engine import Engine, TopicInfo
from crossbus_local.queue import QueueSettings

__all__ = ["CHECKS", "Names", "Snapshot", "Step", "inspect", "plan", "wanted"]


CHECKS: Final[Mapping[str, Check]] = {
    "topic": Check(
        "topic", "the topic is there", "publishing fails", "{provision}", "local server", theirs=True
    ),
    "subscription": Check(
        "subscription",
        "the subscription is there",
        "events of the topic do not wait for its consumers",
        "{provision}",
        "local server",
        theirs=True,
    ),
    "filter": Check(
        "subscription",
        "the filter is the declared one",
        "events that should come do not, or others do",
        "{provision}",
        "local server",
        theirs=True,
    ),
    "ordering": Check(
        "subscription",
        "the order of keys is kept as declared",
        "events of one key are handled in another order than they were published in",
        "{provision}",
        "local server",
        theirs=True,
    ),
    "lease": Check(
        "subscription",
        "the lease is the declared one",
        "consumers of Event Grid's protocol get another one",
        "{provision}",
        "local server",
        state="warning",
        theirs=True,
    ),
    "retention": Check(
        "subscription",
        "the subscription keeps events as long as declared",
        "what is not handled in this time is dropped",
        "{provision}",
        "local server",
        theirs=True,
    ),
    "backstop": Check(
        "subscription",
        "the backstop moves to the dead letter after as many receives as declared",
        "an event that kills its consumer comes again and again, or is given up too early",
        "{provision}",
        "local server",
        theirs=True,
    ),
    "dead-letter": Check(
        "subscription",
        "the dead letter is there, and is the subscription's",
        "an event that is given up has nowhere to go: it is tried again, for ever",
        "{provision}",
        "local server",
        theirs=True,
    ),
}
"""What `inspect` looks at, for `crossbus doctor`."""

_CHECKS: Final = {
    "filter": "filter",
    "ordered": "ordering",
    "lease": "lease",
    "retention": "retention",
    "backstop": "backstop",
    "dead_letter": "dead-letter",
    "eventgrid_filter": "filter",
}
"""By setting, the check that it belongs to."""


class Snapshot(NamedTuple):
    """What there is, as it was when asked for."""

    topics: dict[str, TopicInfo]
    dead_letters: dict[str, int]
    """The dead letters by name, and how many records each holds."""


class Step(NamedTuple):
    """A change, as a method of `Engine` and what it is called with: data, so that it can be sent to a server."""

    method: str
    arguments: tuple[str | QueueSettings, ...]

    def apply(self, engine: Engine) -> None:
        """Carry it out on an engine. Twice is harmless."""
        getattr(engine, self.method)(*self.arguments)


class Names:
    """How declared things are called in the broker, and what settings they are to have."""

    def __init__(
        self,
        topic: Callable[[Topic], str],
        subscription: Callable[[Subscription], str],
        settings: Callable[[Subscription], QueueSettings],
    ) -> None:
        self.topic = topic
        self.subscription = subscription
        self.settings = settings


def inspect(found: Snapshot, topology: Topology, names: Names) -> Iterator[Finding]:
    """Look at every declared topic and subscription."""
    there, dead = found
    for topic in topology.topics:
        name = names.topic(topic)
        if name in there:
            yield Finding("topic", topic.name, name, "ok")
        else:
            absent = Difference("topic", f"topic {name} is missing")
            yield Finding("topic", topic.name, name, "missing", differences=(absent,))
    for subscription in topology.subscriptions:
        home, name = names.topic(subscription.topic), names.subscription(subscription)
        resource = f"{home}/{name}"
        queue = there[home].queues.get(name) if home in there else None
        if queue is None:
            absent = Difference("subscription", f"subscription {resource} is missing")
            yield Finding("subscription", str(subscription), resource, "missing", differences=(absent,))
            continue
        wanted = names.settings(subscription)
        differs = _differences(queue.settings, wanted)
        if wanted.dead_letter not in dead:
            differs.append(Difference("dead-letter", f"dead letter {wanted.dead_letter} is missing"))
        yield Finding.of("subscription", str(subscription), resource, differs)


def plan(found: Snapshot, topology: Topology, names: Names, *, prune: bool = False) -> Iterator[Change]:
    """Say what is to be done. Every payload is a `Step` that does it."""
    there, dead = found
    topics = {names.topic(topic): topic for topic in topology.topics}
    # A subscription declares its topic, and so has it created.
    topics = {
        names.topic(subscription.topic): subscription.topic for subscription in topology.subscriptions
    } | topics
    for name, topic in topics.items():
        if name not in there and not topic.external:
            yield Change("create", "topic", name, payload=Step("create_topic", (name,)))
    for subscription in topology.subscriptions:
        yield from _plan_dead_letter(subscription, names, dead)
        if not subscription.external:
            yield from _plan_subscription(subscription, names, there)
    if prune:
        yield from _plan_prune(topology, names, found, set(topics))


def _plan_dead_letter(subscription: Subscription, names: Names, dead: dict[str, int]) -> Iterator[Change]:
    topic = subscription.dead_letter
    name = names.topic(topic)
    if name not in dead and not topic.external:
        yield Change("create", "dead letter", name, payload=Step("create_dead_letter", (name,)))


def _plan_subscription(
    subscription: Subscription, names: Names, there: dict[str, TopicInfo]
) -> Iterator[Change]:
    home, name = names.topic(subscription.topic), names.subscription(subscription)
    settings = names.settings(subscription)
    queue = there[home].queues.get(name) if home in there else None
    put = Step("put_subscription", (home, name, settings))
    if queue is None:
        detail = "" if settings.filter is None else f"filter {settings.filter}"
        yield Change("create", "subscription", f"{home}/{name}", detail, put)
        return
    differs = _differences(queue.settings, settings)
    if differs:
        yield Change("update", "subscription", f"{home}/{name}", "; ".join(texts(differs)), put)


def _plan_prune(topology: Topology, names: Names, found: Snapshot, topics: set[str]) -> Iterator[Change]:
    there, dead = found
    declared = {(names.topic(one.topic), names.subscription(one)) for one in topology.subscriptions}
    dead_declared = {names.topic(one.dead_letter) for one in topology.subscriptions}
    dead_used = {
        queue.settings.dead_letter
        for home, topic in there.items()
        for name, queue in topic.queues.items()
        if (home, name) in declared
    }
    for home, topic in there.items():
        for name, queue in topic.queues.items():
            if (home, name) not in declared and not queue.temporary:
                detail = _loses({"waiting": queue.waiting, "in hand": queue.in_hand}, "event")
                undo = Step("delete_subscription", (home, name))
                yield Change("delete", "subscription", f"{home}/{name}", detail, undo)
    for name, records in dead.items():
        if name not in dead_declared | dead_used:
            detail = _loses({"": records}, "record")
            yield Change("delete", "dead letter", name, detail, Step("delete_dead_letter", (name,)))
    for name in there:
        if name not in topics:
            yield Change("delete", "topic", name, payload=Step("delete_topic", (name,)))


def wanted(topology: Topology, names: Names) -> list[Step]:
    """Return what makes all that is declared on a broker that has nothing."""
    return [change.payload for change in plan(Snapshot({}, {}), topology, names)]


def _loses(counts: dict[str, int], what: str) -> str:
    parts = [
        f"{count} {what}{'' if count == 1 else 's'} {state}".rstrip()
        for state, count in counts.items()
        if count
    ]
    return f"loses {', '.join(parts)}" if parts else ""


def _differences(has: QueueSettings, wanted: QueueSettings) -> list[Difference]:
    return [
        Difference(
            _CHECKS[name], f"{name} {_shown(getattr(has, name))}, declared {_shown(getattr(wanted, name))}"
        )
        for name in QueueSettings.__slots__
        if name != "paused" and getattr(has, name) != getattr(wanted, name)  # no part of what is declared
    ]


def _shown(value: object) -> str:
    return "none" if value is None else str(value)
