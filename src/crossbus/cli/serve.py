"""`crossbus serve`: finds the server by the entry-point group `crossbus.servers`, and runs it.

The server belongs to the local broker, which crossbus does not import: it finds it as it finds adapters.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from crossbus.cli.exits import ExitCode, note
from crossbus.cli.logs import show_log
from crossbus.errors import AdapterNotInstalled
from crossbus.telemetry.setting_up import set_up

__all__ = ["GROUP", "run_server"]

GROUP: Final = "crossbus.servers"
"""The entry-point group of servers. The name `local` is what `crossbus serve` runs."""


def run_server(**options: Any) -> ExitCode:
    """Serve until SIGINT or SIGTERM.

    Raises `ConfigurationError` for options that cannot be, and an address that cannot be had.
    """
    serve = _server()
    show_log()
    end_telemetry = set_up("crossbus-serve", note=note)
    try:
        serve(**options)
    finally:
        end_telemetry()
    return ExitCode.OK


def _server() -> Callable[..., None]:
    from importlib.metadata import entry_points

    for entry in entry_points(group=GROUP, name="local"):
        try:
            found: Callable[..., None] = entry.load()
        except ModuleNotFoundError as error:
            raise AdapterNotInstalled(
                f"the server needs the module {error.name!r}, which is not installed: pip install 'crossbus[server]'"
            ) from error
        return found
    raise AdapterNotInstalled(
        "the server is not registered, because crossbus runs from a folder and is not installed: pip install "
        "'crossbus[server]', or pip install -e '.[server]' in a clone"
    )
