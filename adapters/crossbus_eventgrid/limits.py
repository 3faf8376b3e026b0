"""What a namespace can do, and its limits.

Sources: https://learn.microsoft.com/azure/event-grid/quotas-limits (sizes, batches), the REST reference of `receive`
and `release` (waits, delays), `QueueInfo` of azure-mgmt-eventgrid (locks) and
https://learn.microsoft.com/azure/event-grid/namespace-delivery-retry (receives, times to live).
"""

from __future__ import annotations

import dataclasses
from typing import Final

from crossbus.capabilities import CAPABILITIES, Capabilities, DelaySteps, FilterSupport, LeaseLimits
from crossbus.errors import ConfigurationError
from crossbus.profiles import Profile
from crossbus_eventgrid.compiling import MAX_VALUES
from crossbus_eventgrid.endpoint import Endpoint

__all__ = ["EVENTGRID", "LONGEST_RETENTION", "MAX_RECEIVES", "SHORTEST_RETENTION", "limits_of"]

MAX_RECEIVES: Final = 10
"""The most receives of an event that a subscription can be told to allow (`maxDeliveryCount`), and the default."""
SHORTEST_RETENTION: Final = 60.0
LONGEST_RETENTION: Final = 7 * 86_400.0
REQUEST_BYTES: Final = 1_048_576

_ABSENT = {
    "ordering",
    "partial_publish",
    "backstop_listed",
    "replay_time",
    "replay_position",
    "backlog",
    "push",
    "foreign",
}

EVENTGRID: Final = Capabilities(
    names=frozenset(CAPABILITIES) - _ABSENT,
    publish_batch=1000,
    # A batch is an array: each event counts with its comma, and one byte is left for the second bracket.
    publish_batch_bytes=REQUEST_BYTES - 1,
    event_bytes=REQUEST_BYTES - 1,
    receive_batch=100,
    receive_wait=(10.0, 120.0),
    lease=LeaseLimits(minimum=60.0, maximum=300.0, fixed=True),
    retry_delays=DelaySteps((0.0, 10.0, 60.0, 600.0, 3600.0)),
    backstop=(1, MAX_RECEIVES),
    filters=FilterSupport(
        operators=frozenset({"exact", "prefix", "suffix", "all"}), case_sensitive=False, max_values=MAX_VALUES
    ),
    name_rule="[A-Za-z0-9-]{3,50}",
    name_length=50,
)
"""The capabilities of an Event Grid namespace."""


def limits_of(profile: Profile, endpoint: Endpoint) -> Capabilities:
    """Return the capabilities of what a profile names: a server on this machine may have shorter locks and waits.

    Raises `ConfigurationError` for a time that is none, and for Azure, whose times are what they are.
    """
    lock = _seconds(profile, endpoint, "shortest_lock", EVENTGRID.lease.minimum)
    wait = _seconds(profile, endpoint, "shortest_wait", EVENTGRID.receive_wait[0])
    return dataclasses.replace(
        EVENTGRID,
        receive_wait=(wait, EVENTGRID.receive_wait[1]),
        lease=dataclasses.replace(EVENTGRID.lease, minimum=lock),
    )


def _seconds(profile: Profile, endpoint: Endpoint, name: str, azure: float) -> float:
    text = profile.parameters.get(name)
    if text is None:
        return azure
    prefix = f"{profile.origin}: " if profile.origin else ""
    if not endpoint.is_loopback:
        raise ConfigurationError(
            f"{prefix}{name}={text}: Azure's is {azure:g} s; leave it out, it is for a server on this machine"
        )
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= azure):
        raise ConfigurationError(f"{prefix}{name}={text}: it must be whole seconds from 1 to {azure:g}")
    return float(text)
