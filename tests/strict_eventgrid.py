"""A small, strict server of an Event Grid namespace's data plane, for tests of the adapter.

Written from the public REST reference of api-version 2024-06-01, and from nothing of the product: whatever is not in
the reference is refused, so that a server and a client written by one hand cannot agree on a mistake. It knows no way
to make a topic: tests put them into `Namespace`. An answer that nobody reads keeps its locks, as far as anyone knows
that the real service does.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import json
import re
import secrets
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from eventgrid_filters import matches

API_VERSION = "2024-06-01"
LIMIT = 1_048_576
DELAYS = {"0", "10", "60", "600", "3600"}
REQUIRED = ("specversion", "id", "source", "type")


class Refused(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        self.status, self.code, self.message = status, code, message


@dataclass(eq=False)
class Message:
    body: str
    event: dict[str, Any]
    count: int = 0
    token: str = ""


@dataclass(eq=False)
class Queue:
    """A queue subscription."""

    lock: float = 60.0
    most: int = 10
    native: dict[str, Any] | None = None
    retention: Any = None
    expires: Any = None
    blob: Any = None
    """Where the control plane was told to write what was received too often; nothing is written here."""
    mode: str = "Queue"
    ready: deque[Message] = field(default_factory=deque)
    locked: dict[str, Message] = field(default_factory=dict)
    due: list[tuple[float, int, str, Message]] = field(default_factory=list)
    dropped: list[Message] = field(default_factory=list)
    arrival: asyncio.Event = field(default_factory=asyncio.Event)
    _numbers: Any = field(default_factory=itertools.count)

    def put(self, message: Message) -> None:
        self.ready.append(message)
        self.arrival.set()

    def again(self, after: float, message: Message) -> None:
        heapq.heappush(self.due, (time.monotonic() + after, next(self._numbers), message.token, message))

    def next_due(self) -> float:
        """Bring back whose lock or delay is over; return the seconds until the next."""
        now = time.monotonic()
        while self.due and self.due[0][0] <= now:
            _, _, token, message = heapq.heappop(self.due)
            if message.token == token:  # else it was settled, renewed or handed out since
                self.locked.pop(token, None)
                message.token = ""
                if message.count >= self.most:
                    self.dropped.append(message)
                else:
                    self.put(message)
        return self.due[0][0] - now if self.due else 3600.0

    def take(self, most: int) -> list[Message]:
        self.next_due()
        taken = []
        while self.ready and len(taken) < most:
            message = self.ready.popleft()
            message.count += 1
            message.token = secrets.token_urlsafe(12)
            self.locked[message.token] = message
            self.again(self.lock, message)
            taken.append(message)
        if not self.ready:
            self.arrival.clear()
        return taken


class Namespace:
    """The state of the server: topics, each with its subscriptions."""

    def __init__(self, key: str = "k1", shortest_wait: int = 10) -> None:
        self.key = key
        self.next_key: str | None = None
        """The other key, taken too: while keys rotate, a program is never without one that is."""
        self.shortest_wait = shortest_wait
        self.topics: dict[str, dict[str, Queue]] = {}
        self.forbids = False
        self.requests: list[tuple[str, str]] = []
        self.fail_next: list[tuple[int, dict[str, str]]] = []
        """Answers to give instead, each once: a status and headers."""

    def add(self, topic: str, *names: str, **settings: Any) -> None:
        queues = self.topics.setdefault(topic, {})
        queues.update({name: Queue(**settings) for name in names})

    # --- the operations -----------------------------------------------------------------------------------------

    async def publish(self, request: web.Request, topic: str) -> dict[str, Any]:
        _query(request, set())
        kind = request.headers.get("Content-Type", "").replace(" ", "").lower()
        body = await request.read()
        if len(body) > LIMIT:
            raise Refused(413, "RequestEntityTooLarge", f"{len(body)} bytes")
        found = _json(body)
        if kind == "application/cloudevents+json;charset=utf-8":
            events = [found]
        elif kind == "application/cloudevents-batch+json;charset=utf-8":
            if not isinstance(found, list) or not 1 <= len(found) <= 1000:
                raise Refused(400, "BadRequest", "a batch is an array of 1 to 1000 events")
            events = found
        else:
            raise Refused(415, "UnsupportedMediaType", f"Content-Type {kind!r}")
        queues = self._topic(topic)
        for event in events:
            _check_event(event)
        for event in events:
            text = json.dumps(event, ensure_ascii=False, separators=(",", ":"))
            for queue in queues.values():
                if matches(queue.native, event):
                    queue.put(Message(text, event))
        return {}

    async def receive(self, request: web.Request, topic: str, name: str) -> str:
        query = _query(request, {"maxEvents", "maxWaitTime"})
        if await request.read() or "Content-Type" in request.headers:
            raise Refused(400, "BadRequest", "receive has no body")
        most = _number(query.get("maxEvents", "1"), 1, 100)
        wait = _number(query.get("maxWaitTime", "60"), self.shortest_wait, 120)
        queue, end = self._queue(topic, name), time.monotonic() + wait
        while not (taken := queue.take(most)) and (left := end - time.monotonic()) > 0:
            try:
                await asyncio.wait_for(queue.arrival.wait(), min(left, queue.next_due()))
            except TimeoutError:
                pass
        values = ",".join(
            f'{{"brokerProperties":{{"lockToken":"{one.token}","deliveryCount":{one.count}}},"event":{one.body}}}'
            for one in taken
        )
        return f'{{"value":[{values}]}}'

    async def settle(self, request: web.Request, topic: str, name: str, operation: str) -> dict[str, Any]:
        query = _query(request, {"releaseDelayInSeconds"} if operation == "release" else set())
        if request.headers.get("Content-Type") != "application/json":
            raise Refused(415, "UnsupportedMediaType", "Content-Type must be application/json")
        body = _json(await request.read())
        tokens = body.get("lockTokens") if isinstance(body, dict) and set(body) == {"lockTokens"} else None
        if not isinstance(tokens, list) or not tokens or not all(isinstance(one, str) for one in tokens):
            raise Refused(400, "BadRequest", 'the body is {"lockTokens": [...]}')
        delay = query.get("releaseDelayInSeconds", "0")
        if delay not in DELAYS:
            raise Refused(400, "BadRequest", f"releaseDelayInSeconds={delay}")
        queue = self._queue(topic, name)
        queue.next_due()
        done, failed = [], []
        for token in tokens:
            message = queue.locked.get(token)
            if message is None:
                error = {"code": "TokenLost", "message": "The lock has expired, or there was none."}
                failed.append({"lockToken": token, "error": error})
                continue
            done.append(token)
            self._settle_one(queue, message, operation, int(delay))
        return {"succeededLockTokens": done, "failedLockTokens": failed}

    def _settle_one(self, queue: Queue, message: Message, operation: str, delay: int) -> None:
        if operation == "renewLock":
            del queue.locked[message.token]
            token, message.token = message.token, ""
            queue.due = [one for one in queue.due if one[2] != token]
            heapq.heapify(queue.due)
            message.token = token
            queue.locked[token] = message
            queue.again(queue.lock, message)
            return
        del queue.locked[message.token]
        message.token = ""
        if operation == "reject":
            queue.dropped.append(message)
        elif operation == "release":
            message.token = f"released {secrets.token_hex(8)}"
            queue.again(delay, message)
            queue.arrival.set()

    # --- HTTP ---------------------------------------------------------------------------------------------------

    async def answer(self, request: web.Request) -> web.Response:
        self.requests.append((request.method, request.path_qs))
        try:
            if self.fail_next:
                status, headers = self.fail_next.pop(0)
                return web.Response(status=status, headers=headers)
            found = await self._route(request)
        except Refused as error:
            found = {"error": {"code": error.code, "message": error.message}}
            return web.json_response(found, status=error.status)
        return web.Response(
            text=found if isinstance(found, str) else json.dumps(found), content_type="application/json"
        )

    async def _route(self, request: web.Request) -> Any:
        keys = {f"SharedAccessKey {key}" for key in (self.key, self.next_key)}
        if request.headers.get("Authorization") not in keys:
            raise Refused(401, "Unauthorized", "The request has no valid key.")
        if self.forbids:
            raise Refused(403, "Forbidden", "The principal may not do this.")
        match = re.fullmatch(r"/topics/([^/:]+)(?:/eventsubscriptions/([^/:]+))?:([A-Za-z]+)", request.path)
        if match is None:
            raise Refused(404, "NotFound", f"There is no {request.path}")
        topic, name, operation = match.groups()
        allowed = (
            {"publish"} if name is None else {"receive", "acknowledge", "release", "reject", "renewLock"}
        )
        if operation not in allowed:
            raise Refused(404, "NotFound", f"There is no operation {operation}")
        if request.method != "POST":
            raise Refused(405, "MethodNotAllowed", request.method)
        if name is None:
            return await self.publish(request, topic)
        if operation == "receive":
            return await self.receive(request, topic, name)
        return await self.settle(request, topic, name, operation)

    def _topic(self, topic: str) -> dict[str, Queue]:
        if topic not in self.topics:
            raise Refused(404, "NotFound", f"Topic {topic} was not found.")
        return self.topics[topic]

    def _queue(self, topic: str, name: str) -> Queue:
        queue = self._topic(topic).get(name)
        if queue is None:
            raise Refused(404, "NotFound", f"Event subscription {name} was not found.")
        return queue


def _query(request: web.Request, allowed: set[str]) -> dict[str, str]:
    pairs = list(request.query.items())
    query = dict(pairs)
    if query.pop("api-version", None) != API_VERSION or len(pairs) != len(query) + 1:
        raise Refused(400, "UnsupportedApiVersion", f"api-version must be {API_VERSION}, once")
    if not set(query) <= allowed:
        raise Refused(400, "BadRequest", f"unknown parameters {sorted(set(query) - allowed)}")
    return query


def _number(text: str, low: int, high: int) -> int:
    if not text.isdigit() or not low <= int(text) <= high:
        raise Refused(400, "BadRequest", f"{text} is not from {low} to {high}")
    return int(text)


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        raise Refused(400, "BadRequest", "The body is no JSON.") from None


def _check_event(event: Any) -> None:
    if not isinstance(event, dict):
        raise Refused(400, "BadRequest", "An event is a JSON object.")
    for name in REQUIRED:
        if not isinstance(event.get(name), str) or not event[name]:
            raise Refused(400, "BadRequest", f"The event has no {name}.")
    if event["specversion"] != "1.0" or ("data" in event and "data_base64" in event):
        raise Refused(400, "BadRequest", "The event is no CloudEvent 1.0.")
    for name, value in event.items():
        if name not in ("data", "data_base64") and not re.fullmatch("[a-z0-9]+", name):
            raise Refused(400, "BadRequest", f"The attribute name {name} is not allowed.")
        if name != "data" and isinstance(value, (dict, list, float)):
            raise Refused(400, "BadRequest", f"The attribute {name} has no type of CloudEvents.")


class Serving:
    """An aiohttp application on a free port of loopback, in a thread with an event loop of its own."""

    def __init__(self, handler: Any) -> None:
        self._handler = handler
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Serving:
        self._thread.start()
        assert self._ready.wait(30)
        return self

    def __exit__(self, *details: object) -> None:
        self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self.loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application(client_max_size=4 * LIMIT)
        app.router.add_route("*", "/{rest:.*}", self._handler)
        runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=False)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.port = runner.addresses[0][1]
        self._ready.set()
        await self._stop.wait()
        await runner.cleanup()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"
