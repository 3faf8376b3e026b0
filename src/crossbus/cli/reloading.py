"""Files of a program that change while it is written: what `crossbus run --reload` starts anew for."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

from crossbus.errors import ConfigurationError

__all__ = ["changes_of"]


def changes_of(folder: str) -> AsyncIterator[list[str]]:
    """Watch Python and TOML files below a folder; gives the names of those that changed, as they do.

    Raises:
        ConfigurationError: watchfiles is not installed.
    """
    try:
        from watchfiles import PythonFilter, awatch
    except ImportError:
        raise ConfigurationError("--reload needs watchfiles: pip install 'crossbus[reload]'") from None

    async def changes() -> AsyncIterator[list[str]]:
        async for found in awatch(folder, watch_filter=PythonFilter(extra_extensions=(".toml",))):
            yield sorted({path.removeprefix(folder).lstrip(os.sep) for _, path in found})

    return changes()
