"""What an exception of gRPC or google-auth is in portable terms, and what the user can do about it."""

from __future__ import annotations

import re
from typing import Any, Final

from crossbus.adapter import LeaseOutcome
from crossbus.errors import ErrorCode, ProviderError, provider_error

__all__ = ["code_of", "portable", "refusals"]

_CODES: Final[dict[str, tuple[ErrorCode, bool]]] = {
    "NOT_FOUND": (ErrorCode.NOT_FOUND, False),
    "ALREADY_EXISTS": (ErrorCode.CONFLICT, False),
    "PERMISSION_DENIED": (ErrorCode.PERMISSION_DENIED, False),
    "UNAUTHENTICATED": (ErrorCode.UNAUTHENTICATED, False),
    "INVALID_ARGUMENT": (ErrorCode.INVALID_REQUEST, False),
    "FAILED_PRECONDITION": (ErrorCode.INVALID_REQUEST, False),
    "OUT_OF_RANGE": (ErrorCode.INVALID_REQUEST, False),
    "UNIMPLEMENTED": (ErrorCode.INVALID_REQUEST, False),
    "RESOURCE_EXHAUSTED": (ErrorCode.THROTTLED, True),
    "UNAVAILABLE": (ErrorCode.UNAVAILABLE, True),
    "INTERNAL": (ErrorCode.UNAVAILABLE, True),
    "ABORTED": (ErrorCode.UNAVAILABLE, True),
    "CANCELLED": (ErrorCode.UNAVAILABLE, True),
    "DEADLINE_EXCEEDED": (ErrorCode.DEADLINE_EXCEEDED, True),
    "UNKNOWN": (ErrorCode.UNKNOWN, True),
    "DATA_LOSS": (ErrorCode.UNKNOWN, False),
}
"""By the name of the gRPC status. What may be tried again is what Google's own clients try again when they publish."""

_GRANTS: Final[dict[str, str]] = {
    "Publish": "pubsub.topics.publish (roles/pubsub.publisher on the topic)",
    "Pull": "pubsub.subscriptions.consume (roles/pubsub.subscriber on the subscription)",
    "Acknowledge": "pubsub.subscriptions.consume (roles/pubsub.subscriber on the subscription)",
    "ModifyAckDeadline": "pubsub.subscriptions.consume (roles/pubsub.subscriber on the subscription)",
    "Seek": "pubsub.subscriptions.consume (roles/pubsub.subscriber on the subscription)",
    "CreateSnapshot": "pubsub.snapshots.create, and pubsub.subscriptions.consume (roles/pubsub.editor)",
    "GetTopic": "pubsub.topics.get (roles/pubsub.viewer)",
    "ListTopics": "pubsub.topics.list (roles/pubsub.viewer)",
    "ListTopicSubscriptions": "pubsub.topics.get (roles/pubsub.viewer)",
    "GetSubscription": "pubsub.subscriptions.get (roles/pubsub.viewer)",
    "ListSubscriptions": "pubsub.subscriptions.list (roles/pubsub.viewer)",
    "CreateTopic": "pubsub.topics.create (roles/pubsub.editor)",
    "UpdateTopic": "pubsub.topics.update (roles/pubsub.editor)",
    "DeleteTopic": "pubsub.topics.delete (roles/pubsub.editor)",
    "CreateSubscription": "pubsub.subscriptions.create, and pubsub.topics.attachSubscription on its topic "
    "(roles/pubsub.editor)",
    "UpdateSubscription": "pubsub.subscriptions.update (roles/pubsub.editor)",
    "DeleteSubscription": "pubsub.subscriptions.delete (roles/pubsub.editor)",
    "GetIamPolicy": "pubsub.*.getIamPolicy (roles/pubsub.admin)",
    "SetIamPolicy": "pubsub.*.setIamPolicy (roles/pubsub.admin)",
}
_TOO_LARGE = re.compile(r"(sent|received) message larger than max", re.IGNORECASE)
_NO_PROJECT = re.compile(
    r"project not found|project.*(does not exist|has been deleted)|API has not been used", re.IGNORECASE
)


def code_of(error: BaseException) -> tuple[ErrorCode, bool] | None:
    """Return the portable code of an exception, and whether to retry; None if it is not of Google's libraries."""
    if isinstance(error, ProviderError):
        return error.code, error.retryable
    status = _status(error)
    if status is not None:
        if status == "RESOURCE_EXHAUSTED" and _TOO_LARGE.search(_details(error)):
            return ErrorCode.INVALID_REQUEST, False
        return _CODES.get(status, (ErrorCode.UNKNOWN, False))
    if type(error).__module__.startswith("google.auth"):
        retryable = bool(getattr(error, "retryable", False))
        return (ErrorCode.UNAVAILABLE, True) if retryable else (ErrorCode.UNAUTHENTICATED, False)
    return None


def portable(error: BaseException, method: str, resource: str) -> ProviderError:
    """Make the portable error of a failed call: one line that names the resource, and what to do."""
    code, retryable = code_of(error) or (ErrorCode.UNKNOWN, False)
    said = " ".join(_details(error).split()).rstrip(".") or type(error).__name__
    where = f" {resource}" if resource and resource not in said else ""
    remedy = _remedy(code, method, said)
    text = f"pubsub: {method}{where}: {said}{f': {remedy}' if remedy else ''}"
    return provider_error(code, text, retryable=retryable, cause=error)


def _remedy(code: ErrorCode, method: str, said: str) -> str:
    if _NO_PROJECT.search(said):
        return "check the project in the URL (pubsub:PROJECT) or GOOGLE_CLOUD_PROJECT, and that its Pub/Sub API is on"
    if code is ErrorCode.PERMISSION_DENIED:
        return f"grant {_GRANTS.get(method, 'the permission')} to the identity that runs this"
    if code is ErrorCode.UNAUTHENTICATED:
        return "check the credentials: `gcloud auth application-default print-access-token` shows whether there are any"
    if code is ErrorCode.NOT_FOUND:
        return "create it with `await bus.provision()`, or check its name and its project"
    return ""


def _status(error: BaseException) -> str | None:
    """Return the name of the gRPC status of an exception, of grpc.aio or of google-api-core."""
    code: Any = getattr(error, "code", None)
    module = type(error).__module__
    if module.startswith("grpc"):
        code = code() if callable(code) else code
        name = getattr(code, "name", None)
        return str(name) if name else None
    status = getattr(error, "grpc_status_code", None)
    if status is not None:
        return str(status.name)
    return None


def _details(error: BaseException) -> str:
    details = getattr(error, "details", None)
    if callable(details):
        return str(details() or "")
    return str(getattr(error, "message", "") or error)


def refusals(error: ProviderError) -> dict[str, LeaseOutcome]:
    """Return an outcome for each acknowledgement id that an exactly-once subscription refused; empty if it named none.

    Source: https://cloud.google.com/pubsub/docs/exactly-once-delivery
    """
    cause = error.__cause__
    metadata = getattr(cause, "trailing_metadata", None)
    if not callable(metadata):
        return {}
    from google.rpc.error_details_pb2 import ErrorInfo
    from google.rpc.status_pb2 import Status

    found: dict[str, LeaseOutcome] = {}
    for name, value in metadata() or ():
        if name != "grpc-status-details-bin":
            continue
        for detail in Status.FromString(value).details:
            info = ErrorInfo()
            if detail.Unpack(info):
                for ack_id, reason in info.metadata.items():
                    if reason.startswith("TRANSIENT_"):
                        found[ack_id] = LeaseOutcome.FAILED
                    elif reason.startswith("PERMANENT_"):
                        found[ack_id] = LeaseOutcome.LOST
    return found
