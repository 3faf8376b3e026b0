"""Where an adapter connects to, as which project, and with what credentials: URL, environment, Google's own chain."""

from __future__ import annotations

import asyncio
import functools
import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from crossbus.errors import ConfigurationError
from crossbus.profiles import Profile
from crossbus.urls import is_this_machine
from crossbus_pubsub.credentials import Token, from_chain

if TYPE_CHECKING:
    from crossbus_pubsub.client import Client

__all__ = ["EMULATOR_HOST", "SERVICE", "Endpoint", "connect", "endpoint_of"]

SERVICE: Final = "pubsub.googleapis.com:443"
EMULATOR_HOST: Final = "PUBSUB_EMULATOR_HOST"
_HOST = re.compile(r"(\[[0-9a-fA-F:]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?\Z")


class Endpoint(NamedTuple):
    """Where Pub/Sub answers."""

    host: str
    port: int
    is_emulator: bool
    """True for the emulator and for a loopback address: plain text, and no credentials of Google's."""

    @property
    def target(self) -> str:
        """What gRPC connects to."""
        return f"{self.host}:{self.port}"


def endpoint_of(profile: Profile, environ: Mapping[str, str] | None = None) -> Endpoint:
    """Return the endpoint: PUBSUB_EMULATOR_HOST, as in Google's own clients, then the profile's, then the service's.

    Raises `ConfigurationError` for what is no address.
    """
    environ = os.environ if environ is None else environ
    emulator = environ.get(EMULATOR_HOST, "").strip()
    if emulator:
        host, port = _parsed(emulator, EMULATOR_HOST, 8085)
        return Endpoint(host, port, True)
    given = profile.parameters.get("endpoint")
    if given is None:
        return Endpoint(*_parsed(SERVICE, "", 443), False)
    where = f"{profile.origin or 'pubsub'}: endpoint"
    text = given.removeprefix("https://").rstrip("/") if given.startswith("https://") else given
    host, port = _parsed(text, where, 443)
    loopback = is_this_machine(host)
    if loopback and given.startswith("https://"):
        raise ConfigurationError(
            f"{where} is {given!r}: on the loopback address Pub/Sub is an emulator, without TLS"
        )
    return Endpoint(host, port, loopback)


def _parsed(text: str, where: str, default: int) -> tuple[str, int]:
    match = _HOST.match(text)
    if match is None or int(match[2] or default) > 65535:
        hint = ", without http://" if "://" in text else ""
        raise ConfigurationError(f"{where} is {text!r}: write HOST:PORT{hint}, such as 127.0.0.1:8085")
    return match[1], int(match[2] or default)


async def connect(profile: Profile, endpoint: Endpoint, credentials: Any | None) -> tuple[Client, str]:
    """Make the client, and find the project. Asks the service for nothing.

    Raises `Unauthenticated` if there are no credentials, and `ConfigurationError` if there is no project.
    """
    project = _project(profile, endpoint)
    token: Token | None = None
    if credentials is not None:
        token = Token(credentials)
        project = project or getattr(credentials, "project_id", None)
    elif not endpoint.is_emulator:
        load = functools.partial(from_chain, profile.parameters.get("impersonate"))
        found, own = await asyncio.to_thread(load)
        token = Token(found, lambda: load()[0])
        project = project or own
    if not project:
        raise ConfigurationError(
            f"{profile.origin or 'pubsub'}: no Google Cloud project: write it in the URL, pubsub:MY-PROJECT, or set "
            "GOOGLE_CLOUD_PROJECT"
        )
    if token is not None:
        await token.headers()  # what is wrong with the credentials is said now
    from crossbus_pubsub.client import Client

    return Client(endpoint.target, token, secure=not endpoint.is_emulator), project


def _project(profile: Profile, endpoint: Endpoint) -> str | None:
    found = profile.target or profile.parameters.get("project") or os.environ.get("GOOGLE_CLOUD_PROJECT")
    if not found and endpoint.is_emulator:
        found = os.environ.get("PUBSUB_PROJECT_ID")
    return found or None
