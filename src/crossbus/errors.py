"""Every error that crossbus raises, in one tree.

    CrossbusError
    ├── ConfigurationError        a profile, URL, file or environment variable is wrong or missing
    │   └── AdapterNotInstalled   the profile names an adapter whose extra is not installed
    ├── DeclarationError          a topic, subscription, filter or handler is declared wrongly
    │   └── UnsupportedError      it asks for a capability that the adapter lacks
    ├── EventError                an event breaks a rule (also a ValueError)
    │   ├── InvalidEvent          an attribute or the data is not allowed
    │   ├── EventTooLarge         the wire form exceeds the size limit
    │   ├── DecodeError           bytes that are no CloudEvent
    │   └── DataError             the data cannot be decoded into what was asked for
    ├── BusClosedError            the bus, or what belongs to it, is not open
    └── ProviderError             the provider refused or failed; has a portable code
        ├── NotFound              the topic, subscription or other resource does not exist
        ├── PermissionDenied      the credentials lack a permission
        ├── Unauthenticated       there are no valid credentials
        ├── InvalidRequest        the provider calls the request malformed
        ├── Conflict              the resource exists, or exists differently
        ├── Throttled             too many requests (retryable)
        ├── Unavailable           the provider cannot be reached or failed (retryable)
        ├── DeadlineExceeded      no answer in time (retryable)
        └── PublishError          publishing failed
            └── PartialPublishError   some events of several failed; has a result for each

`Retry` and `Reject` are not errors but what a handler raises to choose its outcome; they stand in
`crossbus.outcomes`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crossbus.publishing import PublishResult

__all__ = [
    "AdapterNotInstalled",
    "BusClosedError",
    "ConfigurationError",
    "Conflict",
    "CrossbusError",
    "DataError",
    "DeadlineExceeded",
    "DeclarationError",
    "DecodeError",
    "ErrorCode",
    "EventError",
    "EventTooLarge",
    "InvalidEvent",
    "InvalidRequest",
    "NotFound",
    "PartialPublishError",
    "PermissionDenied",
    "ProviderError",
    "PublishError",
    "Throttled",
    "Unauthenticated",
    "Unavailable",
    "UnsupportedError",
    "nearest",
    "provider_error",
]


class CrossbusError(Exception):
    """The base of every error that crossbus raises."""


class ConfigurationError(CrossbusError):
    """A profile, URL, file or environment variable is wrong or missing."""


class AdapterNotInstalled(ConfigurationError):
    """The profile names an adapter whose extra is not installed."""


class DeclarationError(CrossbusError):
    """A topic, subscription, filter or handler is declared wrongly."""


class UnsupportedError(DeclarationError):
    """Something declared or called asks for a capability that the adapter lacks.

    `capability` is the name of the missing capability, one of `crossbus.CAPABILITIES`.
    """

    def __init__(self, message: str, *, capability: str) -> None:
        super().__init__(message)
        self.capability = capability


class EventError(CrossbusError, ValueError):
    """An event, or bytes that should be one, breaks a rule."""


class InvalidEvent(EventError):
    """An attribute or the data of an event is not allowed.

    `attribute` names what is wrong: an attribute's name, or `data`.
    """

    def __init__(self, message: str, *, attribute: str) -> None:
        super().__init__(message)
        self.attribute = attribute


class EventTooLarge(EventError):
    """The wire form of an event exceeds the size limit. `size` and `limit` are in bytes."""

    def __init__(self, message: str, *, size: int, limit: int) -> None:
        super().__init__(message)
        self.size = size
        self.limit = limit


class DecodeError(EventError):
    """Bytes that are no CloudEvent."""


class DataError(EventError):
    """The data of an event cannot be decoded, or not into the type that was asked for."""


class BusClosedError(CrossbusError):
    """The bus, or what belongs to it, is not open, or was closed meanwhile."""


class ErrorCode(str, Enum):
    """The portable code of a provider's error."""

    NOT_FOUND = "not_found"
    PERMISSION_DENIED = "permission_denied"
    UNAUTHENTICATED = "unauthenticated"
    INVALID_REQUEST = "invalid_request"
    CONFLICT = "conflict"
    THROTTLED = "throttled"
    UNAVAILABLE = "unavailable"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    UNKNOWN = "unknown"


class ProviderError(CrossbusError):
    """The provider refused or failed.

    `code` is portable; `retryable` says whether the same call may succeed later. The provider's own
    exception, where there is one, is the `__cause__`.
    """

    code: ErrorCode = ErrorCode.UNKNOWN
    retryable: bool = False


class NotFound(ProviderError):
    """The topic, subscription or other resource does not exist."""

    code = ErrorCode.NOT_FOUND


class PermissionDenied(ProviderError):
    """The credentials are valid but lack a permission."""

    code = ErrorCode.PERMISSION_DENIED


class Unauthenticated(ProviderError):
    """There are no valid credentials."""

    code = ErrorCode.UNAUTHENTICATED


class InvalidRequest(ProviderError):
    """The provider calls the request malformed."""

    code = ErrorCode.INVALID_REQUEST


class Conflict(ProviderError):
    """The resource exists already, or exists with other settings."""

    code = ErrorCode.CONFLICT


class Throttled(ProviderError):
    """Too many requests. Retryable."""

    code = ErrorCode.THROTTLED
    retryable = True


class Unavailable(ProviderError):
    """The provider cannot be reached, or failed. Retryable."""

    code = ErrorCode.UNAVAILABLE
    retryable = True


class DeadlineExceeded(ProviderError):
    """The provider gave no answer in time. Retryable."""

    code = ErrorCode.DEADLINE_EXCEEDED
    retryable = True


class PublishError(ProviderError):
    """Publishing failed for a reason that no other class names."""


class PartialPublishError(PublishError):
    """Some events of `publish_many` were not published.

    `results` has one `PublishResult` for each event, in the order given: a receipt or an error.
    """

    def __init__(self, message: str, *, results: Sequence[PublishResult]) -> None:
        super().__init__(message)
        self.results = results

    @property
    def failed(self) -> list[PublishResult]:
        """The results of the events that were not published."""
        return [result for result in self.results if result.error is not None]


_BY_CODE: dict[ErrorCode, type[ProviderError]] = {
    cls.code: cls
    for cls in (
        NotFound,
        PermissionDenied,
        Unauthenticated,
        InvalidRequest,
        Conflict,
        Throttled,
        Unavailable,
        DeadlineExceeded,
        ProviderError,
    )
}


def provider_error(
    code: ErrorCode, message: str, *, retryable: bool | None = None, cause: BaseException | None = None
) -> ProviderError:
    """Make the portable error of a code. `retryable` overrides the code's own answer."""
    error = _BY_CODE[code](message)
    if retryable is not None:
        error.retryable = retryable
    error.__cause__ = cause
    return error


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Say what is allowed, nearest first: the tail of every message about an unknown name.

    >>> nearest("ordrs", ["orders", "invoices"])
    "did you mean 'orders'?"
    >>> nearest("x", ["orders", "invoices"])
    'known: invoices, orders'
    >>> nearest("x", [])
    'none are known'
    """
    import difflib  # here: only a mistake needs it

    names = sorted(allowed)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known: {', '.join(names)}" if names else "none are known"
