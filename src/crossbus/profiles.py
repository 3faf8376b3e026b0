"""`Profile`: the named configuration of one adapter's connection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Profile"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One adapter's connection: which adapter, where, and with what settings.

    Made by `crossbus.config` from a URL, a file or the environment. Never holds a credential.
    """

    name: str = "default"
    """Its name in the file; ``<url>`` for the connection that a URL alone describes."""
    adapter: str = "local"
    """The adapter's family, by which native filters are keyed: the scheme without ``+http``."""
    scheme: str = "local"
    """The whole scheme of the URL, such as ``local`` or ``local+http``: the name of the adapter's entry
    point."""
    target: str = ""
    """What stands between scheme and parameters: ``shop``, ``my-project``, ``127.0.0.1:8787``."""
    parameters: Mapping[str, str] = field(default_factory=dict)
    """The parameters of the URL, or the adapter's keys of the file."""
    names: str = "{name}"
    """The template of resource names: ``{name}`` and the profile's `variables`."""
    variables: Mapping[str, str] = field(default_factory=dict)
    telemetry: Mapping[str, Any] = field(default_factory=dict)
    """What its table ``telemetry`` says, checked; keys as of `TelemetryOptions`."""
    origin: str = ""
    """Where it was configured, for messages: ``CROSSBUS_URL``, ``crossbus.toml [profiles.production]``."""
