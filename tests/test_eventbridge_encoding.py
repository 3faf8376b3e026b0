"""An event as an entry of PutEvents, and every form in which one comes out of a queue."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from botocore.session import Session
from botocore.validate import ParamValidator
from hypothesis import given
from tests.events import events

from crossbus import DecodeError, Event, InvalidEvent
from crossbus.topology import Topic
from crossbus.wire import REPLAY, TOPIC, take_own
from crossbus_eventbridge.encoding import DETAIL_DATA_LOSES, DataWire, decode, encode, encode_message
from crossbus_eventbridge.limits import EVENTBRIDGE, MESSAGE_BYTES
from crossbus_eventbridge.options import wire_of

PLACED = Event(
    id="o-1",
    type="com.acme.order.placed",
    source="/shop/ü",
    subject="o-1",
    time="2026-11-12T13:14:15.123456789+02:00",
    data={"orderId": "o-1", "total": 12.5},
    extensions={"tenant": "gold", "flag": True},
)


def envelope(detail: str, **changes: Any) -> bytes:
    """Write what EventBridge puts into a queue."""
    around: dict[str, Any] = {
        "version": "0",
        "id": "6a7e8feb-b491-4cf7-a9f1-bf3703467718",
        "detail-type": "com.acme.order.placed",
        "source": "/shop",
        "account": "111122223333",
        "time": "2026-11-12T11:14:15Z",
        "region": "eu-west-1",
        "resources": [],
        **changes,
    }
    return (json.dumps(around, separators=(",", ":"))[:-1] + f',"detail":{detail}}}').encode()


# --- writing ------------------------------------------------------------------------------------------------------


def test_the_whole_event_is_the_detail() -> None:
    wire = encode(PLACED, None, data_only=False)
    assert wire.attributes == {
        "Source": "/shop/ü",
        "DetailType": "com.acme.order.placed",
        "Time": datetime(2026, 11, 12, 11, 14, 15, 123456, UTC),
    }
    detail = json.loads(wire.body)
    assert detail["time"] == "2026-11-12T13:14:15.123456789+02:00"
    assert detail["data"] == {"orderId": "o-1", "total": 12.5}
    assert decode(envelope(wire.body.decode())) == PLACED


def test_the_size_is_counted_as_aws_counts() -> None:
    # https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-putevents.html, "Calculating ... event entry size"
    wire = encode(PLACED, None, data_only=False)
    assert wire.size == 14 + len("/shop/ü".encode()) + len("com.acme.order.placed") + len(wire.body)
    timeless = encode(PLACED.replace(time=None), None, data_only=False)
    assert "Time" not in timeless.attributes
    assert timeless.size == len("/shop/ü".encode()) + len("com.acme.order.placed") + len(timeless.body)


@given(events())
def test_any_event_survives(event: Event) -> None:
    if event.source is None or len(event.type) > 128 or event.source.lower().startswith("aws."):
        return
    wire = encode(event, None, data_only=False)
    wire.body.decode("utf-8")
    assert decode(envelope(wire.body.decode())) == event
    assert decode(wire.body) == event
    _check_request(wire.attributes, wire.body)


def _check_request(attributes: Any, body: bytes) -> None:
    shape = Session().get_service_model("events").operation_model("PutEvents").input_shape
    entry = {**attributes, "Detail": body.decode(), "EventBusName": "orders"}
    assert not ParamValidator().validate({"Entries": [entry]}, shape).has_errors()


@pytest.mark.parametrize(
    ("time", "sent"),
    [
        ("2026-01-02T03:04:05-05:00", datetime(2026, 1, 2, 8, 4, 5, tzinfo=UTC)),
        (datetime(2026, 1, 2, 3, tzinfo=timezone(timedelta(hours=-5))), datetime(2026, 1, 2, 8, tzinfo=UTC)),
        ("1969-12-31T23:59:59Z", None),
        ("0001-01-01T00:00:00Z", None),
        ("9999-12-31T23:59:59-12:00", None),
        (None, None),
    ],
)  # fmt: skip
def test_a_time_that_eventbridge_cannot_have_stays_in_the_event(time: Any, sent: datetime | None) -> None:
    event = PLACED.replace(time=time)
    wire = encode(event, None, data_only=False)
    assert wire.attributes.get("Time") == sent
    assert decode(envelope(wire.body.decode())).time_text == event.time_text


def test_characters_that_sqs_refuses_are_escaped() -> None:
    odd = "a\ufffeb\uffffc\x00\x1f\x7f"
    for wire in (
        encode(PLACED.replace(data={"odd": odd, odd: 1}), None, data_only=False),
        encode(PLACED.replace(data={"odd": odd, odd: 1}), None, data_only=True),
        encode_message(PLACED.replace(data={"odd": odd, odd: 1})),
    ):
        text = wire.body.decode()
        assert not set(text) & {"\ufffe", "\uffff", "\x00", "\x1f"}
        found = json.loads(text)
        assert found.get("data", found) == {"odd": odd, odd: 1}
        assert wire.size >= len(wire.body)


@pytest.mark.parametrize(
    ("changes", "attribute", "says"),
    [
        ({"type": "x" * 129}, "type", "129 characters; EventBridge takes 128"),
        ({"source": "aws.s3"}, "source", "keeps for AWS's own services"),
        ({"source": "AWS.s3"}, "source", "keeps for AWS's own services"),
    ],
)
def test_what_eventbridge_refuses_is_refused_before(changes: Any, attribute: str, says: str) -> None:
    with pytest.raises(InvalidEvent, match=f"event 'o-1'.*{says}") as caught:
        encode(PLACED.replace(**changes), None, data_only=False)
    assert caught.value.attribute == attribute


def test_an_event_without_a_source_is_refused() -> None:
    for data_only in (False, True):
        with pytest.raises(InvalidEvent, match="has no source"):
            encode(Event(type="a", data={}), None, data_only=data_only)


def test_there_is_room_for_the_envelope_and_for_the_portable_profile() -> None:
    largest = envelope("", **{"detail-type": "ü" * 64, "source": '"' * 1024, "resources": ["r" * 1000]})
    assert EVENTBRIDGE.event_bytes + len(largest) < MESSAGE_BYTES
    assert 1_000_000 + 1024 + 4 * 128 + 14 < EVENTBRIDGE.event_bytes < EVENTBRIDGE.publish_batch_bytes


# --- several topics on one bus --------------------------------------------------------------------------------------


def test_the_topic_is_added_and_taken_off() -> None:
    for data_only in (False, True):
        wire = encode(PLACED, "orders", data_only=data_only)
        assert json.loads(wire.body)[TOPIC] == "orders"
        assert wire.size == encode(PLACED, None, data_only=data_only).size + len('"crossbustopic":"orders",')
    event, own = take_own(decode(envelope(encode(PLACED, "orders", data_only=False).body.decode())))
    assert event == PLACED
    assert own.subscription is None
    assert json.loads(encode(PLACED.replace(data={}), "orders", data_only=True).body) == {TOPIC: "orders"}


# --- detail-data ----------------------------------------------------------------------------------------------------


def test_detail_data_writes_the_data_alone_and_reads_it_back() -> None:
    wire = encode(PLACED, None, data_only=True)
    assert json.loads(wire.body) == {"orderId": "o-1", "total": 12.5}
    assert isinstance(wire, DataWire)
    assert wire.event == PLACED  # for redriving past the bus
    read = decode(envelope(wire.body.decode(), source="/shop/ü"))
    assert (read.type, read.source, read.data) == (PLACED.type, PLACED.source, PLACED.data)
    assert read.id == "6a7e8feb-b491-4cf7-a9f1-bf3703467718"
    assert read.time_text == "2026-11-12T11:14:15Z"
    lost = {"id", "subject", "time"} | set(PLACED.extensions)
    kept = read.attributes()
    assert all(kept.get(name) != PLACED.attributes().get(name) for name in lost)
    assert all(word in DETAIL_DATA_LOSES for word in ("id", "subject", "extensions", "trace context", "time"))


@pytest.mark.parametrize(
    "event",
    [
        PLACED.replace(data=[1, 2]),
        PLACED.replace(data="text"),
        PLACED.replace(data=None),
        PLACED.replace(data=b"\x00", datacontenttype="application/octet-stream"),
        Event(type="a", source="/s", id="o-1"),
        PLACED.replace(data="{}", datacontenttype="text/plain"),
    ],
)
def test_detail_data_refuses_data_that_is_no_object(event: Event) -> None:
    with pytest.raises(InvalidEvent, match=r"must be a JSON object, not .*publish an object") as caught:
        encode(event, None, data_only=True)
    assert caught.value.attribute == "data"


def test_a_wire_that_is_none_is_refused() -> None:
    assert wire_of(Topic("orders")) == "cloudevent"
    with pytest.raises(Exception, match="wire='binary'; eventbridge knows 'cloudevent' and 'detail-data'"):
        wire_of(Topic("orders", options={"wire": "binary"}))


# --- reading ------------------------------------------------------------------------------------------------------


def test_an_event_alone_is_read_as_a_rule_with_an_input_path_writes_it() -> None:
    body = encode(PLACED, None, data_only=False).body
    assert decode(body) == PLACED
    # With capitals in the name of an extension, as others publish, it is kept too.
    odd = body[:-1] + b',"insertId":"x"}'
    assert decode(odd).extensions["insertid"] == "x"
    assert decode(envelope(odd.decode())).extensions["insertid"] == "x"


def test_what_moto_writes_with_spaces_is_the_event_as_it_was() -> None:
    wire = encode(PLACED.replace(data={"a b": "c: d"}), None, data_only=False)
    loose = json.dumps(json.loads(envelope(wire.body.decode()))).encode()
    assert decode(loose).data_bytes == b'{"a b":"c: d"}'


S3 = {
    "version": "0",
    "id": "17793124-05d4-b198-2fde-7ededc63b103",
    "detail-type": "Object Created",
    "source": "aws.s3",
    "account": "111122223333",
    "time": "2021-11-12T00:00:00Z",
    "region": "ca-central-1",
    "resources": ["arn:aws:s3:::amzn-s3-demo-bucket1"],
    "detail": {
        "version": "0",
        "bucket": {"name": "amzn-s3-demo-bucket1"},
        "object": {"key": "example-key", "size": 5, "etag": "b1946ac92492d2347c6235b4d2611184"},
        "reason": "PutObject",
    },
}
"""From https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html"""
EC2 = {
    "version": "0",
    "id": "7bf73129-1428-4cd3-a780-95db273d1602",
    "detail-type": "EC2 Instance State-change Notification",
    "source": "aws.ec2",
    "account": "123456789012",
    "time": "2021-11-11T21:29:54Z",
    "region": "us-east-1",
    "resources": ["arn:aws:ec2:us-east-1:123456789012:instance/i-abcd1111"],
    "detail": {"instance-id": "i-abcd1111", "state": "pending"},
}
"""From https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-events-structure.html"""


@pytest.mark.parametrize("native", [S3, EC2], ids=["S3", "EC2"])
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_native_events_of_aws_become_events(native: dict[str, Any], separators: tuple[str, str]) -> None:
    event = decode(json.dumps(native, separators=separators).encode())
    assert event.id == native["id"]
    assert event.source == native["source"]
    assert event.type == native["detail-type"]
    assert event.time_text == native["time"]
    assert event.data == native["detail"]
    assert event.subject is None
    assert dict(event.extensions) == {
        "awsaccount": native["account"],
        "awsregion": native["region"],
        "awsresources": " ".join(native["resources"]),
    }


def test_a_replayed_copy_says_which_replay() -> None:
    body = envelope(encode(PLACED, None, data_only=False).body.decode(), **{"replay-name": "crossbus-1"})
    event, own = take_own(decode(body))
    assert own.replay == "crossbus-1"
    assert event == PLACED
    assert decode(json.dumps({**EC2, "replay-name": "r"}).encode()).extensions[REPLAY] == "r"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "."),
        (b"hello", "."),
        (b"[]", "."),
        (b"\x00\x01", "."),
        (b"\xff\xfe", "."),
        (b"{}", "."),
        (b'{"Records": []}', "."),
        (b'{"detail": {"a": 1}}', "neither a CloudEvent nor an event of EventBridge"),
        (b'{"detail": {"a": 1}, "id": "1", "source": "s", "detail-type": ""}', "neither a CloudEvent"),
        (envelope('{"specversion":"1.0","id":"e"}'), "."),
        (envelope('{"specversion":"2.0","id":"e","source":"/s","type":"t"}'), "specversion"),
        (b'{"specversion":"1.0","id":"cut off', "."),
        (b'{"a":' * 3000, "."),
    ],
)
def test_what_is_no_event_is_said_to_be_none(body: bytes, says: str) -> None:
    with pytest.raises(DecodeError, match=says):
        decode(body)


def test_a_detail_that_is_no_object_is_still_an_event() -> None:
    assert decode(json.dumps({**EC2, "detail": "text"}).encode()).data == "text"
    assert decode(json.dumps({**EC2, "detail": None}).encode()).data is None
