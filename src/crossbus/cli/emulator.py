"""`crossbus emulator`: finds a cloud's own emulator by the entry-point group `crossbus.emulators`, and runs it.

An entry point is named after the adapter, and points to a function that takes `host` and `port` (None for the
provider's own) and runs the emulator until the process is interrupted. crossbus imports no adapter.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Final

from crossbus.cli.exits import ExitCode
from crossbus.errors import AdapterNotInstalled, ConfigurationError, nearest

__all__ = ["GROUP", "run_emulator"]

GROUP: Final = "crossbus.emulators"
"""The entry-point group of emulators, by the name of their adapter."""


def run_emulator(provider: str, *, host: str, port: int | None) -> ExitCode:
    """Run the emulator of a provider until SIGINT or SIGTERM.

    Raises `ConfigurationError` if there is none, if it is not installed, or if it cannot be started.
    """
    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    if provider not in found:
        raise ConfigurationError(f"there is no emulator of {provider!r}; {nearest(provider, found)}")
    try:
        command = found[provider].load()
    except ModuleNotFoundError as error:
        raise AdapterNotInstalled(
            f"the emulator of {provider} needs the module {error.name!r}, which is not installed"
        ) from error
    command(host=host, port=port)
    return ExitCode.OK
