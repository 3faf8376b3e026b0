"""`LocalAdapter`: the local broker, in process, as an adapter like any other.

``local:`` is private to the adapter, and lives as long as it does, closed or open. ``local:shop`` is shared, by name,
by all that ask for it in the process, from any thread and event loop; it lives as long as the process, so that who
publishes and closes loses nothing. `forget` ends one earlier, for tests. ``local:?path=events.db`` is in a file, and
shared, by its path, in the same way; when the last that has it open closes, the file is free for another process. A
forked child begins with none.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any, ClassVar, Final

from crossbus.adapter import (
    Backlog,
    Change,
    DeadLetterQueue,
    Description,
    ReplayFrom,
    SendOutcome,
    Wire,
)
from crossbus.capabilities import Capabilities
from crossbus.clock import Clock, SystemClock
from crossbus.errors import BusClosedError, ConfigurationError, ErrorCode, NotFound, ProviderError
from crossbus.event import new_id
from crossbus.filters import Filter
from crossbus.profiles import Profile
from crossbus.topology import Subscription, Topic
from crossbus_local.base import REPLAYS, BrokerAdapter, broker_capabilities
from crossbus_local.dead_letters import LocalDeadLetters, not_found, outcomes
from crossbus_local.engine import DEFAULT_HISTORY, Engine
from crossbus_local.provisioning import Snapshot
from crossbus_local.queue import QueueSettings
from crossbus_local.receiver import LocalReceiver

__all__ = ["LocalAdapter", "forget"]

_ABSENT: Final = frozenset({"push", "processes", "restarts", "network", "credentials"})
_TEMPORARY_LEASE = 60.0

_shared: dict[str, Engine] = {}
_files: dict[str, list[Engine]] = {}
"""By path, the engine of each file that is open, once for each adapter that has it open."""
_shared_lock = threading.Lock()


def forget(name: str) -> None:
    """Forget the shared broker ``local:NAME`` and all that is in it; who has it open keeps it to himself."""
    with _shared_lock:
        _shared.pop(name, None)


def _after_fork() -> None:
    global _shared_lock
    _shared_lock = threading.Lock()
    _shared.clear()
    _files.clear()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_after_fork)


class LocalAdapter(BrokerAdapter):
    """The local broker in this process. See the module's text."""

    name: ClassVar[str] = "local"
    parameters: ClassVar[dict[str, str]] = {
        "history": f"how many events of each topic are kept for replay; default {DEFAULT_HISTORY}, 0 for none",
        "path": "the SQLite file that keeps everything, made if it is not there; without it all is in memory",
    }
    capabilities = broker_capabilities(_ABSENT)

    def __init__(self, profile: Profile, *, clock: Clock) -> None:
        super().__init__(profile, clock=clock)
        if profile.scheme != "local":
            raise ConfigurationError(
                f"{profile.scheme}: is no broker in this process; for one, use local: or local:NAME"
            )
        self._history = _history(profile)
        if self._history == 0:
            self.capabilities = _without(self.capabilities, REPLAYS)
        self._path = _path(profile)
        self._kept: Engine | None = None
        self._engine: Engine | None = None

    # --- connection ---------------------------------------------------------------------------------------------

    @property
    def is_local(self) -> bool:
        """True: the Bus creates what is declared."""
        return True

    @property
    def engine(self) -> Engine:
        """The broker behind it. Raises `BusClosedError` unless the adapter is open."""
        if self._engine is None:
            raise BusClosedError(f"{self._url} is not open; open the bus first")
        return self._engine

    @property
    def _url(self) -> str:
        return f"local:{self.profile.target}" if self._path is None else f"local:?path={self._path}"

    async def open(self) -> None:
        """Take the broker of this name, or make it.

        Raises `ConfigurationError` if the broker is there with another clock or another length of history, and if its
        file cannot be used: another process has it, it is no file of crossbus's, it is damaged or cannot be written.
        """
        if self._path is not None:
            self._engine = self._share_file(self._path)
        elif self.profile.target:
            self._engine = self._share()
        else:
            self._kept = self._engine = self._kept or Engine(self.clock, history=self._history)

    def _share(self) -> Engine:
        with _shared_lock:
            engine = _shared.get(self.profile.target)
            if engine is None:
                engine = _shared[self.profile.target] = Engine(self.clock, history=self._history)
        return self._alike(engine)

    def _share_file(self, path: str) -> Engine:
        with _shared_lock:
            users = _files.get(path, [])
            if self._engine in users:
                return self._engine  # it is open already
            if users:
                engine = self._alike(users[0])
            else:
                from crossbus_local.sqlite_storage import SqliteStorage

                engine = Engine(self.clock, history=self._history, storage=SqliteStorage(path))
            _files.setdefault(path, []).append(engine)
            return engine

    def _alike(self, engine: Engine) -> Engine:
        if engine.clock is not self.clock and not (
            isinstance(engine.clock, SystemClock) and isinstance(self.clock, SystemClock)
        ):
            raise ConfigurationError(
                f"{self._url} is shared and has another clock; give every Bus on it the same"
            )
        if engine.history != self._history:
            raise ConfigurationError(
                f"{self._url} is shared and was opened with history={engine.history}, not {self._history}; give "
                "every Bus on it the same"
            )
        return engine

    async def close(self) -> None:
        """Let go of the broker. What is in it stays; a file that nobody here has open any more is let go of too."""
        engine, self._engine = self._engine, None
        if self._path is None or engine is None:
            return
        with _shared_lock:
            users = _files.get(self._path, [])
            if engine in users:  # not in a forked child, which has none
                users.remove(engine)
                if not users:
                    del _files[self._path]
                    engine.close()

    def describe(self) -> Description:
        """Say what telemetry shall call the broker."""
        return Description(system="crossbus")

    def error_code(self, error: BaseException) -> tuple[ErrorCode, bool] | None:
        """Return the code of an error that the broker raised itself; it has no SDK."""
        return (error.code, error.retryable) if isinstance(error, ProviderError) else None

    # --- publishing ---------------------------------------------------------------------------------------------

    async def send(self, topic: Topic, wires: Sequence[Wire]) -> Sequence[SendOutcome]:
        """Publish. Never suspends, and never fails in part: a topic that is not there is `NOT_FOUND` for all."""
        engine = self._engine or self.engine
        name = topic.resource or self._resources.get(topic.name) or self._topic_name(topic)
        try:
            if topic.kind == "topic":
                return outcomes(engine.publish(name, wires), len(wires))
            return outcomes(engine.publish_dead(name, wires), len(wires))
        except NotFound as error:
            return not_found(error, len(wires))

    # --- consuming ----------------------------------------------------------------------------------------------

    async def open_receiver(self, subscription: Subscription, window: int) -> LocalReceiver:
        """Begin to take deliveries. Raises `NotFound` if the subscription is not there."""
        return LocalReceiver(self.engine, *self._place(subscription), subscription.lease)

    # --- provisioning -------------------------------------------------------------------------------------------

    async def _found(self) -> Snapshot:
        return Snapshot(self.engine.topics(), self.engine.dead_letters())

    async def provision(self, changes: Sequence[Change]) -> None:
        """Carry out a plan that this adapter made. Raises `NotFound` if an external topic is not there."""
        for change in changes:
            change.payload.apply(self.engine)

    # --- optional, each keyed by a capability --------------------------------------------------------------------

    def dead_letters(self, subscription: Subscription) -> DeadLetterQueue:
        """Return the dead letter of a subscription."""
        return LocalDeadLetters(self, self._topic_name(subscription.dead_letter), *self._place(subscription))

    async def replay(self, subscription: Subscription, start: ReplayFrom) -> int:
        """Deliver past events again to this subscription only. Returns how many.

        Raises `InvalidRequest` for a position that is none, or a start that the history no longer reaches.
        """
        return self.engine.replay(*self._place(subscription), start)

    async def backlog(self, subscription: Subscription) -> Backlog:
        """Count what waits in a subscription, exactly."""
        return self.engine.backlog(*self._place(subscription))

    def temporary_subscription(
        self, topic: Topic, filter: Filter | None = None
    ) -> AbstractAsyncContextManager[Subscription]:
        """Make a subscription that is gone when the block ends. Raises `NotFound` if the topic is not there."""
        return self._temporary(topic, filter)

    @asynccontextmanager
    async def _temporary(self, topic: Topic, filter: Filter | None) -> AsyncIterator[Subscription]:
        subscription = Subscription(topic=topic, name=f"temp-{new_id()[:12]}", filter=filter)
        engine, place = self.engine, self._place(subscription)
        # It has no dead letter that anyone would look into, so its backstop never comes.
        settings = QueueSettings(filter=filter, backstop=sys.maxsize)
        engine.put_subscription(*place, settings, temporary=True)
        try:
            yield subscription
        finally:
            engine.delete_subscription(*place)

    async def remove_temporary(self, subscription: Subscription) -> None:
        """Delete the subscription, if it is there."""
        with suppress(NotFound):
            self.engine.delete_subscription(*self._place(subscription))


def _path(profile: Profile) -> str | None:
    path: Any = profile.parameters.get("path")
    if path is None:
        return None
    if profile.target:
        raise ConfigurationError(
            f"local:{profile.target} has a path, and a broker in a file is known by its path; leave out the name: "
            "local:?path=FILE"
        )
    return os.path.realpath(str(path))


def _history(profile: Profile) -> int:
    text: Any = profile.parameters.get("history", str(DEFAULT_HISTORY))
    if not (str(text).isascii() and str(text).isdigit()):
        raise ConfigurationError(
            f"history={text}: it must be a whole number from 0, the events of each topic that are kept for replay"
        )
    return int(text)


def _without(capabilities: Capabilities, names: frozenset[str]) -> Capabilities:
    return dataclasses.replace(capabilities, names=capabilities.names - names)
