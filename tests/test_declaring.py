"""Declaring topics and subscriptions: what is allowed, what is refused, and what the configuration adds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from tests.scripted import ScriptedAdapter

from crossbus import (
    Breaker,
    Bus,
    ConfigurationError,
    DeclarationError,
    RetryPolicy,
    Topic,
    exact,
    prefix,
)


def bus(config: dict[str, Any] | None = None) -> Bus:
    return Bus(adapter=ScriptedAdapter(), config=config)


@contextmanager
def refused(text: str, kind: type[Exception] = DeclarationError) -> Iterator[None]:
    """Expect exactly this text."""
    with pytest.raises(kind) as caught:
        yield
    assert str(caught.value) == text


# --- topics -------------------------------------------------------------------------------------------------------


def test_a_topic_is_declared_once_and_said_again_as_often_as_one_likes() -> None:
    shop = bus()
    given = shop.topic("orders", resource="arn:orders", external=True)
    assert given == Topic("orders", resource="arn:orders", external=True)
    assert shop.topic("orders") is given, "its name alone refers to it"
    assert shop.topic("orders", resource="arn:orders", external=True) == given
    assert shop.topology.topics == (given,)


def test_a_topic_that_was_only_named_may_be_told_more_of() -> None:
    shop = bus()
    shop.subscribe("orders", "billing")
    more = shop.topic("orders", resource="arn:orders")
    assert shop.topology.topics == (more,)


def test_a_topic_that_is_declared_twice_differently_is_refused() -> None:
    shop = bus()
    shop.topic("orders", resource="arn:one")
    with pytest.raises(DeclarationError, match=r"^topic 'orders' is declared twice, differently: .*one.*two"):
        shop.topic("orders", resource="arn:two")
    assert shop.topology.topics[0].resource == "arn:one"


@pytest.mark.parametrize("name", ["Orders", "or", "a" * 41, "1st", "or--ders", "orders-", "", "ördners", 5])
def test_names_are_those_that_every_provider_takes(name: Any) -> None:
    shop = bus()
    rule = (
        "is not allowed: 3 to 40 characters, a-z, 0-9 and single hyphens, beginning with a letter and not ending "
        "with a hyphen"
    )
    with refused(f"topic name {name!r} {rule}"):
        shop.topic(name)
    with refused(f"subscription name {name!r} {rule}"):
        shop.subscribe("orders", name)
    with refused(f"topic name {name!r} {rule}"):
        shop.subscribe(name, "billing")


def test_a_topic_that_the_configuration_does_not_list_is_refused_with_the_nearest() -> None:
    shop = bus({"topics": {"orders": {}, "invoices": {}}})
    shop.subscribe("orders", "billing")
    with refused(
        "topic 'ordres' is not among the topics that the argument config lists; did you mean 'orders'?"
    ):
        shop.subscribe("ordres", "billing")
    assert [str(handle.declaration) for handle in shop.subscriptions] == ["orders/billing"]


def test_the_configuration_has_its_say_in_topics_and_subscriptions() -> None:
    shop = bus(
        {
            "topics": {"orders": {"resource": "arn:orders", "external": True}},
            "subscriptions": {"orders/billing": {"concurrency": 3, "retry": {"attempts": 8}}},
        }
    )
    declared = shop.subscribe("orders", "billing", concurrency=50, lease=30).declaration
    assert declared.topic == Topic("orders", resource="arn:orders", external=True)
    assert (declared.concurrency, declared.retry.attempts, declared.lease) == (3, 8, 30.0)


def test_a_filter_that_program_and_configuration_give_differently_is_refused() -> None:
    config = {"subscriptions": {"orders/billing": {"filter": {"prefix": {"type": "com.acme."}}}}}
    assert bus(config).subscribe("orders", "billing").declaration.filter == prefix(type="com.acme.")
    with pytest.raises(ConfigurationError, match="filter"):
        bus(config).subscribe("orders", "billing", filter=exact(type="com.acme.order.placed"))


# --- subscriptions ------------------------------------------------------------------------------------------------


def test_the_defaults_are_those_of_the_documentation() -> None:
    declared = bus().subscribe("orders", "billing").declaration
    retry = declared.retry
    assert (retry.attempts, retry.first_delay, retry.factor, retry.max_delay) == (5, 1.0, 2.0, 300.0)
    assert retry.jitter
    assert (declared.concurrency, declared.lease, declared.timeout, declared.batch) == (10, 60.0, 900.0, 100)
    assert (declared.on_invalid, declared.on_unhandled, declared.on_mismatch) == ("reject", "reject", None)
    assert declared.filter is declared.breaker is declared.backstop is declared.retention is None
    assert not declared.ordered
    assert not declared.external


def test_a_subscription_is_declared_once() -> None:
    shop = bus()
    first = shop.subscribe("orders", "billing")
    shop.subscribe("orders", "audit")
    shop.subscribe("invoices", "billing")
    with refused(
        "subscription orders/billing is declared already; keep what bus.subscribe returned and use its .on()"
    ):
        shop.subscribe("orders", "billing")
    assert shop.subscriptions[0] is first
    assert [str(subscription) for subscription in shop.topology.subscriptions] == [
        "orders/billing",
        "orders/audit",
        "invoices/billing",
    ]


def test_a_filter_must_be_one() -> None:
    with refused(
        "subscription orders/billing: filter is str; make one with exact(), prefix(), suffix(), all_(), any_(), "
        "not_(), or crossbus.filters.parse()"
    ):
        bus().subscribe("orders", "billing", filter="type = 'a'")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("option", "value", "text"),
    [
        ("lease", 0, "lease=0 must be a number of seconds above 0"),
        ("lease", float("inf"), "lease=inf must be a number of seconds above 0"),
        ("lease", float("nan"), "lease=nan must be a number of seconds above 0"),
        ("timeout", -1, "timeout=-1 must be a number of seconds above 0"),
        ("timeout", "60", "timeout='60' must be a number of seconds above 0"),
        ("timeout", True, "timeout=True must be a number of seconds above 0"),
        ("concurrency", 0, "concurrency=0 must be a whole number from 1"),
        ("concurrency", 1.5, "concurrency=1.5 must be a whole number from 1"),
        ("batch", 0, "batch=0 must be a whole number from 1"),
        ("batch", None, "batch=None must be a whole number from 1"),
        ("retention", 0, "retention=0 must be a number of seconds above 0"),
        ("backstop", 0, "backstop=0 must be a whole number from 1"),
        ("retry", 3, "retry is int; it must be a RetryPolicy"),
        ("breaker", (3, 5), "breaker is tuple; it must be a Breaker"),
        ("on_invalid", "ack", "on_invalid='ack' is not allowed; one of 'reject', 'retry', 'pause'"),
        ("on_unhandled", "retry", "on_unhandled='retry' is not allowed; one of 'reject', 'drop'"),
        (
            "on_mismatch",
            "reject",
            "on_mismatch='reject' is not allowed; one of None, 'release', 'dead_letter', 'drop'",
        ),
    ],
)
def test_a_value_that_makes_no_sense_is_refused(option: str, value: Any, text: str) -> None:
    shop = bus()
    with refused(f"orders/billing: {text}"):
        shop.subscribe("orders", "billing", **{option: value})
    shop.subscribe("orders", "billing")  # nothing of it was kept


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"attempts": 0}, 'RetryPolicy(attempts=0): a whole number from 1, or "unlimited"'),
        ({"attempts": True}, 'RetryPolicy(attempts=True): a whole number from 1, or "unlimited"'),
        ({"attempts": "many"}, "RetryPolicy(attempts='many'): a whole number from 1, or \"unlimited\""),
        ({"first_delay": -1}, "RetryPolicy(first_delay=-1): it must be a number from 0"),
        ({"factor": 0.5}, "RetryPolicy(factor=0.5): it must be a number from 1"),
        ({"max_delay": float("inf")}, "RetryPolicy(max_delay=inf): it must be a number from 0"),
        ({"max_delay": "1"}, "RetryPolicy(max_delay='1'): it must be a number from 0"),
    ],
)
def test_a_retry_policy_that_makes_no_sense_is_refused(arguments: dict[str, Any], text: str) -> None:
    with refused(text):
        RetryPolicy(**arguments)


def test_delays_grow_to_their_cap_and_jitter_draws_below_them() -> None:
    exact_delays = RetryPolicy(first_delay=1, factor=3.0, max_delay=20, jitter=False)
    assert [exact_delays.delay(attempt) for attempt in (1, 2, 3, 4, 5)] == [1, 3, 9, 20, 20]
    assert exact_delays.delay(10_000) == 20, "an exponent beyond a float"
    drawn = [RetryPolicy(first_delay=8).delay(1) for _ in range(200)]
    assert min(drawn) < 2 < 6 < max(drawn) <= 8


@pytest.mark.parametrize(("rejected", "of"), [(0, 5), (6, 5)])
def test_a_breaker_that_makes_no_sense_is_refused(rejected: int, of: int) -> None:
    with refused(f"Breaker(rejected={rejected}, of={of}): rejected must be from 1 to `of`"):
        Breaker(rejected=rejected, of=of)


def test_a_subscription_that_is_not_declared_is_named_with_the_nearest() -> None:
    shop = bus()
    shop.subscribe("orders", "billing")
    with refused("subscription orders/biling is not declared; did you mean 'orders/billing'?"):
        shop.dead_letters("orders", "biling")
    with refused("subscription x/y is not declared; none are known"):
        bus().dead_letters("x", "y")


def test_the_dead_letter_of_a_subscription_has_its_name() -> None:
    dead = bus().subscribe("orders", "billing").declaration.dead_letter
    assert (dead.name, dead.kind, dead.subscription) == ("orders--billing--dead", "dead_letter", "billing")
    assert dead.resource is None
    mapped = bus().subscribe("orders", "billing", dead_letter_resource="arn:dead", external=True).declaration
    assert (mapped.dead_letter.resource, mapped.dead_letter.external) == ("arn:dead", True)
    only_queue = bus().subscribe("orders", "billing", resource="url", external=True).declaration
    assert not only_queue.dead_letter.external, "the dead letter is ours, though the queue is not"
