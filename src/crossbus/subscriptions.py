"""`SubscriptionHandle`: a declared subscription, and the decorators that add its handlers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from crossbus.delivery import ForeignMessage
from crossbus.errors import DeclarationError
from crossbus.event import Event
from crossbus.handlers import HandleMiddleware, Handler, HandlerSet, caller_locals
from crossbus.topology import Subscription

__all__ = ["SubscriptionHandle"]

F = TypeVar("F", bound=Callable[..., Any])


class SubscriptionHandle:
    """A declared subscription. From `Bus.subscribe`.

    As a decorator it adds its one handler; `on` adds handlers told apart by type.
    """

    def __init__(
        self,
        declaration: Subscription,
        *,
        mapping: Callable[[ForeignMessage], Event] | None,
        middleware: tuple[HandleMiddleware, ...],
    ) -> None:
        self.declaration = declaration
        """The subscription as it is declared, with what the configuration says of it."""
        self.mapping = mapping
        self.middleware = middleware
        self.handlers = HandlerSet(str(declaration))

    def __call__(self, function: F) -> F:
        """Add the one handler of this subscription. Raises `DeclarationError` if it cannot be called."""
        self._add(function, (), 2)
        return function

    def on(self, *types: str) -> Callable[[F], F]:
        """Return a decorator that adds a handler for these event types."""
        if not types:
            raise DeclarationError(f".on() of subscription {self.declaration} needs an event type at least")

        def decorate(function: F) -> F:
            self._add(function, types, 2)
            return function

        return decorate

    def _add(self, function: Any, types: tuple[str, ...], depth: int) -> None:
        if not callable(function):
            raise DeclarationError(
                f"the handler of {self.declaration} is {type(function).__name__}; it must be a function"
            )
        self.handlers.add(Handler(function, caller_locals(depth)), types)

    def __repr__(self) -> str:
        names = ", ".join(handler.name for handler in self.handlers.handlers) or "no handler"
        return f"<subscription {self.declaration}: {names}>"
