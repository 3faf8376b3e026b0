"""Opening the SQLite file of a broker: whose it is, which form it has, one clear error for what is wrong with it."""

from __future__ import annotations

import os
import sqlite3
from typing import Final

from crossbus.errors import ConfigurationError

__all__ = ["VERSION", "damaged", "explained", "open_file"]

_APPLICATION: Final = 0x78627573  # "xbus"
_STEPS: Final = (
    """
    CREATE TABLE numbers (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
    INSERT INTO numbers
        VALUES ('sequence', 0), ('serial', 0), ('row', 0), ('identity', random() & 0x7fffffffffffffff);
    CREATE TABLE topics (
        id INTEGER PRIMARY KEY,     -- as the other ids, never given again
        name TEXT NOT NULL UNIQUE,
        published INTEGER NOT NULL,
        dropped INTEGER NOT NULL,
        kept_from INTEGER NOT NULL  -- the sequence from which on its messages are its history
    );
    CREATE TABLE subscriptions (
        id INTEGER PRIMARY KEY, topic INTEGER NOT NULL, name TEXT NOT NULL, settings TEXT NOT NULL,
        UNIQUE (topic, name)
    );
    CREATE TABLE dead_letters (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, last INTEGER NOT NULL);
    CREATE TABLE messages (
        sequence INTEGER PRIMARY KEY,
        topic INTEGER,          -- into which it was published, if into one
        published REAL NOT NULL,
        key TEXT,
        attributes BLOB,        -- MessagePack; NULL for none
        body BLOB NOT NULL
    );
    CREATE TABLE waiting (
        subscription INTEGER NOT NULL,
        place INTEGER NOT NULL, -- the order in which they were put in
        message INTEGER NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0,
        due REAL,               -- since the epoch: when its lease or its delay ends; NULL if it may be received
        token INTEGER,          -- of its lease, if it is in hand
        replay TEXT,            -- which replay it is a copy of, if of any
        PRIMARY KEY (subscription, place)
    ) WITHOUT ROWID;
    CREATE TABLE dead (
        dead_letter INTEGER NOT NULL,
        token INTEGER NOT NULL,
        message INTEGER NOT NULL,
        attempts INTEGER NOT NULL,
        place INTEGER NOT NULL,
        replay TEXT,
        PRIMARY KEY (dead_letter, token)
    ) WITHOUT ROWID;
    """,
)
"""What makes each version of the schema of the one before. Released steps never change; a new one is put at the end."""
VERSION: Final = len(_STEPS)
"""The version of the schema: `PRAGMA user_version` of the file."""

_WAL_PAGES: Final = 4000
"""After so many pages the log goes into the database: the only time that a commit waits for the disk."""


def open_file(path: str, *, synchronous: str = "NORMAL") -> sqlite3.Connection:
    """Open the file, or make it, and bring it to this version of the schema.

    The file is locked as long as the connection is open, by a lock that ends with the process however it ends.

    Raises `ConfigurationError`, and has changed nothing, if another process has it, if it cannot be written, if it is
    none of crossbus's, of a newer version, or damaged.
    """
    try:
        connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:
        raise explained(path, error) from error
    try:
        _prepare(connection, path, synchronous)
    except sqlite3.Error as error:
        connection.close()
        raise explained(path, error) from error
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: str, synchronous: str) -> None:
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    version = _version(connection, path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    connection.execute(f"PRAGMA wal_autocheckpoint = {_WAL_PAGES}")
    found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise damaged(path, " ".join(found.split()))
    for number in range(version, VERSION):
        _step(connection, number)


def _version(connection: sqlite3.Connection, path: str) -> int:
    """Return the version of the schema, 0 for a new file. Reads only."""
    application = _pragma(connection, "application_id")
    version = _pragma(connection, "user_version")
    if application != _APPLICATION:
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if application or version or tables:
            raise ConfigurationError(
                f"{path} is the database of another program; give the path of a new file, or of one that crossbus made"
            )
    if version > VERSION:
        raise ConfigurationError(
            f"{path} was written by a newer crossbus (its schema is version {version}, this one knows {VERSION}); "
            "upgrade crossbus"
        )
    return version


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    value: int = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return value


def _step(connection: sqlite3.Connection, number: int) -> None:
    connection.executescript(
        f"BEGIN IMMEDIATE; {_STEPS[number]} PRAGMA application_id = {_APPLICATION}; "
        f"PRAGMA user_version = {number + 1}; COMMIT;"
    )


def damaged(path: str, what: object) -> ConfigurationError:
    """Return the error for a file that cannot be understood."""
    return ConfigurationError(
        f"{path} is damaged ({what}); restore it from a copy, or see what `sqlite3 {path} .recover` can save"
    )


def explained(path: str, error: BaseException | None) -> ConfigurationError:
    """Return the error for a file that cannot be opened, or not be written."""
    code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
    if code == sqlite3.SQLITE_BUSY:
        return ConfigurationError(
            f"{path} is in use by another process, or by another broker in this one, and a file has one owner; run "
            f"`crossbus serve --path {path}` and let all of them connect to it with local+http:"
        )
    if code == sqlite3.SQLITE_NOTADB:
        return ConfigurationError(
            f"{path} is no SQLite database; give the path of a new file, or of one that crossbus made"
        )
    if code == sqlite3.SQLITE_CORRUPT:
        return damaged(path, error)
    if os.path.isdir(path):
        return ConfigurationError(f"{path} is a directory; give the path of a file")
    if code == sqlite3.SQLITE_CANTOPEN and not os.path.isdir(os.path.dirname(path)):
        return ConfigurationError(f"{path} cannot be made: its directory is not there; make it first")
    return ConfigurationError(
        f"{path} cannot be opened and written ({error}); check its permissions, those of its directory, and the space "
        "on the disk"
    )
