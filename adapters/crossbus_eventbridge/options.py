"""`Options`: what the URL, or the profile of the file, says. Read once, and checked, when the adapter is made."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from crossbus.errors import ConfigurationError, DeclarationError
from crossbus.profiles import Profile
from crossbus.topology import Topic
from crossbus.urls import is_this_machine
from crossbus_eventbridge.limits import MAX_WAIT
from crossbus_eventbridge.naming import Api, Arn

__all__ = ["APIS", "PARAMETERS", "WIRES", "Options", "is_loopback", "wire_of"]

PARAMETERS: Final[Mapping[str, str]] = {
    "region": "the AWS region; default AWS_REGION, AWS_DEFAULT_REGION, or the AWS profile's",
    "profile": "the AWS profile of ~/.aws/config; default AWS_PROFILE",
    "endpoint": "the URL of all services, instead of AWS's; default AWS_ENDPOINT_URL and its forms per service",
    "role_arn": "a role to take on, with credentials of the default chain",
    "external_id": "the external id that the role asks for",
    "bus": "one bus for all topics that name none of their own; crossbustopic tells them apart",
    "wait": f"seconds of a long poll, 1 to {MAX_WAIT}; default {MAX_WAIT}",
    "pollers": "the most long polls of one subscription at once, 1 to 10; default 10",
    "archive": "days for which provisioned topics keep events for replay; default none, 0 for ever",
    "verify": "false to publish without looking whether the bus is there",
    "api": "classic (default), or v2: the newer Custom Event Bus, which has order; experimental",
    "delivery_role": "with api=v2, the role that EventBridge takes on to send into queues; only provisioning needs it",
}

APIS: Final[tuple[Api, ...]] = ("classic", "v2")
"""The two EventBridges that AWS has: rules and targets, and the "Custom Event Bus" of 2026."""

WIRES: Final = ("cloudevent", "detail-data")
"""How a topic's events are written: whole, or only their data."""

_REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-\d+\Z")


class Options(NamedTuple):
    """The adapter's settings."""

    origin: str
    region: str | None
    profile: str | None
    endpoint: str | None
    role_arn: str | None
    external_id: str | None
    wait: int
    pollers: int
    archive: int | None
    """Days; 0 for ever; None for no archive."""
    verify: bool
    api: Api = "classic"
    delivery_role: str | None = None

    @classmethod
    def of(cls, profile: Profile, environ: Mapping[str, str] | None = None) -> Options:
        """Read a profile. Raises `ConfigurationError` for what cannot be right."""
        environ = os.environ if environ is None else environ
        given = profile.parameters
        origin = profile.origin or "eventbridge"
        if profile.target:
            raise ConfigurationError(
                f"{origin}: eventbridge takes nothing after its colon but parameters: write "
                "eventbridge:?region=eu-west-1 (the bus of a topic is its resource, or ?bus=NAME for all)"
            )
        region = given.get("region") or environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or None
        if region is not None and not _REGION.match(region):
            raise ConfigurationError(f"{origin}: region {region!r} is none: write it as in eu-west-1")
        role_arn, external_id = _role(given, "role_arn", origin), given.get("external_id")
        if external_id is not None and role_arn is None:
            raise ConfigurationError(f"{origin}: external_id belongs to a role: set role_arn too")
        return cls(
            origin=origin,
            region=region,
            profile=given.get("profile"),
            endpoint=_endpoint(given.get("endpoint"), origin),
            role_arn=role_arn,
            external_id=external_id,
            wait=_whole(given, "wait", MAX_WAIT, 1, MAX_WAIT, origin),
            pollers=_whole(given, "pollers", 10, 1, 10, origin),
            archive=_whole(given, "archive", 0, 0, 10_000, origin) if "archive" in given else None,
            verify=_flag(given, "verify", True, origin),
            **_api(given, origin),
        )


def _api(given: Mapping[str, str], origin: str) -> Any:
    """Return `api` and `delivery_role`; what belongs to the other one is refused."""
    api = given.get("api", "classic")
    if api not in APIS:
        raise ConfigurationError(f"{origin}: api={api}: it must be {' or '.join(APIS)}")
    if api == "classic" and "delivery_role" in given:
        raise ConfigurationError(f"{origin}: delivery_role belongs to api=v2; a classic bus needs none")
    if api == "v2" and "archive" in given:
        raise ConfigurationError(f"{origin}: archive belongs to api=classic; leave it out with api=v2")
    return {"api": api, "delivery_role": _role(given, "delivery_role", origin)}


def _role(given: Mapping[str, str], name: str, origin: str) -> str | None:
    text = given.get(name)
    if text is not None and ((arn := Arn.parse(text)) is None or arn.service != "iam"):
        raise ConfigurationError(f"{origin}: {name} must be as in arn:aws:iam::123456789012:role/NAME")
    return text


def _endpoint(text: str | None, origin: str) -> str | None:
    if text is None:
        return None
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigurationError(f"{origin}: endpoint must be a URL such as http://127.0.0.1:5000")
    if parts.scheme == "http" and not is_loopback(text):
        raise ConfigurationError(
            f"{origin}: endpoint is plain HTTP, which is for this machine only: use https://"
        )
    return text.rstrip("/")


def _whole(given: Mapping[str, str], name: str, default: int, low: int, high: int, origin: str) -> int:
    text = str(given.get(name, default))
    if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
        raise ConfigurationError(f"{origin}: {name}={text}: it must be a whole number from {low} to {high}")
    return int(text)


def _flag(given: Mapping[str, str], name: str, default: bool, origin: str) -> bool:
    text = str(given.get(name, default)).lower()
    if text not in ("true", "false"):
        raise ConfigurationError(f"{origin}: {name}={text}: it must be true or false")
    return text == "true"


def is_loopback(url: str) -> bool:
    """True for a URL of this machine."""
    host = urlsplit(url).hostname or ""
    return is_this_machine(host) or host.endswith((".localhost", ".localhost.localstack.cloud"))


def wire_of(topic: Topic) -> str:
    """Return how a topic's events are written. Raises `DeclarationError` for a form that is none."""
    wire: Any = topic.options.get("wire", "cloudevent")
    if wire not in WIRES:
        raise DeclarationError(
            f"topic {topic.name!r}: wire={wire!r}; eventbridge knows {' and '.join(map(repr, WIRES))}"
        )
    return str(wire)
