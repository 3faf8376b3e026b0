"""The topology document: what a program declares, as each cloud would have to hold it, for terraform and for people.

Names, native filters and limits are computed by the adapters, without a connection. A document has the parts of all
three clouds: one file does for the terraform modules of each. ``docs/reference/topology-document.md`` says what stands
in it, and ``schema.json`` beside this module says it for programs.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from crossbus.adapter import Adapter
from crossbus.clock import SystemClock
from crossbus.connections import check_capabilities
from crossbus.errors import CrossbusError
from crossbus.names import check_template, template_of
from crossbus.profiles import Profile
from crossbus.registry import adapter_class
from crossbus.topology import Subscription, Topic, Topology
from crossbus.urls import URL_PROFILE

__all__ = ["PROVIDERS", "VERSION", "Document", "Export", "Refusal", "export"]

PROVIDERS: Final = ("eventbridge", "eventgrid", "pubsub")
"""The adapters whose parts a document has."""
VERSION: Final = 1

Document = dict[str, Any]
"""``{"topology": {...}}``: plain data, as JSON has it."""


class Refusal(NamedTuple):
    """What a provider cannot hold, with the sentence of the error that opening a bus would end with."""

    provider: str
    what: str
    """``topic orders``, or ``subscription orders/billing``."""
    sentence: str


class Export(NamedTuple):
    """A document, and what of it the providers cannot hold."""

    document: Document
    provider: str
    """The adapter of the profile that it was made for; not one of `PROVIDERS` for a local broker."""
    refusals: tuple[Refusal, ...]

    @property
    def refused(self) -> list[Refusal]:
        """What the profile's own provider cannot hold."""
        return [one for one in self.refusals if one.provider == self.provider]


def export(topology: Topology, profile: Profile, previous: Document | None = None) -> Export:
    """Make the document of a topology, for a profile.

    What is external is left out, but for a topic on which there is a subscription that is not. The profile's name
    template and variables count for every provider; its parameters, and every `resource` and option, for its own.

    Args:
        topology: What of a program lives in the profile.
        profile: The profile.
        previous: The document of before: what was made by it and must stay for a while is carried over.

    Raises:
        ConfigurationError: The profile itself is wrong.
    """
    check_template(profile.names, profile.variables, profile.origin)
    return _Exporting(profile, previous).export(topology)


class _Exporting:
    def __init__(self, profile: Profile, previous: Document | None) -> None:
        self._profile = profile
        self._previous: Mapping[str, Any] = {} if previous is None else previous["topology"]["subscriptions"]
        names = dict.fromkeys((*PROVIDERS, profile.adapter))
        self._adapters = {name: _adapter(name, profile) for name in names}
        self._refusals: list[Refusal] = []

    def export(self, topology: Topology) -> Export:
        subscriptions = [one for one in topology.subscriptions if not one.external]
        needed = {one.topic.name: one.topic for one in subscriptions}
        topics = needed | {one.name: one for one in topology.topics if not one.external}
        document = {
            "version": VERSION,
            "profile": "" if self._profile.name == URL_PROFILE else self._profile.name,
            "names": template_of(self._profile),
            "topics": {name: self._topic(topic) for name, topic in topics.items()},
            "subscriptions": {str(one): self._subscription(one) for one in subscriptions},
        }
        return Export({"topology": document}, self._profile.adapter, tuple(self._refusals))

    def _topic(self, topic: Topic) -> Document:
        found = self._parts(topic, {})
        external = [part.pop("external", False) for part in found.values() if isinstance(part, dict)]
        return {"external": topic.external or any(external), **found}

    def _subscription(self, declared: Subscription) -> Document:
        retry, filter = declared.retry, declared.filter
        return {
            "topic": declared.topic.name,
            "name": declared.name,
            "ordered": declared.ordered,
            "lease_seconds": math.ceil(declared.lease),
            "retention_seconds": None if declared.retention is None else round(declared.retention),
            "attempts": None if retry.attempts == "unlimited" else retry.attempts,
            "retry": {
                "first_delay_seconds": float(retry.first_delay),
                "factor": float(retry.factor),
                "max_delay_seconds": float(retry.max_delay),
            },
            "backstop": declared.backstop,
            "filter": None if filter is None else filter.to_json(),
            **self._parts(declared, self._previous.get(str(declared), {})),
        }

    def _parts(self, declared: Topic | Subscription, previous: Mapping[str, Any]) -> Document:
        """Return the part of each provider, and the sentences of those that have none."""
        found: Document = {}
        refused: dict[str, str] = {}
        what = f"topic {declared.name}" if isinstance(declared, Topic) else f"subscription {declared}"
        for provider, adapter in self._adapters.items():
            ours = declared if provider == self._profile.adapter else _elsewhere(declared)
            try:
                if isinstance(ours, Subscription):
                    check_capabilities(adapter, ours)
                part = adapter.exported(ours, previous.get(provider))
            except CrossbusError as error:
                refused[provider] = " ".join(str(error).split())
                self._refusals.append(Refusal(provider, what, refused[provider]))
            else:
                if part is not None:
                    found[provider] = dict(part)
        return {**found, "refused": refused}


def _adapter(name: str, profile: Profile) -> Adapter:
    """Return an adapter that is connected to nothing: that of the profile, or one that has only its names.

    A profile may name no place yet: terraform, which reads the document, has still to make it.
    """
    if name != profile.adapter:
        profile = dataclasses.replace(profile, adapter=name, scheme=name, target="", parameters={})
    adapter = adapter_class(profile.scheme, profile.origin)
    if not profile.target and "endpoint" not in profile.parameters:
        profile = dataclasses.replace(profile, target=adapter.example_target)
    return adapter(profile, clock=SystemClock())


def _elsewhere(declared: Topic | Subscription) -> Topic | Subscription:
    """Return a declaration without what only the provider of the profile understands."""
    if isinstance(declared, Topic):
        return dataclasses.replace(declared, resource=None, options={})
    bare = _elsewhere(declared.topic)
    assert isinstance(bare, Topic)
    return declared.replace(topic=bare, resource=None, dead_letter_resource=None, options={})
