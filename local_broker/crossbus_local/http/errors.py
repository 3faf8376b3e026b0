"""`ApiError`: what the server answers instead of what was asked for, in one form for all protocols.

The body is ODataV4's: ``{"error": {"code": ..., "message": ...}}``. The codes are words that Azure uses; under
``/crossbus/`` they are crossbus's portable ones, since that is what its client has to make of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from crossbus.errors import ErrorCode, NotFound, ProviderError

__all__ = ["HANDLERS", "JSON", "NATIVE", "ApiError", "error_response"]

JSON: Final = "application/json; charset=utf-8"
NATIVE: Final = "/crossbus/"
"""How the paths of crossbus's own protocol begin."""

_encode = msgspec.json.Encoder().encode
_PORTABLE: Final[Mapping[int, ErrorCode]] = {
    401: ErrorCode.UNAUTHENTICATED,
    403: ErrorCode.PERMISSION_DENIED,
    404: ErrorCode.NOT_FOUND,
    408: ErrorCode.DEADLINE_EXCEEDED,
    409: ErrorCode.CONFLICT,
    503: ErrorCode.UNAVAILABLE,
}


class ApiError(Exception):
    """A request that is refused. `status` is HTTP's, `code` a word for programs, the text for people."""

    def __init__(
        self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = headers


def error_response(path: str, error: ApiError) -> Response:
    """Return the answer to a request of a path that is refused."""
    code = error.code
    if path.startswith(NATIVE) and code not in _OWN:
        code = _PORTABLE.get(error.status, _by_class(error.status)).value
    body = {"error": {"code": code, "message": str(error)}}
    return Response(_encode(body), error.status, error.headers, JSON)


_OWN: Final = frozenset(code.value for code in ErrorCode)


def _by_class(status: int) -> ErrorCode:
    return ErrorCode.INVALID_REQUEST if status < 500 else ErrorCode.UNKNOWN


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error_response(request.url.path, error)


async def _not_there(request: Request, error: Exception) -> Response:
    return error_response(request.url.path, ApiError(404, "NotFound", str(error)))


async def _of_starlette(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path
    code, message = "BadRequest", str(error.detail)
    if error.status_code == 404:
        code, message = (
            "NotFound",
            f"there is nothing at {path}; see the documentation for the paths that there are",
        )
    elif error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "POST")
        code, message = "MethodNotAllowed", f"{path} takes {allowed}, not {request.method}"
    return error_response(path, ApiError(error.status_code, code, message, error.headers))


async def _mistake(request: Request, error: Exception) -> Response:
    message = f"a mistake in the server: {type(error).__name__}; its log says more"
    return error_response(request.url.path, ApiError(500, "InternalServerError", message))


async def _of_provider(request: Request, error: Exception) -> Response:
    assert isinstance(error, ProviderError)
    status = next((status for status, code in _PORTABLE.items() if code is error.code), 400)
    return error_response(request.url.path, ApiError(status, error.code.value, str(error)))


HANDLERS: Final[Mapping[Any, Any]] = {
    ApiError: _refused,
    NotFound: _not_there,
    ProviderError: _of_provider,
    HTTPException: _of_starlette,
    Exception: _mistake,
}
"""What answers each kind of exception, as Starlette takes it."""
