"""What a supervisor and its workers say to each other: JSON, a line each, over a pair of sockets."""

from __future__ import annotations

import json
import socket
from typing import Any, Final

__all__ = ["LONGEST", "Channel", "line"]

LONGEST: Final = 1 << 20
"""Bytes of a line."""


def line(message: dict[str, Any]) -> bytes:
    """Write a message."""
    return json.dumps(message).encode() + b"\n"


class Channel:
    """A worker's end. Reading waits; each side may be used in a thread of its own."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._lines = end.makefile("rb")

    def receive(self) -> dict[str, Any] | None:
        """Return the next message; None if the other end is gone."""
        try:
            text = self._lines.readline(LONGEST)
        except OSError:
            return None
        found: dict[str, Any] | None = json.loads(text) if text.endswith(b"\n") else None
        return found

    def send(self, message: dict[str, Any]) -> bool:
        """Send a message; False if the other end is gone."""
        try:
            self._end.sendall(line(message))
        except OSError:
            return False
        return True
