"""What the service refuses becomes one line that names the resource, and what to set or grant."""

from __future__ import annotations

import grpc
import pytest

from crossbus.errors import ErrorCode
from crossbus_pubsub.client import _METHODS
from crossbus_pubsub.errors import _GRANTS, code_of, portable, refusals
from pubsub_emulator import rpc_error

Code = grpc.StatusCode
TOPIC = "projects/my-project/topics/orders"


@pytest.mark.parametrize(
    ("error", "method", "code", "said"),
    [
        (
            rpc_error(Code.PERMISSION_DENIED, "User not authorized to perform this action."),
            "Publish",
            ErrorCode.PERMISSION_DENIED,
            f"pubsub: Publish {TOPIC}: User not authorized to perform this action: grant pubsub.topics.publish "
            "(roles/pubsub.publisher on the topic) to the identity that runs this",
        ),
        (
            rpc_error(
                Code.NOT_FOUND, "Requested project not found or user does not have access to it\n(project=x)."
            ),
            "Publish",
            ErrorCode.NOT_FOUND,
            f"pubsub: Publish {TOPIC}: Requested project not found or user does not have access to it (project=x): "
            "check the project in the URL (pubsub:PROJECT) or GOOGLE_CLOUD_PROJECT, and that its Pub/Sub API is on",
        ),
        (
            rpc_error(Code.NOT_FOUND, f"Resource not found (resource={TOPIC})."),
            "Publish",
            ErrorCode.NOT_FOUND,
            f"pubsub: Publish: Resource not found (resource={TOPIC}): create it with `await bus.provision()`, or check "
            "its name and its project",
        ),
        (
            rpc_error(Code.UNAUTHENTICATED, "Request had invalid authentication credentials."),
            "Pull",
            ErrorCode.UNAUTHENTICATED,
            f"pubsub: Pull {TOPIC}: Request had invalid authentication credentials: check the credentials: "
            "`gcloud auth application-default print-access-token` shows whether there are any",
        ),
        (
            rpc_error(Code.UNAVAILABLE, ""),
            "Pull",
            ErrorCode.UNAVAILABLE,
            f"pubsub: Pull {TOPIC}: AioRpcError",
        ),
    ],
)
def test_one_line_with_a_remedy(error: grpc.aio.AioRpcError, method: str, code: ErrorCode, said: str) -> None:
    made = portable(error, method, TOPIC)
    assert str(made) == said
    assert made.code is code
    assert made.__cause__ is error


def test_every_call_has_a_permission_that_can_be_granted() -> None:
    needs_none = {"TestIamPermissions"}
    assert _GRANTS.keys() >= _METHODS.keys() - needs_none


def test_strangers_have_no_code_and_refuse_nothing() -> None:
    assert code_of(KeyError("x")) is None
    assert refusals(portable(ValueError("x"), "Acknowledge", "s")) == {}
    assert refusals(portable(rpc_error(Code.INVALID_ARGUMENT), "Acknowledge", "s")) == {}
