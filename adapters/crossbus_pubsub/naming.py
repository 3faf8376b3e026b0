"""Names: projects, full and short resource names, and the generations of a subscription whose filter changed.

A native filter cannot be changed once a subscription has it. So a subscription with one is called
``TOPIC--NAME--HASH``, with the first 8 characters of the SHA-256 of the filter's text; without one it is
``TOPIC--NAME``. Another filter makes another name, and so a successor beside its predecessor.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

from crossbus.errors import ConfigurationError
from crossbus.names import resource_name, subscription_resource, template_of
from crossbus.profiles import Profile
from crossbus.topology import Subscription, Topic

__all__ = ["NAME_LENGTH", "NAME_RULE", "Names", "short"]

NAME_LENGTH: Final = 245
"""Pub/Sub's 255 characters, without the 10 that a generation adds."""
NAME_RULE: Final = r"(?!goog)[A-Za-z][A-Za-z0-9._~+%-]{2,254}"
"""https://cloud.google.com/pubsub/docs/pubsub-basics#resource_names"""

_FULL = re.compile(r"projects/([^/]+)/(topics|subscriptions|snapshots)/([^/]+)\Z")
_PROJECT = re.compile(r"([a-z0-9.-]+:)?[a-z][a-z0-9-]{2,29}\Z|[0-9]+\Z")
_LABEL = re.compile(r"[a-z0-9_-]{1,63}\Z")
_GENERATION = re.compile(r"--[0-9a-f]{8}\Z")


class Names:
    """Pub/Sub's names of what is declared, in one project."""

    def __init__(self, profile: Profile, project: str) -> None:
        if not _PROJECT.match(project):
            raise ConfigurationError(
                f"{profile.origin or 'pubsub'}: {project!r} is no Google Cloud project: give its id, such as "
                "my-project, or its number"
            )
        self.profile = profile
        self.project = project

    @property
    def mark(self) -> str:
        """The name template, filled in but for the name, as a label can hold it: what cannot be one is hashed."""
        template = template_of(self.profile)
        mark = template.replace("{name}", "_")
        return mark if _LABEL.match(mark) else hashlib.sha256(template.encode()).hexdigest()[:16]

    def topic(self, topic: Topic) -> str:
        """Return the full name of a topic, or of the topic of a dead letter."""
        name = resource_name(topic, self.profile, NAME_LENGTH, rule=NAME_RULE)
        return self._full("topics", name, f"topic {topic.name!r}")

    def base(self, subscription: Subscription) -> str:
        """Return the full name of a subscription without a native filter, which begins that of one with it."""
        name = subscription_resource(subscription, self.profile, NAME_LENGTH, rule=NAME_RULE)
        return self._full("subscriptions", name, f"subscription {subscription}")

    def subscription(self, subscription: Subscription, filter: str) -> str:
        """Return the full name of the generation with this native filter."""
        base = self.base(subscription)
        return base if subscription.resource or not filter else f"{base}--{generation(filter)}"

    def dead_subscription(self, subscription: Subscription) -> str:
        """Return the full name of the subscription through which a dead letter is read.

        It is called like the dead letter's topic, in the project of the profile; ``options.dead_letter_subscription``
        of the subscription names another.
        """
        given = subscription.options.get("dead_letter_subscription")
        return self._full(
            "subscriptions",
            str(given) if given else short(self.topic(subscription.dead_letter)),
            f"dead letter of {subscription}",
        )

    def snapshot(self, name: str) -> str:
        """Return the full name of a snapshot."""
        return self._full("snapshots", name, f"snapshot {name!r}")

    def generations(self, subscription: Subscription) -> list[str]:
        """Return the generations that ``options.generations`` of the subscription names."""
        given = subscription.options.get("generations", ())
        what = f"options.generations of subscription {subscription}"
        if not isinstance(given, (list, tuple)) or not all(isinstance(one, str) for one in given):
            raise ConfigurationError(f"{what} must be a list of names of Pub/Sub subscriptions")
        return [self._full("subscriptions", name, what) for name in given]

    def full(self, kind: str, name: str) -> str:
        """Return the full name of one of ours: of ``topics``, ``subscriptions`` or ``snapshots``."""
        return self._full(kind, name, f"name {name!r}")

    def is_generation(self, name: str, base: str) -> bool:
        """True if a full name is that of a generation of the subscription whose base name is `base`."""
        return name == base or (name.startswith(base) and bool(_GENERATION.match(name[len(base) :])))

    def _full(self, kind: str, name: str, what: str) -> str:
        found = _FULL.match(name)
        if found is None and not name.startswith("projects/"):
            found = _FULL.match(f"projects/{self.project}/{kind}/{name}")
        if found is None or found[2] != kind or not re.fullmatch(NAME_RULE, found[3]):
            raise ConfigurationError(
                f"{what}: {name!r} is no name of Pub/Sub's {kind}: 3 to 255 of A-Z a-z 0-9 - . _ ~ + %, a letter first "
                f"and not 'goog', as it is or as projects/PROJECT/{kind}/NAME"
            )
        return found[0]


def generation(filter: str) -> str:
    """Return what the name of a subscription with this native filter ends in."""
    return hashlib.sha256(filter.encode()).hexdigest()[:8]


def short(name: str) -> str:
    """Return the last part of a full name."""
    return name.rpartition("/")[2]
