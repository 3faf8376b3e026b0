"""Where a namespace is: the URL of a profile, checked before anything is sent."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import urlsplit

from crossbus.errors import ConfigurationError
from crossbus.profiles import Profile
from crossbus.urls import is_this_machine

__all__ = ["Endpoint", "read_endpoint"]

_EXAMPLE = "eventgrid://NAMESPACE.REGION-1.eventgrid.azure.net"


class Endpoint(NamedTuple):
    """The data plane of one namespace."""

    url: str
    """Scheme and authority, without a path: ``https://shop.westeurope-1.eventgrid.azure.net``."""
    host: str
    port: int
    is_loopback: bool

    @property
    def namespace(self) -> str:
        """The name of the namespace: the first label of its host."""
        return self.host.partition(".")[0]


def read_endpoint(profile: Profile) -> Endpoint:
    """Return the endpoint that a profile names, as its target or as the parameter `endpoint`.

    Raises:
        ConfigurationError: There is none, or two; it is no URL of a host, or has no TLS and is not loopback.
    """
    prefix = f"{profile.origin}: " if profile.origin else ""
    given = profile.parameters.get("endpoint")
    if bool(given) == bool(profile.target):
        problem = "two endpoints, a target and endpoint=; leave one out" if given else "no endpoint"
        raise ConfigurationError(
            f"{prefix}eventgrid has {problem}: write {_EXAMPLE}, the host name of the namespace, or "
            "eventgrid:?endpoint=http://127.0.0.1:8787 for a local server"
        )
    text = given or f"https://{profile.target}"
    return _checked(text, prefix)


def _checked(text: str, prefix: str) -> Endpoint:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ConfigurationError(f"{prefix}the endpoint is no URL; write {_EXAMPLE}") from None
    host = parts.hostname or ""
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigurationError(f"{prefix}the endpoint must begin with https:// and have a host: {_EXAMPLE}")
    if parts.path.strip("/") or parts.query or parts.fragment or parts.username is not None:
        basic = (
            "; /api/events belongs to a Basic topic, which has no pull delivery"
            if "/api" in parts.path
            else ""
        )
        raise ConfigurationError(
            f"{prefix}the endpoint {host!r} has more than a host and a port, write it without{basic}"
        )
    loopback = is_this_machine(host)
    if parts.scheme == "http" and not loopback:
        raise ConfigurationError(
            f"{prefix}the endpoint {host!r} has no TLS: http:// is for a server on this machine "
            "(127.0.0.1, localhost) only; write https://"
        )
    if not loopback and "." not in host:
        raise ConfigurationError(f"{prefix}{host!r} is not the host name of a namespace; write {_EXAMPLE}")
    shown = f"[{host}]" if ":" in host else host
    url = f"{parts.scheme}://{shown}" + ("" if port is None else f":{port}")
    return Endpoint(url, host, port or (443 if parts.scheme == "https" else 80), loopback)
