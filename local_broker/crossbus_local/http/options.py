"""`ServerOptions`: all that can be chosen about a server, checked when it is made."""

from __future__ import annotations

import ipaddress
import math
import socket
from dataclasses import dataclass, field
from typing import Final

from crossbus.errors import ConfigurationError

__all__ = ["DEFAULT_PORT", "LONGEST_LOCK", "LONGEST_WAIT", "ServerOptions", "is_loopback", "is_wildcard"]

DEFAULT_PORT: Final = 8787
LONGEST_LOCK: Final = 300.0
"""The longest lock of an Event Grid subscription, in seconds."""
LONGEST_WAIT: Final = 120.0
"""The longest wait of an Event Grid receive, in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """What a server is like. Times are in seconds, sizes in bytes.

    Raises `ConfigurationError` for what cannot be, and for an address that other machines can reach without a key.
    """

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    """0 for any that is free."""
    path: str | None = None
    """The SQLite file in which all is kept; None for memory."""
    strict: bool = False
    """True if topics and subscriptions must be there; else Event Grid's operations make them on first use."""
    key: str | None = field(default=None, repr=False)
    """What clients must send as ``Authorization: SharedAccessKey KEY``; None if anything will do."""
    shortest_lock: float = 60.0
    """The shortest lock of an Event Grid subscription, and that of one made on first use. Azure's is 60; tests lower
    it."""
    shortest_wait: float = 10.0
    """The shortest wait of an Event Grid receive. Azure's is 10; tests lower it."""
    connections: int = 500
    """How many connections there may be at once; more are answered with 503, and many more are closed."""
    body_bytes: int = 16 * 1024 * 1024
    """The largest body of a request of crossbus's own protocol. Event Grid's is Azure's: 1,048,576."""
    head_bytes: int = 64 * 1024
    """The most bytes of a request's address and headers together."""
    head_seconds: float = 10.0
    """How long a client may take for the first request line and headers."""
    body_seconds: float = 60.0
    """How long a client may take to send a body, beside the time that it takes at 10,000 bytes a second."""
    drain_seconds: float = 5.0
    """How long requests that are under way may take once the server is told to stop."""

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigurationError(f"port {self.port}: it must be from 0 (any that is free) to 65535")
        _check_seconds("shortest lock", self.shortest_lock, 0.001, LONGEST_LOCK)
        _check_seconds("shortest wait", self.shortest_wait, 0.0, LONGEST_WAIT)
        if self.key is not None:
            _check_key(self.key)
        elif not is_loopback(self.host):
            raise ConfigurationError(
                f"host {self.host} can be reached from other machines, so it needs a key: set CROSSBUS_SERVER_KEY "
                "(or --key), or listen on 127.0.0.1"
            )


def _check_seconds(what: str, value: float, least: float, most: float) -> None:
    if not (math.isfinite(value) and least <= value <= most):
        raise ConfigurationError(f"{what} {value}: it must be a number of seconds from {least:g} to {most:g}")


def _check_key(key: str) -> None:
    """Refuse a key that no header can carry. The message does not show it."""
    if not key:
        raise ConfigurationError("the key is empty; leave it out, or give one that nobody guesses")
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise ConfigurationError("the key has characters that no header can carry: use ASCII without spaces")


def is_loopback(host: str) -> bool:
    """True if only this machine can reach the address, or every address that the name has.

    Raises `ConfigurationError` for a name that has none.
    """
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        pass
    if host.lower() == "localhost":
        return True
    try:
        found = socket.getaddrinfo(host or None, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise ConfigurationError(
            f"host {host}: this is no address, and no name of one ({error.strerror or error}); write one of this "
            "machine, such as 127.0.0.1"
        ) from None
    return all(ipaddress.ip_address(str(each[4][0]).partition("%")[0]).is_loopback for each in found)


def is_wildcard(host: str) -> bool:
    """True for the addresses that mean every interface of the machine."""
    return host in ("", "0.0.0.0", "::", "[::]")  # noqa: S104 - compared with, not bound
