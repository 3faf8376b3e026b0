"""The namespace's data plane, api-version 2024-06-01: one request each, through the pipeline of Azure's SDK.

Authentication, transport, logging and headers are the SDK's. The bodies are ours: the SDK's model of a CloudEvent
refuses some events that exist (capitals in extension names, both kinds of data), and one of them would take the
whole batch with it; it rounds times, and drops a `data` of null.

The SDK does not retry here, because the portable layer does: both together would multiply. What the SDK would do for
a `Retry-After` is kept: nothing more is sent before that time.

Source: https://learn.microsoft.com/rest/api/eventgrid/dataplane/publish-events and .../consume-events
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode

from crossbus import __version__
from crossbus.errors import BusClosedError, ErrorCode, ProviderError, provider_error
from crossbus.requests import request_sent
from crossbus_eventgrid.credentials import Credentials
from crossbus_eventgrid.endpoint import Endpoint
from crossbus_eventgrid.failures import code_of_error, code_of_status, problem_of

if TYPE_CHECKING:
    from azure.eventgrid.aio import EventGridConsumerClient

__all__ = ["API_VERSION", "Place", "Rest"]

API_VERSION: Final = "2024-06-01"
CONNECT_TIMEOUT: Final = 10.0
READ_TIMEOUT: Final = 30.0
"""Seconds without a byte after which a request has failed; a long poll has its own wait besides."""
LONGEST_PAUSE: Final = 30.0
"""The most seconds that a `Retry-After` holds requests back."""

_QUIET: Final = {"receive", "renewLock"}
"""What a consumer does by itself, for ever: azure-core's tracing would make a trace of each, and does not heed
OpenTelemetry's suppression."""
_JSON: Final = {"Content-Type": "application/json", "Accept": "application/json"}


class Place(str):
    """The path of a topic or of one of its subscriptions: what an operation is appended to."""

    __slots__ = ()

    @classmethod
    def topic(cls, topic: str) -> Place:
        """Return the path of a topic."""
        return cls(f"/topics/{quote(topic, safe='')}")

    @classmethod
    def subscription(cls, topic: str, name: str) -> Place:
        """Return the path of a subscription."""
        return cls(f"{cls.topic(topic)}/eventsubscriptions/{quote(name, safe='')}")


class Rest:
    """Sends requests to one namespace. Open from `open` to `close`."""

    def __init__(self, endpoint: Endpoint, environ: Mapping[str, str]) -> None:
        self.endpoint = endpoint
        self._credentials = Credentials(endpoint, environ)
        self._client: EventGridConsumerClient | None = None
        self._not_before = 0.0
        self.date: str | None = None
        """The clock of the last answer, as HTTP writes it."""

    @property
    def has_key(self) -> bool:
        """True if a key is used, and no token."""
        return self._credentials.has_key

    async def open(self) -> None:
        """Make the SDK's client. Sends nothing."""
        import aiohttp
        from azure.core.pipeline.transport import AioHttpTransport
        from azure.eventgrid.aio import EventGridConsumerClient

        credential = self._credentials.open()
        session = aiohttp.ClientSession(
            # Each subscription holds a connection in its long poll: aiohttp's limit of 100 would stop the 101st.
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=not self.endpoint.is_loopback,
        )
        # One client's pipeline serves all topics and subscriptions: each request names its own.
        self._client = EventGridConsumerClient(
            self.endpoint.url,
            credential,
            namespace_topic="-",
            subscription="-",
            transport=AioHttpTransport(session=session),
            user_agent=f"crossbus/{__version__}",
            retry_total=0,
        )

    async def close(self) -> None:
        """End the connections; what is under way fails. Idempotent."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()
            await self._credentials.close()

    async def operate(
        self,
        place: Place,
        operation: str,
        body: bytes | None,
        *,
        query: Mapping[str, int] | None = None,
        content_type: str | None = None,
        wait: float = 0.0,
    ) -> bytes:
        """Carry out one operation of a topic or subscription, such as ``:receive``, and return the answer's body.

        Raises a `ProviderError` for an answer that is none of success, and what the SDK raises if there is none.
        """
        parameters = urlencode({"api-version": API_VERSION, **(query or {})})
        headers = _JSON if content_type is None else {**_JSON, "Content-Type": content_type}
        url = f"{place}:{operation}?{parameters}"
        what = f":{operation} of {_shown(place)}"
        return await self.call("POST", url, body, headers, what, wait=wait, quiet=operation in _QUIET)

    async def call(
        self,
        method: str,
        url: str,
        body: bytes | None,
        headers: Mapping[str, str],
        what: str,
        *,
        wait: float = 0.0,
        quiet: bool = False,
    ) -> bytes:
        """Send one request; again whenever the key was refused and is another one by now. Raises as `operate`."""
        while True:
            key = self._credentials.key
            try:
                return await self._call(method, url, body, headers, what, wait, quiet)
            except ProviderError as error:
                if error.code is not ErrorCode.UNAUTHENTICATED or not self._credentials.reread(key):
                    raise

    async def _call(
        self,
        method: str,
        url: str,
        body: bytes | None,
        headers: Mapping[str, str],
        what: str,
        wait: float,
        quiet: bool,
    ) -> bytes:
        from azure.core.exceptions import AzureError, ClientAuthenticationError
        from azure.core.rest import HttpRequest

        await self._pause()
        if self._client is None:
            raise BusClosedError(f"the connection to {self.endpoint.host} is closed; open the bus first")
        if body is None:
            headers = {name: value for name, value in headers.items() if name != "Content-Type"}
        request = HttpRequest(method, url, headers=dict(headers), content=body)
        try:
            # As a stream, for otherwise the SDK decodes the body too, and fails for all that is in it.
            request_sent()
            response = await self._client.send_request(
                request,
                stream=True,
                connection_timeout=CONNECT_TIMEOUT,
                read_timeout=READ_TIMEOUT + wait,
                tracing_options={"enabled": False} if quiet else {},
            )
            answer = await response.read()
            self.date = response.headers.get("Date")
        except ClientAuthenticationError as error:  # of the chain, not of an answer
            raise self._credentials.unavailable(error) from error
        except AzureError as error:
            raise self._unreachable(error, what) from error
        except RuntimeError as error:  # aiohttp's own word for a session that was closed meanwhile
            if self._client is None:
                raise BusClosedError(
                    f"the connection to {self.endpoint.host} was closed meanwhile"
                ) from error
            raise
        if response.status_code < 300:
            return answer
        raise self._refused(response, answer, what)

    def _unreachable(self, error: BaseException, what: str) -> ProviderError:
        code, retryable = code_of_error(error) or (ErrorCode.UNKNOWN, False)
        if self.endpoint.is_loopback and _is_refused(error):
            text = f"nothing listens on {self.endpoint.url}; start it with: crossbus serve --port {self.endpoint.port}"
            return provider_error(code, text, retryable=retryable, cause=error)
        problem = " ".join(str(error).split())[:300] or type(error).__name__
        text = f"no answer from {self.endpoint.host} to {what}, is that the right endpoint? {problem}"
        return provider_error(code, text, retryable=retryable, cause=error)

    def _refused(self, response: Any, answer: bytes, what: str) -> ProviderError:
        from azure.core.exceptions import HttpResponseError

        status = response.status_code
        self._note_pause(response.headers.get("Retry-After"))
        cause = HttpResponseError(message=problem_of(answer) or response.reason, response=response)
        if status == 401:
            refused = self._credentials.refused(f"for {what}")
            refused.__cause__ = cause
            return refused
        code, retryable = code_of_status(status)
        about = f"{self.endpoint.host} answered {status} to {what}"
        if status == 404:
            about = f"{what}: there is no such topic or subscription in namespace {self.endpoint.namespace!r}"
        elif status == 403:
            about += f": grant the role {_role(what)} on the namespace or topic"
        if status != 404 and (problem := problem_of(answer)):
            about += f": {problem}"
        return provider_error(code, about, retryable=retryable, cause=cause)

    def _note_pause(self, seconds: str | None) -> None:
        if seconds and seconds.isascii() and seconds.isdigit():
            until = asyncio.get_running_loop().time() + min(float(seconds), LONGEST_PAUSE)
            self._not_before = max(self._not_before, until)

    async def _pause(self) -> None:
        if self._not_before:
            left = self._not_before - asyncio.get_running_loop().time()
            if left > 0:
                await asyncio.sleep(left)
            else:
                self._not_before = 0.0


def _shown(place: Place) -> str:
    parts = place.split("/")
    return f"topic {parts[2]!r}" if len(parts) == 3 else f"subscription {f'{parts[2]}/{parts[4]}'!r}"


def _role(what: str) -> str:
    return "EventGrid Data Sender" if what.startswith(":publish") else "EventGrid Data Receiver"


def _is_refused(error: BaseException) -> bool:
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, ConnectionRefusedError):
        seen = getattr(seen, "os_error", None) or seen.__cause__ or seen.__context__
    return seen is not None
