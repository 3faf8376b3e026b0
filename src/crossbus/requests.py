"""How many requests a call of the contract makes of the provider: adapters tell, telemetry adds up.

A provider bills requests, and an adapter may need several for one call: SQS settles ten deliveries at a time. So an
adapter calls `request_sent` whenever a request goes out, in the task that makes the call or in one that it starts. What
an adapter does not tell counts as one request a call.
"""

from __future__ import annotations

from contextvars import ContextVar

__all__ = ["counting", "request_sent"]

_sent: ContextVar[list[int] | None] = ContextVar("crossbus_requests", default=None)


def request_sent() -> None:
    """Say that a request goes out to the provider. Costs next to nothing where nobody counts."""
    sent = _sent.get()
    if sent is not None:
        sent[0] += 1


def counting() -> list[int]:
    """Begin to count, in this context, for one call: returns a list whose one number is how many went out."""
    sent = [0]
    _sent.set(sent)
    return sent
