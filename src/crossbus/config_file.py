"""Reading `crossbus.toml`: what is in it, and every mistake in it that needs no adapter to be seen."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from crossbus.config_source import FILE_NAME, INCLUDE, Source
from crossbus.errors import ConfigurationError, DeclarationError, nearest
from crossbus.names import check_template
from crossbus.profiles import Profile
from crossbus.settings import (
    Place,
    SubscriptionSettings,
    TopicSettings,
    merged,
    read_subscription,
    read_telemetry,
    read_topic,
    show,
)
from crossbus.topology import check_name
from crossbus.urls import parse_url, refuse_secret

__all__ = ["PROFILE_KEYS", "Document", "Settings", "read_document"]

TOP_KEYS: Final = [INCLUDE, "default_profile", "profiles", "topics", "subscriptions"]
PROFILE_KEYS: Final = [
    "url",
    "adapter",
    "target",
    "names",
    "variables",
    "telemetry",
    "topics",
    "subscriptions",
]
"""The keys of a profile; any other is a parameter of its adapter."""

_PROFILE_NAME = re.compile(r"[A-Za-z0-9_-]+\Z")


class Settings(NamedTuple):
    """What a table says of topics, and of subscriptions by topic name and subscription name."""

    topics: Mapping[str, TopicSettings]
    subscriptions: Mapping[tuple[str, str], SubscriptionSettings]


@dataclass(frozen=True)
class Document:
    """A file that was read: right as far as that can be told without an adapter."""

    source: Source
    default_profile: str | None
    profiles: Mapping[str, Profile]
    general: Settings
    by_profile: Mapping[str, Settings]

    def profile(self, name: object, origin: str) -> Profile:
        """Return a profile by name. Raises `ConfigurationError` beginning with `origin` if there is none."""
        if isinstance(name, str) and name in self.profiles:
            return self.profiles[name]
        if self.source.missing:
            raise ConfigurationError(
                f"{origin} names the profile {show(name)}, but there is no {self.source.missing}: write one, or set "
                "CROSSBUS_URL"
            )
        raise ConfigurationError(
            f"{origin} names the profile {show(name)}, which is not in {self.source.label}; "
            f"{nearest(str(name), self.profiles)}"
        )

    def remedy(self) -> str:
        """Say what to do if nothing chooses a profile."""
        if self.profiles:
            names = ", ".join(sorted(self.profiles))
            return f"set CROSSBUS_PROFILE, or default_profile in {self.source.label}, to one of its profiles ({names})"
        what = (
            f"there is no {self.source.missing}"
            if self.source.missing
            else f"{self.source.label} has no profile"
        )
        return (
            f"{what}; set CROSSBUS_URL (CROSSBUS_URL=local: to try it in memory), or write a profile into "
            f"{FILE_NAME} and set CROSSBUS_PROFILE"
        )

    def settings_for(self, profile: str) -> Settings:
        """The topics and subscriptions, with what the chosen profile says instead."""
        over = self.by_profile.get(profile, Settings({}, {}))
        topics = dict(self.general.topics)
        for name, topic in over.topics.items():
            topics[name] = merged(topics.get(name, TopicSettings()), topic)
        subscriptions = dict(self.general.subscriptions)
        for key, subscription in over.subscriptions.items():
            subscriptions[key] = merged(subscriptions.get(key, SubscriptionSettings()), subscription)
        return Settings(topics, subscriptions)


def read_document(source: Source) -> Document:
    """Read and check a configuration. Raises `ConfigurationError`."""
    place = source.place
    content = source.content
    for key in content:
        if key not in TOP_KEYS:
            raise place.unknown(key, TOP_KEYS)
    general = _read_settings(content, place)
    profiles, by_profile = {}, {}
    tables = place.at("profiles").table(content.get("profiles", {}))
    for name, value in tables.items():
        here = place.at("profiles").at(name)
        if not isinstance(name, str) or not _PROFILE_NAME.match(name):
            raise here.error("is no name for a profile: letters, digits, _ and - are allowed")
        table = here.table(value)
        profiles[name] = _read_profile(name, table, here)
        by_profile[name] = _read_settings(table, here)
        _check_listed(by_profile[name], general, here)
    _check_listed(general, general, place)
    document = Document(source, content.get("default_profile"), profiles, general, by_profile)
    _check_profile_names(document, place)
    return document


def _read_settings(table: Mapping[str, Any], place: Place) -> Settings:
    topics, subscriptions = {}, {}
    here = place.at("topics")
    for name, value in here.table(table.get("topics", {})).items():
        _check_name("topic", name, here.at(name))
        topics[name] = read_topic(value, here.at(name))
    here = place.at("subscriptions")
    for key, value in here.table(table.get("subscriptions", {})).items():
        topic, slash, name = str(key).partition("/")
        if not slash:
            raise here.at(key).error('must be called "TOPIC/NAME", such as "orders/billing"')
        _check_name("topic", topic, here.at(key))
        _check_name("subscription", name, here.at(key))
        subscriptions[topic, name] = read_subscription(value, here.at(key))
    return Settings(topics, subscriptions)


def _check_name(kind: str, name: object, place: Place) -> None:
    try:
        check_name(kind, name)
    except DeclarationError as error:
        raise place.error(f"is not allowed: {error}") from None


def _check_listed(settings: Settings, general: Settings, place: Place) -> None:
    """Once the file lists topics, whatever else it says must be of one of them."""
    if not general.topics:
        return
    for topic in settings.topics:
        if topic not in general.topics:
            raise (
                place.at("topics")
                .at(topic)
                .error(f"is not listed in [topics]; {nearest(topic, general.topics)}")
            )
    for topic, name in settings.subscriptions:
        if topic not in general.topics:
            here = place.at("subscriptions").at(f"{topic}/{name}")
            raise here.error(
                f"is of a topic that is not listed in [topics]; {nearest(topic, general.topics)}"
            )


def _check_profile_names(document: Document, place: Place) -> None:
    if document.default_profile is not None:
        document.profile(document.default_profile, place.at("default_profile").said)
    holders = {place: document.general}
    holders |= {place.at("profiles").at(name): over for name, over in document.by_profile.items()}
    for holder, settings in holders.items():
        for name, topic in settings.topics.items():
            if topic.profile is not None:
                document.profile(topic.profile, holder.at("topics").at(name).at("profile").said)


def _read_profile(name: str, table: Mapping[str, Any], place: Place) -> Profile:
    origin = f"{place.where} [{place.key}]"
    if ("url" in table) == ("adapter" in table):
        for key in table:
            if key not in PROFILE_KEYS and (near := nearest(key, ("url", "adapter"))).startswith("did"):
                raise place.at(key).error(f"is no key of a profile; {near}")
        raise place.error("must have url or adapter, one of the two")
    if "url" in table and "target" in table:
        raise place.error("must not have both url and target: the URL says the target")
    profile = parse_url(table["url"] if "url" in table else _url_of(table, place), origin)
    variables = place.at("variables").table(table.get("variables", {}))
    names = _text(table.get("names", "{name}"), place.at("names"))
    values = {str(key): _scalar(value, place.at("variables").at(key)) for key, value in variables.items()}
    check_template(names, values, origin)
    return replace(
        profile,
        name=name,
        parameters={**profile.parameters, **_read_parameters(table, profile, place, origin)},
        names=names,
        variables=values,
        telemetry=read_telemetry(table.get("telemetry", {}), place.at("telemetry")),
    )


def _url_of(table: Mapping[str, Any], place: Place) -> str:
    adapter = _text(table["adapter"], place.at("adapter"))
    if ":" in adapter:
        raise place.at("adapter").error(
            "is the name of an adapter, such as 'local', not a URL; write url = ..."
        )
    target = _text(table["target"], place.at("target")) if "target" in table else ""
    return f"{adapter}:{target.replace('%', '%25').replace('?', '%3F').replace('#', '%23')}"


def _read_parameters(table: Mapping[str, Any], profile: Profile, place: Place, origin: str) -> dict[str, str]:
    parameters = {}
    for key, value in table.items():
        if key in PROFILE_KEYS:
            continue
        refuse_secret(str(key), str(value), origin)
        if key in profile.parameters:
            raise place.at(key).error("stands in the url too; give it once")
        if isinstance(value, Mapping):
            raise place.unknown(key, PROFILE_KEYS)
        parameters[str(key)] = _scalar(value, place.at(key))
    return parameters


def _text(value: object, place: Place) -> str:
    if isinstance(value, str) and value:
        return value
    raise place.error(f"must be a text that is not empty, not {show(value)}")


def _scalar(value: object, place: Place) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (str, int, float)) and value != "":
        return str(value)
    raise place.error(f"must be a text, a number, true or false, not {show(value)}")
