"""Classes that are events: `@event_type` gives a class one type name, and its instances can be published."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeVar

from crossbus.attributes import check_string
from crossbus.errors import DeclarationError, InvalidEvent, nearest
from crossbus.event import Event

__all__ = ["event_type", "to_event", "type_of"]

T = TypeVar("T")


class _Declared(NamedTuple):
    name: str
    source: str | None
    subject: str | None
    dataschema: str | None


_by_class: dict[type, _Declared] = {}
_by_name: dict[str, type] = {}


def event_type(
    name: str, *, source: str | None = None, subject: str | None = None, dataschema: str | None = None
) -> Callable[[type[T]], type[T]]:
    """Register a class under a type name, so that `publish` takes its instances: the instance is the data.

    Works on dataclasses, msgspec Structs, pydantic models and attrs classes; it stands above their own decorators.

    ::

        @event_type("com.acme.order.placed", subject="order")
        @dataclass
        class OrderPlaced:
            order: str
            total: float

        await bus.publish("orders", OrderPlaced("o-1", 12.5))

    Args:
        name: The `type` of the events.
        source: Their `source`. Default: that of the Bus.
        subject: The name of the field or property whose value becomes their `subject`; None there means none. Its
            value is a str or an int. Default: no subject.
        dataschema: Their `dataschema`. Default: none.

    Raises:
        DeclarationError: the name is taken by another class, the class has another name, it is of another kind, it
            has no such field, or a name is not allowed. A subclass does not inherit the name: it needs its own.
    """
    for argument, value in (
        ("name", name),
        ("source", source),
        ("subject", subject),
        ("dataschema", dataschema),
    ):
        if value is not None or argument == "name":
            try:
                check_string(argument, value)
            except InvalidEvent as error:
                raise DeclarationError(f"event_type({name!r}): {error}") from None
    declared = _Declared(name, source, subject, dataschema)

    def register(cls: type[T]) -> type[T]:
        _register(cls, declared)
        return cls

    return register


def type_of(cls: type) -> str | None:
    """Return the type name under which a class is registered; None if it is not, also where a base class is."""
    declared = _by_class.get(cls)
    return None if declared is None else declared.name


def to_event(instance: object) -> Event:
    """Make the event of an instance of a registered class.

    Raises:
        DeclarationError: its class is not registered.
        InvalidEvent: its values are nothing that an event can hold.
    """
    declared = _by_class.get(instance.__class__)
    if declared is None:
        raise DeclarationError(_not_registered(instance))
    subject = None if declared.subject is None else _subject(instance, declared.subject)
    return Event(
        type=declared.name,
        source=declared.source,
        subject=subject,
        dataschema=declared.dataschema,
        datacontenttype="application/json",
        data=instance,
    )


def _register(cls: object, declared: _Declared) -> None:
    name = declared.name
    if not isinstance(cls, type):
        raise DeclarationError(f"event_type({name!r}) decorates a class, not {_what(cls)}")
    fields = _fields(cls)
    if fields is None:
        raise DeclarationError(
            f"event_type({name!r}): {cls.__qualname__} is no dataclass, msgspec Struct, pydantic model or attrs class; "
            "make it one, and put @event_type above its decorator"
        )
    if declared.subject is not None and declared.subject not in fields and not hasattr(cls, declared.subject):
        raise DeclarationError(
            f"event_type({name!r}, subject={declared.subject!r}): {cls.__qualname__} has no such field; "
            f"{nearest(declared.subject, fields)}"
        )
    known = _by_class.get(cls)
    if known is not None and known != declared:
        raise DeclarationError(
            f"{cls.__qualname__} is registered as {known.name!r} already and cannot be {name!r} too: a class has one "
            "type name, said once"
        )
    holder = _by_name.get(name)
    if holder is not None and holder is not cls:
        if _path(holder) != _path(cls):
            raise DeclarationError(
                f"event type {name!r} is taken by {_path(holder)}; {_path(cls)} needs a name of its own"
            )
        del _by_class[holder]  # the same class, made anew: a reloaded module, a notebook's cell run again
    _by_class[cls] = declared
    _by_name[name] = cls


def _fields(cls: type) -> Iterable[str] | None:
    """Return the names of the fields; None if the class is of a kind that is not supported."""
    if hasattr(cls, "__pydantic_fields__"):
        return list(cls.__pydantic_fields__)
    if hasattr(cls, "__struct_fields__"):
        return tuple(cls.__struct_fields__)
    if hasattr(cls, "__attrs_attrs__"):
        return [attribute.name for attribute in cls.__attrs_attrs__]
    if dataclasses.is_dataclass(cls):
        return [field.name for field in dataclasses.fields(cls)]
    return None


def _subject(instance: object, name: str) -> str | None:
    value: Any = getattr(instance, name)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise InvalidEvent(
        f"subject comes from {type(instance).__qualname__}.{name}, which is {type(value).__name__}; it must be str, "
        "int or None",
        attribute="subject",
    )


def _not_registered(given: object) -> str:
    if isinstance(given, type):
        return f"{given.__qualname__} is a class: publish an instance of it"
    cls = type(given)
    for base in cls.__mro__[1:]:
        if base in _by_class:
            return (
                f"{cls.__qualname__} is a subclass of {base.__qualname__}, registered as {_by_class[base].name!r}, and "
                "does not inherit its name: give it its own with @event_type"
            )
    if any(_path(known) == _path(cls) for known in _by_class):
        return (
            f"{cls.__qualname__} was made anew after @event_type registered it: put @event_type above the decorator "
            "that makes the class"
        )
    return (
        f"{cls.__qualname__} is no event: publish an Event, an event of the cloudevents package, or an instance of a "
        "class with @event_type"
    )


def _path(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _what(thing: object) -> str:
    name = getattr(thing, "__qualname__", None)
    return f"{type(thing).__name__} {name}" if name else f"a value of type {type(thing).__name__}"
