"""The local broker behind a server: ``local+http://HOST:PORT``."""

from crossbus_local.remote.adapter import RemoteAdapter

__all__ = ["RemoteAdapter"]
