"""A server under the kit: started as a process of its own, killed and started again, behind a network that can be cut.

`ServerHarness` is for adapters that have a server which runs on this machine: the local broker's own, an emulator, a
stand-in. Its author says how the server is started and by which URL crossbus reaches it:

```python
class EmulatorHarness(ServerHarness):
    name = "pubsub: on its emulator"

    def command(self, port):
        return ["emulator", "--port", str(port)]

    def address(self, host, port):
        return "pubsub:kit"

    def variables(self, host, port):
        return {"PUBSUB_EMULATOR_HOST": f"{host}:{port}"}

with EmulatorHarness() as harness:
    asyncio.run(check(harness))
```
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import http.client
import os
import signal
import socket
import subprocess
import tempfile
import time
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from types import TracebackType
from typing import IO, Final, Self

from crossbus.adapter import Adapter
from crossbus.capabilities import Capabilities
from crossbus.clock import Clock
from crossbus.config import load
from crossbus.conformance.cases import Skipped
from crossbus.conformance.harness import Harness, Stop
from crossbus.conformance.proxy import Cut, Proxy
from crossbus.registry import adapter_class

__all__ = ["ServerHarness", "ServerProcess", "answers_http"]

START_LIMIT: Final = 60.0
"""Seconds that a server may take until it answers, and to end after SIGTERM."""
GROUP_LIMIT: Final = 5.0
"""Seconds that what a server has started may go on after it."""
HOST: Final = "127.0.0.1"


def answers_http(port: int) -> bool:
    """Return whether anything at all is answered to an HTTP request on a port of loopback."""
    connection = http.client.HTTPConnection(HOST, port, timeout=2)
    try:
        connection.request("GET", "/")
        connection.getresponse()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return True


class ServerProcess:
    """A server as a process of its own, on a port that is free.

    Args:
        command: Makes the command that starts it on a port.
        environment: Variables beside those of this process.
        answers: Tells whether it answers on a port.
        limit: Seconds that starting and ending may take.
    """

    def __init__(
        self,
        command: Callable[[int], Sequence[str]],
        *,
        environment: Mapping[str, str] | None = None,
        answers: Callable[[int], bool] = answers_http,
        limit: float = START_LIMIT,
    ) -> None:
        self.port = 0
        """Where it listens; 0 until it was started. Each start takes another."""
        self.environment = dict(environment or {})
        self._command = command
        self._answers = answers
        self._limit = limit
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None

    def start(self) -> None:
        """Start it, and return when it answers. Raises `RuntimeError`, with what it said, if it does not."""
        if self.is_running:
            return
        self.port = free_port()
        self._log = self._log or tempfile.TemporaryFile()  # noqa: SIM115 (one for all its lives)
        self._process = subprocess.Popen(  # noqa: S603 (the harness's author says what is run)
            list(self._command(self.port)),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **self.environment},
            start_new_session=True,  # so that what it starts itself ends with it
        )
        atexit.register(self.stop, "kill")
        end = time.monotonic() + self._limit
        while not self._answers(self.port):
            if not self.is_running:
                raise RuntimeError(
                    f"the server ended with exit code {self._process.returncode}: {self.said()}"
                )
            if time.monotonic() > end:
                self.stop("kill")
                raise RuntimeError(f"the server did not answer within {self._limit:g} s: {self.said()}")
            time.sleep(0.05)

    def stop(self, how: Stop = "terminate") -> None:
        """End it, by SIGTERM or SIGKILL. Idempotent. Raises `RuntimeError` if it does not heed SIGTERM."""
        atexit.unregister(self.stop)
        process = self._process
        if process is None:
            return
        self._signal(signal.SIGTERM if how == "terminate" else signal.SIGKILL)
        try:
            process.wait(self._limit if how == "terminate" else None)  # nothing survives SIGKILL
            self._end_group(process.pid)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            process.wait()
            raise RuntimeError(
                f"the server did not end within {self._limit:g} s after SIGTERM: {self.said()}"
            ) from None
        finally:
            self._process = None

    def restart(self, how: Stop = "terminate") -> None:
        """Stop it, and start it again."""
        self.stop(how)
        self.start()

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    @staticmethod
    def _end_group(group: int) -> None:
        """Let what it started end too, where it was a script that starts the server proper; kill what does not."""
        end = time.monotonic() + GROUP_LIMIT
        try:
            while time.monotonic() < end:
                os.killpg(group, 0)
                time.sleep(0.02)
            os.killpg(group, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):  # none is left (the latter on macOS)
            pass

    def close(self) -> None:
        """Stop it for good."""
        try:
            self.stop()
        finally:
            if self._log is not None:
                self._log.close()
                self._log = None

    @property
    def is_running(self) -> bool:
        """True unless it was stopped, or has ended by itself."""
        return self._process is not None and self._process.poll() is None

    def said(self, most: int = 2000) -> str:
        """Return the end of what it printed, for a message."""
        if self._log is None:
            return "it never ran"
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - most))
        text = self._log.read().decode(errors="replace").strip()
        self._log.seek(0, os.SEEK_END)
        return text or "it said nothing"


class ServerHarness(Harness):
    """The kit on an adapter with a server that runs on this machine. See the module's text.

    Use it in a ``with`` block, or call `start` and `close`. All runs share the server, as they would share an account;
    behind a `Proxy`, so that the network can be cut. Restarting it needs `durable`.
    """

    worlds = False
    durable: bool = False
    """True if the server keeps what it holds when it ends."""
    patience = 2.0

    def __init__(self) -> None:
        self.server = ServerProcess(
            self.command,
            environment=self.server_environment(),
            answers=self.answers,
            limit=START_LIMIT * self.patience,
        )
        self.proxy = Proxy((HOST, 0))
        self._before: dict[str, str | None] = {}

    # --- required ------------------------------------------------------------------------------------------------

    @abstractmethod
    def command(self, port: int) -> Sequence[str]:
        """Return the command that starts the server on a port of loopback."""

    @abstractmethod
    def address(self, host: str, port: int) -> str:
        """Return the URL by which crossbus reaches a server there: the proxy's place, not the server's own."""

    # --- optional ------------------------------------------------------------------------------------------------

    def variables(self, host: str, port: int) -> Mapping[str, str]:
        """Return the variables that crossbus needs to reach a server there, as a key or an emulator's address.

        They are set in this process while the harness runs.
        """
        return {}

    def server_environment(self) -> Mapping[str, str]:
        """Return the variables that the server needs."""
        return {}

    def answers(self, port: int) -> bool:
        """Return whether the server answers on a port. By default: anything at all to an HTTP request."""
        return answers_http(port)

    @property
    def capabilities(self) -> Capabilities:
        """Those of the adapter's class."""
        return adapter_class(load(self.url("")).default.scheme, self.url("")).capabilities

    def make_adapter(self, world: str, clock: Clock) -> Adapter:
        """Make an adapter of the URL."""
        profile = load(self.url(world)).default
        return adapter_class(profile.scheme, self.url(world))(profile, clock=clock)

    # --- beginning and end --------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the server and the network before it."""
        self.server.start()
        self.proxy.target = (HOST, self.server.port)
        self.proxy.start()
        self._before = {name: os.environ.get(name) for name in self.environment("")}
        os.environ.update(self.environment(""))

    def close(self) -> None:
        """End both. Idempotent."""
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        self.proxy.close()
        self.server.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- seams ---------------------------------------------------------------------------------------------------

    def url(self, world: str) -> str:
        """The URL of the proxy."""
        return self.address(self.proxy.host, self.proxy.port)

    def environment(self, world: str) -> Mapping[str, str]:
        """The variables with which the proxy is reached."""
        return self.variables(self.proxy.host, self.proxy.port)

    async def restart(self, world: str, how: Stop = "terminate") -> None:
        """Restart the server, if it is `durable`."""
        if not self.durable:
            raise Skipped("restarts", f"the server under {self.name} holds all in memory; a restart loses it")
        await asyncio.to_thread(self._restart, how)

    def _restart(self, how: Stop) -> None:
        self.server.restart(how)
        self.proxy.target = (HOST, self.server.port)

    @contextlib.asynccontextmanager
    async def cut(self, world: str, how: Cut = "refused") -> AsyncIterator[None]:
        """Cut the network before the server."""
        self.proxy.cut(how)
        try:
            yield
        finally:
            self.proxy.restore()

    @contextlib.asynccontextmanager
    async def slow(
        self, world: str, *, delay: float = 0.0, bytes_per_second: float | None = None
    ) -> AsyncIterator[None]:
        """Slow the network before the server down."""
        self.proxy.delay(delay)
        self.proxy.throttle(bytes_per_second)
        try:
            yield
        finally:
            self.proxy.restore()


def free_port() -> int:
    """Return a port of loopback that nobody has at the moment."""
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        port: int = sock.getsockname()[1]
        return port
