"""From logical names to the provider's names: one rule, which the terraform modules use too.

The name of a topic is the logical name, put into the profile's template. A subscription is called
``TOPIC--NAME`` and its dead letter ``TOPIC--NAME--dead``, put into the same template. Logical names have no
double hyphen, so no topic is called like a subscription, and no subscription like a dead letter.

A name longer than the provider allows is cut, and ends in a hash of the whole name:

1. `full` is the whole name, after the template was filled in. It is ASCII: characters and bytes are one
count. 2. If `full` has at most `max_length` characters, it is the name. 3. Else the name is the first
`max_length - 9` characters of `full` without the hyphens at their end, then one ``-``,
   then the first 8 characters of the lower-case hexadecimal SHA-256 of `full`.

In terraform::

    length(full) <= max ? full :
      "${replace(substr(full, 0, max - 9), "/-+$/", "")}-${substr(sha256(full), 0, 8)}"
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from crossbus.errors import ConfigurationError, nearest
from crossbus.profiles import Profile
from crossbus.topology import Subscription, Topic

__all__ = [
    "check_template",
    "dead_letter_resource",
    "logical_name",
    "resource_name",
    "shorten",
    "subscription_resource",
    "template_of",
]

HASH_LENGTH: Final = 8
"""How many characters of the hash a cut name ends in: 32 bits."""
SHORTEST_LIMIT: Final = HASH_LENGTH + 8
"""The least `max_length` that leaves something to read before the hash."""

_FIELD = re.compile(r"\{([^{}]*)\}")
_TEXT = re.compile(r"[A-Za-z0-9._-]*\Z")
_VALUE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\Z")


def resource_name(topic: Topic, profile: Profile, max_length: int, *, rule: str = "") -> str:
    """Return the provider's name of a topic: its `resource`, or else the name that the rule above makes.

    Args:
        topic: A topic, or the dead letter of a subscription.
        profile: Its profile, for the template and its variables.
        max_length: The longest name that the provider takes, in characters; at least 16.
        rule: `Capabilities.name_rule`, a regular expression that the made name must match; empty for none.

    Raises:
        ConfigurationError: The template cannot be filled in, or what it makes breaks the provider's rule.
    """
    return topic.resource or _make(f"topic {topic.name!r}", topic.name, profile, max_length, rule)


def subscription_resource(
    subscription: Subscription,
    profile: Profile,
    max_length: int,
    *,
    within_topic: bool = False,
    rule: str = "",
) -> str:
    """Return the provider's name of a subscription: its `resource`, or else ``TOPIC--NAME`` in the template.

    Args:
        subscription: The subscription.
        profile: The profile of its topic.
        max_length: The longest name that the provider takes, in characters; at least 16.
        within_topic: True if the provider's subscription names need to be unique within a topic only. The
        name is
            then the logical one as it is, without the template: the topic's own name says the rest.
        rule: As in `resource_name`.

    Raises:
        ConfigurationError: As in `resource_name`.
    """
    if subscription.resource:
        return subscription.resource
    if within_topic:
        return _checked(f"subscription {subscription}", shorten(subscription.name, max_length), profile, rule)
    name = f"{subscription.topic.name}--{subscription.name}"
    return _make(f"subscription {subscription}", name, profile, max_length, rule)


def dead_letter_resource(
    subscription: Subscription, profile: Profile, max_length: int, *, rule: str = ""
) -> str:
    """Return the provider's name of a subscription's dead letter; `resource_name` of
    `Subscription.dead_letter`."""
    return resource_name(subscription.dead_letter, profile, max_length, rule=rule)


def logical_name(resource: str, profile: Profile) -> str | None:
    """Return the logical name of which the template makes a provider's name; None if it makes none such.

    >>> logical_name("prod-orders", Profile(adapter="local", scheme="local", names="prod-{name}"))
    'orders'
    """
    before, after = (_fill(part, "", profile.variables) for part in profile.names.split("{name}"))
    rest = resource.removeprefix(before).removesuffix(after)
    return rest if rest and resource == f"{before}{rest}{after}" else None


def shorten(full: str, max_length: int) -> str:
    """Return a name of at most `max_length` characters, cut and hashed as the module's text says.

    >>> shorten("orders--billing--dead", 80)
    'orders--billing--dead'
    >>> shorten("orders--billing--dead", 17)
    'orders-1cd0bce0'
    """
    if max_length < SHORTEST_LIMIT:
        raise ValueError(
            f"max_length={max_length}: a provider's names must allow {SHORTEST_LIMIT} characters"
        )
    if len(full) <= max_length:
        return full
    import hashlib

    digest = hashlib.sha256(full.encode()).hexdigest()[:HASH_LENGTH]
    return f"{full[: max_length - HASH_LENGTH - 1].rstrip('-')}-{digest}"


def template_of(profile: Profile) -> str:
    """Return the profile's name template with its variables filled in: ``prod-{name}``."""
    return _fill(profile.names, "{name}", profile.variables)


def check_template(template: str, variables: Mapping[str, str], origin: str) -> None:
    """Raise `ConfigurationError` unless the template makes different names of different logical names.

    It holds ``{name}`` once, variables that are known, and otherwise letters, digits, ``.``, ``_`` and ``-``.
    What it makes begins and ends with a letter or digit and has no double hyphen of its own: ``--`` divides a
    topic's name from a subscription's, and ``orders--{name}`` would make a topic's name look like a
    subscription's of `orders`.
    """
    for variable, value in variables.items():
        if not _VALUE.match(value):
            raise ConfigurationError(
                f"{origin}: the variable {variable!r} is {value!r}: letters, digits, '.', '_' and '-' are "
                "allowed, a letter or digit first and last"
            )
    about = f"{origin}: the name template {template!r}"
    fields = _FIELD.findall(template)
    if not _TEXT.match(_FIELD.sub("", template)):
        raise ConfigurationError(
            f"{about} may hold {{name}}, {{variables}}, letters, digits, '.', '_' and '-'"
        )
    for name in fields:
        if name != "name" and name not in variables:
            known = nearest(name, ["name", *variables])
            raise ConfigurationError(f"{about} uses {{{name}}}, which is not among the variables; {known}")
    if fields.count("name") != 1:
        raise ConfigurationError(f"{about} must hold {{name}} once, as in '{{env}}-{{name}}'")
    sample = _fill(template, "x", variables)
    if "--" in sample or not _VALUE.match(sample):
        raise ConfigurationError(
            f"{about} makes names such as {sample!r}: no double hyphen is allowed, and a letter or "
            "digit must be first and last"
        )


def _make(what: str, name: str, profile: Profile, max_length: int, rule: str) -> str:
    check_template(profile.names, profile.variables, profile.origin or f"profile {profile.name!r}")
    full = _fill(profile.names, name, profile.variables)
    return _checked(what, shorten(full, max_length), profile, rule)


def _fill(template: str, name: str, variables: Mapping[str, str]) -> str:
    values = {**variables, "name": name}
    return _FIELD.sub(lambda match: values[match[1]], template)


def _checked(what: str, name: str, profile: Profile, rule: str) -> str:
    if rule and not re.fullmatch(rule, name):
        raise ConfigurationError(
            f"{what} would be called {name!r}, which {profile.adapter} does not allow (it must match "
            f"{rule}): change the profile's names or variables, or set its resource"
        )
    return name
