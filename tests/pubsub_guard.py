"""A server before the emulator that has what the emulator lacks: credentials, permissions, filters, IAM, exactly-once,
one ordering key in a request.

It speaks Pub/Sub's own gRPC, hands everything on, and looks at what it must. So what the adapter does with a token that
ended, a permission that is missing, or an acknowledgement that came too late is tried on real calls.
"""

from __future__ import annotations

import threading
import time
from concurrent import futures
from typing import Any

import grpc
from google.auth.credentials import Credentials
from google.auth.exceptions import RefreshError
from google.iam.v1 import iam_policy_pb2, policy_pb2
from google.protobuf.any_pb2 import Any as AnyMessage
from google.pubsub_v1 import types
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from pubsub_filter_language import parse

Code = grpc.StatusCode
SUBSCRIPTION = types.Subscription.pb()
PULL_REQUEST, PULL_RESPONSE = types.PullRequest.pb(), types.PullResponse.pb()
PUBLISH = types.PublishRequest.pb()
ACK = types.AcknowledgeRequest.pb()


class Issuer:
    """Hands out tokens, and ends them."""

    def __init__(self) -> None:
        self.count = 0
        self.valid: set[str] = set()
        self.down = False

    def issue(self) -> str:
        if self.down:
            raise RefreshError("invalid_grant: the account was\nturned off")
        self.count += 1
        token = f"token-{self.count}"
        self.valid.add(token)
        return token

    def revoke(self) -> None:
        self.valid.clear()


class IssuedCredentials(Credentials):  # type: ignore[misc,unused-ignore]
    """Credentials of google-auth whose tokens come from an `Issuer`."""

    def __init__(self, issuer: Issuer) -> None:
        super().__init__()
        self.issuer = issuer

    def refresh(self, request: Any) -> None:
        self.token = self.issuer.issue()


class Guard:
    """The server. `address` is where it listens."""

    def __init__(self, target: str) -> None:
        self.issuer = Issuer()
        self.calls: list[tuple[str, str]] = []
        """Method and routing header of each call."""
        self.denied: set[str] = set()
        """Methods that nobody may call."""
        self.filters = False
        """Whether filters are applied as the service does it."""
        self.refuse_acks: str | None = None
        """With what reason acknowledgement ids are refused, as on an exactly-once subscription."""
        self.policies: dict[str, Any] = {}
        self.lacking: set[tuple[str, str]] = set()
        """The end of a resource's name, and a permission that nobody has on it."""
        self.before_set_policy: Any = None
        self._subscription_filters: dict[str, str] = {}
        self._lock = threading.Lock()
        self._channel = grpc.insecure_channel(target, options=[("grpc.max_receive_message_length", -1)])
        self._server = grpc.server(
            futures.ThreadPoolExecutor(max_workers=256),
            handlers=[_Handler(self)],
            options=[("grpc.max_receive_message_length", -1)],
        )
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def close(self) -> None:
        self._server.stop(0).wait()
        self._channel.close()

    def credentials(self) -> IssuedCredentials:
        return IssuedCredentials(self.issuer)

    # --- one call -------------------------------------------------------------------------------------------------

    def handle(self, path: str, request: bytes, context: grpc.ServicerContext) -> bytes:
        method = path.rpartition("/")[2]
        metadata = dict(context.invocation_metadata())
        self.calls.append((method, str(metadata.get("x-goog-request-params", ""))))
        token = str(metadata.get("authorization", "")).removeprefix("Bearer ")
        if token not in self.issuer.valid:
            context.abort(
                Code.UNAUTHENTICATED,
                "Request had invalid authentication credentials. Expected OAuth 2 access token.",
            )
        if method in self.denied:
            context.abort(Code.PERMISSION_DENIED, "User not authorized to perform this action.")
        if path.startswith("/google.iam.v1"):
            return self._iam(method, request, context)
        if method == "Acknowledge" and self.refuse_acks:
            return self._refuse(request, context)
        if (
            method == "Publish"
            and len({one.ordering_key for one in PUBLISH.FromString(request).messages}) > 1
        ):
            context.abort(Code.INVALID_ARGUMENT, "All messages of a request must have the same ordering key.")
        if method == "CreateSubscription":
            made = SUBSCRIPTION.FromString(request)
            self._subscription_filters[made.name] = made.filter
        if method == "Pull" and self.filters:
            return self._pull(path, request, context)
        return self._pass_on(path, request, context.time_remaining(), context)

    def _pass_on(
        self, path: str, request: bytes, timeout: float | None, context: grpc.ServicerContext
    ) -> bytes:
        try:
            answer: bytes = self._channel.unary_unary(path)(request, timeout=timeout)
        except grpc.RpcError as error:
            context.abort(error.code(), error.details())
        return answer

    def _pull(self, path: str, request: bytes, context: grpc.ServicerContext) -> bytes:
        """Pull, and acknowledge what the filter does not match, as the service does."""
        name = PULL_REQUEST.FromString(request).subscription
        passes = parse(self._subscription_filters.get(name, ""))
        end = time.monotonic() + context.time_remaining()
        while True:
            answer = PULL_RESPONSE.FromString(
                self._pass_on(path, request, max(end - time.monotonic(), 0.5), context)
            )
            messages = list(answer.received_messages)
            kept = [one for one in messages if passes(dict(one.message.attributes))]
            dropped = [one.ack_id for one in messages if one not in kept]
            if dropped:
                ack = ACK(subscription=name, ack_ids=dropped)
                self._pass_on(path.replace("Pull", "Acknowledge"), ack.SerializeToString(), 10, context)
            if kept or not messages:
                return bytes(PULL_RESPONSE(received_messages=kept).SerializeToString())

    def _refuse(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        info = ErrorInfo(reason="PERMANENT", domain="pubsub.googleapis.com")
        for number, ack_id in enumerate(ACK.FromString(request).ack_ids):
            if number % 2 == 0:
                info.metadata[ack_id] = str(self.refuse_acks)
        detail = AnyMessage()
        detail.Pack(info)
        status = Status(code=9, message="Some acknowledgement ids failed", details=[detail])
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        context.abort(Code.FAILED_PRECONDITION, status.message)
        raise AssertionError

    def _iam(self, method: str, request: bytes, context: grpc.ServicerContext) -> bytes:
        with self._lock:
            if method == "GetIamPolicy":
                resource = iam_policy_pb2.GetIamPolicyRequest.FromString(request).resource
                return bytes(
                    self.policies.setdefault(resource, policy_pb2.Policy(etag=b"0")).SerializeToString()
                )
            if method == "TestIamPermissions":
                tested = iam_policy_pb2.TestIamPermissionsRequest.FromString(request)
                granted = [
                    one
                    for one in tested.permissions
                    if not any(tested.resource.endswith(end) and one == what for end, what in self.lacking)
                ]
                return bytes(
                    iam_policy_pb2.TestIamPermissionsResponse(permissions=granted).SerializeToString()
                )
            asked = iam_policy_pb2.SetIamPolicyRequest.FromString(request)
            if self.before_set_policy is not None:
                self.before_set_policy(asked.resource)
            if asked.policy.etag != self.policies[asked.resource].etag:
                context.abort(Code.ABORTED, "There were concurrent policy changes.")
            asked.policy.etag = str(int(asked.policy.etag) + 1).encode()
            self.policies[asked.resource] = asked.policy
            return bytes(asked.policy.SerializeToString())


class _Handler(grpc.GenericRpcHandler):  # type: ignore[misc,unused-ignore]
    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    def service(self, details: Any) -> Any:
        path = details.method
        return grpc.unary_unary_rpc_method_handler(
            lambda request, context: self._guard.handle(path, request, context)
        )
