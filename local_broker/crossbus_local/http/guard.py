"""`Guard`: what no request gets past. A broker on a desk is a door that any web page could knock at.

* The ``Host`` must be a name of this machine or the address that is served. A page whose own name was made to point
  to 127.0.0.1 (DNS rebinding) sends its own.
* A request with an ``Origin``, or one that a browser says another site made, comes from a web page. None may.
* The key is compared in constant time, and stands in no message.
* A body is refused as soon as it is known to be too large, and when it takes too long.
"""

from __future__ import annotations

import asyncio
import hmac
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from crossbus.urls import is_this_machine
from crossbus_local.http.errors import NATIVE, ApiError, error_response
from crossbus_local.http.options import ServerOptions, is_wildcard

__all__ = ["EVENT_GRID_BYTES", "FULL", "Guard"]

EVENT_GRID_BYTES: Final = 1_048_576
"""The largest event and the largest request of Event Grid.

Source: https://learn.microsoft.com/azure/event-grid/quotas-limits
"""
FULL: Final = "full"
"""In the state of a request: True if there are too many connections."""
_SLOWEST: Final = 10_000.0
"""Bytes a second, for a large body on a narrow network."""
_SCHEME: Final = b"sharedaccesskey "
_OWN_SITES: Final = frozenset({b"none", b"same-origin"})


class Guard:
    """ASGI middleware around all that the server does. See the module's text."""

    def __init__(self, app: ASGIApp, options: ServerOptions) -> None:
        self._app = app
        self._options = options
        self._key = None if options.key is None else options.key.encode()
        self._any_host = is_wildcard(options.host)  # it has a key, which no page knows
        self._host = options.host.strip("[]").lower()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            limit = self._admit(scope)
        except ApiError as error:
            await error_response(scope["path"], error)(scope, receive, send)
            return
        await self._app(scope, _Body(receive, limit, self._options.body_seconds), send)

    def _admit(self, scope: Scope) -> int:
        """Return how large the body may be. Raises `ApiError`."""
        if scope.get("state", {}).get(FULL):
            most = self._options.connections
            raise ApiError(
                503, "ServiceUnavailable", f"more than {most:,} connections; come again", {"Retry-After": "1"}
            )
        host: bytes | None = None
        authorization = length = b""
        for name, value in scope["headers"]:
            if name == b"host":
                if host is not None:
                    raise ApiError(400, "BadRequest", "the request has several Host headers")
                host = value
            elif name == b"authorization":
                authorization = value
            elif name == b"content-length":
                length = value
            elif name == b"content-encoding" and value.lower() != b"identity":
                raise ApiError(
                    415, "UnsupportedMediaType", "send the body as it is, without Content-Encoding"
                )
            elif name == b"origin" or (name == b"sec-fetch-site" and value not in _OWN_SITES):
                raise ApiError(
                    403, "Forbidden", "no web page may use this broker: the request comes from one"
                )
        self._check_host(host)
        self._check_key(authorization)
        limit = self._options.body_bytes if scope["path"].startswith(NATIVE) else EVENT_GRID_BYTES
        if length.isdigit() and int(length) > limit:
            raise _too_large(limit)
        return limit

    def _check_host(self, host: bytes | None) -> None:
        if host is None:
            raise ApiError(400, "BadRequest", "the request has no Host header, which HTTP/1.1 requires")
        if self._any_host or _named(host) == self._host or _is_this_machine(_named(host)):
            return
        raise ApiError(
            403,
            "Forbidden",
            f"this broker is not called {_named(host)[:80]!r}: use localhost, 127.0.0.1, [::1] or the --host that it "
            "was started with",
        )

    def _check_key(self, authorization: bytes) -> None:
        if self._key is None:
            return
        given = authorization[len(_SCHEME) :].strip()
        if authorization[: len(_SCHEME)].lower() == _SCHEME and hmac.compare_digest(given, self._key):
            return
        raise ApiError(
            401,
            "Unauthorized",
            "the key is missing or wrong: send the server's key as Authorization: SharedAccessKey KEY",
            {"WWW-Authenticate": "SharedAccessKey"},
        )


class _Body:
    """The `receive` of a request, which counts and measures the body."""

    __slots__ = ("_deadline", "_done", "_left", "_limit", "_receive")

    def __init__(self, receive: Receive, limit: int, seconds: float) -> None:
        self._receive = receive
        self._limit = self._left = limit
        self._deadline = asyncio.get_running_loop().time() + seconds
        self._done = False

    async def __call__(self) -> Message:
        if self._done:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            raise ApiError(
                408, "RequestTimeout", "the body took too long to arrive", {"Connection": "close"}
            ) from None
        if message["type"] == "http.request":
            arrived = len(message.get("body", b""))
            self._left -= arrived
            self._deadline += arrived / _SLOWEST
            self._done = not message.get("more_body", False)
            if self._left < 0:
                raise _too_large(self._limit)
        return message


def _too_large(limit: int) -> ApiError:
    return ApiError(413, "PayloadTooLarge", f"the body is larger than {limit:,} bytes, the most of a request")


def _named(host: bytes) -> str:
    """Return the name in a Host header, without the port."""
    text = host.decode("latin-1").strip().lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text


def _is_this_machine(name: str) -> bool:
    return is_this_machine(name) or name.endswith(".localhost")
