"""Asking an adapter what an exception is, however it answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from typing import TypeVar

from crossbus.adapter import Adapter
from crossbus.errors import CrossbusError, ErrorCode, ProviderError, provider_error
from crossbus.outcomes import text_of

__all__ = ["code_of", "guarded", "portable", "was_cancelled"]

logger = logging.getLogger("crossbus")

T = TypeVar("T")


def code_of(adapter: Adapter, error: BaseException) -> tuple[ErrorCode, bool] | None:
    """Return the portable code of an exception, and whether to retry; None if the adapter does not know it."""
    if isinstance(error, ProviderError):
        return error.code, error.retryable
    if isinstance(error, asyncio.CancelledError):
        # An SDK whose connection ends cancels its own calls; nobody here asked for that.
        return ErrorCode.UNAVAILABLE, True
    try:
        return adapter.error_code(error)
    except Exception:
        logger.exception("%s.error_code failed for %s", adapter.name, type(error).__name__)
        return None


def portable(adapter: Adapter, error: Exception | asyncio.CancelledError) -> BaseException:
    """Return the portable error of an exception of an adapter's SDK; the exception itself if it is another's."""
    if isinstance(error, CrossbusError) or (known := code_of(adapter, error)) is None:
        return error
    text = f"{adapter.name}: {text_of(error) or type(error).__name__}"
    return provider_error(known[0], text, retryable=known[1], cause=error)


async def guarded(adapter: Adapter, call: Awaitable[T]) -> T:
    """Await a call of an adapter, and turn its SDK's exception into a portable one."""
    try:
        return await call
    except Exception as error:
        found = portable(adapter, error)
        if found is error:
            raise
        raise found from error


def was_cancelled(error: BaseException) -> bool:
    """True for a `CancelledError` by which somebody cancels the running task: to be raised on, always."""
    if not isinstance(error, asyncio.CancelledError):
        return False
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0
