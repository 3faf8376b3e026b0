"""`Connection`: calls of boto3 in threads of its own, each with the context of who makes it, and each with an end."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable
from typing import Any, Final, Literal, TypeVar

from crossbus.errors import BusClosedError, Unauthenticated
from crossbus.registry import not_installed
from crossbus.requests import request_sent
from crossbus.threads import Threads
from crossbus_eventbridge.errors import STALE, aws_code, portable
from crossbus_eventbridge.options import Options, is_loopback
from crossbus_eventbridge.session import CALLS, Clients, Identity

__all__ = ["Connection", "Service"]

T = TypeVar("T")
Service = Literal["events", "sqs", "polls", "events_control", "sqs_control", "events_v2", "events_v2_control"]
POLL_THREADS: Final = 256
RENEWALS: Final = 3
"""How often one call is tried again with credentials that are new each time: they may change while it waits."""

_OPERATIONS: Final[dict[str, str]] = {}


def _method(operation: str) -> str:
    """``PutEvents`` as boto3 calls it: ``put_events``."""
    found = _OPERATIONS.get(operation)
    if found is None:
        words = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in operation)
        found = _OPERATIONS[operation] = words.lstrip("_")
    return found


class Connection:
    """What an adapter has open.

    Args:
        options: The profile's.
        session: A `boto3.Session` that the program gave; None for the default chain.
    """

    def __init__(self, options: Options, session: Any | None = None) -> None:
        self._options = options
        self._given = session
        self._threads = Threads(CALLS, "crossbus eventbridge")
        self._poll_threads = Threads(POLL_THREADS, "crossbus eventbridge poll")
        self._clients: Clients | None = None
        self._account: str | None = None
        self._renewing = asyncio.Lock()
        self._polls = 0
        self._closed = False
        self._guard = threading.Lock()

    async def open(self) -> None:
        """Make the clients. Asks AWS for nothing; raises as `Clients`, and `AdapterNotInstalled` without boto3."""
        self._clients = await self.run(lambda: self._make())

    def _make(self) -> Clients:
        try:
            import boto3  # noqa: F401
        except ModuleNotFoundError as error:
            raise not_installed("eventbridge", error, self._options.origin) from error
        return Clients(self._options, self._given)

    @property
    def clients(self) -> Clients:
        """The clients in use. Raises `BusClosedError` unless open."""
        if self._clients is None or self._closed:
            raise BusClosedError("eventbridge: the adapter is not open; open the bus first")
        return self._clients

    @property
    def is_local(self) -> bool:
        """True if both services are on this machine."""
        return self._clients is not None and all(map(is_loopback, self._clients.endpoints()))

    async def account(self) -> str:
        """Return the number of the account in use, asked for once. Raises the portable error of what AWS said."""
        if self._account is None:
            self._account = (await self.identity()).account
        return self._account

    async def identity(self) -> Identity:
        """Ask whose the credentials are. Raises the portable error of what AWS said."""
        try:
            return await self.run(self.clients.identity)
        except Exception as error:
            raise self._portable(error, "GetCallerIdentity", "") from error

    async def ask(self, service: str, operation: str, **request: Any) -> dict[str, Any]:
        """Make one call of another service than events and queues. Raises the portable error of what AWS said."""

        def call() -> dict[str, Any]:
            client = self.clients.other(service)
            try:
                found: dict[str, Any] = getattr(client, _method(operation))(**request)
                return found
            finally:
                client.close()

        try:
            return await self.run(call)
        except Exception as error:
            raise self._portable(error, operation, "") from error

    async def run(self, function: Callable[[], T]) -> T:
        """Run something that blocks in a thread of ours; after closing, in one of asyncio's."""
        if self._closed:
            return await asyncio.to_thread(function)
        found: T = await self._threads.run(lambda _: function(), None)
        return found

    async def call(
        self, service: Service, operation: str, resource: str = "", **request: Any
    ) -> dict[str, Any]:
        """Make one call. `resource` is what an error shall name.

        Raises the portable error of what AWS said. Credentials that are no longer good are looked for once more, where
        they are found: in files, in the environment, at the role.
        """
        for _ in range(RENEWALS):
            clients = self.clients
            try:
                return await self._once(clients, service, operation, request)
            except Exception as error:
                if aws_code(error) not in STALE or not await self._renew(clients):
                    raise self._portable(error, operation, resource) from error
        try:
            return await self._once(self.clients, service, operation, request)
        except Exception as error:
            raise self._portable(error, operation, resource) from error

    async def _once(
        self, clients: Clients, service: str, operation: str, request: dict[str, Any]
    ) -> dict[str, Any]:
        method = getattr(getattr(clients, service), _method(operation))
        request_sent()
        found: dict[str, Any] = await self._threads.run(lambda _: method(**request), None)
        return found

    @staticmethod
    def _portable(error: Exception, operation: str, resource: str) -> Exception:
        return portable(error, operation, resource) or error

    async def _renew(self, old: Clients) -> bool:
        """Make new clients if there are new credentials; True if there are."""
        if self._given is not None:
            return False
        async with self._renewing:
            if self._clients is not old:
                return self._clients is not None
            try:
                new = await self.run(self._make)
                changed = await self.run(lambda: new.credentials_key() != old.credentials_key())
            except Unauthenticated:
                return False
            if not changed or self._closed:
                new.close()
                return False
            self._clients = new
            await self.run(functools.partial(old.close, polls=False))  # what is under way ends first
            return True

    # --- long polls ---------------------------------------------------------------------------------------------

    def start_poll(self, function: Callable[[Clients], Any]) -> asyncio.Future[Any]:
        """Run a long poll in a thread for such. It is counted, so that its connection is closed when it has ended."""
        clients = self.clients
        with self._guard:
            self._polls += 1
        request_sent()

        def job(_: Any) -> Any:
            try:
                return function(clients)
            finally:
                self._poll_ended(clients)

        return asyncio.ensure_future(self._poll_threads.run(job, None))

    def _poll_ended(self, clients: Clients) -> None:
        with self._guard:
            self._polls -= 1
            last = self._closed and self._polls == 0
        if last or clients is not self._clients:
            clients.polls.close()

    async def renewed(self, error: BaseException, used: Clients) -> bool:
        """True if new credentials were found after a poll was refused."""
        return aws_code(error) in STALE and await self._renew(used)

    async def close(self) -> None:
        """Close the connections, but for those of polls that nobody waits for: they end by themselves."""
        if self._closed:
            return
        with self._guard:
            self._closed = True
            idle = self._polls == 0
        if self._clients is not None:
            clients = self._clients
            await self.run(functools.partial(clients.close, polls=idle))
        self._threads.close()
        self._poll_threads.close()
