"""What a killed `crossbus tail` leaves behind: noted in a file while it runs, which is locked as long as it lives."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from crossbus.cli.exits import note
from crossbus.topology import Subscription

__all__ = ["LeftOver", "leaving", "left_over"]


class LeftOver(NamedTuple):
    """A subscription whose tail is dead."""

    file: str
    name: str
    filter: Any
    """Its filter in the CloudEvents Subscriptions form; None if it has none."""

    def forget(self) -> None:
        """It has been removed."""
        with contextlib.suppress(FileNotFoundError):
            Path(self.file).unlink()


def _folder() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "crossbus" / "tails"


@contextlib.contextmanager
def leaving(bus: str, subscription: Subscription) -> Iterator[None]:
    """Note a subscription while the block runs. Where that cannot be, it is said, and goes on."""
    noted = {
        "bus": bus,
        "topic": subscription.topic.name,
        "name": subscription.name,
        "filter": None if subscription.filter is None else subscription.filter.as_dict(),
    }
    path = _folder() / f"{subscription.name}.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        stream = path.open("w", encoding="utf-8")
    except OSError as error:
        note(f"--clean would not find this tail after a crash: {error}")
        yield
        return
    with stream:
        _lock(stream.fileno())
        json.dump(noted, stream)
        stream.flush()
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                path.unlink()


def left_over(bus: str, topic: str) -> list[LeftOver]:
    """Return the subscriptions on a topic whose tails ran on this machine, and are dead."""
    found = []
    for path in sorted(_folder().glob("*.json")):
        with contextlib.suppress(OSError, ValueError, KeyError), path.open("r+", encoding="utf-8") as stream:
            noted = json.load(stream)
            if noted["bus"] == bus and noted["topic"] == topic and _lock(stream.fileno()):
                found.append(LeftOver(str(path), noted["name"], noted["filter"]))
    return found


def _lock(number: int) -> bool:
    """Lock a file as long as this process has it open. False if another process has."""
    try:
        import fcntl
    except ImportError:  # not on Windows: a file that is open there cannot be removed by others
        return True
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
