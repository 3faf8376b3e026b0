"""What goes wrong at Event Grid, in the portable codes: answers of HTTP, exceptions of the SDK, answers per token."""

from __future__ import annotations

import sys
from typing import Final

import msgspec

from crossbus.adapter import LeaseOutcome
from crossbus.errors import ErrorCode

__all__ = ["code_of_error", "code_of_status", "outcome_of_code", "problem_of"]

_BY_STATUS: Final[dict[int, tuple[ErrorCode, bool]]] = {
    400: (ErrorCode.INVALID_REQUEST, False),
    401: (ErrorCode.UNAUTHENTICATED, False),
    403: (ErrorCode.PERMISSION_DENIED, False),
    404: (ErrorCode.NOT_FOUND, False),
    408: (ErrorCode.DEADLINE_EXCEEDED, True),
    409: (ErrorCode.CONFLICT, False),
    412: (ErrorCode.CONFLICT, False),
    429: (ErrorCode.THROTTLED, True),
    504: (ErrorCode.DEADLINE_EXCEEDED, True),
}

_TRANSIENT: Final = ("internal", "unavailable", "throttl", "toomany", "timeout", "timedout", "busy")
"""Words of codes of a single token that say that it may work in a moment."""


class _Problem(msgspec.Struct):
    code: str = ""
    message: str = ""


class _Answer(msgspec.Struct):
    error: _Problem | None = None


def code_of_status(status: int) -> tuple[ErrorCode, bool]:
    """Return the portable code of an HTTP status, and whether to retry."""
    known = _BY_STATUS.get(status)
    if known is not None:
        return known
    if status >= 500:
        return ErrorCode.UNAVAILABLE, True
    return (ErrorCode.INVALID_REQUEST, False) if status >= 400 else (ErrorCode.UNKNOWN, False)


def code_of_error(error: BaseException) -> tuple[ErrorCode, bool] | None:
    """Return the portable code of an exception of azure-core or azure-identity; None if it is not theirs."""
    core = sys.modules.get("azure.core.exceptions")
    if core is None or not isinstance(error, core.AzureError):
        return None
    if isinstance(error, core.HttpResponseError) and error.status_code is not None:
        code, retryable = code_of_status(error.status_code)
        # A body that broke off, or is no JSON, came with a status of success.
        return (ErrorCode.UNAVAILABLE, True) if error.status_code < 300 else (code, retryable)
    if isinstance(error, core.ClientAuthenticationError):
        return ErrorCode.UNAUTHENTICATED, False
    if isinstance(error, (core.ServiceRequestTimeoutError, core.ServiceResponseTimeoutError)):
        return ErrorCode.DEADLINE_EXCEEDED, True
    if isinstance(error, (core.ServiceRequestError, core.ServiceResponseError, core.HttpResponseError)):
        return ErrorCode.UNAVAILABLE, True
    return ErrorCode.UNKNOWN, False


def problem_of(answer: bytes) -> str:
    """Return what an error's body says, in one line: its code and message. Empty if it says nothing readable."""
    try:
        error = msgspec.json.decode(answer, type=_Answer).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
    if error is None:
        return ""
    return " ".join(f"{error.code}: {error.message}".split()).strip(": ")[:500]


def outcome_of_code(code: str) -> LeaseOutcome:
    """Return what the code of one failed lock token means: a lease that is lost, unless it says that it may work yet.

    Event Grid documents no list of them. Seen in its samples: ``TokenLost``, ``BadToken``.
    """
    folded = code.lower()
    if any(word in folded for word in _TRANSIENT):
        return LeaseOutcome.FAILED
    return LeaseOutcome.LOST
