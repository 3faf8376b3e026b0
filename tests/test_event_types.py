"""`@event_type`: classes whose instances are events."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import attrs
import msgspec
import pydantic
import pytest

from crossbus import event_types
from crossbus.errors import DeclarationError, InvalidEvent
from crossbus.event_types import event_type, to_event, type_of


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(event_types, "_by_class", {})
    monkeypatch.setattr(event_types, "_by_name", {})
    return


class Struct(msgspec.Struct):
    order: str
    total: float


class Model(pydantic.BaseModel):
    order: str
    total: float


@dataclasses.dataclass
class Plain:
    order: str
    total: float


@dataclasses.dataclass(frozen=True, slots=True)
class Slotted:
    order: str
    total: float


KINDS: list[Any] = [Struct, Model, Plain, Slotted]


@pytest.mark.parametrize("cls", KINDS)
def test_an_instance_becomes_the_data_of_an_event(cls: Any) -> None:
    registered = event_type("com.acme.order.placed", source="/shop", subject="order", dataschema="urn:x")(cls)
    assert registered is cls
    assert type_of(cls) == "com.acme.order.placed"
    event = to_event(cls(order="o-1", total=12.5))
    assert (event.type, event.source, event.subject) == ("com.acme.order.placed", "/shop", "o-1")
    assert (event.dataschema, event.datacontenttype) == ("urn:x", "application/json")
    assert event.data == {"order": "o-1", "total": 12.5}
    assert event.data_as(cls) == cls(order="o-1", total=12.5)
    assert event.id != to_event(cls(order="o-1", total=12.5)).id


def test_attrs_classes_work() -> None:
    cls = attrs.make_class("OrderPlaced", {"order": attrs.field(type=str)})
    event_type("com.acme.order.placed", subject="order")(cls)
    assert to_event(cls("o-1")).data == {"order": "o-1"}
    with pytest.raises(DeclarationError, match="has no such field; did you mean 'order'"):
        event_type("com.acme.order.placed", subject="ordr")(cls)


def test_the_source_is_left_to_the_bus() -> None:
    event_type("com.acme.order.placed")(Plain)
    event = to_event(Plain("o-1", 1.0))
    assert event.source == ""
    assert event.subject is None


def test_a_subject_may_be_a_property_a_number_or_none() -> None:
    @event_type("a", subject="key")
    @dataclasses.dataclass
    class Keyed:
        number: int | None

        @property
        def key(self) -> int | None:
            return self.number

    assert to_event(Keyed(7)).subject == "7"
    assert to_event(Keyed(None)).subject is None


def test_a_subject_of_another_kind_is_refused() -> None:
    event_type("a", subject="total")(Plain)
    with pytest.raises(InvalidEvent, match=r"Plain\.total, which is float; it must be str, int or None"):
        to_event(Plain("o-1", 1.0))


def test_data_that_json_cannot_hold_is_refused() -> None:
    event_type("a")(Plain)
    with pytest.raises(InvalidEvent):
        to_event(Plain("o-1", float("nan")))


def test_two_classes_for_one_name_are_refused() -> None:
    event_type("a")(Plain)
    with pytest.raises(
        DeclarationError, match=r"event type 'a' is taken by .*Plain; .*Struct needs a name of its own"
    ):
        event_type("a")(Struct)
    assert type_of(Struct) is None


def test_a_class_has_one_name() -> None:
    event_type("a")(Plain)
    event_type("a")(Plain)  # said again, the same way
    with pytest.raises(DeclarationError, match="Plain is registered as 'a' already and cannot be 'b' too"):
        event_type("b")(Plain)
    with pytest.raises(DeclarationError, match="said once"):
        event_type("a", source="/other")(Plain)
    assert type_of(Plain) == "a"


def test_a_class_made_anew_takes_the_place_of_the_old() -> None:
    def cell() -> type:
        @event_type("a")
        @dataclasses.dataclass
        class Cell:
            n: int

        return Cell

    first, second = cell(), cell()
    assert type_of(first) is None
    assert to_event(second(1)).data == {"n": 1}


def test_a_subclass_does_not_inherit_the_name() -> None:
    event_type("a")(Plain)

    @dataclasses.dataclass
    class Express(Plain):
        pass

    assert type_of(Express) is None
    with pytest.raises(
        DeclarationError, match="is a subclass of Plain, registered as 'a', and does not inherit"
    ):
        to_event(Express("o-1", 1.0))
    event_type("b")(Express)
    assert to_event(Express("o-1", 1.0)).type == "b"
    assert to_event(Plain("o-1", 1.0)).type == "a"


def test_the_order_of_decorators_is_told() -> None:
    with pytest.raises(DeclarationError, match="put @event_type above its decorator"):

        @dataclasses.dataclass
        @event_type("a")
        class Wrong:
            n: int

    @dataclasses.dataclass(slots=True)
    @event_type("b")
    @dataclasses.dataclass
    class Remade:
        n: int

    with pytest.raises(DeclarationError, match="put @event_type above the decorator that makes the class"):
        to_event(Remade(1))


def some_function() -> None: ...


@pytest.mark.parametrize(
    ("thing", "said"),
    [(some_function, "function some_function"), (7, "a value of type int"), ({}, "a value of type dict")],
)
def test_only_classes_are_decorated(thing: Any, said: str) -> None:
    with pytest.raises(DeclarationError, match=rf"event_type\('a'\) decorates a class, not {said}"):
        event_type("a")(thing)


@pytest.mark.parametrize(
    "arguments",
    [{"name": ""}, {"name": None}, {"name": "a\n"}, {"name": Plain}, {"name": "a", "source": ""},
     {"name": "a", "subject": ""}, {"name": "a", "dataschema": "\x00"}],
)  # fmt: skip
def test_names_are_checked(arguments: dict[str, Any]) -> None:
    with pytest.raises(DeclarationError, match=r"^event_type\(.*\): (name|source|subject|dataschema) "):
        event_type(**arguments)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"type": "a"}, "dict is no event: publish an Event"),
        ("text", "str is no event"),
        (None, "NoneType is no event"),
        (Struct("o-1", 1.0), "Struct is no event"),
        (Plain, "Plain is a class: publish an instance of it"),
    ],
)
def test_what_is_no_event_is_refused(given: object, said: str) -> None:
    with pytest.raises(DeclarationError, match=said):
        to_event(given)
