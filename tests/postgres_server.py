"""A PostgreSQL server for the tests: one for each process of a run, on a unix socket that only it knows."""

from __future__ import annotations

import atexit
import functools
import glob
import os
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from crossbus import PostgresStore

SKIP = "the PostgreSQL server is not installed"


def binaries() -> Path | None:
    """Where initdb and postgres stand; None if they are not installed. Debian keeps them off the path."""
    places = [
        os.environ.get("POSTGRES_BIN", ""),
        *sorted(glob.glob("/usr/lib/postgresql/*/bin"), reverse=True),
        *sorted(glob.glob("/usr/pgsql-*/bin"), reverse=True),
        *os.environ.get("PATH", "").split(os.pathsep),
    ]
    found = (place for place in places if place and shutil.which("initdb", path=place))
    return next(map(Path, found), None)


class PostgresServer:
    """A server in a folder of its own; everybody who can reach its socket may use it."""

    def __init__(self, bin: Path) -> None:
        self._bin = bin
        self._folder = Path(tempfile.mkdtemp(prefix="crossbus-pg-"))
        self._process: subprocess.Popen[bytes] | None = None
        # It refuses to run as root.
        self._user = next((name for name in ("postgres", "nobody") if _is_user(name)), None)
        if not hasattr(os, "geteuid") or os.geteuid() != 0:
            self._user = None
        elif self._user:
            shutil.chown(self._folder, self._user)
        self._call("initdb", "-D", str(self._folder / "data"), "-A", "trust", "-U", "tests", "--no-sync")

    @property
    def conninfo(self) -> str:
        return f"host={self._folder} dbname=postgres user=tests"

    def start(self) -> PostgresServer:
        options = [
            "-c",
            "listen_addresses=",
            "-c",
            f"unix_socket_directories={self._folder}",
            "-c",
            "fsync=off",
        ]
        self._process = subprocess.Popen(
            [self._bin / "postgres", "-D", self._folder / "data", *options],
            user=self._user,
            cwd=self._folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C of a test run is not for it
        )
        for _ in range(600):
            if subprocess.run([self._bin / "pg_isready", "-q", "-h", self._folder]).returncode == 0:
                return self
            assert self._process.poll() is None, "the PostgreSQL server ended at once"
            time.sleep(0.02)
        raise AssertionError("the PostgreSQL server does not answer")

    def stop(self) -> None:
        """Stop it; it can be started again, with what it holds."""
        if self._process is not None:
            self._process.send_signal(3)  # SIGQUIT: at once, without waiting for its clients
            self._process.wait(30)
            self._process = None

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _call(self, *command: str) -> None:
        subprocess.run(
            [self._bin / command[0], *command[1:]],
            user=self._user,
            cwd=self._folder,
            capture_output=True,
            check=True,
            text=True,
        )


def _is_user(name: str) -> bool:
    try:
        import pwd

        pwd.getpwnam(name)
    except (ImportError, KeyError):
        return False
    return True


@functools.cache
def _started(bin: Path) -> PostgresServer:
    server = PostgresServer(bin)
    atexit.register(server.remove)
    return server.start()


def running() -> PostgresServer:
    """The server of this run. Where none is installed, tests are skipped at the desk, and fail in CI."""
    bin = binaries()
    if bin is None:
        if os.environ.get("CI", "").lower() == "true":
            raise FileNotFoundError(f"{SKIP}: no initdb in POSTGRES_BIN, /usr/lib/postgresql or on the path")
        pytest.skip(SKIP)
    return _started(bin)


@asynccontextmanager
async def postgres_store(**options: Any) -> AsyncIterator[PostgresStore]:
    """A store with a table of its own, which is gone afterwards."""
    table = f"duplicates_{uuid.uuid4().hex[:12]}"
    store = PostgresStore(running().conninfo, **{"table": table, **options})
    try:
        yield store
    finally:
        await store.close()
        execute(f"DROP TABLE IF EXISTS {table}")


def execute(statement: str) -> list[tuple[Any, ...]]:
    """Execute a statement on the server of this run."""
    import psycopg

    with psycopg.connect(running().conninfo, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []
