"""The duplicate store on PostgreSQL: for any number of machines, and within a transaction of the handler's."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

from crossbus.clock import Clock
from crossbus.deduplicate import PRUNE_EVERY, PRUNE_PART, Claim
from crossbus.deduplicate_sqlite import short_key
from crossbus.errors import ConfigurationError
from crossbus.threads import Threads

if TYPE_CHECKING:
    import psycopg

__all__ = ["PostgresStore"]

T = TypeVar("T")

LOCK_LIMIT: Final = 1.0
"""Seconds that a claim waits for a transaction which is just confirming the same event; then it says `in_progress`."""

_TABLE = re.compile(r"(?:[a-z_][a-z0-9_]{0,49}\.)?[a-z_][a-z0-9_]{0,49}\Z")
_NOW: Final = "coalesce(%(now)s::double precision, extract(epoch from clock_timestamp())::double precision)"


class PostgresStore:
    """Remembers in a table of PostgreSQL: for all processes that use the database, on any machine.

    ::

        store = PostgresStore("postgresql://db.acme.internal/shop")  # the password from PGPASSWORD or ~/.pgpass
        deduplicate = Deduplicate(store)

    Each claim is one short transaction of its own. `Deduplicate.confirm` confirms within the handler's transaction.
    Times are the database's, so the clocks of the machines do not matter. What was lost with a connection is tried
    once more on a new one. It needs ``pip install 'crossbus[postgres]'``, and a pooler between must pool sessions.

    Args:
        conninfo: What libpq takes: a URL, or ``host=... dbname=...``. What it leaves out comes from libpq's own
            variables (``PGHOST``, ``PGDATABASE``, ``PGUSER``, ``PGPASSWORD`` ...). Never shown in a message.
        table: The table, with its schema if you like. Lower-case letters, digits and ``_``.
        create: Make the table if it is not there. False: refuse, with the SQL that makes it (`schema`).
        connections: How many connections are used at most, each in a thread of its own.
        timeout: Seconds to wait for a connection, and for an answer.
        clock: Another time than the database's, for tests.

    Raises:
        ConfigurationError: psycopg is not installed, or an argument is wrong. Nothing is connected before the first
            use, or before ``async with``.
    """

    def __init__(
        self,
        conninfo: str = "",
        *,
        table: str = "crossbus_duplicates",
        create: bool = True,
        connections: int = 4,
        timeout: float = 10.0,
        clock: Clock | None = None,
    ) -> None:
        self._parameters = _parameters(conninfo, timeout)
        if not isinstance(table, str) or not _TABLE.match(table):
            raise ConfigurationError(
                f"PostgresStore(table={table!r}): lower-case letters, digits and _ are allowed, with a schema before a "
                "dot if you like"
            )
        if not isinstance(connections, int) or isinstance(connections, bool) or connections < 1:
            raise ConfigurationError(
                f"PostgresStore(connections={connections!r}): it must be a whole number from 1"
            )
        self._table = table
        self._create = create
        self._timeout = timeout
        self._clock = clock
        self._count = connections
        self._claims = 0
        self._pruned = os.urandom(16)
        """How far it has looked; begun anywhere, so that processes share the work."""
        self._ready = False
        self._held: dict[bytes, uuid.UUID] = {}
        """What this store has claimed, by the claim's own mark: only that may be released, or confirmed within."""
        self._idle: list[psycopg.Connection[Any]] = []
        self._begin()

    def _begin(self) -> None:
        self._threads = Threads(self._count, "crossbus duplicates")
        self._pid = os.getpid()

    @property
    def schema(self) -> str:
        """The SQL that makes the table, for those who make it themselves."""
        return (
            f"CREATE TABLE IF NOT EXISTS {self._table} "
            "(key bytea PRIMARY KEY, owner uuid, expires double precision NOT NULL)"
        )

    # --- the store ---

    async def claim(self, key: str, *, ttl: float) -> Claim:
        """Claim a key."""
        return await self._run(lambda: self._claim(short_key(key), ttl))

    async def confirm(self, key: str, *, ttl: float) -> None:
        """Remember that a key is done."""
        short = short_key(key)
        await self._run(
            lambda: self._execute(
                f"INSERT INTO {self._table} VALUES (%(key)s, NULL, {_NOW} + %(ttl)s) ON CONFLICT (key) DO UPDATE SET "
                "owner = NULL, expires = excluded.expires",
                {"key": short, "ttl": ttl},
            )
        )
        self._held.pop(short, None)

    async def release(self, key: str) -> None:
        """Forget a claim of this store's own."""
        short = short_key(key)
        owner = self._held.pop(short, None)
        if owner is not None:
            statement = f"DELETE FROM {self._table} WHERE key = %(key)s AND owner = %(owner)s"
            await self._run(lambda: self._execute(statement, {"key": short, "owner": owner}))

    async def confirm_within(self, connection: Any, key: str, *, ttl: float) -> bool:
        """Confirm a key in the transaction of a psycopg `AsyncConnection`. False if the claim is ours no more."""
        import psycopg

        if not isinstance(connection, psycopg.AsyncConnection):
            raise _wrong_connection(connection, "AsyncConnection, in an async handler")
        _check_open(connection)
        found = await connection.execute(self._within(), self._within_values(key, ttl))
        return await found.fetchone() is not None

    def confirm_within_sync(self, connection: Any, key: str, *, ttl: float) -> bool:
        """Do the same on a psycopg `Connection`."""
        import psycopg

        if not isinstance(connection, psycopg.Connection):
            raise _wrong_connection(connection, "Connection, in a handler that is a plain function")
        _check_open(connection)
        found = connection.execute(self._within(), self._within_values(key, ttl))
        return found.fetchone() is not None

    def settled(self, key: str) -> None:
        """Know of a claim no more: its handler has returned, and had confirmed it within a transaction."""
        self._held.pop(short_key(key), None)

    def _within(self) -> Any:
        return (
            f"UPDATE {self._table} SET owner = NULL, expires = {_NOW} + %(ttl)s "
            "WHERE key = %(key)s AND owner = %(owner)s RETURNING 1"
        )

    def _within_values(self, key: str, ttl: float) -> dict[str, Any]:
        short = short_key(key)
        return {"key": short, "owner": self._held.get(short), "ttl": ttl, "now": self._now()}

    # --- beginning and end ---

    async def open(self) -> None:
        """Connect and look for the table now, rather than at the first event.

        Raises:
            ConfigurationError: the database cannot be reached, or has no table and none may be made.
        """
        import psycopg

        try:
            await self._run(lambda: self._execute("SELECT 1", {}))
        except psycopg.Error as error:
            raise ConfigurationError(f"PostgresStore: {self._shown(error)}") from None

    async def close(self) -> None:
        """Close the connections. Using the store again opens new ones."""
        if self._pid == os.getpid():
            threads = self._threads
            await threads.run(lambda _: self._disconnect(), None)
            self._begin()
            threads.close()

    async def __aenter__(self) -> PostgresStore:
        await self.open()
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self.close()

    # --- in the threads ---

    async def _run(self, function: Callable[[], T]) -> T:
        if (
            self._pid != os.getpid()
        ):  # after a fork: the threads are gone, and the connections are the parent's
            self._parents = self._idle  # kept: closing them here would end the parent's sessions
            self._idle, self._held = [], {}
            self._begin()
        result: T = await self._threads.run(lambda _: function(), None)
        return result

    def _claim(self, key: bytes, ttl: float) -> Claim:
        import psycopg

        owner = uuid.uuid4()
        values = {"key": key, "owner": owner, "ttl": ttl}
        self._claims += 1
        if self._claims % PRUNE_EVERY == 0 and not self._prune(self._pruned):
            self._prune(b"")  # it was at the end
        try:
            new = self._execute(
                f"INSERT INTO {self._table} AS d VALUES (%(key)s, %(owner)s, {_NOW} + %(ttl)s) ON CONFLICT (key) "
                f"DO UPDATE SET owner = excluded.owner, expires = excluded.expires WHERE d.expires <= {_NOW} "
                "OR d.owner = excluded.owner "  # ours: the answer to the first try was lost with its connection
                "RETURNING 1",
                values,
            )
        except psycopg.errors.LockNotAvailable:
            return "in_progress"
        if new:
            self._held[key] = owner
            return "new"
        found = self._execute(f"SELECT owner FROM {self._table} WHERE key = %(key)s", values)
        return "done" if found == [(None,)] else "in_progress"

    def _prune(self, after: bytes) -> bool:
        """Look through a part of the entries for what has expired; False if there was less than that."""
        part = self._execute(
            f"WITH part AS (SELECT key FROM {self._table} WHERE key > %(after)s ORDER BY key LIMIT %(part)s), "
            f"gone AS (DELETE FROM {self._table} WHERE key IN (SELECT key FROM {self._table} WHERE key IN "
            f"(SELECT key FROM part) AND expires <= {_NOW} FOR UPDATE SKIP LOCKED)) "
            "SELECT key, (SELECT count(*) FROM part) FROM part ORDER BY key DESC LIMIT 1",
            {"after": after, "part": PRUNE_PART},
        )
        if part:
            self._pruned = part[0][0]
        return bool(part) and part[0][1] == PRUNE_PART

    def _execute(self, statement: Any, values: dict[str, Any]) -> list[tuple[Any, ...]]:
        """Execute a statement that may be executed twice; once more if the connection was lost with it."""
        import psycopg

        values = {**values, "now": self._now()}
        try:
            return self._on(self._take(), statement, values)
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            if isinstance(error, psycopg.errors.LockNotAvailable | psycopg.errors.QueryCanceled):
                raise
            self._disconnect()  # the others were lost with it, as when the server was started anew
        return self._on(self._take(), statement, values)

    def _on(
        self, connection: psycopg.Connection[Any], statement: Any, values: dict[str, Any]
    ) -> list[tuple[Any, ...]]:
        import psycopg

        try:
            cursor = connection.execute(statement, values)
            rows = cursor.fetchall() if cursor.description else []
        except psycopg.errors.LockNotAvailable:
            self._idle.append(connection)
            raise
        except BaseException:
            connection.close()
            raise
        self._idle.append(connection)
        return rows

    def _take(self) -> psycopg.Connection[Any]:
        try:
            return self._idle.pop()
        except IndexError:
            return self._connect()

    def _connect(self) -> psycopg.Connection[Any]:
        import psycopg

        connection = psycopg.connect(**self._parameters, autocommit=True)
        try:
            connection.execute(
                "SELECT set_config('lock_timeout', %s, false), set_config('statement_timeout', %s, false)",
                (f"{LOCK_LIMIT * 1000:.0f}", f"{self._timeout * 1000:.0f}"),
            )
            if not self._ready:
                self._find_table(connection)
                self._ready = True
        except BaseException:
            connection.close()
            raise
        return connection

    def _find_table(self, connection: psycopg.Connection[Any]) -> None:
        import psycopg

        if connection.execute("SELECT to_regclass(%s)", (self._table,)).fetchone() != (None,):
            return
        if not self._create:
            raise ConfigurationError(
                f"PostgresStore: there is no table {self._table}; make it with: {self.schema}"
            )
        try:
            connection.execute(self.schema.encode())
        except (psycopg.errors.UniqueViolation, psycopg.errors.DuplicateTable):
            pass  # another process made it just now
        except psycopg.errors.InsufficientPrivilege as error:
            raise ConfigurationError(
                f"PostgresStore: the table {self._table} is not there and may not be made "
                f"({error.diag.message_primary}); have it made with: {self.schema}"
            ) from None

    def _disconnect(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def _now(self) -> float | None:
        return None if self._clock is None else self._clock.time()

    def _shown(self, error: Exception) -> str:
        """Return the text of an error in one line, without the password, whatever the server put into it."""
        text = " ".join(str(error).split())
        password = self._parameters.get("password")
        return text.replace(str(password), "***") if password else text


def _parameters(conninfo: object, timeout: float) -> dict[str, Any]:
    try:
        import psycopg
        from psycopg.conninfo import conninfo_to_dict
    except ImportError as error:
        raise ConfigurationError(
            f"PostgresStore needs psycopg: pip install 'crossbus[postgres]' ({error})"
        ) from None
    try:
        if not isinstance(conninfo, str):
            raise TypeError
        given = conninfo_to_dict(conninfo)
    except (psycopg.Error, TypeError):  # which may show a password
        raise ConfigurationError(
            "PostgresStore: libpq cannot read this conninfo; write postgresql://HOST/DATABASE, or 'host=... dbname=...'"
        ) from None
    if not isinstance(timeout, (int, float)) or isinstance(timeout, bool) or not 0 < timeout < float("inf"):
        raise ConfigurationError(
            f"PostgresStore(timeout={timeout!r}): it must be a number of seconds above 0"
        )
    return {"connect_timeout": max(2, round(timeout)), "application_name": "crossbus", **given}


def _check_open(connection: Any) -> None:
    from psycopg.pq import TransactionStatus

    if connection.autocommit and connection.info.transaction_status == TransactionStatus.IDLE:
        raise ConfigurationError(
            "no transaction is open on this connection: confirm within `async with connection.transaction():`, beside "
            "what the handler writes"
        )


def _wrong_connection(given: object, wanted: str) -> ConfigurationError:
    return ConfigurationError(
        f"confirming within a transaction needs a psycopg {wanted}, not {type(given).__name__}"
    )
