"""The duplicate store in an SQLite file: for the processes of one machine."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from crossbus.clock import Clock, SystemClock
from crossbus.deduplicate import PRUNE_EVERY, PRUNE_PART, Claim
from crossbus.errors import ConfigurationError

if TYPE_CHECKING:
    import sqlite3

__all__ = ["SQLiteStore", "short_key"]

CACHE: Final = 32_768
"""KiB of the file that are kept in memory."""
PAGE: Final = 1_024
"""Bytes of a page of a new file. Keys are random: each new one writes a page of its own, so it is a small one."""
CHECKPOINT: Final = 32_768
"""Pages of the write-ahead log before it is written back: what waits longer is written once, not often."""


def short_key(key: str) -> bytes:
    """Return what stands for a key on disk: 128 bits of BLAKE2b, so that ten million of them stay small."""
    return hashlib.blake2b(key.encode(), digest_size=16).digest()


class SQLiteStore:
    """Remembers in an SQLite file: for all processes of one machine that open it, and beyond restarts.

    Writes in one thread of its own, in WAL mode, waiting for other processes; what is asked for at the same time is
    one transaction. An event takes about 40 bytes. After a crash of the machine the last moments may be forgotten;
    then their duplicates are handled. Not for network file systems.

    Args:
        path: The file; it is made if it is not there. Its folder must exist.
        timeout: Seconds to wait for another process's write.
        clock: Whose `time()` entries are stamped with; processes that share a file need about the same time.

    Raises:
        ConfigurationError: the file cannot be opened, or is no such file.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, timeout: float = 30.0, clock: Clock | None = None
    ) -> None:
        self._path = os.fspath(path)
        if self._path in ("", ":memory:"):
            raise ConfigurationError(
                f"SQLiteStore({self._path!r}) needs a file; for memory use MemoryStore()"
            )
        self._timeout = timeout
        self._clock = clock or SystemClock()
        self._owner = uuid.uuid4().bytes
        self._claims = 0
        self._pruned = os.urandom(16)
        """How far it has looked; begun anywhere, so that processes share the work."""
        self._connection: sqlite3.Connection | None = None
        self._batches = _Batches(self._together)
        self._pid = os.getpid()
        self._connect()

    async def claim(self, key: str, *, ttl: float) -> Claim:
        """Claim a key."""
        answer: Claim = await self._run(self._claim, short_key(key), ttl)
        return answer

    async def confirm(self, key: str, *, ttl: float) -> None:
        """Remember that a key is done."""
        await self._run(self._confirm, short_key(key), ttl)

    async def release(self, key: str) -> None:
        """Forget a claim of this store's own."""
        await self._run(self._release, short_key(key))

    async def close(self) -> None:
        """Close the file. Using the store again opens it again."""
        if self._pid == os.getpid():
            await self._batches.run(None)

    async def __aenter__(self) -> SQLiteStore:
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self.close()

    async def _run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        if self._pid != os.getpid():  # after a fork: the thread is gone, and the connection is the parent's
            self._parents = self._connection  # kept: closing it here would touch the parent's locks
            self._pid, self._connection = os.getpid(), None
            self._batches = _Batches(self._together)
            self._owner = uuid.uuid4().bytes
        return await self._batches.run(function, *arguments)

    # --- in the thread ---

    def _connect(self) -> sqlite3.Connection:
        if self._connection is not None:
            return self._connection
        import sqlite3

        connection: sqlite3.Connection | None = None
        try:
            connection = sqlite3.connect(
                self._path, timeout=self._timeout, isolation_level=None, check_same_thread=False
            )
            connection.execute(f"PRAGMA page_size={PAGE}")
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute(f"PRAGMA cache_size=-{CACHE}")
            connection.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT}")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS crossbus_duplicates (key BLOB PRIMARY KEY, owner BLOB, "
                "expires REAL NOT NULL) WITHOUT ROWID"  # no owner: confirmed
            )
        except sqlite3.Error as error:
            if connection is not None:
                connection.close()
            raise ConfigurationError(
                f"SQLiteStore({self._path!r}) cannot be opened: {error}; name a file in a folder that exists, and "
                "that is writable"
            ) from error
        self._connection = connection
        return connection

    def _together(self, jobs: list[_Job]) -> list[Any]:
        """Do what waits in one transaction; None as a job closes the file. Returns the answers."""
        answers = []
        connection = self._connect() if any(job.function for job in jobs) else self._connection
        if connection is not None:
            connection.execute("BEGIN IMMEDIATE")  # for writing at once: no deadlock between two readers
            try:
                answers = [job.function and job.function(connection, *job.arguments) for job in jobs]
                connection.execute("COMMIT")
            except BaseException:
                connection.execute("ROLLBACK")
                raise
        if not all(job.function for job in jobs) and connection is not None:
            self._connection = None
            connection.close()
        return answers or [None] * len(jobs)

    def _claim(self, connection: sqlite3.Connection, key: bytes, ttl: float) -> Claim:
        now = self._clock.time()
        self._claims += 1
        if self._claims % PRUNE_EVERY == 0:
            self._prune(connection, now)
        changed = connection.execute(
            "INSERT INTO crossbus_duplicates VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE SET "
            "owner = excluded.owner, expires = excluded.expires WHERE expires <= ?",
            (key, self._owner, now + ttl, now),
        ).rowcount
        if changed:
            return "new"
        (owner,) = connection.execute(
            "SELECT owner FROM crossbus_duplicates WHERE key = ?", (key,)
        ).fetchone()
        return "done" if owner is None else "in_progress"

    def _prune(self, connection: sqlite3.Connection, now: float) -> None:
        part = connection.execute(
            "SELECT key FROM crossbus_duplicates WHERE key > ? ORDER BY key LIMIT 1 OFFSET ?",
            (self._pruned, PRUNE_PART - 1),
        ).fetchone()
        if part is not None:
            where, bounds = "key > ? AND key <= ?", (self._pruned, part[0])
            self._pruned = part[0]
        else:  # the end: go on at the beginning
            where, bounds = "(key > ? OR key <= ?)", (self._pruned, self._turn(connection))
            self._pruned = bounds[1]
        connection.execute(f"DELETE FROM crossbus_duplicates WHERE {where} AND expires <= ?", (*bounds, now))

    def _turn(self, connection: sqlite3.Connection) -> bytes:
        """Return how far to look from the beginning."""
        part = connection.execute(
            "SELECT key FROM crossbus_duplicates ORDER BY key LIMIT 1 OFFSET ?", (PRUNE_PART - 1,)
        ).fetchone()
        return self._pruned if part is None else bytes(part[0])

    def _confirm(self, connection: sqlite3.Connection, key: bytes, ttl: float) -> None:
        connection.execute(
            "INSERT INTO crossbus_duplicates VALUES (?, NULL, ?) ON CONFLICT (key) DO UPDATE SET "
            "owner = NULL, expires = excluded.expires",
            (key, self._clock.time() + ttl),
        )

    def _release(self, connection: sqlite3.Connection, key: bytes) -> None:
        # By its owner only: a claim that ended while it was ours may be somebody else's now.
        connection.execute("DELETE FROM crossbus_duplicates WHERE key = ? AND owner = ?", (key, self._owner))


class _Job(NamedTuple):
    function: Callable[..., Any] | None
    """None: the last of the thread."""
    arguments: tuple[Any, ...]
    future: asyncio.Future[Any]


class _Batches:
    """A thread that takes all that waits at once, from any event loop."""

    def __init__(self, do: Callable[[list[_Job]], list[Any]]) -> None:
        self._do = do
        self._changed = threading.Condition()
        self._waiting: list[_Job] = []
        self._thread: threading.Thread | None = None

    async def run(self, function: Callable[..., Any] | None, *arguments: Any) -> Any:
        """Have a function called in the thread; return what it returns. None ends the thread, after what waits."""
        job = _Job(function, arguments, asyncio.get_running_loop().create_future())
        with self._changed:
            self._waiting.append(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="crossbus duplicates", daemon=True)
                self._thread.start()
            elif len(self._waiting) == 1:
                self._changed.notify()
        return await job.future

    def _work(self) -> None:
        ended = False
        while True:
            with self._changed:
                if ended and not self._waiting:
                    self._thread = None
                    return
                while not self._waiting:
                    self._changed.wait()
                jobs, self._waiting = self._waiting, []
            ended = any(job.function is None for job in jobs)
            answers: list[Any] = []
            failure: Exception | None = None
            try:
                answers = self._do(jobs)
            except Exception as error:
                failure = error
            _answer(jobs, answers, failure)


def _answer(jobs: list[_Job], answers: list[Any], failure: Exception | None) -> None:
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any]]] = {}
    for index, job in enumerate(jobs):
        pairs = by_loop.setdefault(job.future.get_loop(), [])
        pairs.append((job.future, None if failure else answers[index]))
    for loop, pairs in by_loop.items():
        with suppress(RuntimeError):  # the loop has ended without us; the event will come again
            loop.call_soon_threadsafe(_resolve, pairs, failure)


def _resolve(pairs: list[tuple[asyncio.Future[Any], Any]], failure: Exception | None) -> None:
    for future, answer in pairs:
        if future.done():
            continue
        if failure is not None:
            future.set_exception(failure)
        else:
            future.set_result(answer)
