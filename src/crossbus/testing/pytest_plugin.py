"""What the pytest plugin (`crossbus_pytest`) does once a test uses it."""

from __future__ import annotations

import pkgutil

from crossbus.bus import Bus
from crossbus.errors import ConfigurationError
from crossbus.sync import SyncBus
from crossbus.testing.bus import default_bus

__all__ = ["program_bus"]


def program_bus(place: str) -> Bus | SyncBus:
    """Return the Bus that the ini option `crossbus_bus` names, as ``module:name``; a new one if it names none.

    The name may be that of a function without parameters that returns a Bus.

    Raises:
        ConfigurationError: there is no Bus. What importing the module raises, it raises.
    """
    if not place:
        return default_bus()
    module, _, name = place.partition(":")
    if not module or not name:
        raise ConfigurationError(
            f"the ini option crossbus_bus = {place!r} must be MODULE:BUS, such as shop:bus"
        )
    try:
        found = pkgutil.resolve_name(place)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise ConfigurationError(
            f"the ini option crossbus_bus = {place!r}: there is no module {error.name!r} on the import path; the ini "
            "option pythonpath of pytest adds folders to it"
        ) from None
    except AttributeError as error:
        raise ConfigurationError(f"the ini option crossbus_bus = {place!r}: {error}") from None
    if callable(found):
        found = found()
    if not isinstance(found, (Bus, SyncBus)):
        raise ConfigurationError(
            f"the ini option crossbus_bus = {place!r} is {type(found).__name__}, no Bus; name a Bus, or a function "
            "without parameters that returns one"
        )
    return found
