"""`crossbus serve` that is wrong on purpose, before the adapter ``local+http:``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.harnesses import SqliteHarness

__all__ = ["FaultyServer"]


class FaultyServer(SqliteHarness):
    """``local+http:`` on a server that is wrong on purpose.

    Args:
        folder: Where the server keeps its file.
        fault: The name of a class of `tests.wrong_servers`; none for one that is right.
        durable: Whether it keeps everything; else it only says so.
    """

    def __init__(self, folder: Path, fault: str = "", *, durable: bool = True) -> None:
        super().__init__(folder)
        self._options: dict[str, Any] = {"path": str(folder / "events.db") if durable else None}
        self._faults = [fault] if fault else []

    def command(self, port: int) -> Sequence[str]:
        options = json.dumps({"port": port, **self._options})
        return [sys.executable, "-m", "tests.served", options, *self._faults]
