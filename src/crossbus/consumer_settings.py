"""`ConsumerSettings`: what a consumer is told, beside its subscription."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from crossbus.delivery import ForeignMessage
from crossbus.event import Event
from crossbus.handlers import HandleMiddleware, HandlerSet
from crossbus.processing import Processor

__all__ = ["ConsumerSettings"]


class ConsumerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a consumer needs to know beside its subscription."""

    handlers: HandlerSet | None
    """None for the pull form."""
    middleware: tuple[HandleMiddleware, ...] = ()
    mapping: Callable[[ForeignMessage], Event] | None = None
    window: int | None = None
    """The most in hand at once; None to adapt it."""
    processor: Callable[..., Processor] = Processor
    """Makes what decides outcomes: the seam by which `crossbus.testing` sees them."""
