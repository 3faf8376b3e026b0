"""Google's own Pub/Sub emulator: finding it on this machine, and running it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

from crossbus.errors import ConfigurationError

__all__ = ["PORT", "Emulator", "command", "find_emulator", "version"]

PORT: Final = 8085
"""Where gcloud's own command has the emulator listen."""

START_LIMIT: Final = 60.0
"""Seconds that the emulator may take to answer. It takes about one."""
STOP_LIMIT: Final = 10.0
INSTALL: Final = (
    "`gcloud components install pubsub-emulator`, or the package google-cloud-cli-pubsub-emulator"
)
_PLACES: Final = (
    "/usr/lib/google-cloud-sdk",
    "/usr/local/google-cloud-sdk",
    "/opt/google-cloud-sdk",
    "/snap/google-cloud-cli/current",
)


def find_emulator() -> Path:
    """Return the launcher of the emulator, which is a part of the Google Cloud CLI.

    Raises `ConfigurationError` that says what to install, if it or Java is not there.
    """
    for root in _roots():
        launcher = root / "platform" / "pubsub-emulator" / "bin" / "cloud-pubsub-emulator"
        if launcher.is_file():
            if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
                raise ConfigurationError(
                    "the Pub/Sub emulator needs Java, which is not installed: install a JRE"
                )
            return launcher
    raise ConfigurationError(f"the Pub/Sub emulator is not installed: install it with {INSTALL}")


def version() -> str:
    """Return the version of the emulator that is installed, by the name of its file; empty if that does not tell.

    Raises `ConfigurationError` as `find_emulator` does.
    """
    for file in (find_emulator().parent.parent / "lib").glob("cloud-pubsub-emulator-*-all.jar"):
        return file.name.removeprefix("cloud-pubsub-emulator-").removesuffix("-all.jar")
    return ""


def _roots() -> Iterator[Path]:
    """Yield where the Google Cloud CLI may be."""
    if "CLOUDSDK_ROOT_DIR" in os.environ:
        yield Path(os.environ["CLOUDSDK_ROOT_DIR"])
    gcloud = shutil.which("gcloud")
    if gcloud:
        yield Path(gcloud).resolve().parent.parent
    yield from map(Path, _PLACES)
    yield Path.home() / "google-cloud-sdk"


class Emulator:
    """A running emulator. It keeps everything in memory, and forgets it when it ends.

    Args:
        port: 0 for a free one.
        host: The address it listens on.
        memory: Of Java, in megabytes.
    """

    def __init__(self, port: int = 0, host: str = "127.0.0.1", *, memory: int = 512) -> None:
        self.host = host
        self.port = port or _free_port(host)
        self._memory = memory
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None

    @property
    def address(self) -> str:
        """``host:port``: what PUBSUB_EMULATOR_HOST is to be set to."""
        return f"{self.host}:{self.port}"

    @property
    def pid(self) -> int:
        """The id of its process, which is Java's."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> Emulator:
        """Start it, and return when it answers. Raises `ConfigurationError` if it does not."""
        launcher = find_emulator()
        if not _is_free(self.host, self.port):
            raise ConfigurationError(
                f"the Pub/Sub emulator cannot listen on {self.address}: the address is taken"
            )
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `stop`
        self._process = subprocess.Popen(  # noqa: S603 - what was found above
            [launcher, f"--host={self.host}", f"--port={self.port}"],
            env={**os.environ, "JAVA_OPTS": f"-Xmx{self._memory}m {os.environ.get('JAVA_OPTS', '')}".strip()},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for us, who then stop it
        )
        end = time.monotonic() + START_LIMIT
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > end:
                said = self.last_line()
                self.stop()
                raise ConfigurationError(f"the Pub/Sub emulator did not start on {self.address}: {said}")
            time.sleep(0.05)
        return self

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self.address}/", timeout=2) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False

    @property
    def has_ended(self) -> bool:
        """True if it is not running."""
        return self._process is None or self._process.poll() is not None

    def last_line(self) -> str:
        """Return the last line that it has printed."""
        return self.log().strip().rpartition("\n")[2]

    def log(self) -> str:
        """Return what it has printed."""
        if self._log is None:
            return ""
        self._log.seek(0)
        return self._log.read().decode("utf-8", "replace")

    def stop(self) -> None:
        """End it, and everything that is in it. Idempotent."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(STOP_LIMIT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._log is not None:
            self._log.close()
            self._log = None

    def __enter__(self) -> Emulator:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def _is_free(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # as Java's: what just ended is no hindrance
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def _free_port(host: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def command(*, host: str, port: int | None) -> None:
    """Run the emulator for a developer, until SIGINT or SIGTERM: what ``crossbus emulator pubsub`` does.

    Raises `ConfigurationError` if it is not installed, or does not start.
    """
    ended = threading.Event()
    before = {
        number: signal.signal(number, lambda *_: ended.set()) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        with Emulator(PORT if port is None else port, host) as emulator:
            print(
                f"Google's Pub/Sub emulator listens on {emulator.address}. It keeps everything in memory; Ctrl-C "
                "ends it.\n"
                "In another terminal:\n\n"
                f"  export PUBSUB_EMULATOR_HOST={emulator.address}\n"
                "  export CROSSBUS_URL=pubsub:my-project\n",
                flush=True,
            )
            while not ended.wait(0.5):
                if emulator.has_ended:
                    raise ConfigurationError(f"the Pub/Sub emulator ended: {emulator.last_line()}")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
