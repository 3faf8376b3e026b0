"""The data plane of Event Grid namespaces, api-version 2024-06-01: publish, receive, acknowledge, release, reject,
renewLock.

Source: https://learn.microsoft.com/rest/api/eventgrid/dataplanenamespaces (operations, parameters, bounds), and
requests recorded from azure-eventgrid 4.22. Where the documents are silent (codes of failed lock tokens, the answer to
1,001 events) it says what it does in `docs/how-to/run-a-broker.md`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from crossbus.adapter import LeaseOutcome, Received, Settlement
from crossbus.errors import NotFound, nearest
from crossbus_local.engine import Engine
from crossbus_local.http.deliveries import answer_of, error_of, is_deliverable, lease_of
from crossbus_local.http.errors import JSON, ApiError
from crossbus_local.http.events import published
from crossbus_local.http.options import LONGEST_LOCK, LONGEST_WAIT, ServerOptions
from crossbus_local.http.polls import Polls
from crossbus_local.queue import Queue, QueueSettings
from crossbus_local.receiver import LocalReceiver

__all__ = ["API_VERSION", "RELEASE_DELAYS", "routes"]

API_VERSION: Final = "2024-06-01"
RELEASE_DELAYS: Final = (0, 10, 60, 600, 3600)
"""The delays that `release` knows, in seconds."""
MOST_RECEIVED: Final = 100
ROOM: Final = 16_000_000
"""The bytes of events in one answer, beside those of its last event."""
MAX_DELIVERY_COUNT: Final = 10
"""Azure's default: after how many deliveries an event is dead-lettered."""
TIME_TO_LIVE: Final = 7 * 86_400.0
"""Azure's default, and its longest."""

_NAME: Final = re.compile(r"[A-Za-z0-9-]{3,50}\Z")
_LINKS: Final = "/topics/{topic}/eventsubscriptions/{subscription}"
_log = logging.getLogger("crossbus.local")
_encode = msgspec.json.Encoder().encode
_Handler = Callable[[Request], Awaitable[Response]]
_Act = Callable[[Queue, list[int]], Sequence[LeaseOutcome]]


class _LockTokens(msgspec.Struct):
    lockTokens: list[str]  # noqa: N815 - the name on the wire


_decode_tokens = msgspec.json.Decoder(_LockTokens).decode


def routes(engine: Engine, options: ServerOptions, polls: Polls) -> list[Route]:
    """Return the routes of the data plane."""
    plane = _DataPlane(engine, options, polls)
    paths: dict[str, _Handler] = {
        "/topics/{topic}:publish": plane.publish,
        f"{_LINKS}:receive": plane.receive,
        f"{_LINKS}:acknowledge": plane.acknowledge,
        f"{_LINKS}:release": plane.release,
        f"{_LINKS}:reject": plane.reject,
        f"{_LINKS}:renewLock": plane.renew,
    }
    return [Route(path, handler, methods=["POST"]) for path, handler in paths.items()]


class _DataPlane:
    def __init__(self, engine: Engine, options: ServerOptions, polls: Polls) -> None:
        self._engine = engine
        self._options = options
        self._polls = polls

    # --- operations ---------------------------------------------------------------------------------------------

    async def publish(self, request: Request) -> Response:
        """Publish one event, a batch, or an event in binary mode: all of it or nothing."""
        _parameters(request)
        topic = request.path_params["topic"]
        wires = published(request.scope["headers"], await request.body())
        try:
            self._engine.publish(topic, wires)
        except NotFound:
            self._make_topic(topic)
            self._engine.publish(topic, wires)
        return Response(b"{}", media_type=JSON)

    async def receive(self, request: Request) -> Response:
        """Hand out up to `maxEvents` events, as soon as there is one, or none after `maxWaitTime` seconds."""
        given = _parameters(request, "maxEvents", "maxWaitTime")
        most = _whole(given, "maxEvents", 1, 1, MOST_RECEIVED)
        wait: float = _whole(given, "maxWaitTime", 60, self._options.shortest_wait, LONGEST_WAIT)
        await request.body()
        lock = self._lock(self._queue(request))
        receiver = LocalReceiver(self._engine, *_place(request), lock, ROOM)
        until = self._engine.clock.monotonic() + wait
        while True:
            taken = await self._polls.receive(request, receiver, most, wait) or ()
            bad = [one for one in taken if not is_deliverable(one)]
            if bad:
                self._give_up(receiver.queue, bad)
                taken = [one for one in taken if one not in bad]
            if taken or not bad:
                return Response(answer_of(taken), media_type=JSON)
            wait = max(0.0, until - self._engine.clock.monotonic())

    def _give_up(self, queue: Queue, bad: Sequence[Received]) -> None:
        _log.warning(
            "subscription %s: %d messages are no JSON objects, which Event Grid's protocol cannot carry; %s",
            queue.name,
            len(bad),
            f"they go to {queue.settings.dead_letter}" if queue.settings.dead_letter else "they are dropped",
        )
        self._engine.reject(queue, [one.lease for one in bad])

    async def acknowledge(self, request: Request) -> Response:
        """Be done with events."""
        return await self._settle(request, self._settled(None))

    async def release(self, request: Request) -> Response:
        """Give events back, to be received again at once or after a delay."""
        given = _parameters(request, "releaseDelayInSeconds")
        delay = _whole(given, "releaseDelayInSeconds", 0, 0, RELEASE_DELAYS[-1])
        if delay not in RELEASE_DELAYS:
            raise _bad(
                f"releaseDelayInSeconds={delay}: it must be one of {', '.join(map(str, RELEASE_DELAYS))}"
            )
        return await self._settle(request, self._settled(float(delay)), "releaseDelayInSeconds")

    async def reject(self, request: Request) -> Response:
        """Give events up: they go to the dead letter of the subscription, or are dropped if it has none."""
        return await self._settle(request, self._engine.reject)

    async def renew(self, request: Request) -> Response:
        """Have locks last anew for as long as the subscription's locks do."""
        return await self._settle(
            request, lambda queue, tokens: self._engine.extend(queue, tokens, self._lock(queue))
        )

    # --- settling -----------------------------------------------------------------------------------------------

    def _settled(self, delay: float | None) -> _Act:
        return lambda queue, tokens: self._engine.settle(
            queue, [Settlement(token, delay) for token in tokens]
        )

    async def _settle(self, request: Request, act: _Act, *parameters: str) -> Response:
        _parameters(request, *parameters)
        texts = dict.fromkeys(_lock_tokens(request, await request.body()))
        queue = self._engine.find(*_place(request))
        known = {text: token for text in texts if (token := lease_of(text, queue)) is not None}
        outcomes = dict(zip(known, act(queue, list(known.values())), strict=True))
        succeeded = [text for text, outcome in outcomes.items() if outcome is LeaseOutcome.OK]
        failed = [
            {"lockToken": text, "error": error_of(text)}
            for text in texts
            if outcomes.get(text) is not LeaseOutcome.OK
        ]
        return Response(
            _encode({"failedLockTokens": failed, "succeededLockTokens": succeeded}), media_type=JSON
        )

    # --- topics and subscriptions -------------------------------------------------------------------------------

    def _queue(self, request: Request) -> Queue:
        topic, name = _place(request)
        try:
            return self._engine.find(topic, name)
        except NotFound:
            self._make_subscription(topic, name)
            return self._engine.find(topic, name)

    def _make_topic(self, topic: str) -> None:
        self._check_may_make("topic", topic, topic)
        self._engine.create_topic(topic)

    def _make_subscription(self, topic: str, name: str) -> None:
        self._check_may_make("subscription", name, f"{topic}/{name}")
        self._make_topic(topic)
        dead_letter = f"{topic}--{name}--dead"
        self._engine.create_dead_letter(dead_letter)
        self._engine.put_subscription(
            topic,
            name,
            QueueSettings(
                backstop=MAX_DELIVERY_COUNT,
                retention=TIME_TO_LIVE,
                dead_letter=dead_letter,
                lease=self._options.shortest_lock,
            ),
            first=True,
        )

    def _check_may_make(self, what: str, name: str, whole: str) -> None:
        if self._options.strict:
            raise ApiError(
                404,
                "NotFound",
                f"{what} {whole[:160]} is not there, and --strict makes none; declare it first",
            )
        if not _NAME.match(name):
            raise _bad(
                f"{what} {name[:80]!r} cannot be made: its name must have 3 to 50 letters, digits or -"
            )

    def _lock(self, queue: Queue) -> float:
        """How long the locks of a subscription last: its lease, within Event Grid's bounds."""
        return min(max(queue.settings.lease, self._options.shortest_lock), LONGEST_LOCK)


def _place(request: Request) -> tuple[str, str]:
    return request.path_params["topic"], request.path_params["subscription"]


# --- requests ---------------------------------------------------------------------------------------------------


def _bad(message: str) -> ApiError:
    return ApiError(400, "BadRequest", message)


def _parameters(request: Request, *allowed: str) -> dict[str, str]:
    """Return the query parameters. Raises `ApiError` for one that is unknown or given twice, and a wrong version."""
    found: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name != "api-version" and name not in allowed:
            raise _bad(f"unknown query parameter {name[:80]!r}; {nearest(name, ['api-version', *allowed])}")
        if name in found:
            raise _bad(f"the query parameter {name} is given twice")
        found[name] = value
    version = found.pop("api-version", None)
    if version is None:
        raise ApiError(
            400, "MissingApiVersionParameter", f"the query has no api-version; add ?api-version={API_VERSION}"
        )
    if version != API_VERSION:
        raise ApiError(
            400,
            "UnsupportedApiVersion",
            f"api-version {version[:40]!r} is not supported; the one that is: {API_VERSION}",
        )
    return found


def _whole(given: dict[str, str], name: str, default: int, least: float, most: float) -> int:
    text = given.get(name)
    if text is None:
        return default
    if text.isascii() and text.isdigit() and len(text) <= 9 and least <= int(text) <= most:
        return int(text)
    raise _bad(f"{name}={text[:40]}: it must be a whole number from {least:g} to {most:g}")


def _lock_tokens(request: Request, body: bytes) -> list[str]:
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/json":
        raise ApiError(
            415,
            "UnsupportedMediaType",
            f"content type {media[:80]!r}: lock tokens are sent as application/json",
        )
    try:
        tokens = _decode_tokens(body).lockTokens
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _bad(f'the body must be {{"lockTokens": [...]}} with texts: {error}') from None
    if not tokens:
        raise _bad("lockTokens is empty; it must hold at least one")
    return tokens
