"""What a provider cannot do is refused in the same words: by the program when it starts, in what `crossbus topology
export` writes (and says with `--check`), and by terraform."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.terraform_world import MODULES, evaluate_topology, needs_terraform

from crossbus.adapter import Adapter
from crossbus.clock import SystemClock
from crossbus.config import load
from crossbus.connections import check_capabilities
from crossbus.errors import CrossbusError
from crossbus.exporting import export
from crossbus.registry import adapter_class
from crossbus.topology import RetryPolicy, Subscription, Topic, Topology, check_name
from crossbus_eventbridge.limits import LONGEST_RETENTION as SQS_LONGEST
from crossbus_eventbridge.limits import MAX_PATTERN, RULE_NAME_LENGTH, SHORTEST_RETENTION
from crossbus_eventbridge.settings import queue_attributes
from crossbus_eventgrid.limits import LONGEST_RETENTION as GRID_LONGEST
from crossbus_eventgrid.settings import settings_of
from crossbus_pubsub import wanted
from crossbus_pubsub.filters import MAX_BYTES

URLS = {
    "eventbridge": "eventbridge:?region=eu-west-1",
    "pubsub": "pubsub:my-project",
    "eventgrid": "eventgrid://shop.westeurope-1.eventgrid.azure.net",
}
SETTINGS: dict[str, Callable[[Subscription], Any]] = {
    "eventbridge": lambda one: queue_attributes(one, ""),
    "eventgrid": settings_of,
    "pubsub": wanted.retention,
}
"""What the program makes of a declaration, beside looking at the capabilities."""
ORDERS = Topic("orders")
NAMES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "eventbridge": (
        {"bus": "orders"},
        {
            "rule": "orders--billing",
            "queue": "orders--billing",
            "dead_letter_queue": "orders--billing--dead",
            "pattern": "{}",
        },
    ),
    "pubsub": (
        {"topic": "orders"},
        {
            "subscription": "orders--billing",
            "dead_letter_topic": "orders--billing--dead",
            "dead_letter_subscription": "orders--billing--dead",
        },
    ),
    "eventgrid": (
        {"topic": "orders"},
        {"subscription": "billing", "dead_letter_topic": "orders--billing--dead"},
    ),
}
"""By adapter, its part of a topic and of a subscription in the document."""


def adapter_of(name: str, **changes: Any) -> Adapter:
    profile = dataclasses.replace(load(URLS[name]).default, **changes)
    return adapter_class(profile.scheme, profile.origin)(profile, clock=SystemClock())


def billing(**said: Any) -> Subscription:
    return Subscription(topic=ORDERS, name="billing", **said)


def document(name: str, one: Subscription, **changes: Any) -> dict[str, Any]:
    """The document of one subscription, as it would be written by hand."""
    topic, subscription = NAMES[name]
    attempts = one.retry.attempts
    return {
        "version": 1,
        "topics": {"orders": {name: topic}},
        "subscriptions": {
            "orders/billing": {
                "topic": "orders",
                "name": "billing",
                "ordered": one.ordered,
                "lease_seconds": one.lease,
                "retention_seconds": one.retention,
                "attempts": None if attempts == "unlimited" else attempts,
                "backstop": one.backstop,
                name: subscription,
                **changes,
            }
        },
    }


def said_by_program(name: str, one: Subscription) -> list[str]:
    """What opening a bus would end with."""
    adapter = adapter_of(name)
    found = []
    for check in (
        lambda: check_capabilities(adapter, one),
        lambda: SETTINGS[name](one),
    ):
        try:
            check()
        except CrossbusError as error:
            found.append(str(error))
    return found


def cases() -> Iterator[tuple[str, Subscription]]:
    """Each limit of each provider: what is still allowed, and what is just beyond."""
    for name in MODULES:
        has = adapter_of(name).capabilities
        assert has.backstop is not None
        yield name, billing()
        yield name, billing(ordered=True)
        low, high = has.lease.minimum, has.lease.maximum
        for lease in (low, high, low - 0.5, low - 1, high + 1, 10 * high):
            if lease > 0:
                yield name, billing(lease=lease)
        for backstop in (*has.backstop, has.backstop[0] - 1, has.backstop[1] + 1):
            if backstop > 0:
                attempts = min(backstop, 5)
                yield name, billing(backstop=backstop, retry=RetryPolicy(attempts=attempts))
        yield name, billing(retry=RetryPolicy(attempts="unlimited"))
    for retention in (SHORTEST_RETENTION, SQS_LONGEST, SHORTEST_RETENTION - 1, SQS_LONGEST + 1, 1e8):
        yield "eventbridge", billing(retention=retention)
    for retention in (60, GRID_LONGEST, 59, GRID_LONGEST + 1, 60.5):
        yield "eventgrid", billing(retention=retention)
    for retention in (wanted.SHORTEST_RETENTION, wanted.DEAD_RETENTION, 599, wanted.DEAD_RETENTION + 1):
        yield "pubsub", billing(retention=retention)
    yield "eventgrid", billing(lease=90.5)
    for attempts, backstop in ((10, None), (11, None), (6, 5), (5, 5)):
        yield "eventgrid", billing(backstop=backstop, retry=RetryPolicy(attempts=attempts))


@needs_terraform
@pytest.mark.parametrize("name", MODULES)
def test_program_export_and_terraform_say_the_same(name: str, tmp_path: Path) -> None:
    sentences = 0
    for adapter, one in cases():
        if adapter == name:
            said = said_by_program(name, one)
            sentences += len(said)
            assert evaluate_topology(tmp_path, name, document(name, one)) == said, one
            exported = export(Topology((ORDERS,), (one,)), load(URLS[name]).default)
            assert [refusal.sentence for refusal in exported.refused] == said[:1]
            assert evaluate_topology(tmp_path, name, exported.document["topology"]) == said[:1], one
    assert sentences >= 5


@needs_terraform
@pytest.mark.parametrize("name", MODULES)
def test_what_the_program_said_is_said_again_and_once(name: str, tmp_path: Path) -> None:
    """An export leaves out what the provider cannot hold, with the sentence; of others' it says nothing."""
    refused = document(name, billing(lease=1e6, ordered=True), **{name: None, "refused": {name: "no"}})
    assert evaluate_topology(tmp_path, name, refused) == ["no"]
    other = next(one for one in MODULES if one != name)
    assert not evaluate_topology(tmp_path, name, document(name, billing(), refused={other: "no"}))


@needs_terraform
@pytest.mark.parametrize(
    "bad", ["or", "Orders", "or--ders", "orders-", "a" * 41, "1orders", "or_ders", "or ders"]
)
def test_logical_names(bad: str, tmp_path: Path) -> None:
    with pytest.raises(CrossbusError) as caught:
        check_name("topic", bad)
    made = document("pubsub", billing())
    made["topics"][bad] = made["topics"]["orders"]
    assert evaluate_topology(tmp_path, "pubsub", made) == [str(caught.value)]


@needs_terraform
@pytest.mark.parametrize(("name", "template"), [("eventbridge", "prod.{name}"), ("eventgrid", "prod_{name}")])
def test_names_of_the_provider(name: str, template: str, tmp_path: Path) -> None:
    adapter = adapter_of(name, names=template)
    named: Any = adapter.names.bus if name == "eventbridge" else adapter.topic_name  # type: ignore[attr-defined]
    with pytest.raises(CrossbusError) as caught:
        named(ORDERS)
    made = document(name, billing())
    key = "bus" if name == "eventbridge" else "topic"
    made["topics"]["orders"] = {name: {key: template.replace("{name}", "orders")}}
    assert evaluate_topology(tmp_path, name, made) == [str(caught.value)]


@needs_terraform
@pytest.mark.parametrize(
    ("name", "attribute", "longest"),
    [
        ("eventbridge", "rule", RULE_NAME_LENGTH),
        ("eventbridge", "queue", adapter_of("eventbridge").capabilities.name_length),
        ("eventgrid", "subscription", adapter_of("eventgrid").capabilities.name_length),
    ],
)
def test_a_name_is_as_long_as_the_provider_takes(
    name: str, attribute: str, longest: int, tmp_path: Path
) -> None:
    """The program cuts names, so that only a document written by hand has one that is too long."""
    part = NAMES[name][1]
    fits = document(name, billing(), **{name: {**part, attribute: "a" * longest}})
    assert not evaluate_topology(tmp_path, name, fits)
    long = document(name, billing(), **{name: {**part, attribute: "a" * (longest + 1)}})
    (said,) = evaluate_topology(tmp_path, name, long)
    assert (
        f"of {longest + 1} characters, and {name} takes {longest}: write the document anew with crossbus"
        in said
    )


@needs_terraform
@pytest.mark.parametrize(
    ("name", "attribute", "longest"),
    [("eventbridge", "pattern", MAX_PATTERN), ("pubsub", "filter", MAX_BYTES)],
)
def test_a_filter_is_as_long_as_the_provider_takes(
    name: str, attribute: str, longest: int, tmp_path: Path
) -> None:
    part = NAMES[name][1]
    fits = document(name, billing(), **{name: {**part, attribute: "a" * longest}})
    assert not evaluate_topology(tmp_path, name, fits)
    long = document(name, billing(), **{name: {**part, attribute: "a" * (longest + 1)}})
    (said,) = evaluate_topology(tmp_path, name, long)
    assert said.startswith(f"subscription orders/billing: its filter has {longest + 1} characters")


@needs_terraform
@pytest.mark.parametrize("name", MODULES)
def test_a_document_that_is_wrong_in_itself(name: str, tmp_path: Path) -> None:
    made = document(name, billing())
    subscription = made["subscriptions"]["orders/billing"]
    newer = {**made, "version": 2}
    assert "has version 2, and this module reads version 1" in evaluate_topology(tmp_path, name, newer)[0]
    stray = {**made, "subscriptions": {"order/billing": {**subscription, "topic": "order"}}}
    assert "its topic 'order' one of the topics" in evaluate_topology(tmp_path, name, stray)[0]
    bare = document(name, billing(), **{name: None})
    (said,) = evaluate_topology(tmp_path, name, bare)
    assert said == (
        f"subscription orders/billing has no names at {name}: write the document anew with crossbus topology export"
    )


def test_numbers_are_written_as_python_writes_them() -> None:
    """The sentences hold numbers as ``:g`` writes them; terraform's ``%.6g`` is the same, also for large ones."""
    assert [f"{one:g}" for one in (43_200.0, 0.5, 1e6, math.pi)] == ["43200", "0.5", "1e+06", "3.14159"]
