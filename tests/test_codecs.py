"""The codecs: exact round trips, tolerant reading, and errors that name what is wrong."""

from __future__ import annotations

import base64
import contextlib
import json
import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from crossbus.codecs import (
    BATCH_CONTENT_TYPE,
    CONTENT_TYPE,
    binary_is_exact,
    decode_batch,
    decode_binary,
    decode_json,
    encode_batch,
    encode_binary,
    encode_json,
    json_size,
)
from crossbus.errors import DecodeError, InvalidEvent
from crossbus.event import DataKind, Event, unchecked
from events import FULL, REAL, body, events, read, same

# --- exact ---


def test_media_types() -> None:
    assert (CONTENT_TYPE, BATCH_CONTENT_TYPE) == (
        "application/cloudevents+json",
        "application/cloudevents-batch+json",
    )


@given(events())
def test_json_round_trip(event: Event) -> None:
    written = encode_json(event)
    same(decode_json(written), event)
    same(decode_json(written.decode("utf-8"), repairs=(repairs := [])), event)
    assert repairs == []
    assert json_size(event) == len(written)


@given(events())
def test_the_json_follows_the_specification(event: Event) -> None:
    found = json.loads(encode_json(event))
    attributes = {name: value for name, value in found.items() if name not in ("data", "data_base64")}
    assert attributes == event.attributes()
    assert [type(value) for value in attributes.values()] == [type(attributes[name]) for name in attributes]
    if event.data_kind is DataKind.BINARY:
        assert base64.b64decode(found["data_base64"], validate=True) == event.data
    assert ("data_base64" in found) is (event.data_kind is DataKind.BINARY)
    assert ("data" in found) is (event.data_kind in (DataKind.JSON, DataKind.TEXT))
    if "data" in found:
        assert found["data"] == event.data


@given(st.lists(events(), max_size=4))
def test_batch_round_trip(given: list[Event]) -> None:
    found = decode_batch(encode_batch(given), repairs=(repairs := []))
    assert found == given
    assert repairs == []
    assert isinstance(json.loads(encode_batch(iter(given))), list)


@given(events())
@example(Event(type="t", source="s", data="", datacontenttype="text/plain"))
@example(Event(type="t", source="s", data=b"{}", datacontenttype="text/plain; charset=utf-16"))
@example(Event(type="t", source="s", data={}, extensions={"n": 1}))
def test_binary_round_trip(event: Event) -> None:
    attributes, payload = encode_binary(event)
    assert all(type(value) is str for value in attributes.values())
    found = decode_binary(attributes, payload, repairs=(repairs := []))
    assert repairs == []
    same_kinds = found == event and found.data_kind is event.data_kind
    assert binary_is_exact(event) is same_kinds
    if same_kinds:
        same(found, event)


def test_binary_mode_writes_values_as_the_specification_does() -> None:
    event = Event(
        type="t",
        source="s",
        id="1",
        time=None,
        data="é",
        extensions={"yes": True, "no": False, "n": -5, "s": "x"},
    )
    assert encode_binary(event) == (
        {
            "specversion": "1.0",
            "id": "1",
            "source": "s",
            "type": "t",
            "datacontenttype": "text/plain",
            "yes": "true",
            "no": "false",
            "n": "-5",
            "s": "x",
        },
        "é".encode(),
    )


@pytest.mark.parametrize("line", REAL)
def test_real_events_round_trip(line: bytes) -> None:
    event = decode_json(line, repairs=(repairs := []))
    assert repairs == []
    assert json.loads(encode_json(event)) == json.loads(line)
    same(decode_json(encode_json(event)), event)
    if event.datacontenttype is not None:
        assert binary_is_exact(event)
        same(decode_binary(*encode_binary(event)), event)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a":1.50,"b":1e2,"c":-0.0,"d":12345678901234567890,"e":0.1000000000000000055}',
        b"[ 1 ,\t2\r\n]",
        b'"\\u00e9\\/"',
        b'{"a":1,"a":2}',
        b"1E400",
        b"-0",
        b"null",
        b"false",
        b'""',
    ],
)
def test_json_is_kept_as_it_was_written(raw: bytes) -> None:
    event = decode_json(body(data=raw, datacontenttype="application/json"))
    assert event.data_bytes == raw
    assert raw in encode_json(event)
    assert decode_binary(*encode_binary(event)).data_bytes == raw


def test_absent_null_and_empty_data_differ() -> None:
    kinds = {
        "absent": decode_json(body()),
        "null": decode_json(body(data=None)),
        "text": decode_json(body(data="", datacontenttype="text/plain")),
        "string": decode_json(body(data="")),
        "bytes": decode_json(body(data_base64="")),
    }
    assert [(event.data_kind.name, event.data) for event in kinds.values()] == [
        ("ABSENT", None),
        ("JSON", None),
        ("TEXT", ""),
        ("JSON", ""),
        ("BINARY", b""),
    ]
    for event in kinds.values():
        same(decode_json(encode_json(event)), event)


@pytest.mark.parametrize(
    ("members", "kind", "data"),
    [
        ({"data": {"a": 1}}, DataKind.JSON, {"a": 1}),
        ({"data": "x"}, DataKind.JSON, "x"),
        ({"data": "x", "datacontenttype": "application/json"}, DataKind.JSON, "x"),
        ({"data": "x", "datacontenttype": "application/vnd.acme+json; v=1"}, DataKind.JSON, "x"),
        ({"data": "<a/>", "datacontenttype": "application/xml"}, DataKind.TEXT, "<a/>"),
        ({"data": "x", "datacontenttype": "image/png"}, DataKind.TEXT, "x"),
        ({"data": "x", "datacontenttype": ""}, DataKind.JSON, "x"),
        ({"data": {"a": 1}, "datacontenttype": "text/plain"}, DataKind.JSON, {"a": 1}),
        ({"data_base64": "AP8="}, DataKind.BINARY, b"\x00\xff"),
        ({"data_base64": "e30=", "datacontenttype": "application/json"}, DataKind.BINARY, b"{}"),
        ({"data_base64": "eA==", "datacontenttype": "text/plain"}, DataKind.BINARY, b"x"),
        ({"data_base64": None}, DataKind.ABSENT, None),
        ({"data_base64": None, "data": 1}, DataKind.JSON, 1),
    ],
)
def test_kinds_of_data_in_json(members: dict[str, Any], kind: DataKind, data: Any) -> None:
    event = decode_json(body(**members))
    assert (event.data_kind, event.data) == (kind, data)
    same(decode_json(encode_json(event)), event)


@pytest.mark.parametrize(
    ("datacontenttype", "payload", "kind"),
    [
        ("application/json", b'{"a":1}', DataKind.JSON),
        ("application/json", b'"\\ud800"', DataKind.JSON),
        ("application/json", b"{", DataKind.BINARY),
        ("application/json", b"NaN", DataKind.BINARY),
        ("application/json", b'"\xff"', DataKind.BINARY),
        ("application/json", b"[" * 100_000, DataKind.BINARY),
        ("application/json", b"", DataKind.ABSENT),
        ("text/plain", "é".encode(), DataKind.TEXT),
        ("application/xml", b"<a/>", DataKind.TEXT),
        ("text/plain", b"\xff", DataKind.BINARY),
        ("text/plain; charset=latin-1", b"x", DataKind.BINARY),
        ("image/png", b"x", DataKind.BINARY),
        (None, b"{}", DataKind.BINARY),
        ("", b"{}", DataKind.BINARY),
        ("nonsense", b"{}", DataKind.BINARY),
    ],
)
def test_kinds_of_data_in_binary_mode(datacontenttype: str | None, payload: bytes, kind: DataKind) -> None:
    attributes = FULL if datacontenttype is None else {**FULL, "datacontenttype": datacontenttype}
    event = decode_binary(attributes, payload)
    assert (event.data_kind, event.data_bytes) == (kind, payload)
    assert binary_is_exact(event)
    same(decode_binary(*encode_binary(event)), event)
    same(decode_json(encode_json(event)), event)


def test_an_event_without_a_source_is_not_written() -> None:
    event = Event(type="t", data=1)
    for encode in (encode_json, encode_binary, json_size, lambda event: encode_batch([event])):
        with pytest.raises(InvalidEvent, match="no source") as caught:
            encode(event)
        assert caught.value.attribute == "source"


@pytest.mark.parametrize(
    "extensions",
    [
        {"traceparent": "00-a-b-01"},
        {"tracestate": "x=y"},
        {"partitionkey": ""},
        {"partitionkey": 5},
        {"traceparent": "a", "tenant": True},
        {"traceparent": "é", "tracestate": "b", "partitionkey": "c"},
    ],
)
def test_extensions_that_often_come(extensions: dict[str, Any]) -> None:
    event, repairs = read(**extensions, data=1)
    assert (event.extensions, event.data, repairs) == (extensions, 1, [])
    same(decode_json(encode_json(event)), event)
    assert json_size(event) == len(encode_json(event))


def test_reading_invents_nothing() -> None:
    event = decode_json(json.dumps(FULL))
    assert event.attributes() == FULL
    assert (event.time, event.datacontenttype, event.subject, event.dataschema) == (None, None, None, None)


# --- batches ---


def test_one_bad_event_does_not_poison_a_batch() -> None:
    good = body(data=1)
    bad = [
        b"5",
        b"{}",
        b'{"a":NaN}',
        b'{"a":"\\ud800"}',
        b"[" * 3000 + b"]" * 3000,
        b"'a'",
        b'{"a":"[,]\\""}',
        b"[]",
        b"{'a':1}",
        b'{"a":tru}',
    ]
    found = decode_batch(
        b" [" + b" , ".join(part for each in bad for part in (each, good)) + b"]\n", repairs=(repairs := [])
    )
    assert [isinstance(entry, Event) for entry in found] == [False, True] * len(bad)
    assert all(
        str(entry).startswith(f"event {index}: ")
        for index, entry in enumerate(found)
        if isinstance(entry, DecodeError)
    )
    assert repairs == []


def test_repairs_in_a_batch_name_the_entry() -> None:
    found = decode_batch(b"[" + body() + b"," + body(Tenant="x") + b"]", repairs=(repairs := []))
    assert [entry.extensions for entry in found if isinstance(entry, Event)] == [{}, {"tenant": "x"}]
    assert repairs == ["event 1: extension Tenant was lower-cased"]


def test_empty_batches() -> None:
    assert encode_batch([]) == b"[]"
    assert decode_batch(b"[]") == decode_batch(" [ \n] ") == []


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "empty"),
        (body(), "array of events"),
        (b"[", "not JSON"),
        (b"[]]", "not JSON"),
        (b"[[[]", "not JSON"),
        (b"[\xff]", "not UTF-8"),
        (b"null", "array of events"),
        (b"\xef\xbb\xbf[]", "byte order mark"),
    ],
)
def test_what_is_no_batch(raw: bytes, said: str) -> None:
    with pytest.raises(DecodeError, match=said):
        decode_batch(raw)


def test_a_batch_with_holes() -> None:
    found = decode_batch(b"[" + body() + b",," + body() + b",]")
    assert [isinstance(entry, Event) for entry in found] == [True, False, True, False]
    assert len(decode_batch(b"[[}]")) == 1


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a":"' + b'\\"' * 300_000,
        b'{"a":"' + b'\\"' * 300_000 + b"}",
        b'{"a":"' + b'\\"' * 300_000 + b"\\}",
        b'[{"a":"' + b'\\"' * 300_000 + b"]",
        b'{"a"' + b" " * 300_000 + b"x}",
        b'{"a":"\\ud800' + b" " * 300_000 + b'x"}',
        b"[" + b"{},[" * 100_000 + b"]",
        body()[:-1] + b"".join(b',"A%d":1' % n for n in range(50_000)) + b"}",
        body(x=b"1" * 300_000),
        body(data_base64="é" * 300_000),
    ],
)
def test_hostile_bytes_cost_little(raw: bytes) -> None:
    begin = time.process_time()
    for decode in (decode_json, decode_batch):
        with contextlib.suppress(DecodeError):
            decode(raw)
    assert time.process_time() - begin < 5  # of the first three, each took minutes with a careless pattern


def test_sizes_of_odd_events() -> None:
    event = unchecked(
        id="1", source="s", type="t", extensions={"x": "\x00é"}, kind=2, payload="\x00é".encode()
    )
    assert json_size(event) == len(encode_json(event))
