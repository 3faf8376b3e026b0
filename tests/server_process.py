"""A server of the local broker in a process of its own, for tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from types import TracebackType

__all__ = ["Server"]


class Server:
    """A server. It is there when the constructor returns; `kill` and `start` may follow each other.

    Args:
        arguments: Of `crossbus serve`, beside the port.
        environment: Variables beside those of this process.
    """

    def __init__(self, *arguments: str, **environment: str) -> None:
        self._arguments = arguments
        self._environment = {**os.environ, **environment}
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"local+http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, on the port that it had before."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "crossbus", "serve", "--port", str(self.port), *self._arguments],
            stdout=subprocess.PIPE,
            env=self._environment,
            text=True,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line.startswith("listening on http://"), f"the server did not start: {line!r}"
        self.port = int(line.rpartition(":")[2])

    def kill(self, how: int = signal.SIGKILL) -> None:
        """End it, and wait until it has ended."""
        self._process.send_signal(how)
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
