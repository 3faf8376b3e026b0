"""Configuration: profiles, topics and subscriptions, from a URL, the environment and `crossbus.toml`.

The profile of a Bus is the first of these that is given: the argument `url`, the argument `profile`, the
variable `CROSSBUS_URL`, the variable `CROSSBUS_PROFILE`, the key `default_profile` of the file. With none of
them there is no bus: a variable forgotten in production must not publish into memory.

The file is the argument `config`, else the path in `CROSSBUS_CONFIG`, else `crossbus.toml` in the current
directory (its parents are not searched: which file holds must not depend on what lies above).
``docs/reference/configuration.md`` lists every key.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from crossbus.errors import ConfigurationError, DeclarationError, nearest
from crossbus.profiles import Profile
from crossbus.registry import adapter_class
from crossbus.topology import Subscription, Topic

if TYPE_CHECKING:
    from pathlib import Path

    from crossbus.config_file import Document
    from crossbus.settings import SubscriptionSettings, TopicSettings

# What reads a file is imported where a Bus is made, not by `import crossbus`.

__all__ = ["Configuration", "check_profile", "load", "warn_if_in_memory"]

SERVERS: Final[Mapping[str, str]] = {
    "AWS_LAMBDA_FUNCTION_NAME": "AWS Lambda",
    "K_SERVICE": "Cloud Run",
    "KUBERNETES_SERVICE_HOST": "Kubernetes",
    "FUNCTIONS_WORKER_RUNTIME": "Azure Functions",
}
"""Variables that a platform sets where programs serve, not where they are written."""

_logger = logging.getLogger("crossbus")


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """What was configured: where topics live, and what the file says of topics and subscriptions."""

    default: Profile
    """The profile of every topic that names none."""
    profiles: Mapping[str, Profile] = field(default_factory=dict)
    """All profiles by name, the default one among them. Only those in use are checked by their adapter."""
    topics: Mapping[str, TopicSettings] = field(default_factory=dict)
    subscriptions: Mapping[tuple[str, str], SubscriptionSettings] = field(default_factory=dict)
    """By topic name and subscription name."""
    path: Path | None = None
    """The file, if one was read."""
    label: str = "crossbus.toml"
    """How messages call the file, or the mapping given instead of it."""
    chosen_by: str = ""
    """What chose the default profile: an argument, a variable, or a key of the file."""
    document: Document | None = field(default=None, repr=False, compare=False)
    """What was read, to say where a value stands."""

    def profile_for(self, topic: Topic | str) -> Profile:
        """Return the profile that holds a topic: the file's, else the topic's own, else the default one.

        Raises:
            ConfigurationError: There is no such profile, or its adapter does not take it.
        """
        topic = self.apply_topic(Topic(topic) if isinstance(topic, str) else topic)
        if topic.profile is None:
            return self.default
        profile = self.profiles.get(topic.profile)
        if profile is None:
            raise ConfigurationError(
                f"topic {topic.name!r} is to live in profile {topic.profile!r}, which is not in {self.label}; "
                f"{nearest(topic.profile, self.profiles)}"
            )
        check_profile(profile)
        return profile

    def check_topic(self, name: str) -> None:
        """Raise `DeclarationError` if the file lists topics and this name is not among them."""
        if self.topics and name not in self.topics:
            raise DeclarationError(
                f"topic {name!r} is not among the topics that {self.label} lists; {nearest(name, self.topics)}"
            )

    def apply_topic(self, topic: Topic) -> Topic:
        """Return the topic with what the file says of it. The file wins. Applying twice changes nothing
        more."""
        settings = self.topics.get(topic.name)
        return settings.apply(topic) if settings else topic

    def apply_subscription(self, subscription: Subscription) -> Subscription:
        """Return the subscription, and its topic, with what the file says of them. The file wins.

        Raises:
            ConfigurationError: File and program give it different filters, or only one of them says
            `ordered`.
        """
        subscription = replace(subscription, topic=self.apply_topic(subscription.topic))
        settings = self.subscriptions.get(subscription.key)
        if settings is None:
            return subscription
        assert self.document is not None
        place = self.document.source.place.at("subscriptions").at(str(subscription))
        return settings.apply(subscription, place)

    def validate_for(self, topic: str) -> Literal["portable", "provider"] | None:
        """Return which rules the file wants for the events of a topic; None if it does not say."""
        settings = self.topics.get(topic)
        return settings.validate if settings else None


def load(
    url: str | None = None,
    *,
    profile: str | None = None,
    config: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
) -> Configuration:
    """Find out what is configured, and check it.

    Args:
        url: A URL such as ``local:`` or ``eventbridge:?region=eu-west-1``.
        profile: The name of a profile in the file. Not together with `url`.
        config: A path, or a mapping of the same shape as the file, instead of `crossbus.toml`.
        environ: The environment; `os.environ` by default.
        cwd: Where `crossbus.toml` and relative paths are looked for; the current directory by default.

    Raises:
        ConfigurationError: Nothing is configured, or something is wrong; one line says what and where.
        AdapterNotInstalled: The adapter of the default profile, or of a topic's, is not there.
    """
    from pathlib import Path

    from crossbus.config_file import read_document
    from crossbus.config_source import find

    environ = os.environ if environ is None else environ
    if url is not None and profile is not None:
        raise ConfigurationError("give the argument url or the argument profile, not both")
    document = read_document(find(config, environ, Path(cwd or ".")))
    default, chosen_by = _choose(url, profile, environ, document)
    topics, subscriptions = document.settings_for(default.name)
    configuration = Configuration(
        default=default,
        profiles={**document.profiles, default.name: default},
        topics=topics,
        subscriptions=subscriptions,
        path=document.source.path,
        label=document.source.label,
        chosen_by=chosen_by,
        document=document,
    )
    check_profile(default)
    for name in topics:
        configuration.profile_for(name)
    return configuration


def check_profile(profile: Profile) -> None:
    """Raise `ConfigurationError` unless the profile's adapter is there and knows all of its parameters."""
    from crossbus.config_file import PROFILE_KEYS
    from crossbus.urls import URL_PROFILE

    known = adapter_class(profile.scheme, profile.origin).parameters
    keys = [] if profile.name == URL_PROFILE else PROFILE_KEYS
    for name in profile.parameters:
        if name not in known:
            raise ConfigurationError(
                f"{profile.origin}: {profile.scheme} has no parameter {name!r}; {nearest(name, [*known, *keys])}"
            )


def warn_if_in_memory(profile: Profile, environ: Mapping[str, str] | None = None) -> bool:
    """Log one warning if a program that seems to be deployed keeps its events in memory; return whether it
    did."""
    environ = os.environ if environ is None else environ
    variable = next((name for name in SERVERS if environ.get(name)), None)
    if variable is None or profile.scheme != "local" or "path" in profile.parameters:
        return False
    _logger.warning(
        "%s is local:, which keeps events in the memory of this process and loses them with it, but %s is set (%s): "
        "configure the bus of this deployment with CROSSBUS_URL or CROSSBUS_PROFILE",
        profile.origin or "the bus",
        variable,
        SERVERS[variable],
    )
    return True


# --- choosing the profile ---


def _choose(
    url: str | None, profile: str | None, environ: Mapping[str, str], document: Document
) -> tuple[Profile, str]:
    """Return the profile, and what chose it."""
    from crossbus.urls import parse_url

    if url is not None:
        return parse_url(url, by := "the argument url"), by
    if profile is not None:
        return document.profile(profile, by := "the argument profile"), by
    if from_environ := environ.get("CROSSBUS_URL", "").strip():
        return parse_url(from_environ, by := "CROSSBUS_URL"), by
    if named := environ.get("CROSSBUS_PROFILE", "").strip():
        return document.profile(named, by := "CROSSBUS_PROFILE"), by
    if document.default_profile is not None:
        return document.profile(
            document.default_profile, by := document.source.place.at("default_profile").said
        ), by
    raise ConfigurationError(f"no bus is configured: {document.remedy()}")
