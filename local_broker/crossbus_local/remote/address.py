"""`Address`: where a server is, as the URL says it."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from crossbus.errors import ConfigurationError
from crossbus.profiles import Profile
from crossbus.urls import is_this_machine

__all__ = ["DEFAULT_PORT", "Address"]

DEFAULT_PORT: Final = 8787

_TARGET = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9._-]+)(:(?P<port>[0-9]{1,5}))?\Z")


class Address(NamedTuple):
    """Host and port of a server."""

    host: str
    """Without the brackets of an IPv6 address."""
    port: int

    @classmethod
    def of(cls, profile: Profile) -> Address:
        """Read ``HOST:PORT``; nothing at all is ``127.0.0.1:8787``. Raises `ConfigurationError`."""
        found = _TARGET.match(profile.target or "127.0.0.1")
        port = int(found["port"] or DEFAULT_PORT) if found else 0
        if found is None or not 0 < port < 65536:
            raise ConfigurationError(
                f"{profile.origin or profile.name}: local+http names a server as HOST:PORT and nothing else, as in "
                f"local+http://127.0.0.1:{DEFAULT_PORT}"
            )
        return cls(found["host"].strip("[]"), port)

    @property
    def is_loopback(self) -> bool:
        """True if it is on this machine, by its name alone."""
        return is_this_machine(self.host)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
