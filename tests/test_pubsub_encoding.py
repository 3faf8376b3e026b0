"""The CloudEvents Pub/Sub binding: what is written, what is restored, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.pubsub_v1.types import PublishRequest, PubsubMessage
from hypothesis import given

from crossbus.adapter import Received, Wire
from crossbus.errors import DecodeError
from crossbus.event import Event
from crossbus_pubsub import encoding
from crossbus_pubsub.encoding import PubSubWire, decode, encode, request_of
from events import events

MESSAGE = PubsubMessage.pb()


def event(**fields: Any) -> Event:
    return Event(**{"type": "com.acme.order.placed", "source": "/shop", "id": "e-1", **fields})


def written(one: Event, **options: Any) -> Any:
    """The message as the service would read it."""
    return MESSAGE.FromString(encode(one, MESSAGE, **options).packed)


def received(body: bytes = b"", **attributes: str) -> Received:
    named = {name.replace("_", "-"): value for name, value in attributes.items()}
    return Received(lease=None, body=body, attributes=named, message_id="1")


def restored(one: Event, **options: Any) -> Event:
    message = written(one, **options)
    return decode(
        Received(lease=None, body=message.data, attributes=dict(message.attributes), message_id="1")
    )


def test_binary_mode_is_attributes_and_the_data_as_it_is() -> None:
    message = written(event(subject="o-1", data={"order": 1}, time=None, extensions={"tenant": "t-1"}))
    assert dict(message.attributes) == {
        "ce-specversion": "1.0",
        "ce-id": "e-1",
        "ce-source": "/shop",
        "ce-type": "com.acme.order.placed",
        "ce-subject": "o-1",
        "ce-tenant": "t-1",
        "content-type": "application/json",
        **({"ce-time": message.attributes["ce-time"]} if "ce-time" in message.attributes else {}),
    }
    assert json.loads(message.data) == {"order": 1}
    assert message.ordering_key == ""


@pytest.mark.parametrize(
    "odd",
    [
        event(data={"a": 1}, extensions={"flag": True}),
        event(data={"a": 1}, extensions={"count": 7}),
        event(data=b"", datacontenttype="application/octet-stream"),
        event(data={"specversion": "1.0"}, datacontenttype="application/cloudevents+json"),
        event(data=[], datacontenttype="application/cloudevents-batch+json"),
        event(data="text without a type", datacontenttype=None),
        event(data='"quoted"', datacontenttype="text/plain"),
    ],
    ids=["boolean", "integer", "no-bytes", "event", "batch", "untyped-text", "quoted-text"],
)
def test_what_binary_mode_cannot_restore_goes_structured_with_all_attributes_beside_it(odd: Event) -> None:
    message = written(odd)
    assert restored(odd) == odd
    if message.attributes["content-type"] == encoding.STRUCTURED:
        plain = {name: str(value) for name, value in odd.attributes().items() if name != "datacontenttype"}
        for name, value in plain.items():
            beside = message.attributes[f"ce-{name}"]
            assert beside == (value.lower() if name == "flag" else value)


@given(events())
def test_any_event_comes_back_as_it_was(one: Event) -> None:
    assert restored(one) == one
    assert restored(one, structured=True) == one


@given(events())
def test_size_is_no_less_than_what_is_sent(one: Event) -> None:
    wire = encode(one, MESSAGE)
    assert wire.size >= len(request_of(b"", [wire], MESSAGE))


@given(events(), events())
def test_a_written_request_is_what_the_sdk_writes(one: Event, other: Event) -> None:
    start = PublishRequest.pb()(topic="projects/p/topics/t").SerializeToString()
    foreign = Wire(b"\x00 no event", {"a": "b"}, 10)
    request = PublishRequest.pb().FromString(
        request_of(start, [encode(one, MESSAGE), foreign, encode(other, MESSAGE)], MESSAGE)
    )
    assert request.topic == "projects/p/topics/t"
    assert list(request.messages) == [
        written(one),
        MESSAGE(data=foreign.body, attributes={"a": "b"}),
        written(other),
    ]


def test_partitionkey_is_the_ordering_key() -> None:
    wire = encode(event(extensions={"partitionkey": "customer-1"}), MESSAGE)
    assert wire.key == "customer-1"
    assert MESSAGE.FromString(wire.packed).ordering_key == "customer-1"


def test_structured_mode_leaves_out_what_a_message_cannot_have() -> None:
    long = event(data={}, subject="s" * 2000, extensions={f"e{n}": str(n) for n in range(120)})
    message = written(long, structured=True)
    assert len(message.attributes) <= encoding.ATTRIBUTE_COUNT
    assert "ce-subject" not in message.attributes
    assert message.attributes["ce-type"] == long.type
    assert restored(long, structured=True) == long


# --- reading ------------------------------------------------------------------------------------------------------

MINIMAL = {"ce_specversion": "1.0", "ce_id": "1", "ce_source": "/s", "ce_type": "t"}


def test_both_ways_to_write_the_content_type_are_read() -> None:
    for name in ("content_type", "ce_datacontenttype"):
        one = decode(received(b'{"a": 1}', **MINIMAL, **{name: "application/json"}))
        assert one.datacontenttype == "application/json"
        assert one.data == {"a": 1}


def test_attributes_of_others_are_no_part_of_the_event() -> None:
    one = decode(
        received(**MINIMAL, googclient_schemaencoding="JSON", CloudPubSubDeadLetterSourceDeliveryCount="5")
    )
    assert not one.extensions


def test_extensions_of_others_with_capitals_are_kept() -> None:
    assert decode(received(**MINIMAL, ce_Tenant="t-1")).extensions["tenant"] == "t-1"


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (received(b"{}"), "no CloudEvent"),
        (received(b"x", other="1"), "no CloudEvent"),
        (received(b"{}", ce_id="1"), "no CloudEvent"),
        (received(b"", **{**MINIMAL, "ce_specversion": "0.3"}), "0.3"),
        (received(b"", ce_specversion="1.0", ce_id="1"), "source"),
        (received(b'{"specversion": "1.0", "id": "cut', content_type="application/cloudevents+json"), "JSON"),
        (received(b"[]", content_type="application/cloudevents+json; charset=UTF-8"), "."),
        (received(b"[]", content_type="application/cloudevents-batch+json"), "batch"),
        (received(b"", content_type="application/cloudevents+avro"), "avro"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_event_is_said_to_be_none(message: Received, said: str) -> None:
    with pytest.raises(DecodeError, match=said):
        decode(message)


def test_marks_beside_a_structured_event_are_read() -> None:
    message = written(event(data={"a": 1}), structured=True)
    attributes = {**message.attributes, "ce-crossbussub": "orders/billing"}
    one = decode(Received(lease=None, body=message.data, attributes=attributes, message_id="1"))
    assert one.extensions["crossbussub"] == "orders/billing"


def test_names_of_attributes_are_remembered_without_end_in_sight() -> None:
    for n in range(10_050):
        encode(event(extensions={f"x{n}": "1"}), MESSAGE)
    assert len(encoding._prefixed) < 10_010
    assert written(event(data={})).attributes["content-type"] == "application/json"


def test_wires_are_what_the_contract_says() -> None:
    wire = encode(event(), MESSAGE)
    assert isinstance(wire, PubSubWire)
    assert wire.attributes["ce-id"] == "e-1"
