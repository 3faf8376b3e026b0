"""Handlers: what their annotations may ask for, what is refused when they are declared, and how they are told apart."""

from __future__ import annotations

import functools
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypedDict

import msgspec
import pydantic
import pytest
from tests.consuming import until
from tests.scripted import ScriptedAdapter
from tests.support import run

from crossbus import Bus, DeclarationError, Delivery, Event, Reject, Retry, SubscriptionHandle

DATA = {"order": "o-1", "total": 12.5}


@dataclass
class AsDataclass:
    order: str
    total: float


class AsTypedDict(TypedDict):
    order: str
    total: float


class AsStruct(msgspec.Struct):
    order: str
    total: float


class AsModel(pydantic.BaseModel):
    order: str
    total: float


def subscription() -> SubscriptionHandle:
    return Bus(adapter=ScriptedAdapter()).subscribe("orders", "billing")


@contextmanager
def refused(text: str) -> Iterator[None]:
    """Expect a declaration to be refused with exactly this text."""
    with pytest.raises(DeclarationError) as caught:
        yield
    assert str(caught.value) == text


def given_to(declare: Callable[[SubscriptionHandle, list[Any]], Any], **event: Any) -> list[Any]:
    """Return what a handler was given of one event that is published and acknowledged."""
    seen: list[Any] = []

    async def scenario() -> None:
        adapter = ScriptedAdapter()
        bus = Bus(adapter=adapter)
        declare(bus.subscribe("orders", "billing"), seen)
        adapter.receiver.put(Event(**{"id": "e-1", "type": "t", "source": "/s", "data": DATA, **event}))
        async with bus, bus.running():
            await until(lambda: adapter.receiver.settled)
        assert adapter.receiver.acked == [1], adapter.records() and adapter.records()[0].data

    run(scenario())
    return seen


# --- what is given ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        (AsDataclass, AsDataclass("o-1", 12.5)),
        (AsTypedDict, DATA),
        (AsStruct, AsStruct("o-1", 12.5)),
        (AsModel, AsModel(order="o-1", total=12.5)),
        (dict, DATA),
        (dict[str, Any], DATA),
        (Any, DATA),
        (bytes, b'{"order":"o-1","total":12.5}'),
        (AsDataclass | None, AsDataclass("o-1", 12.5)),
    ],
)
def test_data_is_decoded_into_what_the_annotation_asks_for(hint: Any, expected: Any) -> None:
    def declare(billing: SubscriptionHandle, seen: list[Any]) -> None:
        async def bill(order) -> None:  # type: ignore[no-untyped-def]
            seen.append(order)

        bill.__annotations__["order"] = hint
        billing(bill)

    assert given_to(declare) == [expected]


def test_text_is_given_as_str() -> None:
    def declare(billing: SubscriptionHandle, seen: list[Any]) -> None:
        @billing
        async def bill(text: str) -> None:
            seen.append(text)

    assert given_to(declare, data="hello", datacontenttype="text/plain") == ["hello"]


def test_event_delivery_and_data_come_in_any_order() -> None:
    def declare(billing: SubscriptionHandle, seen: list[Any]) -> None:
        @billing
        async def bill(delivery: Delivery, order: AsStruct, event: Event) -> None:
            seen.extend([delivery.attempt, order.order, event.id])

    assert given_to(declare) == [1, "o-1", "e-1"]


def test_event_and_delivery_are_known_by_name_without_annotation() -> None:
    def declare(billing: SubscriptionHandle, seen: list[Any]) -> None:
        @billing
        def bill(event, delivery) -> None:  # type: ignore[no-untyped-def]
            seen.extend([event.id, delivery.message_id])

    assert given_to(declare) == ["e-1", "m-1"]


def test_a_parameter_with_a_default_and_no_annotation_is_left_alone() -> None:
    def declare(billing: SubscriptionHandle, seen: list[Any]) -> None:
        @billing
        def bill(event: Event, currency="EUR", *, factor: int = 1) -> None:  # type: ignore[no-untyped-def]
            seen.extend([event.id, currency, factor])

    assert given_to(declare) == ["e-1", "EUR", 1]


def test_methods_partials_wrapped_functions_and_callable_objects_are_handlers() -> None:
    class Ledger:
        def __init__(self, seen: list[Any]) -> None:
            self.seen = seen

        async def book(self, order: AsStruct) -> None:
            self.seen.append(("method", order.order))

    class Callable_:
        def __init__(self, seen: list[Any]) -> None:
            self.seen = seen

        async def __call__(self, event: Event) -> None:
            self.seen.append(("object", event.id))

    async def with_rate(rate: float, event: Event) -> None:
        seen_by_partial.append(("partial", rate, event.id))

    def logged(function: Any) -> Any:
        @functools.wraps(function)
        async def wrapper(*args: Any) -> None:
            seen_by_wrapper.append("wrapper")
            await function(*args)

        return wrapper

    seen_by_partial: list[Any] = []
    seen_by_wrapper: list[Any] = []

    @logged
    async def bill(order: AsStruct) -> None:
        seen_by_wrapper.append(order.order)

    assert given_to(lambda billing, seen: billing(Ledger(seen).book)) == [("method", "o-1")]
    assert given_to(lambda billing, seen: billing(Callable_(seen))) == [("object", "e-1")]
    given_to(lambda billing, seen: billing(functools.partial(with_rate, 1.2)))
    assert seen_by_partial == [("partial", 1.2, "e-1")]
    given_to(lambda billing, seen: billing(bill))
    assert seen_by_wrapper == ["wrapper", "o-1"]


@pytest.mark.parametrize("hint", [list[Event], Sequence[Event]])
def test_a_list_of_events_makes_a_handler_of_several(hint: Any) -> None:
    def declare(billing: SubscriptionHandle, seen: list[Any]) -> None:
        async def bill(events) -> None:  # type: ignore[no-untyped-def]
            seen.extend(event.id for event in events)

        bill.__annotations__["events"] = hint
        billing(bill)
        assert billing.handlers.handlers[0].is_batch

    assert given_to(declare) == ["e-1"]


# --- what is refused ----------------------------------------------------------------------------------------------


def test_a_handler_without_parameters_is_refused() -> None:
    billing = subscription()
    with refused("handler pay takes no parameter: give it one for the event, such as `event: Event`"):

        @billing
        @named("pay")
        def pay() -> None: ...


def test_a_parameter_without_annotation_is_refused() -> None:
    billing = subscription()
    with refused(
        "handler pay: parameter 'order' has no annotation; annotate it with Event, Delivery, or a type to decode the "
        "data into"
    ):

        @billing
        @named("pay")
        def pay(order) -> None: ...  # type: ignore[no-untyped-def]


def test_two_parameters_for_the_data_are_refused() -> None:
    billing = subscription()
    with refused("handler pay: 'order' and 'again' would both take the data; an event has one"):

        @billing
        @named("pay")
        def pay(order: dict, again: bytes) -> None: ...


@pytest.mark.parametrize("kind", ["keyword-only", "*events: Event", "**events: Event"])
def test_parameters_that_cannot_be_filled_by_position_are_refused(kind: str) -> None:
    def keyword_only(*, events: Event) -> None: ...

    def many(*events: Event) -> None: ...

    def named_ones(**events: Event) -> None: ...

    function = {"keyword-only": keyword_only, "*events: Event": many, "**events: Event": named_ones}[kind]
    billing = subscription()
    with pytest.raises(DeclarationError, match="handlers take positional parameters") as caught:
        billing(named("pay")(function))
    assert "handler pay: parameter 'events' is " in str(caught.value)
    assert (kind if kind == "keyword-only" else kind.split(":")[0]) in str(caught.value)


def test_a_list_of_events_takes_no_other_parameter() -> None:
    billing = subscription()
    with refused("handler pay: a handler of list[Event] takes no other parameter than the list"):

        @billing
        @named("pay")
        def pay(events: list[Event], delivery: Delivery) -> None: ...


class NeedsLogger(msgspec.Struct):
    logger: logging.Logger
    again: NeedsLogger | None = None


class MayHaveLogger(msgspec.Struct):
    order: str
    logger: logging.Logger | None = None


@pytest.mark.parametrize(
    ("hint", "text", "why"),
    [
        (logging.Logger, "Logger", "Logger has no form in JSON that is known"),
        (list[logging.Logger], "list", "Logger has no form in JSON that is known"),
        (NeedsLogger, "NeedsLogger", "Logger has no form in JSON that is known"),
        (Delivery | None, "crossbus.delivery.Delivery | None", "Delivery has no form in JSON that is known"),
        (5, "5", "Type '5' is not supported"),
    ],
)
def test_a_type_that_data_cannot_be_decoded_into_is_refused(hint: Any, text: str, why: str) -> None:
    def pay(what: Any) -> None: ...

    pay.__annotations__["what"] = hint
    billing = subscription()
    with refused(
        f"handler pay: parameter 'what' is annotated {text}, which data cannot be decoded into ({why}); use Event, "
        "Delivery, dict, str, bytes, a dataclass, TypedDict, msgspec Struct or pydantic model"
    ):
        billing(named("pay")(pay))


def test_a_field_that_may_be_absent_may_have_any_type() -> None:
    def declare(billing: SubscriptionHandle, seen: list[Any]) -> None:
        @billing
        async def bill(order: MayHaveLogger) -> None:
            seen.append(order.order)

    assert given_to(declare) == ["o-1"]


def test_an_annotation_that_cannot_be_found_is_refused() -> None:
    billing = subscription()
    with refused(
        "handler pay: the annotation 'Nowhere' cannot be found; import or define it at the top of the module, not "
        "under `if TYPE_CHECKING`"
    ):

        @billing
        @named("pay")
        def pay(order: Nowhere) -> None: ...  # type: ignore[name-defined] # noqa: F821


@pytest.mark.parametrize(
    ("hint", "why"),
    [
        ("logging.Loger", "module 'logging' has no attribute 'Loger'"),
        ("5 +", "Forward reference must be an expression -- got '5 +'"),
    ],
)
def test_an_annotation_that_is_no_type_is_refused(hint: str, why: str) -> None:
    def pay(order: Any) -> None: ...

    pay.__annotations__["order"] = hint
    billing = subscription()
    with refused(f"handler pay: an annotation is no type: {why}"):
        billing(named("pay")(pay))


def test_a_class_defined_beside_the_handler_is_found() -> None:
    billing = subscription()

    @dataclass
    class Local:
        order: str

    @billing
    async def pay(order: Local) -> None: ...

    assert billing.handlers.handlers[0].name.endswith("pay")


def test_a_generator_is_refused() -> None:
    billing = subscription()
    with refused("handler pay has `yield` in it; a handler returns nothing"):

        @billing
        @named("pay")
        def pay(event: Event) -> Iterator[None]:
            yield

    with refused("handler pay has `yield` in it; a handler returns nothing"):

        @billing
        @named("pay")
        async def pay_async(event: Event) -> AsyncIterator[None]:
            yield


def test_what_is_no_function_is_refused() -> None:
    billing = subscription()
    with refused("the handler of orders/billing is int; it must be a function"):
        billing(5)  # type: ignore[type-var]


def test_what_has_no_signature_is_refused() -> None:
    billing = subscription()
    with pytest.raises(DeclarationError, match=r"has no signature that can be read$"):
        billing(iter)


# --- several handlers ---------------------------------------------------------------------------------------------


def test_a_second_handler_for_every_type_is_refused() -> None:
    billing = subscription()
    billing(handler("one"))
    with refused(
        "subscription orders/billing has the handler one already; two would get the same events: tell them apart "
        "with .on(type), or make another subscription"
    ):
        billing(handler("two"))


def test_a_handler_by_type_beside_one_for_every_type_is_refused_both_ways() -> None:
    billing = subscription()
    billing(handler("one"))
    with refused(
        "subscription orders/billing has the handler one for every type; two cannot have 't.b' too: register both "
        "with .on(type)"
    ):
        billing.on("t.b")(handler("two"))
    other = subscription()
    other.on("t.a")(handler("one"))
    with pytest.raises(DeclarationError, match=r"has the handler one already; two would get the same events"):
        other(handler("two"))


def test_two_handlers_for_one_type_are_refused_and_the_second_takes_none_of_its_types() -> None:
    billing = subscription()
    billing.on("t.a")(handler("one"))
    with refused(
        "type 't.a' of subscription orders/billing has the handler one already; two cannot have it too"
    ):
        billing.on("t.b", "t.a")(handler("two"))
    assert billing.handlers.find("t.b") is None


def test_on_needs_types_and_they_must_be_text() -> None:
    billing = subscription()
    with refused(".on() of subscription orders/billing needs an event type at least"):
        billing.on()
    with refused(".on(''): an event type is a non-empty string"):
        billing.on("")(handler("one"))
    with refused(".on(5): an event type is a non-empty string"):
        billing.on(5)(handler("one"))  # type: ignore[arg-type]


def test_a_handler_of_several_events_must_be_the_only_one() -> None:
    billing = subscription()

    @named("pay")
    def pay(events: list[Event]) -> None: ...

    with refused(
        "handler pay takes list[Event], so it must be the only one of orders/billing: decorate it with the "
        "subscription itself, and filter by type there"
    ):
        billing.on("t")(pay)


def test_the_handle_says_which_handlers_it_has() -> None:
    billing = subscription()
    assert repr(billing) == "<subscription orders/billing: no handler>"
    both = handler("both")
    assert billing.on("t.a", "t.b")(both) is both, "the decorator gives the function back"
    billing.on("t.c")(handler("third"))
    assert repr(billing) == "<subscription orders/billing: both, third>"


# --- answers of a handler of several ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ([None], "handler pay returned a list of 1 for 2 events"),
        ("done", "handler pay returned str for 2 events"),
        (
            [None, "done"],
            "handler pay returned a list with str in it; allowed are None, Retry(...) and Reject(...)",
        ),
    ],
)
def test_nonsense_from_a_handler_of_several_counts_as_a_failure_of_all(answer: Any, said: str) -> None:
    assert errors_of(answer) == [said, said]


def errors_of(answer: Any) -> list[str]:
    """Return the errors in the dead-letter records of two events whose handler gave an answer."""
    errors: list[str] = []

    async def scenario() -> None:
        adapter = ScriptedAdapter()
        bus = Bus(adapter=adapter)

        @bus.subscribe("orders", "billing")
        @named("pay")
        async def pay(events: list[Event]) -> Any:
            return answer

        for id in ("a", "b"):
            adapter.receiver.put(Event(id=id, type="t", source="/s"), attempt=5)
        async with bus, bus.running():
            await until(lambda: len(adapter.records()) == 2)
        errors.extend(record.data["error"] for record in adapter.records())

    run(scenario())
    return [error.removeprefix("DeclarationError: ").partition("; return None")[0] for error in errors]


def test_a_handler_of_several_may_answer_for_each() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        bus = Bus(adapter=adapter)

        @bus.subscribe("orders", "billing")
        def pay(events: list[Event]) -> list[Any]:
            return [None, Retry(after=7), Reject("no")][: len(events)]

        for id in ("a", "b", "c"):
            adapter.receiver.put(Event(id=id, type="t", source="/s"))
        async with bus, bus.running():
            await until(lambda: len(adapter.receiver.settled) == 3)
        assert adapter.receiver.given_back == [(2, 7.0)]
        assert sorted(adapter.receiver.acked) == [1, 3]
        assert [record.data["reason"] for record in adapter.records()] == ["no"]

    run(scenario())


# --- tools --------------------------------------------------------------------------------------------------------


def named(name: str) -> Callable[[Any], Any]:
    """Give a function of a test a name without the test's own."""

    def name_it(function: Any) -> Any:
        function.__qualname__ = name
        return function

    return name_it


def handler(name: str) -> Any:
    """Make a handler with a name."""

    async def handle(event: Event) -> None: ...

    return named(name)(handle)
