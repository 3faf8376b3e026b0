"""Finding adapters: by the entry-point group `crossbus.adapters`, crossbus's own as well as a third party's.

An entry point is named after the scheme of its URLs (``local``, ``local+http``, ``eventbridge``) and points
to a subclass of `Adapter`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Final, NamedTuple

from crossbus.adapter import Adapter
from crossbus.capabilities import Capabilities
from crossbus.errors import AdapterNotInstalled, ConfigurationError, nearest

__all__ = ["GROUP", "adapter_class", "capabilities_of", "extra_of", "not_installed", "schemes"]

GROUP: Final = "crossbus.adapters"
"""The entry-point group of adapters."""

FIRST_PARTY: Final[Mapping[str, str]] = {
    "local": "",
    "local+http": "server",
    "eventbridge": "aws",
    "pubsub": "gcp",
    "eventgrid": "azure",
}
"""The schemes of crossbus's own adapters, each with the extra that installs what it needs."""


class _Found(NamedTuple):
    value: str
    """``module:attribute``."""
    package: str
    """The distribution that it comes from, for messages."""


def adapter_class(scheme: str, origin: str = "") -> type[Adapter]:
    """Return the adapter of a URL's scheme.

    Args:
        scheme: The whole scheme: ``local``, ``local+http``, ``eventbridge``.
        origin: Where the scheme was configured, for messages: ``CROSSBUS_URL``.

    Raises:
        AdapterNotInstalled: It is one of crossbus's own, but this version does not contain it; or a package
        that it
            needs is missing, and the message says what to install.
        ConfigurationError: No adapter has this name, or what is registered under it is no adapter.
    """
    prefix = f"{origin}: " if origin else ""
    own = _own(tuple(sys.path)).get(scheme)
    found = [own] if own else _installed().get(scheme, [])
    if not found:
        raise _unknown(scheme, prefix)
    if len(found) > 1:
        packages = " and ".join(each.package for each in found)
        raise ConfigurationError(f"{prefix}{packages} each have an adapter called {scheme!r}: uninstall one")
    return _load(scheme, found[0], origin)


def capabilities_of(scheme: str) -> Capabilities:
    """Return what an adapter can do, without connecting and without its SDK. Raises as `adapter_class`."""
    return adapter_class(scheme).capabilities


def extra_of(scheme: str) -> str:
    """Return the extra that installs what one of crossbus's own adapters needs; empty for none, and for another's."""
    return FIRST_PARTY.get(scheme, "")


def schemes() -> list[str]:
    """Return the schemes of all adapters that are registered here, sorted."""
    return sorted({*_installed(), *_own(tuple(sys.path))})


def not_installed(scheme: str, error: ModuleNotFoundError, origin: str = "") -> AdapterNotInstalled:
    """Make the error of an adapter whose module or SDK cannot be imported: one line that says what to
    install.

    An adapter raises it from `open`, where it imports its SDK::

        try:
            import boto3
        except ModuleNotFoundError as error:
            raise not_installed("eventbridge", error, profile.origin) from error
    """
    prefix = f"{origin}: " if origin else ""
    extra = FIRST_PARTY.get(scheme)
    remedy = f"install the package that has {error.name!r}"
    if extra is not None:
        remedy = f"pip install 'crossbus[{extra}]'" if extra else "pip install --force-reinstall crossbus"
    # Of Google's packages only the namespace that they share may be what is missing, which is no package.
    what = f"the module {error.name!r}" if error.name != "google" else "Google's SDK"
    return AdapterNotInstalled(f"{prefix}the {scheme} adapter needs {what}, which is not installed: {remedy}")


def _unknown(scheme: str, prefix: str) -> ConfigurationError:
    known = schemes()
    if scheme == "local":
        return AdapterNotInstalled(
            f"{prefix}the local adapter is not registered, because crossbus runs from a folder and is not "
            "installed: pip install crossbus, or pip install -e . in a clone"
        )
    if scheme in FIRST_PARTY:
        return AdapterNotInstalled(
            f"{prefix}this version of crossbus does not contain the {scheme} adapter; it has: "
            + (", ".join(known) or "none")
        )
    hint = nearest(scheme, known)
    listing = f" (known: {', '.join(known)})" if hint.startswith("did you mean") else ""
    return ConfigurationError(f"{prefix}no adapter is called {scheme!r}; {hint}{listing}")


def _load(scheme: str, found: _Found, origin: str) -> type[Adapter]:
    prefix = f"{origin}: " if origin else ""
    from importlib import import_module

    module, _, attribute = found.value.partition(":")
    try:
        loaded = getattr(import_module(module), attribute, None)
    except ModuleNotFoundError as error:
        raise not_installed(scheme, error, origin) from error
    except ImportError as error:
        raise ConfigurationError(
            f"{prefix}the {scheme} adapter of {found.package} cannot be imported: {error}"
        ) from error
    if not (isinstance(loaded, type) and issubclass(loaded, Adapter)):
        raise ConfigurationError(
            f"{prefix}the entry point {scheme!r} of {found.package} ({found.value}) is no subclass of "
            "crossbus.adapter.Adapter"
        )
    return loaded


@lru_cache(maxsize=1)
def _own(path: tuple[str, ...]) -> Mapping[str, _Found]:
    """The adapters of the installed crossbus distribution, read without `importlib.metadata`.

    Importing that takes longer than all of crossbus (65 ms), and the adapter asked for is nearly always one
    of these. Empty if the distribution is not unpacked on the path; the long way then finds it.
    """
    for place in path:
        for file in _entry_point_files(place or "."):
            with open(file, encoding="utf-8") as lines:
                return {name: _Found(value, "crossbus") for name, value in _entries(lines)}
    return {}


def _entry_point_files(place: str) -> Iterator[str]:
    try:
        entries = os.listdir(place)
    except OSError:  # a zip file, or a path that is not there
        return
    for entry in entries:
        if entry.startswith("crossbus-") and entry.endswith(".dist-info"):
            file = os.path.join(place, entry, "entry_points.txt")
            if os.path.isfile(file):
                yield file


def _entries(lines: Iterator[str]) -> Iterator[tuple[str, str]]:
    """Yield name and value of each entry of our group, from the lines of an `entry_points.txt`."""
    section = ""
    for raw in lines:
        line = raw.strip()
        if line.startswith("["):
            section = line.strip("[]").strip()
        elif section == GROUP and "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            yield name.strip(), value.partition("[")[0].strip()


def _installed() -> Mapping[str, list[_Found]]:
    """The adapters of every installed distribution; several where they claim one scheme."""
    from importlib.metadata import entry_points

    found: dict[str, list[_Found]] = {}
    for entry in entry_points(group=GROUP):
        package = entry.dist.name if entry.dist else "an unnamed package"
        found.setdefault(entry.name, []).append(_Found(entry.value, package))
    return found
