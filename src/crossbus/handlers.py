"""Handlers: reading a function's signature, and calling it with what its annotations ask for."""

from __future__ import annotations

import functools
import inspect
import sys
import typing
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from crossbus.data import typed_decoder
from crossbus.delivery import Delivery
from crossbus.errors import DeclarationError
from crossbus.event import Event
from crossbus.outcomes import Reject, Retry

__all__ = ["HandleMiddleware", "Handler", "HandlerSet"]

HandleMiddleware = Callable[[Delivery, Callable[[Delivery], Awaitable[Any]]], Awaitable[Any]]
"""Wraps handling: `async def middleware(delivery, call_next)`. `call_next` raises what the handler raises."""

_BY_NAME = {"event": Event, "delivery": Delivery}


class Handler:
    """One function of the user, and how to fill its parameters."""

    def __init__(self, function: Callable[..., Any], localns: dict[str, Any] | None = None) -> None:
        self.function = function
        self.name = getattr(function, "__qualname__", None) or repr(function)
        called = function if inspect.isroutine(function) else getattr(function, "__call__", function)  # noqa: B004
        self.is_async = inspect.iscoroutinefunction(_unwrapped(function)) or inspect.iscoroutinefunction(
            called
        )
        if inspect.isgeneratorfunction(_unwrapped(function)) or inspect.isasyncgenfunction(
            _unwrapped(function)
        ):
            raise DeclarationError(f"handler {self.name} has `yield` in it; a handler returns nothing")
        self.is_batch = False
        self._fillers = self._read_signature(localns)
        self.call = self._make_call()
        """`call(delivery)`: decodes, and calls the function; returns what it returns (a coroutine if it is async)."""

    def _read_signature(self, localns: dict[str, Any] | None) -> list[Callable[[Delivery], Any]]:
        try:
            parameters = list(inspect.signature(self.function).parameters.values())
        except (TypeError, ValueError):
            raise DeclarationError(f"handler {self.name} has no signature that can be read") from None
        hints = self._hints(localns)
        wanted = [p for p in parameters if p.default is p.empty or p.name in hints]
        if not wanted:
            raise DeclarationError(
                f"handler {self.name} takes no parameter: give it one for the event, such as `event: Event`"
            )
        fillers: list[Callable[[Delivery], Any]] = []
        data_parameter: str | None = None
        for parameter in wanted:
            if parameter.kind not in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
                if parameter.default is not parameter.empty:
                    continue
                raise DeclarationError(
                    f"handler {self.name}: parameter {parameter.name!r} is {_kind_text(parameter)}; handlers take "
                    "positional parameters: Event, Delivery, or one type to decode the data into"
                )
            hint = hints.get(parameter.name, _BY_NAME.get(parameter.name))
            if hint is None:
                raise DeclarationError(
                    f"handler {self.name}: parameter {parameter.name!r} has no annotation; annotate it with Event, "
                    "Delivery, or a type to decode the data into"
                )
            if hint is Event:
                fillers.append(_event_of)
            elif hint is Delivery:
                fillers.append(_delivery_of)
            elif typing.get_origin(hint) in (list, Sequence) and typing.get_args(hint) == (Event,):
                if len(wanted) > 1:
                    raise DeclarationError(
                        f"handler {self.name}: a handler of list[Event] takes no other parameter than the list"
                    )
                self.is_batch = True
            elif data_parameter is not None:
                raise DeclarationError(
                    f"handler {self.name}: {data_parameter!r} and {parameter.name!r} would both take the data; an "
                    "event has one"
                )
            else:
                data_parameter = parameter.name
                fillers.append(self._data_filler(parameter.name, hint))
        return fillers

    def _hints(self, localns: dict[str, Any] | None) -> dict[str, Any]:
        function = _unwrapped(self.function)
        if not inspect.isroutine(function):
            function = type(function).__call__
        try:
            hints = typing.get_type_hints(function, localns=localns)
        except NameError as error:
            raise DeclarationError(
                f"handler {self.name}: the annotation {error.name!r} cannot be found; import or define it at the top "
                "of the module, not under `if TYPE_CHECKING`"
            ) from None
        except Exception as error:  # evaluating an annotation runs the user's code: `shop.Ordr`, `"5 +"`
            raise DeclarationError(f"handler {self.name}: an annotation is no type: {error}") from None
        hints.pop("return", None)
        return hints

    def _data_filler(self, parameter: str, hint: Any) -> Callable[[Delivery], Any]:
        try:
            decode = typed_decoder(hint)
        except TypeError as error:
            raise DeclarationError(
                f"handler {self.name}: parameter {parameter!r} is annotated {_type_text(hint)}, which data cannot be "
                f"decoded into ({error}); use Event, Delivery, dict, str, bytes, a dataclass, TypedDict, msgspec "
                "Struct or pydantic model"
            ) from None

        def fill(delivery: Delivery) -> Any:
            event = delivery._event
            return decode(event._payload, event._kind)  # type: ignore[union-attr]

        return fill

    def _make_call(self) -> Callable[[Delivery], Any]:
        # The usual shapes without a loop: this runs once for each event.
        function, fillers = self.function, self._fillers
        if len(fillers) == 1:
            first = fillers[0]
            return lambda delivery: function(first(delivery))
        if len(fillers) == 2:
            first, second = fillers
            return lambda delivery: function(first(delivery), second(delivery))
        return lambda delivery: function(*[fill(delivery) for fill in fillers])


class HandlerSet:
    """The handlers of one subscription, told apart by type; or its only one."""

    def __init__(self, subscription: str) -> None:
        self._subscription = subscription
        self.only: Handler | None = None
        self.by_type: dict[str, Handler] = {}

    def __bool__(self) -> bool:
        return self.only is not None or bool(self.by_type)

    @property
    def handlers(self) -> list[Handler]:
        """All of them."""
        return [self.only] if self.only is not None else list(dict.fromkeys(self.by_type.values()))

    def add(self, handler: Handler, types: tuple[str, ...]) -> None:
        """Add a handler for types, or the only one. Refuses an overlap with `DeclarationError`."""
        if not types:
            if self:
                raise DeclarationError(
                    f"subscription {self._subscription} has the handler {self.handlers[0].name} already; "
                    f"{handler.name} would get the same events: tell them apart with .on(type), or make another "
                    "subscription"
                )
            self.only = handler
            return
        if self.only is not None:
            raise DeclarationError(
                f"subscription {self._subscription} has the handler {self.only.name} for every type; "
                f"{handler.name} cannot have {types[0]!r} too: register both with .on(type)"
            )
        if handler.is_batch:
            raise DeclarationError(
                f"handler {handler.name} takes list[Event], so it must be the only one of {self._subscription}: "
                "decorate it with the subscription itself, and filter by type there"
            )
        for name in types:
            if not isinstance(name, str) or not name:
                raise DeclarationError(f".on({name!r}): an event type is a non-empty string")
            if name in self.by_type:
                raise DeclarationError(
                    f"type {name!r} of subscription {self._subscription} has the handler {self.by_type[name].name} "
                    f"already; {handler.name} cannot have it too"
                )
        for name in types:
            self.by_type[name] = handler

    def find(self, type: str) -> Handler | None:
        """Return the handler of an event type, or None."""
        return self.only or self.by_type.get(type)


def caller_locals(depth: int) -> dict[str, Any]:
    """Return the local names where a decorator stands, so that annotations of local classes can be read."""
    return dict(sys._getframe(depth + 1).f_locals)


def _event_of(delivery: Delivery) -> Any:
    return delivery._event


def _delivery_of(delivery: Delivery) -> Any:
    return delivery


def _unwrapped(function: Any) -> Any:
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.unwrap(function)


def _kind_text(parameter: inspect.Parameter) -> str:
    return {"KEYWORD_ONLY": "keyword-only"}.get(parameter.kind.name, f"{parameter}")


def _type_text(hint: Any) -> str:
    return getattr(hint, "__name__", None) or str(hint)


def checked_answer(handler: Handler, answer: Any, count: int) -> list[BaseException | None] | None:
    """Return the answer of a handler of several events. Raises `DeclarationError` for nonsense."""
    if answer is None:
        return None
    if not isinstance(answer, list) or len(answer) != count:
        what = f"a list of {len(answer)}" if isinstance(answer, list) else type(answer).__name__
        raise DeclarationError(
            f"handler {handler.name} returned {what} for {count} events; return None (all done), or a list of the "
            "same length of None, Retry(...) and Reject(...)"
        )
    for item in answer:
        if item is not None and not isinstance(item, (Retry, Reject)):
            raise DeclarationError(
                f"handler {handler.name} returned a list with {type(item).__name__} in it; allowed are None, "
                "Retry(...) and Reject(...)"
            )
    return answer
