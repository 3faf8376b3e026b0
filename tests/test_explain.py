"""Explanations say who evaluates what, and what that costs."""

from __future__ import annotations

import dataclasses

import pytest

from crossbus.adapter import Compilation
from crossbus.clock import SystemClock
from crossbus.explain import Explanation, explain, explain_subscription
from crossbus.filters import exact, prefix, suffix
from crossbus.profiles import Profile
from crossbus.topology import Subscription, Topic
from crossbus_local import LocalAdapter

WANTED = prefix(type="com.acme.") & suffix(type=".placed")


def test_the_provider_evaluates_all() -> None:
    found = explain(
        exact(type="a"), Compilation({"p": 1}, 'attributes.ce-type = "a"', None), provider="pubsub"
    )
    assert found == Explanation('type = "a"', 'attributes.ce-type = "a"', None, None, "pubsub")
    assert str(found).splitlines() == [
        'filter              type = "a"',
        'pubsub evaluates    attributes.ce-type = "a"',
        "crossbus evaluates  nothing",
    ]


def test_a_residual_is_evaluated_here_and_paid_for() -> None:
    text = 'hasPrefix(attributes.ce-type, "com.acme.")'
    found = explain(WANTED, Compilation(text, text, WANTED), provider="pubsub")
    assert found.residual == str(WANTED)
    assert str(found).splitlines() == [
        'filter              type starts with "com.acme." and type ends with ".placed"',
        f"pubsub evaluates    {text}",
        'crossbus evaluates  type starts with "com.acme." and type ends with ".placed"',
        "warning             pubsub also delivers events that are dropped here; "
        "you pay for the delivery of each",
    ]


def test_the_provider_evaluates_nothing() -> None:
    for compilation in (Compilation(None, "", WANTED), None):
        found = explain(WANTED, compilation)
        assert found.native == ""
        assert found.warning == (
            "the provider delivers every event; you pay for the delivery of those that are dropped here"
        )
        assert "the provider evaluates  nothing\n" in str(found)


def test_no_filter() -> None:
    found = explain(None, None, provider="local")
    assert found == Explanation("", "", None, None, "local")
    assert str(found).splitlines() == [
        "filter              none: every event of the topic is delivered",
        "local evaluates     nothing",
        "crossbus evaluates  nothing",
    ]


def test_a_native_form_without_text_of_its_own_is_shown_as_it_is() -> None:
    assert explain(WANTED, Compilation(WANTED, "", None)).native == str(WANTED)


def test_an_explanation_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        explain(None).filter = "x"  # type: ignore[misc]


def test_a_filter_in_the_providers_own_language_stands_for_the_compiled_one() -> None:
    adapter = LocalAdapter(Profile(), clock=SystemClock())
    wanted = exact(type="com.acme")
    subscription = Subscription(topic=Topic("orders"), name="billing", filter=wanted)
    assert explain_subscription(subscription, adapter).residual is None
    own = explain_subscription(subscription.replace(native_filter={"local": prefix(type="com.")}), adapter)
    assert own.native == 'type starts with "com."'
    assert own.residual == str(wanted)
    plain = explain_subscription(Subscription(topic=Topic("orders"), name="billing"), adapter)
    assert "every event" in str(plain)
