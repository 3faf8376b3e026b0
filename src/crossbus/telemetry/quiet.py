"""Keeping the spans of instrumented SDKs away from what crossbus does by itself: polls, and keeping leases.

A consumer that waits polls for ever, and each poll would be a trace of its own. Whether one brings something is not
known when it begins, so that all of them are kept quiet; `receive` spans are made by crossbus, for those that did.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["quiet"]

try:
    # Only if the application has instrumentations at all: it is their package, not the API's.
    from opentelemetry.instrumentation.utils import suppress_http_instrumentation, suppress_instrumentation
except ImportError:

    @contextmanager
    def quiet() -> Iterator[None]:
        """Do nothing: without their package there are no instrumentations."""
        yield

else:

    @contextmanager
    def quiet() -> Iterator[None]:
        """Let instrumentations that heed it make no spans in this block."""
        with suppress_instrumentation(), suppress_http_instrumentation():
            yield
