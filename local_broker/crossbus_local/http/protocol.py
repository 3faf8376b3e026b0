"""HTTP/1.1 as uvicorn speaks it, with bounds on what a stranger can send before any of our code sees it."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from crossbus_local.http.guard import FULL
from crossbus_local.http.options import ServerOptions

__all__ = ["protocol"]

_TOLD: Final = 50


def protocol(options: ServerOptions) -> type[asyncio.Protocol]:
    """Return the class of a connection with the bounds of these options."""

    class Bounded(_Bounded):
        head_bytes = options.head_bytes
        head_seconds = options.head_seconds
        most_connections = options.connections

    return Bounded


class _TooLarge(Exception):
    """The head is larger than it may be. Ends the parsing of the request, and so the connection."""


class _Bounded(HttpToolsProtocol):
    """A connection whose request lines and headers are bounded in size and in the time that they take to arrive.

    So is what a body in chunks carries beside its bytes: trailers, which are dropped, and extensions of chunks.

    Of more connections than there may be, some are told so, and further ones are closed at once.
    """

    head_bytes: int
    head_seconds: float
    most_connections: int

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._fed = 0
        self._in_head = True
        self._refusal = 400
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._start_timer()
        if len(self.connections) > self.most_connections + _TOLD:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._fed += len(data)
        if self._in_head and self._timer is None:
            self._start_timer()
        super().data_received(data)
        if self._fed > self.head_bytes and not self.transport.is_closing():
            self._refuse_head() if self._in_head else self.transport.abort()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._stop_timer()
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > self.head_bytes:
            self._refusal = 431
            raise _TooLarge
        self._fed = 0
        if len(self.connections) > self.most_connections:
            self.scope["state"][FULL] = True
        super().on_headers_complete()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # uvicorn would add trailers to the headers
            super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        self._fed = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_head = True
        self._fed = 0

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, or too much of it, and end the connection."""
        self._stop_timer()
        what = f"more than {self.head_bytes:,} bytes of headers" if self._refusal == 431 else msg
        body = b'{"error":{"code":"BadRequest","message":"%b"}}' % what.encode("ascii")
        self.transport.write(
            STATUS_LINE[self._refusal]
            + b"content-type: application/json; charset=utf-8\r\nconnection: close\r\n"
            + b"content-length: %d\r\n\r\n%b" % (len(body), body)
        )
        self.transport.close()

    def _refuse_head(self) -> None:
        self._refusal = 431
        self.send_400_response("")

    def _start_timer(self) -> None:
        self._timer = self.loop.call_later(self.head_seconds, self._too_slow)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        self._timer = None
        if not self.transport.is_closing():
            self.transport.close()
