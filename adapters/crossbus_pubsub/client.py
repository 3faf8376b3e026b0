"""`Client`: the calls of Pub/Sub's gRPC API that crossbus makes, on one channel of grpc.aio.

The messages are those of google-cloud-pubsub; its clients are not used, because they try again by themselves, and
because what they wrap around each message costs more than all else.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from crossbus.errors import BusClosedError, ErrorCode, ProviderError
from crossbus.requests import request_sent
from crossbus_pubsub.errors import code_of, portable

if TYPE_CHECKING:
    from crossbus_pubsub.credentials import Token

__all__ = ["TIMEOUT", "Client"]

TIMEOUT: Final = 15.0
"""Seconds that a call may take, but for a pull."""
RETIRE: Final = 25.0
"""Seconds that calls may still take on a connection that was given up."""
PULL_MARGIN: Final = 1.0
"""The emulator answers an empty pull this much before its deadline."""

_PUBLISHER, _SUBSCRIBER, _IAM = (
    "google.pubsub.v1.Publisher",
    "google.pubsub.v1.Subscriber",
    "google.iam.v1.IAMPolicy",
)

_METHODS: Final[dict[str, tuple[str, str, str, str]]] = {
    # method: service, request, response, the field that names the resource
    "CreateTopic": (_PUBLISHER, "Topic", "Topic", "name"),
    "GetTopic": (_PUBLISHER, "GetTopicRequest", "Topic", "topic"),
    "UpdateTopic": (_PUBLISHER, "UpdateTopicRequest", "Topic", "topic.name"),
    "DeleteTopic": (_PUBLISHER, "DeleteTopicRequest", "", "topic"),
    "ListTopics": (_PUBLISHER, "ListTopicsRequest", "ListTopicsResponse", "project"),
    "ListTopicSubscriptions": (
        _PUBLISHER,
        "ListTopicSubscriptionsRequest",
        "ListTopicSubscriptionsResponse",
        "topic",
    ),
    "Publish": (_PUBLISHER, "PublishRequest", "PublishResponse", "topic"),
    "CreateSubscription": (_SUBSCRIBER, "Subscription", "Subscription", "name"),
    "GetSubscription": (_SUBSCRIBER, "GetSubscriptionRequest", "Subscription", "subscription"),
    "UpdateSubscription": (_SUBSCRIBER, "UpdateSubscriptionRequest", "Subscription", "subscription.name"),
    "DeleteSubscription": (_SUBSCRIBER, "DeleteSubscriptionRequest", "", "subscription"),
    "ListSubscriptions": (_SUBSCRIBER, "ListSubscriptionsRequest", "ListSubscriptionsResponse", "project"),
    "Pull": (_SUBSCRIBER, "PullRequest", "PullResponse", "subscription"),
    "Acknowledge": (_SUBSCRIBER, "AcknowledgeRequest", "", "subscription"),
    "ModifyAckDeadline": (_SUBSCRIBER, "ModifyAckDeadlineRequest", "", "subscription"),
    "CreateSnapshot": (_SUBSCRIBER, "CreateSnapshotRequest", "Snapshot", "name"),
    "Seek": (_SUBSCRIBER, "SeekRequest", "SeekResponse", "subscription"),
    "GetIamPolicy": (_IAM, "GetIamPolicyRequest", "Policy", "resource"),
    "SetIamPolicy": (_IAM, "SetIamPolicyRequest", "Policy", "resource"),
    "TestIamPermissions": (_IAM, "TestIamPermissionsRequest", "TestIamPermissionsResponse", "resource"),
}

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 10_000),  # what one attempt may take, in spite of its name
    ("grpc.max_reconnect_backoff_ms", 5_000),
    # Each adapter has a connection of its own, which ends with it.
    ("grpc.use_local_subchannel_pool", 1),
)


class Client:
    """Calls on one channel. Made and used in one event loop.

    Args:
        target: ``host:port``.
        token: Authorizes the calls; None where nobody asks for it.
        secure: Whether to speak TLS.
    """

    def __init__(self, target: str, token: Token | None, *, secure: bool) -> None:
        import grpc
        from google.pubsub_v1 import types

        self.target = target
        self._token = token
        self._types = types
        self._failed = grpc.aio.AioRpcError
        self._usage = grpc.aio.UsageError
        self._grpc = grpc
        self._secure = secure
        self._channel: Any = self._connect()
        self._retired: set[asyncio.Task[None]] = set()
        self._calls: dict[str, Any] = {}
        self._classes: dict[str, Any] = {}
        self._topic_fields: dict[str, bytes] = {}
        self._closed = False
        self.message = self.type("PubsubMessage")
        """The SDK's class of a message."""

    def _connect(self) -> Any:
        aio = self._grpc.aio
        if self._secure:
            return aio.secure_channel(self.target, self._grpc.ssl_channel_credentials(), options=_OPTIONS)
        return aio.insecure_channel(self.target, options=_OPTIONS)

    def _reconnect(self, channel: Any) -> None:
        """Give up a connection on which a call had no answer in time: it may be one that a firewall has forgotten.

        Others that are under way on it may still end.
        """
        if channel is not self._channel or self._closed:
            return
        self._channel = self._connect()
        self._calls.clear()
        retiring = asyncio.create_task(channel.close(RETIRE), name="crossbus pubsub retiring a connection")
        self._retired.add(retiring)
        retiring.add_done_callback(self._retired.discard)

    def type(self, name: str) -> Any:
        """Return one of the SDK's messages, as protobuf has it."""
        found = self._classes.get(name)
        if found is None:
            if "IamP" in name:
                from google.iam.v1 import iam_policy_pb2 as own
            elif name == "Policy":
                from google.iam.v1 import policy_pb2 as own
            else:
                own = None
            found = self._classes[name] = (
                getattr(self._types, name).pb() if own is None else getattr(own, name)
            )
        return found

    async def call(self, method: str, *, timeout: float = TIMEOUT, **fields: Any) -> Any:
        """Make one call, and return its response. `fields` are those of the request.

        Raises the portable error of what the service said.
        """
        request = self.type(_METHODS[method][1])(**fields)
        return await self.send(method, request, timeout)

    async def send(self, method: str, request: Any, timeout: float = TIMEOUT) -> Any:
        """Make one call with a request that is made already."""
        return await self._send(method, request, _resource(request, _METHODS[method][3]), timeout)

    async def publish(self, topic: str, request: bytes) -> Any:
        """Publish with a request that is written already."""
        return await self._send("Publish", request, topic, TIMEOUT)

    def topic_field(self, topic: str) -> bytes:
        """Return the beginning of a written `PublishRequest`."""
        found = self._topic_fields.get(topic)
        if found is None:
            found = self._topic_fields[topic] = self.type("PublishRequest")(topic=topic).SerializeToString()
        return found

    async def _send(self, method: str, request: Any, resource: str, timeout: float) -> Any:
        routing = ("x-goog-request-params", f"{_METHODS[method][3]}={resource.replace('/', '%2F')}")
        headers = () if self._token is None else await self._token.headers()
        try:
            return await self._once(method, request, resource, (routing, *headers), timeout)
        except ProviderError as error:
            # It was not done, so that doing it with another token is no second time.
            if error.code is not ErrorCode.UNAUTHENTICATED or self._token is None:
                raise
            if not await self._token.after_refusal(headers):
                raise
        return await self._once(method, request, resource, (routing, *await self._token.headers()), timeout)

    async def _once(self, method: str, request: Any, resource: str, metadata: Any, timeout: float) -> Any:
        if self._closed:
            raise BusClosedError(f"pubsub: the connection to {self.target} is closed")
        channel = self._channel
        call = self._calls.get(method) or self._prepare(method)
        request_sent()
        try:
            return await call(request, timeout=timeout, metadata=metadata)
        except self._failed as error:
            if error.code() is self._grpc.StatusCode.DEADLINE_EXCEEDED and method != "Pull":
                self._reconnect(channel)
            raise portable(error, method, resource) from error
        except self._usage as error:
            raise BusClosedError(f"pubsub: the connection to {self.target} is closed") from error

    def _prepare(self, method: str) -> Any:
        from google.protobuf.empty_pb2 import Empty

        service, request, response, _ = _METHODS[method]
        made = self._calls[method] = self._channel.unary_unary(
            f"/{service}/{method}",
            request_serializer=_written if method == "Publish" else self.type(request).SerializeToString,
            response_deserializer=(self.type(response) if response else Empty).FromString,
        )
        return made

    async def pull(self, subscription: str, most: int, wait: float) -> Any:
        """Return the messages that are there, or that come within `wait` seconds; none if there are none."""
        try:
            response = await self.call(
                "Pull", subscription=subscription, max_messages=most, timeout=wait + PULL_MARGIN
            )
        except ProviderError as error:
            if error.code is ErrorCode.DEADLINE_EXCEEDED:
                return ()
            raise
        return response.received_messages

    async def listed(self, method: str, items: str, **fields: Any) -> list[Any]:
        """Return all items of a list, page by page."""
        found: list[Any] = []
        token = ""
        while True:
            page = await self.call(method, page_size=1000, page_token=token, **fields)
            found += getattr(page, items)
            token = page.next_page_token
            if not token:
                return found

    async def found(self, method: str, **fields: Any) -> Any | None:
        """Return what a call finds, or None if it is not there."""
        try:
            return await self.call(method, **fields)
        except ProviderError as error:
            if code_of(error) == (ErrorCode.NOT_FOUND, False):
                return None
            raise

    async def close(self) -> None:
        """Close the channel. Calls that are under way fail."""
        if not self._closed:
            self._closed = True
            for retiring in self._retired:
                retiring.cancel()
            await asyncio.gather(*self._retired, return_exceptions=True)
            await self._channel.close()


def _written(request: Any) -> bytes:
    """Write a `PublishRequest`, unless `Client.publish` was given it written."""
    return request if isinstance(request, bytes) else bytes(request.SerializeToString())


def _resource(request: Any, path: str) -> str:
    value = request
    for name in path.split("."):
        value = getattr(value, name)
    return str(value)
