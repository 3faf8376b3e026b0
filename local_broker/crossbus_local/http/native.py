"""crossbus's own protocol, ``/crossbus/v1/``: all that the broker can do, for the adapter ``local+http``.

`Native.routes` is what a server needs of it. `docs/reference/local-server.md` describes the protocol.

Names stand percent-encoded in the path and may hold slashes, so paths are taken apart here, before they are decoded.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, unquote_to_bytes

from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from crossbus.errors import BusClosedError, CrossbusError, ErrorCode, InvalidRequest, NotFound, ProviderError
from crossbus_local.engine import Engine
from crossbus_local.http.channels import Channels
from crossbus_local.http.native_control import Control, check_keys
from crossbus_local.http.native_data import Data
from crossbus_local.http.options import ServerOptions
from crossbus_local.http.remembered import Remembered
from crossbus_local.protocol import DATA_TYPE, JSON_TYPE, PATH, REQUEST_ID, encode_json

__all__ = ["Native"]

LONGEST_ID: Final = 64
"""Characters in the id of a request."""
_ROOT: Final = "/crossbus"
_REQUEST_ID: Final = REQUEST_ID.lower().encode()
_STATUS: Final[Mapping[ErrorCode, int]] = {
    ErrorCode.NOT_FOUND: 404,
    ErrorCode.PERMISSION_DENIED: 403,
    ErrorCode.UNAUTHENTICATED: 401,
    ErrorCode.INVALID_REQUEST: 400,
    ErrorCode.CONFLICT: 409,
    ErrorCode.THROTTLED: 429,
    ErrorCode.UNAVAILABLE: 503,
    ErrorCode.DEADLINE_EXCEEDED: 504,
}


class Call(NamedTuple):
    """A request, read."""

    names: list[str]
    query: dict[str, str]
    body: bytes
    gone: Receive
    """Returns ``http.disconnect`` when the client is gone."""


class _Operation(NamedTuple):
    do: Callable[[Call], Awaitable[bytes]]
    type: str = DATA_TYPE
    """The content type of request and answer."""
    once: bool = False
    """True if a request with an id that was answered before is not done again."""
    query: tuple[str, ...] = ()
    """The parameters that it takes."""


class Native:
    """The protocol on one engine, as an ASGI application."""

    def __init__(self, engine: Engine, options: ServerOptions) -> None:
        self._channels = Channels(engine)
        self._remembered = Remembered()
        control = Control(engine, options)
        data = Data(engine, self._channels, control)
        self._table = _table(control, data)

    @property
    def routes(self) -> list[Route]:
        """The routes that lead here."""
        return [Route(f"{_ROOT}/{{path:path}}", self)]

    async def end(self) -> None:
        """Have all receives that wait return with nothing: the server stops."""
        await self._channels.end()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        try:
            operation, call = await self._read(scope, receive)
            status, body, type = 200, await self._answer(operation, call, scope), operation.type
        except CrossbusError as error:
            status, body, type = *_refusal(error), JSON_TYPE
        except _NotAllowed as error:
            status, type = HTTPStatus.METHOD_NOT_ALLOWED, JSON_TYPE
            body = _error_body(ErrorCode.INVALID_REQUEST, str(error))
        headers = [(b"content-type", type.encode()), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": int(status), "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _read(self, scope: Scope, receive: Receive) -> tuple[_Operation, Call]:
        shape, names = _taken_apart(scope)
        methods = self._table.get(shape)
        if methods is None:
            raise NotFound(
                f"there is nothing at {_shown(scope)}; the documentation of the local server has all paths"
            )
        operation = methods.get(scope["method"])
        if operation is None:
            raise _NotAllowed(f"{_shown(scope)} takes {' or '.join(methods)}, not {scope['method']}")
        body = await _body_of(receive)
        if body:
            _check_type(scope, operation.type)
        return operation, Call(names, _query(scope, operation.query), body, receive)

    async def _answer(self, operation: _Operation, call: Call, scope: Scope) -> bytes:
        id = _header(scope, _REQUEST_ID) if operation.once else ""
        if not id:
            return await operation.do(call)
        if len(id) > LONGEST_ID:
            raise InvalidRequest(f"the {REQUEST_ID} is longer than {LONGEST_ID} characters")
        path = _path(scope)
        kept = self._remembered.find(id, path, call.body)
        if kept is None:
            kept = await operation.do(call)
            self._remembered.keep(id, path, call.body, kept)
        return kept


class _NotAllowed(Exception):
    pass


Shape = tuple[str, ...]
"""A path without the names in it."""


def _table(control: Control, data: Data) -> dict[Shape, dict[str, _Operation]]:
    topic: Shape = ("topics", "*")
    subscription: Shape = (*topic, "subscriptions", "*")
    dead_letter: Shape = ("dead-letters", "*")

    def json(do: Callable[[Any], Awaitable[bytes]], *query: str, once: bool = False) -> _Operation:
        return _Operation(do, JSON_TYPE, once, query)

    return {
        (): {"GET": json(control.info)},
        ("topics",): {"GET": json(control.list)},
        topic: {"PUT": json(control.put_topic), "DELETE": json(control.delete_topic)},
        (*topic, "events"): {"POST": _Operation(data.publish, once=True)},
        subscription: {
            "PUT": json(control.put_subscription, "temporary"),
            "DELETE": json(control.delete_subscription),
        },
        (*subscription, "events"): {"POST": _Operation(data.put, once=True)},
        (*subscription, "receive"): {"POST": _Operation(data.receive)},
        (*subscription, "abandon"): {"POST": _Operation(data.abandon)},
        (*subscription, "settle"): {"POST": _Operation(data.settle)},
        (*subscription, "extend"): {"POST": _Operation(data.extend)},
        (*subscription, "backlog"): {"GET": json(control.backlog)},
        (*subscription, "pause"): {"POST": json(control.pause)},
        (*subscription, "resume"): {"POST": json(control.resume)},
        (*subscription, "replay"): {"POST": json(control.replay, once=True)},
        dead_letter: {"PUT": json(control.put_dead_letter), "DELETE": json(control.delete_dead_letter)},
        (*dead_letter, "records"): {
            "GET": _Operation(data.browse, query=("limit", "after")),
            "POST": _Operation(data.publish_dead, once=True),
        },
        (*dead_letter, "delete"): {"POST": _Operation(data.delete_records, once=True)},
        (*dead_letter, "put-back"): {"POST": _Operation(data.put_back, once=True)},
    }


def _taken_apart(scope: Scope) -> tuple[Shape, list[str]]:
    path = _path(scope)
    version, _, rest = path[len(_ROOT) + 1 :].partition("/")
    if f"{_ROOT}/{version}" != PATH:
        raise NotFound(f"this server speaks {PATH}/, not {_ROOT}/{version}: use a crossbus of its version")
    parts = [_decoded(part) for part in rest.rstrip("/").split("/")] if rest else []
    return tuple("*" if n in (1, 3) else part for n, part in enumerate(parts)), parts[1:4:2]


def _path(scope: Scope) -> str:
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    return raw.partition(b"?")[0].decode("latin-1")


def _decoded(part: str) -> str:
    try:
        name = unquote_to_bytes(part).decode()
    except UnicodeDecodeError:
        raise InvalidRequest("a name in the path is not UTF-8 when percent-decoded") from None
    if not name:
        raise InvalidRequest("a name in the path is empty")
    return name


def _shown(scope: Scope) -> str:
    return _path(scope)[:200]


def _query(scope: Scope, allowed: tuple[str, ...]) -> dict[str, str]:
    query = scope["query_string"]
    found = dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True)) if query else {}
    check_keys("parameter", found, allowed)
    return found


def _header(scope: Scope, wanted: bytes) -> str:
    return next((value.decode("latin-1") for name, value in scope["headers"] if name == wanted), "")


def _check_type(scope: Scope, type: str) -> None:
    given = _header(scope, b"content-type").partition(";")[0].strip().lower()
    if given != type:
        raise InvalidRequest(f"the body must be {type}, not {given[:80] or 'without a content type'}")


async def _body_of(receive: Receive) -> bytes:
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise InvalidRequest("the client went away before it had sent the whole request")
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


def _refusal(error: CrossbusError) -> tuple[int, bytes]:
    code = error.code if isinstance(error, ProviderError) else ErrorCode.INVALID_REQUEST
    if isinstance(error, BusClosedError):  # the storage is closed: the server ends
        code = ErrorCode.UNAVAILABLE
    return _STATUS.get(code, 500), _error_body(code, str(error))


def _error_body(code: ErrorCode, message: str) -> bytes:
    return encode_json({"error": {"code": code.value, "message": message}})
