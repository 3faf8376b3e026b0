"""The one rule from logical names to the provider's names. The vectors here are what terraform must give too."""

from __future__ import annotations

import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossbus.errors import ConfigurationError
from crossbus.names import check_template, dead_letter_resource, resource_name, shorten, subscription_resource
from crossbus.profiles import Profile
from crossbus.topology import Subscription, Topic, check_name

PLAIN = Profile()
STAGED = Profile(names="{env}-{name}", variables={"env": "prod"}, origin="crossbus.toml [profiles.aws]")
LONG = "a" * 40

names = st.from_regex(r"[a-z](-?[a-z0-9]){2,19}", fullmatch=True)
limits = st.integers(min_value=16, max_value=120)


def billing(**changes: object) -> Subscription:
    return Subscription(topic=Topic("orders"), name="billing").replace(**changes)


def test_names_of_a_topic_its_subscription_and_its_dead_letter() -> None:
    assert resource_name(Topic("orders"), PLAIN, 80) == "orders"
    assert subscription_resource(billing(), PLAIN, 80) == "orders--billing"
    assert dead_letter_resource(billing(), PLAIN, 80) == "orders--billing--dead"
    assert resource_name(billing().dead_letter, PLAIN, 80) == "orders--billing--dead"


def test_the_template_is_around_the_whole_name() -> None:
    assert resource_name(Topic("orders"), STAGED, 80) == "prod-orders"
    assert subscription_resource(billing(), STAGED, 80) == "prod-orders--billing"
    assert dead_letter_resource(billing(), STAGED, 80) == "prod-orders--billing--dead"


def test_a_subscription_within_its_topic_keeps_its_logical_name() -> None:
    assert subscription_resource(billing(), STAGED, 50, within_topic=True) == "billing"


def test_a_resource_that_was_given_is_taken_as_it_is() -> None:
    arn = "arn:aws:events:eu-west-1:123456789012:event-bus/somebody--elses-bus-with-a-very-long-name"
    assert resource_name(Topic("orders", resource=arn), STAGED, 16, rule="[a-z]+") == arn
    assert subscription_resource(billing(resource=arn), STAGED, 16, rule="[a-z]+") == arn
    assert dead_letter_resource(billing(dead_letter_resource=arn), STAGED, 16, rule="[a-z]+") == arn


@pytest.mark.parametrize(
    ("full", "limit", "expected"),
    [
        ("orders", 16, "orders"),
        ("a" * 40, 40, "a" * 40),
        ("a" * 41, 40, "a" * 31 + "-c0f8bd4d"),
        ("orders--billing--dead", 20, "orders--bil-1cd0bce0"),
        ("orders--billing--dead", 17, "orders-1cd0bce0"),  # both hyphens at the cut are gone
        ("orders--billing--dead", 16, "orders-1cd0bce0"),
        ("prod-orders--billing--dead", 25, "prod-orders--bil-6efd9bbd"),
    ],
)
def test_stable_vectors(full: str, limit: int, expected: str) -> None:
    assert shorten(full, limit) == expected


def terraform(full: str, limit: int) -> str:
    """The expression of the module's text, written with what terraform's functions do."""
    if len(full) <= limit:
        return full
    return re.sub(r"-+$", "", full[: limit - 9]) + "-" + hashlib.sha256(full.encode()).hexdigest()[0:8]


@given(names, names, limits)
def test_terraform_gives_the_same(topic: str, name: str, limit: int) -> None:
    full = f"{topic}--{name}--dead"
    assert shorten(full, limit) == terraform(full, limit)


@given(names, names, limits, st.sampled_from([PLAIN, STAGED]))
def test_names_fit_are_the_same_each_time_and_have_a_clean_cut(
    topic: str, name: str, limit: int, profile: Profile
) -> None:
    subscription = Subscription(topic=Topic(topic), name=name)
    made = subscription_resource(subscription, profile, limit)
    assert len(made) <= limit
    assert made == subscription_resource(subscription, profile, limit)
    assert "---" not in made
    assert made[0].isalnum()
    assert made[-1].isalnum()
    if len(f"{profile.names.format(env='prod', name=f'{topic}--{name}')}") > limit:
        assert re.search(r"[a-z0-9]-[0-9a-f]{8}\Z", made)


@given(st.lists(names, min_size=2, max_size=12, unique=True), limits, st.sampled_from([PLAIN, STAGED]))
def test_different_things_have_different_names(logical: list[str], limit: int, profile: Profile) -> None:
    made = []
    for name in logical:
        check_name("topic", name)
        made.append(resource_name(Topic(name), profile, limit))
        for other in logical:
            subscription = Subscription(topic=Topic(name), name=other)
            made.append(subscription_resource(subscription, profile, limit))
            made.append(dead_letter_resource(subscription, profile, limit))
    assert len(set(made)) == len(made)


def test_a_limit_that_leaves_nothing_to_read_is_a_mistake_of_the_adapter() -> None:
    assert shorten("a" * 17, 16)
    with pytest.raises(ValueError, match="max_length=15: a provider's names must allow 16 characters"):
        shorten("orders", 15)


def refused(template: str, **variables: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        check_template(template, variables, "crossbus.toml [profiles.aws]")
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix("crossbus.toml [profiles.aws]: ")


def test_a_template_with_an_unknown_variable_names_it() -> None:
    assert refused("{evn}-{name}", env="prod") == (
        "the name template '{evn}-{name}' uses {evn}, which is not among the variables; did you mean 'env'?"
    )
    assert refused("{}-{name}").endswith("uses {}, which is not among the variables; known: name")


@pytest.mark.parametrize("template", ["orders", "{env}", "{name}-{name}", ""])
def test_a_template_holds_the_name_once(template: str) -> None:
    assert refused(template, env="prod") == (
        f"the name template {template!r} must hold {{name}} once, as in '{{env}}-{{name}}'"
    )


@pytest.mark.parametrize("template", ["{name", "{{name}}", "a b{name}", "é-{name}", "a/{name}", "{name}\n"])
def test_a_template_holds_nothing_that_names_cannot(template: str) -> None:
    assert refused(template) == (
        f"the name template {template!r} may hold {{name}}, {{variables}}, letters, digits, '.', '_' and '-'"
    )


@pytest.mark.parametrize(
    "template", ["orders--{name}", "-{name}", "{name}-", "{name}.", "{env}-.-{env}--{name}"]
)
def test_a_template_cannot_make_names_that_look_like_others(template: str) -> None:
    assert refused(template, env="e").endswith(
        "no double hyphen is allowed, and a letter or digit must be first and last"
    )


@pytest.mark.parametrize("value", ["", "-prod", "prod-", "pr od", "pröd", "a/b", "prod\n"])
def test_a_variable_holds_what_a_name_can(value: str) -> None:
    assert refused("{env}-{name}", env=value) == (
        f"the variable 'env' is {value!r}: letters, digits, '.', '_' and '-' are allowed, "
        "a letter or digit first and last"
    )


def test_an_allowed_template_is_allowed() -> None:
    check_template("{env}.{name}_x-{env}", {"env": "Prod-1"}, "here")
    profile = Profile(names="{env}.{name}_x-{env}", variables={"env": "Prod-1"})
    assert resource_name(Topic("orders"), profile, 80) == "Prod-1.orders_x-Prod-1"


def test_a_profile_made_by_hand_is_checked_when_it_is_used() -> None:
    with pytest.raises(
        ConfigurationError, match=r"^profile 'default': the name template '\{x\}-\{name\}' uses \{x\}"
    ):
        resource_name(Topic("orders"), Profile(names="{x}-{name}"), 80)


def test_a_name_that_the_provider_does_not_allow_is_refused() -> None:
    profile = Profile(names="{env}.{name}", variables={"env": "prod"}, adapter="eventgrid")
    assert resource_name(Topic("orders"), profile, 50, rule=r"[a-z.-]{3,50}") == "prod.orders"
    with pytest.raises(ConfigurationError) as caught:
        resource_name(Topic("orders"), profile, 50, rule=r"[a-zA-Z0-9-]{3,50}")
    assert str(caught.value) == (
        "topic 'orders' would be called 'prod.orders', which eventgrid does not allow (it must match "
        "[a-zA-Z0-9-]{3,50}): change the profile's names or variables, or set its resource"
    )
    with pytest.raises(
        ConfigurationError, match=r"^subscription orders/billing would be called 'prod\.orders--billing'"
    ):
        subscription_resource(billing(), profile, 50, rule=r"[a-z]+")
    with pytest.raises(ConfigurationError, match=r"^subscription orders/billing would be called 'billing'"):
        subscription_resource(billing(), profile, 50, within_topic=True, rule=r"[A-Z]+")


def test_the_longest_logical_names_stay_apart_where_names_are_short() -> None:
    subscription = Subscription(topic=Topic(LONG), name=LONG)
    queue, dead = (
        subscription_resource(subscription, STAGED, 80),
        dead_letter_resource(subscription, STAGED, 80),
    )
    assert len(queue) == len(dead) == 80
    assert queue[:71] == dead[:71]
    assert queue != dead
