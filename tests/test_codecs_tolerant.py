"""Reading events that break a rule: what can be kept is kept and noted, the rest is refused by name."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from crossbus.codecs import (
    binary_is_exact,
    decode_batch,
    decode_binary,
    decode_json,
    encode_binary,
    encode_json,
    json_size,
)
from crossbus.errors import DecodeError
from crossbus.event import DataKind, Event
from crossbus.lenient import decode_odd
from events import FULL, NONCONFORMING, body, names, read, refused, same

# --- tolerant ---


def test_googles_own_example_is_repaired() -> None:
    (line,) = NONCONFORMING
    event = decode_json(line, repairs=(repairs := []))
    assert repairs == [
        f"extension {name} was lower-cased"
        for name in ("methodName", "recordedTime", "resourceName", "serviceName")
    ]
    found = json.loads(line)
    assert event.data == found.pop("data")
    assert event.attributes() == {name.lower(): value for name, value in found.items()}
    same(decode_json(encode_json(event), repairs=(again := [])), event)
    assert again == []
    assert decode_binary(found, event.data_bytes, repairs=(same_repairs := [])) == event
    assert same_repairs == repairs


@pytest.mark.parametrize(
    ("members", "kept", "noted"),
    [
        ({"Tenant": "x"}, {"tenant": "x"}, "extension Tenant was lower-cased"),
        ({"Subject": "x"}, {"subject": "x"}, "attribute Subject was lower-cased"),
        ({"x": b"1.5"}, {"x": "1.5"}, "x is a number"),
        ({"x": b"2147483648"}, {"x": "2147483648"}, "x is a number"),
        ({"x": b"1e3"}, {"x": "1e3"}, "x is a number"),
        ({"x": b"1E400"}, {"x": "1E400"}, "x is a number"),
        ({"x": b"1" * 5000}, {"x": "1" * 5000}, "x is a number"),
        ({"x": b"1" * 5000, "y": b'"\\ud800"'}, {"x": "1" * 5000, "y": "\\ud800"}, "x is a number"),
        ({"x": b'{"a": [1.50]}'}, {"x": '{"a": [1.50]}'}, "x is an object"),
        ({"x": b"[1]"}, {"x": "[1]"}, "x is an array"),
        ({"x": "a\nb"}, {"x": "a\nb"}, "x holds a character"),
        ({"traceparent": "a\nb"}, {"traceparent": "a\nb"}, "traceparent holds a character"),
        ({"partitionkey": 5.5}, {"partitionkey": "5.5"}, "partitionkey is a number"),
        ({"x": b'"a\\ud800"'}, {"x": "a\\ud800"}, "x holds a lone surrogate"),
        ({"subject": "a\x00"}, {"subject": "a\x00"}, "subject holds a character"),
        ({"id": b'"\\udfff"'}, {"id": "\\udfff"}, "id holds a lone surrogate"),
        ({"id": 5}, {"id": "5"}, "id is int"),
        ({"subject": True}, {"subject": "true"}, "subject is bool"),
        ({"source": {"a": 1}}, {"source": '{"a":1}'}, "source is an object"),
        ({"specversion": b"1.0"}, {"specversion": "1.0"}, "specversion is a number"),
        ({"time": "noon"}, {"time": "noon"}, "time 'noon' is not RFC 3339"),
        (
            {"time": "2026-02-30T00:00:00Z"},
            {"time": "2026-02-30T00:00:00Z"},
            "time '2026-02-30T00:00:00Z' is not RFC 3339",
        ),
        ({"time": ""}, {"time": ""}, "time '' is not"),
        ({"time": 1769860800}, {"time": "1769860800"}, "time is int"),
        ({"subject": ""}, {"subject": ""}, "subject is empty"),
        ({"dataschema": ""}, {"dataschema": ""}, "dataschema is empty"),
        ({"my-ext": "x"}, {"my-ext": "x"}, "extension name 'my-ext' has other characters"),
        ({"": "x"}, {"": "x"}, "extension name ''"),
        ({"ümlaut": "x"}, {"ümlaut": "x"}, "extension name 'ümlaut'"),
    ],
)
def test_what_breaks_a_rule_is_kept_and_noted(
    members: dict[str, Any], kept: dict[str, Any], noted: str
) -> None:
    event, repairs = read(**members)
    assert event.attributes() == {**FULL, **kept}
    assert noted in "; ".join(repairs)
    same(decode_json(encode_json(event)), event)


def test_a_key_with_a_lone_surrogate_is_kept() -> None:
    event = decode_json(body()[:-1] + b',"a\\ud800":1}', repairs=(repairs := []))
    assert event.extensions == {"a\\ud800": 1}
    assert len(repairs) == 1


def test_text_with_a_lone_surrogate_is_kept_as_json() -> None:
    event, repairs = read(data=b'"a\\ud800"', datacontenttype="text/plain")
    assert (event.data, event.data_kind) == ("a\ud800", DataKind.JSON)
    assert "lone surrogate" in repairs[0]
    same(decode_json(encode_json(event)), event)
    event, repairs = read(data=b'{"a":["\\ud800"]}', x="y")
    assert (event.data, repairs) == ({"a": ["\ud800"]}, [])


def test_repairs_do_not_show_more_than_a_little() -> None:
    _, repairs = read(**{"X" * 10_000: "y", "time": "z" * 10_000, "x\n\ty": "z"})
    assert len(repairs) == 3
    assert all(len(line) < 200 and "\n" not in line for line in repairs)


def test_null_attributes_are_absent() -> None:
    event, repairs = read(subject=None, time=None, dataschema=None, datacontenttype=None, x=None, Y=None)
    assert event.attributes() == FULL
    assert repairs == ["extension Y was lower-cased"]
    assert decode_binary({**FULL, "x": None}, b"").attributes() == FULL  # type: ignore[dict-item]


def test_the_last_of_several_members_wins() -> None:
    written = body()[:-1]
    assert decode_json(written + b',"id":"2","data":1,"data":2}').attributes()["id"] == "2"
    assert decode_json(written + b',"data":1,"data":2}').data == 2
    assert decode_json(written + b',"x":"a","x":"b","data":"\\ud800","data":2}').extensions == {"x": "b"}
    assert decode_json(written + b',"x":"a","x":"b","data":"\\ud800","data":2}').data == 2


@pytest.mark.parametrize(
    "members",
    [
        {"Id": "2"},
        {"x": "1", "X": "2"},
        {"aB": 1, "Ab": 1},
        {"data": 1, "Data": 2},
        {"data": None, "DATA": 2},
    ],
)
def test_names_that_collide_are_refused(members: dict[str, Any]) -> None:
    assert "but for capitals" in refused(body(**members))


def test_capitals_in_members_of_the_payload() -> None:
    event, repairs = read(Data={"a": 1})
    assert (event.data, repairs) == ({"a": 1}, ["attribute Data was lower-cased"])
    assert read(Data_Base64="eA==")[0].data == b"x"


@pytest.mark.parametrize("name", ["data", "data_base64", "Data"])
def test_no_attribute_is_named_data_in_binary_mode(name: str) -> None:
    with pytest.raises(DecodeError, match="attribute named data"):
        decode_binary({**FULL, name: "x"}, b"")


def test_binary_mode_takes_what_bindings_hand_over() -> None:
    class Header(str):
        __slots__ = ()

    given: dict[str, Any] = {
        "yes": True,
        "n": 5,
        "big": 2**40,
        "raw": b"a\xff",
        "f": 1.5,
        "h": Header("a\x85"),
        "s": "a\ud800",
    }
    event = decode_binary({**FULL, **given}, b"", repairs=(repairs := []))
    assert event.extensions == {
        "yes": True,
        "n": 5,
        "big": str(2**40),
        "raw": "a\\xff",
        "f": "1.5",
        "h": "a\x85",
        "s": "a\\ud800",
    }
    assert [line.split()[0] for line in repairs] == ["big", "raw", "f", "h", "s"]
    assert type(event.extensions["h"]) is str
    assert decode_binary({**FULL, "subject": Header("ok")}, bytearray(b"x")).data_bytes == b"x"


# --- refused ---


@pytest.mark.parametrize("name", ["id", "source", "type", "specversion"])
@pytest.mark.parametrize("value", [None, "", "absent"])
@pytest.mark.parametrize("more", [{}, {"x": "y"}, {"Y": 1}])
def test_required_attributes(name: str, value: str | None, more: dict[str, Any]) -> None:
    members = {**FULL, name: value, **more}
    if value == "absent":
        del members[name]
    assert name in refused(json.dumps(members))
    with pytest.raises(DecodeError, match=name):
        decode_binary({name: value for name, value in members.items() if value is not None}, b"")


@pytest.mark.parametrize("version", ["0.3", "1.1", "1", " 1.0", "x" * 10_000])
def test_other_versions(version: str) -> None:
    assert "only 1.0" in refused(body(specversion=version))


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"\xef\xbb\xbf" + body(), "byte order mark"),
        ("\ufeff" + body().decode(), "byte order mark"),
        (b'{"id":"\xff"}', "not UTF-8: invalid byte at position 7"),
        (b'{"id":"\xed\xa0\x80"}', "not UTF-8"),
        ('{"id":"\ud800"}', "lone surrogate at position 7"),
        (body().decode().encode("utf-16"), "not UTF-8"),
        (b"{", "not JSON"),
        (body()[:-1], "not JSON"),
        (body() + b"x", "not JSON"),
        (body(data=b"NaN"), "not JSON"),
        (body(data=b"-Infinity", x="y"), "not JSON"),
        (body(data=b"01"), "not JSON"),
        (body(x=b"'a'"), "not JSON"),
        (body(data=b'"a\nb"'), "not JSON"),
        (body(data=b'{"a":"\\ud800",}'), "not JSON"),
        (body(data=b'"\\ud800"')[:-1] + b",}", "not JSON"),
        (body(data=b'"\\ud800"')[:-1] + b',"a" 1}', "not JSON"),
        (body(data=b'"\\ud800"')[:-1] + b"]}", "not JSON"),
        (body(data=b'"\\ud800"')[:-1] + b",[}", "not JSON"),
        (b"null", "must be a JSON object, and is a JSON "),
        (b"5", "must be a JSON object, and is a JSON "),
        (b'"text"', "must be a JSON object, and is a JSON "),
        (b"[]", "batch"),
        (b"[" + body() + b"]", "batch"),
        (b"{}", "specversion"),
        (body(data=1, data_base64="eA=="), "both data and data_base64"),
        (body(data=None, data_base64="eA=="), "both data and data_base64"),
        (body(data_base64="?"), "base64"),
        (body(data_base64="eA"), "base64"),
        (body(data_base64="eA==\n"), "base64"),
        (body(data_base64="é"), "base64"),
        (body(data_base64=5), "base64"),
        (body(data_base64=True), "base64"),
        (body(data_base64={}), "base64"),
        (b"[" * 100_000, "too deep"),
        (body(data=b"[" * 100_000 + b"]" * 100_000), "too deep"),
        (body(x=b"[" * 100_000 + b"]" * 100_000), "too deep"),
        (body(data=b'{"a":' * 100_000 + b"1" + b"}" * 100_000, x="y"), "too deep"),
    ],
)
def test_what_is_no_event(raw: bytes | str, said: str) -> None:
    assert said in refused(raw)


def test_errors_do_not_show_the_payload() -> None:
    for raw in (
        body(data="secret")[:-1],
        b"secret",
        body(id="", data="secret"),
        body(data="secret", data_base64="eA=="),
    ):
        assert "secret" not in refused(raw)


@given(st.binary(max_size=60) | st.text(max_size=60))
def test_any_bytes_are_an_event_or_an_error(raw: bytes | str) -> None:
    for decode in (decode_json, decode_batch):
        with contextlib.suppress(DecodeError):
            decode(raw)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
_names = st.sampled_from(
    [
        *FULL,
        "subject",
        "time",
        "datacontenttype",
        "dataschema",
        "data",
        "data_base64",
        "Data",
        "ID",
        "x",
        "X",
        "a-b",
    ]
)


@given(st.dictionaries(_names | st.text(max_size=5), _json, max_size=6))
def test_odd_members_are_kept_or_refused(members: dict[str, Any]) -> None:
    raw = json.dumps({**FULL, **members})
    try:
        event = decode_json(raw, repairs=(repairs := []))
    except DecodeError:
        return
    assert decode_json(raw) == event
    same(decode_json(encode_json(event)), event)
    assert json_size(event) == len(encode_json(event))
    values = {
        name: value
        for name, value in members.items()
        if value is not None and name not in ("data", "data_base64", "Data")
    }
    assert {
        name.lower().encode("utf-8", "backslashreplace").decode() for name in values
    } <= event.attributes().keys()
    clean = all(
        name.islower() and name.isascii() and isinstance(value, (str, bool)) for name, value in values.items()
    )
    assert clean or repairs or all(isinstance(value, int) or name.isalnum() for name, value in values.items())


def _outcome(decode: Callable[[], Event]) -> object:
    try:
        event = decode()
    except DecodeError as error:
        return str(error)
    return [(type(value), value) for value in (getattr(event, slot) for slot in Event.__slots__)]


@given(
    st.dictionaries(_names | names | st.just("tracestate"), _json | st.text(max_size=10), max_size=6),
    st.sampled_from(
        ["application/json", "application/json; charset=utf-8", "text/plain", "image/png", "", None]
    ),
)
@example({"tenant": "t-1", "n": 1, "on": True, "big": 2**31, "null": None}, "application/json")
@example({"tenant": "t-1", "data": "x"}, "text/plain")
@example({"tenant": "t-1", "data_base64": "eA=="}, "image/png")
@example({"tenant": "t-1", "data_base64": "eA==", "data": None}, "image/png")
@example({"tenant": "t-1", "Data": 1, "data": 2}, None)
@example({"traceparent": "t-1", "TraceParent": "t-2"}, None)
@example({"x": "\ud800"}, None)
@example({"x": "a\nb", "time": "yesterday"}, None)
def test_the_short_ways_read_as_the_long_way_does(members: dict[str, Any], media: str | None) -> None:
    raw = json.dumps({**FULL, "datacontenttype": media, **members}).encode()
    assert _outcome(lambda: decode_json(raw)) == _outcome(lambda: decode_odd(raw, None))
    short: list[str] = []
    long: list[str] = []
    found = _outcome(lambda: decode_json(raw, repairs=short))
    assert found == _outcome(lambda: decode_odd(raw, long))
    assert short == long or isinstance(found, str)


@given(
    st.dictionaries(
        _names | st.text(max_size=5), st.text(max_size=10) | st.booleans() | st.integers(), max_size=6
    ),
    st.binary(max_size=10),
)
def test_odd_attributes_in_binary_mode_are_kept_or_refused(
    attributes: dict[str, Any], payload: bytes
) -> None:
    try:
        event = decode_binary({**FULL, **attributes}, payload)
    except DecodeError:
        return
    assert event.data_bytes == payload
    same(decode_json(encode_json(event)), event)
    if binary_is_exact(event):
        same(decode_binary(*encode_binary(event)), event)
