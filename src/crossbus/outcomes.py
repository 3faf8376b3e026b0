"""What a handler decides by raising, or returns for each event of a batch: `Retry` and `Reject`."""

from __future__ import annotations

from datetime import timedelta

__all__ = ["NotYet", "Reject", "Retry"]


class Retry(Exception):
    """Deliver this event again later.

    Args:
        after: seconds (or a timedelta) until it comes again. Default: by the subscription's `RetryPolicy`.
        reason: for logs, and for the dead-letter record if the attempts are used up.
    """

    def __init__(self, after: float | timedelta | None = None, *, reason: str = "") -> None:
        super().__init__(reason or "retry")
        seconds = after.total_seconds() if isinstance(after, timedelta) else after
        if seconds is not None and not 0 <= seconds < float("inf"):
            raise ValueError(f"Retry(after={after!r}): it must be 0 seconds or more")
        self.after = None if seconds is None else float(seconds)
        self.reason = text_of(reason)


class NotYet(Retry):
    """Deliver this event again later, whatever its attempt: nothing failed, so nothing goes to the dead letter.

    For middleware of crossbus's own that must wait for something else than the handler.
    """


class Reject(Exception):
    """Put this event into the dead letter now: trying again would not help.

    Args:
        reason: why, for the person who will read the dead letter.
    """

    def __init__(self, reason: str = "rejected by the handler") -> None:
        super().__init__(reason)
        self.reason = text_of(reason)


def text_of(given: object) -> str:
    """Return the text of anything, such as an exception whose own text cannot be made, or not be written as UTF-8."""
    try:
        return str(given).encode(errors="backslashreplace").decode()
    except Exception:
        return f"<{type(given).__name__} without a text>"
