"""What an exception of botocore, or the code of one entry, is in portable terms, and what the user can do about it."""

from __future__ import annotations

import sys
from typing import Any, Final

from crossbus.adapter import LeaseOutcome
from crossbus.errors import ErrorCode, ProviderError, provider_error

__all__ = ["STALE", "aws_code", "code_of", "code_of_text", "lease_outcome", "portable"]

_N, _R = False, True
_CODES: Final[dict[str, tuple[ErrorCode, bool]]] = {
    "ResourceNotFoundException": (ErrorCode.NOT_FOUND, _N),
    "QueueDoesNotExist": (ErrorCode.NOT_FOUND, _N),
    "AWS.SimpleQueueService.NonExistentQueue": (ErrorCode.NOT_FOUND, _N),
    "NonExistentQueue": (ErrorCode.NOT_FOUND, _N),
    "QueueDeletedRecently": (ErrorCode.CONFLICT, _R),
    "AWS.SimpleQueueService.QueueDeletedRecently": (ErrorCode.CONFLICT, _R),
    "QueueNameExists": (ErrorCode.CONFLICT, _N),
    "QueueAlreadyExists": (ErrorCode.CONFLICT, _N),
    "ResourceAlreadyExistsException": (ErrorCode.CONFLICT, _N),
    "ManagedRuleException": (ErrorCode.CONFLICT, _N),
    "ConcurrentModificationException": (ErrorCode.CONFLICT, _R),
    "AccessDenied": (ErrorCode.PERMISSION_DENIED, _N),
    "AccessDeniedException": (ErrorCode.PERMISSION_DENIED, _N),
    "AuthorizationError": (ErrorCode.PERMISSION_DENIED, _N),
    "UnauthorizedOperation": (ErrorCode.PERMISSION_DENIED, _N),
    "NotAuthorizedForSourceException": (ErrorCode.PERMISSION_DENIED, _N),
    "NotAuthorizedForDetailTypeException": (ErrorCode.PERMISSION_DENIED, _N),
    "KmsAccessDenied": (ErrorCode.PERMISSION_DENIED, _N),
    "KMSAccessDeniedException": (ErrorCode.PERMISSION_DENIED, _N),
    "OptInRequired": (ErrorCode.PERMISSION_DENIED, _N),
    "UnrecognizedClientException": (ErrorCode.UNAUTHENTICATED, _N),
    "InvalidClientTokenId": (ErrorCode.UNAUTHENTICATED, _N),
    "InvalidAccessKeyId": (ErrorCode.UNAUTHENTICATED, _N),
    "InvalidSecurity": (ErrorCode.UNAUTHENTICATED, _N),
    "SignatureDoesNotMatch": (ErrorCode.UNAUTHENTICATED, _N),
    "InvalidSignatureException": (ErrorCode.UNAUTHENTICATED, _N),
    "IncompleteSignature": (ErrorCode.UNAUTHENTICATED, _N),
    "IncompleteSignatureException": (ErrorCode.UNAUTHENTICATED, _N),
    "MissingAuthenticationToken": (ErrorCode.UNAUTHENTICATED, _N),
    "MissingAuthenticationTokenException": (ErrorCode.UNAUTHENTICATED, _N),
    "ExpiredToken": (ErrorCode.UNAUTHENTICATED, _N),
    "ExpiredTokenException": (ErrorCode.UNAUTHENTICATED, _N),
    "TokenRefreshRequired": (ErrorCode.UNAUTHENTICATED, _N),
    "RequestExpired": (ErrorCode.UNAUTHENTICATED, _N),
    "Throttling": (ErrorCode.THROTTLED, _R),
    "ThrottlingException": (ErrorCode.THROTTLED, _R),
    "ThrottledException": (ErrorCode.THROTTLED, _R),
    "RequestThrottled": (ErrorCode.THROTTLED, _R),
    "RequestThrottledException": (ErrorCode.THROTTLED, _R),
    "TooManyRequestsException": (ErrorCode.THROTTLED, _R),
    "RequestLimitExceeded": (ErrorCode.THROTTLED, _R),
    "SlowDown": (ErrorCode.THROTTLED, _R),
    "KmsThrottled": (ErrorCode.THROTTLED, _R),
    "KMS.ThrottlingException": (ErrorCode.THROTTLED, _R),
    "OverLimit": (ErrorCode.THROTTLED, _R),
    "LimitExceededException": (ErrorCode.INVALID_REQUEST, _N),
    "PolicyLengthExceededException": (ErrorCode.INVALID_REQUEST, _N),
    "InternalFailure": (ErrorCode.UNAVAILABLE, _R),
    "InternalError": (ErrorCode.UNAVAILABLE, _R),
    "InternalException": (ErrorCode.UNAVAILABLE, _R),
    "InternalServerError": (ErrorCode.UNAVAILABLE, _R),
    "ServiceUnavailable": (ErrorCode.UNAVAILABLE, _R),
    "ServiceUnavailableException": (ErrorCode.UNAVAILABLE, _R),
    "RequestTimeout": (ErrorCode.DEADLINE_EXCEEDED, _R),
    "RequestTimeoutException": (ErrorCode.DEADLINE_EXCEEDED, _R),
    "InvalidStateException": (ErrorCode.CONFLICT, _R),
    "IdempotentParameterMismatchException": (ErrorCode.CONFLICT, _N),
    "ConflictException": (ErrorCode.CONFLICT, _N),
    "ResourceInUseException": (ErrorCode.CONFLICT, _N),
    "InvalidInputException": (ErrorCode.INVALID_REQUEST, _N),
    "MalformedDetail": (ErrorCode.INVALID_REQUEST, _N),
    "InvalidArgument": (ErrorCode.INVALID_REQUEST, _N),
    "ValidationException": (ErrorCode.INVALID_REQUEST, _N),
    "ValidationError": (ErrorCode.INVALID_REQUEST, _N),
    "InvalidEventPatternException": (ErrorCode.INVALID_REQUEST, _N),
}
"""By AWS's code. What may be tried again is what may work in a moment without anybody changing anything."""

_EXCEPTIONS: Final[dict[str, tuple[ErrorCode, bool]]] = {
    "NoCredentialsError": (ErrorCode.UNAUTHENTICATED, _N),
    "PartialCredentialsError": (ErrorCode.UNAUTHENTICATED, _N),
    "CredentialRetrievalError": (ErrorCode.UNAUTHENTICATED, _N),
    "TokenRetrievalError": (ErrorCode.UNAUTHENTICATED, _N),
    "UnauthorizedSSOTokenError": (ErrorCode.UNAUTHENTICATED, _N),
    "SSOTokenLoadError": (ErrorCode.UNAUTHENTICATED, _N),
    "SSOError": (ErrorCode.UNAUTHENTICATED, _N),
    "NoAuthTokenError": (ErrorCode.UNAUTHENTICATED, _N),
    "ReadTimeoutError": (ErrorCode.DEADLINE_EXCEEDED, _R),
    "ConnectTimeoutError": (ErrorCode.DEADLINE_EXCEEDED, _R),
    "SSLError": (ErrorCode.UNAVAILABLE, _N),
    "ParamValidationError": (ErrorCode.INVALID_REQUEST, _N),
    "ProfileNotFound": (ErrorCode.INVALID_REQUEST, _N),
}
"""By botocore's class, where no answer came. Whatever else the HTTP client raises may be tried again."""

STALE: Final = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "RequestExpired",
        "TokenRefreshRequired",
        "UnrecognizedClientException",
    }
)
"""Codes that new credentials may mend."""

_LOST: Final = frozenset(
    {
        "ReceiptHandleIsInvalid",
        "InvalidParameterValue",
        "MessageNotInflight",
        "AWS.SimpleQueueService.MessageNotInflight",
    }
)

_REMEDIES: Final[dict[ErrorCode, str]] = {
    ErrorCode.UNAUTHENTICATED: "check the credentials: `aws sts get-caller-identity` shows whose they are; set "
    "AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the workload a role",
    ErrorCode.NOT_FOUND: "create it with `await bus.provision()`, or check its name, the region and the account",
}


def aws_code(error: BaseException) -> str:
    """Return AWS's own code of an exception of botocore; empty if no answer came."""
    response: Any = getattr(error, "response", None)
    if not isinstance(response, dict):
        return ""
    return str((response.get("Error") or {}).get("Code") or "")


def code_of(error: BaseException) -> tuple[ErrorCode, bool] | None:
    """Return the portable code of an exception, and whether to retry; None if it is not botocore's."""
    if isinstance(error, ProviderError):
        return error.code, error.retryable
    if type(error).__module__ == "botocore.parsers":  # a page of a proxy's, instead of AWS's answer
        return ErrorCode.UNAVAILABLE, True
    exceptions = sys.modules.get("botocore.exceptions")
    if exceptions is None or not isinstance(
        error, (exceptions.BotoCoreError, exceptions.ClientError, exceptions.HTTPClientError)
    ):
        return None
    if isinstance(error, exceptions.ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return code_of_text(aws_code(error), status)
    for kind in type(error).__mro__:
        if kind.__name__ in _EXCEPTIONS:
            return _EXCEPTIONS[kind.__name__]
    if isinstance(
        error, (exceptions.HTTPClientError, exceptions.ConnectionError, exceptions.MetadataRetrievalError)
    ):
        return ErrorCode.UNAVAILABLE, True
    return ErrorCode.UNKNOWN, False


def code_of_text(code: str, status: int = 0) -> tuple[ErrorCode, bool]:
    """Return the portable code of one of AWS's codes; where it is not known, that of the HTTP status."""
    known = _CODES.get(code) or _CODES.get(code.rpartition(".")[2])
    if known is not None:
        return known
    if status == 429:
        return ErrorCode.THROTTLED, True
    if status >= 500:
        return ErrorCode.UNAVAILABLE, True
    if status in (401, 403):
        return ErrorCode.PERMISSION_DENIED, False
    return (ErrorCode.INVALID_REQUEST, False) if status >= 400 else (ErrorCode.UNKNOWN, False)


def lease_outcome(entry: dict[str, Any]) -> LeaseOutcome:
    """Return what one failed entry of a batch means for its lease."""
    code = str(entry.get("Code", ""))
    if code in _LOST or code.rpartition(".")[2] in _LOST:
        return LeaseOutcome.LOST
    return LeaseOutcome.LOST if code_of_text(code)[0] is ErrorCode.NOT_FOUND else LeaseOutcome.FAILED


def portable(error: BaseException, operation: str, resource: str = "") -> ProviderError | None:
    """Make the portable error of a failed call: one line that names the resource, and what to do.

    None if the exception is not botocore's.
    """
    known = code_of(error)
    if known is None:
        return None
    if isinstance(error, ProviderError):
        return error
    where = f" {resource}" if resource else ""
    remedy = _remedy(known[0], operation)
    text = f"eventbridge: {operation}{where}: {_said(error)}{f'; {remedy}' if remedy else ''}"
    return provider_error(known[0], text, retryable=known[1], cause=error)


def _remedy(code: ErrorCode, operation: str) -> str:
    if code is ErrorCode.PERMISSION_DENIED:
        return f"grant {permission(operation)} to the identity that runs this"
    return _REMEDIES.get(code, "")


_BATCHES: Final = {
    "SendMessageBatch": "SendMessage",
    "DeleteMessageBatch": "DeleteMessage",
    "ChangeMessageVisibilityBatch": "ChangeMessageVisibility",
}
_SQS: Final = ("Queue", "Message")


def permission(operation: str) -> str:
    """Return the IAM action of an operation: ``sqs:DeleteMessage`` for DeleteMessageBatch."""
    action = _BATCHES.get(operation, operation)
    service = (
        "sts"
        if action in ("AssumeRole", "GetCallerIdentity")
        else "iam"
        if action in ("SimulatePrincipalPolicy", "GetRole")
        else "sqs"
        if any(part in action for part in _SQS)
        else "events"
    )
    return f"{service}:{action}"


def _said(error: BaseException) -> str:
    response: Any = getattr(error, "response", None)
    if isinstance(response, dict) and "Error" in response:
        found = response["Error"]
        text = f"{found.get('Code', '')}: {found.get('Message', '')}"
    else:
        text = str(error) or type(error).__name__
    return " ".join(text.split()).strip(": ").rstrip(".")[:500]
