"""`Client`: requests to a server of the local broker, and what their failures mean.

A request that changes something carries an id (`crossbus_local.protocol.REQUEST_ID`), and settling and receiving have
their own means, so that each may be sent a second time. That is done once, at once, if a connection that was kept
turns out to be closed, as every one is after a restart of the server. All else is left to the portable layer.
"""

from __future__ import annotations

import asyncio
import io
import logging
import os
from collections.abc import Mapping
from typing import Any, Final, TypeVar

import aiohttp
import msgspec
from yarl import URL

from crossbus.errors import (
    BusClosedError,
    ConfigurationError,
    DeadlineExceeded,
    ErrorCode,
    InvalidRequest,
    ProviderError,
    Unauthenticated,
    Unavailable,
    provider_error,
)
from crossbus.requests import request_sent
from crossbus_local.protocol import (
    DATA_TYPE,
    JSON_TYPE,
    PROTOCOL,
    REQUEST_ID,
    Info,
    encode_data,
    encode_json,
    path_of,
)
from crossbus_local.remote.address import Address

__all__ = ["CONNECT_TIMEOUT", "KEY_VARIABLE", "TIMEOUT", "Client", "code_of"]

KEY_VARIABLE: Final = "CROSSBUS_KEY"
"""The variable that holds the key of a server that wants one."""
LARGE: Final = 1_000_000
"""Bytes of a body that is sent in parts."""
TIMEOUT: Final = 15.0
"""Seconds for which a server may be silent, beside the time that a request itself needs."""
SLOWEST: Final = 50_000
"""Bytes in a second: a network as slow as that is still one."""
CONNECT_TIMEOUT: Final = 5.0
"""Seconds within which a connection must be made."""
KEEP_ALIVE: Final = 60.0
"""Seconds for which an idle connection is kept."""

_T = TypeVar("_T")
_log = logging.getLogger("crossbus.local")
_decode_json = msgspec.json.Decoder().decode
_decode_info = msgspec.json.Decoder(Info).decode
_BY_STATUS: Final[Mapping[int, ErrorCode]] = {
    401: ErrorCode.UNAUTHENTICATED,
    403: ErrorCode.PERMISSION_DENIED,
    404: ErrorCode.NOT_FOUND,
    408: ErrorCode.DEADLINE_EXCEEDED,
    409: ErrorCode.CONFLICT,
    429: ErrorCode.THROTTLED,
    502: ErrorCode.UNAVAILABLE,
    503: ErrorCode.UNAVAILABLE,
    504: ErrorCode.DEADLINE_EXCEEDED,
}
_CODES: Final = {code.value: code for code in ErrorCode}
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError)


class Client:
    """Connections to one server, kept alive. Made in the event loop that uses it."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._base = f"http://{address}"
        if self._key() and not address.is_loopback:
            _log.warning(
                "the key and all events go to %s unencrypted: do so only in a network that you trust", address
            )
        # No limit of connections: each receiver waits on one of its own, and the portable layer limits the rest. A
        # limit would let receivers that wait hold up what is published.
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE, ttl_dns_cache=10)
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
        )

    @staticmethod
    def _key() -> str:
        """Return the key of the moment: a program may change it while it runs."""
        key = os.environ.get(KEY_VARIABLE, "")
        if not (key.isascii() and key.isprintable() and " " not in key):
            raise ConfigurationError(
                f"{KEY_VARIABLE} holds characters that no header can carry: a key is ASCII without spaces"
            )
        return key

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    # --- requests -----------------------------------------------------------------------------------------------

    async def handshake(self) -> Info:
        """Ask the server what it is. Raises a `ProviderError` in one line if it is not a server that we can use."""
        try:
            found = _decode_info(await self._ask("GET", path_of()))
        except ProviderError as error:
            if error.code is ErrorCode.NOT_FOUND and "this server speaks" in str(error):
                raise InvalidRequest(f"{self.address}: {error}") from error
            if error.code in (ErrorCode.NOT_FOUND, ErrorCode.UNKNOWN):
                raise self._stranger(str(error)) from error
            raise
        except _UNREADABLE as error:
            raise self._stranger("its answer is not that of one") from error
        if found.protocol != PROTOCOL:
            raise InvalidRequest(
                f"{self.address} speaks version {found.protocol} of the protocol (crossbus {found.crossbus}), this "
                f"crossbus version {PROTOCOL}: bring both to one version"
            )
        return found

    def _stranger(self, why: str) -> InvalidRequest:
        return InvalidRequest(
            f"{self.address} answers, but is no crossbus server ({why}): check host and port"
        )

    async def data(
        self,
        path: str,
        form: msgspec.Struct,
        answer: msgspec.msgpack.Decoder[_T],
        *,
        id: str = "",
        timeout: float = TIMEOUT,
        again: bool = True,
    ) -> _T:
        """Send a form in MessagePack and return the answer.

        With `again=False` it is not sent a second time on another connection.
        """
        raw = await self._ask("POST", path, encode_data(form), DATA_TYPE, id=id, timeout=timeout, again=again)
        return self._decoded(answer, raw)

    async def read(self, path: str, answer: msgspec.msgpack.Decoder[_T]) -> _T:
        """Get something in MessagePack."""
        return self._decoded(answer, await self._ask("GET", path))

    async def json(self, method: str, path: str, body: object = None, *, id: str = "") -> Any:
        """Send a request of what is managed, and return what its answer decodes to."""
        raw = await self._ask(method, path, b"" if body is None else encode_json(body), JSON_TYPE, id=id)
        try:
            return _decode_json(raw)
        except _UNREADABLE as error:
            raise self._nonsense(error) from error

    def _decoded(self, decoder: msgspec.msgpack.Decoder[_T], raw: bytes) -> _T:
        try:
            return decoder.decode(raw)
        except _UNREADABLE as error:
            raise self._nonsense(error) from error

    def _nonsense(self, error: Exception) -> ProviderError:
        return provider_error(ErrorCode.UNKNOWN, f"{self.address} answered what cannot be read: {error}")

    async def _ask(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        type: str = "",
        *,
        id: str = "",
        timeout: float = TIMEOUT,
        again: bool = True,
    ) -> bytes:
        headers = {"Content-Type": type} if body else {}
        if id:
            headers[REQUEST_ID] = id
        if key := self._key():
            headers["Authorization"] = f"SharedAccessKey {key}"
        url = URL(f"{self._base}{path}", encoded=True)
        # Not a limit of the whole: what is large may take its time, as long as it moves.
        silence = timeout + len(body) / SLOWEST
        limit = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT, sock_read=silence)
        while True:
            if self._session.closed:
                raise BusClosedError(f"the connections to {self.address} are closed; open the bus first")
            try:
                request_sent()
                async with self._session.request(
                    method, url, data=_data(body), headers=headers, timeout=limit, allow_redirects=False
                ) as response:
                    raw = await response.read()
                if response.status == 200:
                    return raw
                raise self._refused(response.status, raw)
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
                # A kept connection that the server has closed. One that cannot be made is no such thing.
                if not again or isinstance(error, aiohttp.ClientConnectorError):
                    raise self._failed(error) from error
                again = False
            except (TimeoutError, aiohttp.ClientError) as error:
                raise self._failed(error) from error

    # --- failures -----------------------------------------------------------------------------------------------

    def _failed(self, error: BaseException) -> ProviderError:
        if isinstance(error, aiohttp.ClientConnectorError):
            if isinstance(error.os_error, ConnectionRefusedError):
                port = "" if self.address.port == 8787 else f" --port {self.address.port}"
                return Unavailable(
                    f"nothing listens on {self.address}; start it with: crossbus serve{port}"
                    if self.address.is_loopback
                    else f"nothing listens on {self.address}: is crossbus serve running there?"
                )
            return Unavailable(f"{self.address} cannot be reached: {error.os_error}")
        if isinstance(error, asyncio.TimeoutError):
            return DeadlineExceeded(f"{self.address} gave no answer in time")
        return Unavailable(f"the connection to {self.address} broke: {error or type(error).__name__}")

    def _refused(self, status: int, raw: bytes) -> ProviderError:
        code, message = _BY_STATUS.get(status), ""
        try:
            said = _decode_json(raw)["error"]
            message = str(said["message"])
            code = _CODES.get(said["code"], code)
        except (*_UNREADABLE, KeyError, TypeError):
            pass
        if status == 401:
            what = (
                f"the key in {KEY_VARIABLE} is not that of"
                if self._key()
                else f"set {KEY_VARIABLE} to the key of"
            )
            return Unauthenticated(f"{self.address} wants a key: {what} the server")
        if code is None:
            code = ErrorCode.INVALID_REQUEST if 400 <= status < 500 else ErrorCode.UNKNOWN
        return provider_error(code, message or f"HTTP {status}")


def code_of(error: BaseException) -> tuple[ErrorCode, bool] | None:
    """Return the portable code of what aiohttp raises, and whether to retry."""
    if isinstance(error, asyncio.TimeoutError):
        return ErrorCode.DEADLINE_EXCEEDED, True
    if isinstance(error, (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError)):
        return ErrorCode.UNAVAILABLE, True
    if isinstance(error, aiohttp.ClientError):
        return ErrorCode.UNKNOWN, False
    return None


def _data(body: bytes) -> bytes | io.BytesIO | None:
    # aiohttp warns of large bytes, which it would write at once; of a file it writes a part at a time.
    return io.BytesIO(body) if len(body) > LARGE else body or None
