"""`Event`: the rules of CloudEvents 1.0 when made, immutability, equality, copies."""

from __future__ import annotations

import copy
import enum
import pickle
import types
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossbus.codecs import decode_json
from crossbus.data import same_json
from crossbus.errors import InvalidEvent
from crossbus.event import DataKind, Event, new_id, unchecked
from events import Colour, events, invalid, make, time_texts

# --- attributes ---


def test_defaults() -> None:
    before = datetime.now(UTC)
    event = Event(type="t")
    assert before <= event.time <= datetime.now(UTC)  # type: ignore[operator]
    assert len(event.id) == 32
    assert (event.source, event.subject, event.dataschema, event.specversion) == ("", None, None, "1.0")
    assert (event.has_data, event.data, event.data_kind, event.datacontenttype) == (
        False,
        None,
        DataKind.ABSENT,
        None,
    )
    assert event.extensions == {}
    assert event.id != Event(type="t").id
    assert "source" not in event.attributes()


def test_ids_do_not_repeat() -> None:
    assert len({new_id() for _ in range(10_000)}) == 10_000


@pytest.mark.parametrize("name", ["id", "source", "type", "subject", "dataschema", "datacontenttype"])
@pytest.mark.parametrize(
    "value",
    [
        "",
        5,
        b"x",
        ["x"],
        "a\nb",
        "\x00",
        "\x7f",
        "\x85",
        "\ud800",
        "x\udfff",
        "\ufffe",
        "\U0010ffff",
        "\ufdd0",
    ],
)
def test_strings_are_checked(name: str, value: Any) -> None:
    assert invalid(name, **{name: value}).startswith(name)


@pytest.mark.parametrize("name", ["id", "source", "type", "subject", "dataschema"])
@pytest.mark.parametrize("value", ["a b", "ü/€?\"'%\\", "\u00a0", "\ue000", "😀", "\u2028", "x" * 1000])
def test_any_other_string_is_allowed(name: str, value: str) -> None:
    for _ in range(2):  # the second time it is remembered
        assert getattr(make(**{name: value}), name) == value


def test_a_refused_string_is_refused_again() -> None:
    for _ in range(3):
        invalid("type", type="a\nb")
        invalid("source", source="a\nb")


@pytest.mark.parametrize("name", ["id", "source", "type", "subject", "dataschema"])
def test_subclasses_of_str_become_str(name: str) -> None:
    kept = getattr(make(**{name: Colour.RED}), name)
    assert kept == "red"
    assert type(kept) is str


def test_subclasses_in_extensions_become_plain() -> None:
    class Level(enum.IntEnum):
        HIGH = 3

    kept = make(extensions={Colour.RED: Colour.RED, "level": Level.HIGH}).extensions
    assert [(type(name), type(value), value) for name, value in kept.items()] == [
        (str, str, "red"),
        (str, int, 3),
    ]
    assert make(time=Colour("red").replace("red", "2026-01-31T12:00:00Z")).time_text == "2026-01-31T12:00:00Z"


@pytest.mark.parametrize(
    "name", ["", "a-b", "Abc", "ä", "a\n", "a b", "traceParent", "x" * 500 + "-", 5, None, b"a"]
)
def test_names_of_extensions_are_checked(name: Any) -> None:
    invalid(str(name), extensions={name: "x"})


def test_the_hint_names_the_nearest_extension_name() -> None:
    assert "use 'tenantid'" in invalid("tenant-Id", extensions={"tenant-Id": "x"})
    assert "pass it as id=" in invalid("id", extensions={"id": "x"})


@pytest.mark.parametrize(
    "value", [1.5, None, [1], {}, object(), 2**31, -(2**31) - 1, "a\x00", "\ud800", Decimal(1)]
)
def test_values_of_extensions_are_checked(value: Any) -> None:
    invalid("x", extensions={"x": value})


def test_extensions_must_be_a_mapping() -> None:
    invalid("extensions", extensions=[("a", "b")])


def test_values_of_extensions_are_kept() -> None:
    given = {
        "text": "",
        "yes": True,
        "most": 2**31 - 1,
        "least": -(2**31),
        "bytes": b"\x00\xff",
        "array": bytearray(b"ab"),
        "view": memoryview(b"a-b-c-")[::2],
        "time": datetime(2026, 1, 31, 12, tzinfo=UTC),
    }
    with pytest.raises(InvalidEvent):  # `time` is an attribute
        make(extensions=given)
    given["at"] = given.pop("time")
    event = make(extensions=types.MappingProxyType(given))
    assert event.extensions == {
        "text": "",
        "yes": True,
        "most": 2**31 - 1,
        "least": -(2**31),
        "bytes": "AP8=",
        "array": "YWI=",
        "view": "YWJj",
        "at": "2026-01-31T12:00:00Z",
    }
    given["text"] = "changed"
    assert event.extensions["text"] == ""


def test_naive_datetimes_are_refused() -> None:
    assert "no time zone" in invalid("time", time=datetime(2026, 1, 1))
    assert "no time zone" in invalid("at", extensions={"at": datetime(2026, 1, 1)})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2026-01-31",
        "2026-01-31T12:00:00",
        "2026-01-31 12:00:00Z",
        "2026-02-30T12:00:00Z",
        "0000-01-01T00:00:00Z",
        "2026-01-31T24:00:00Z",
        "2026-01-31T12:00:00+24:00",
        "2026-01-31T12:00:61Z",
        "2026-01-31T12:00:00.Z",
        "２０26-01-31T12:00:00Z",
        "2026-01-31T12:00:00Z\n",
        5,
        5.0,
    ],
)
def test_times_are_checked(text: Any) -> None:
    invalid("time", time=text)


@given(time_texts())
def test_times_are_kept_as_written(text: str) -> None:
    event = make(time=text)
    assert event.time_text == event.get("time") == event.attributes()["time"] == text
    head, _, rest = text[:19].upper(), text[19:], text[19:].lstrip(".0123456789")
    offset = "+00:00" if rest in "zZ" else rest
    micros = text[19:].removesuffix(rest).lstrip(".").ljust(6, "0")[:6]
    assert event.time == datetime.fromisoformat(f"{head}.{micros}{offset}")


@given(st.datetimes(timezones=st.timezones() | st.just(UTC)))
def test_datetimes_keep_their_instant(time: datetime) -> None:
    if time.year in (1, 9999):
        time = time.replace(year=2000)  # its UTC form might be outside what a datetime can be: see below
    event = make(time=time)
    assert event.time is not None
    assert event.time.astimezone(UTC) == time.astimezone(UTC)
    assert make(time=event.time_text) == event


def test_offsets_with_seconds_become_utc() -> None:
    odd = timezone(timedelta(hours=1, seconds=30))
    assert make(time=datetime(2026, 1, 1, 12, tzinfo=odd)).time_text == "2026-01-01T10:59:30Z"
    assert "year 1" in invalid("time", time=datetime(1, 1, 1, tzinfo=odd))


def test_a_leap_second_is_kept_and_read_as_the_moment_before() -> None:
    event = make(time="2016-12-31T23:59:60.5Z")
    assert event.time_text == "2016-12-31T23:59:60.5Z"
    assert event.time == datetime(2016, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)


def test_subclasses_of_datetime_are_written_out() -> None:
    class Nanoseconds(datetime):
        def isoformat(self, *_: object) -> str:  # type: ignore[override]
            return "2026-01-31T12:00:00.123456789+00:00"

    class Own(datetime):
        def isoformat(self, *_: object) -> str:  # type: ignore[override]
            return "noon"

    arguments: Any = (2026, 1, 31, 12, 0, 0, 0, UTC)
    assert make(time=Nanoseconds(*arguments)).time_text == "2026-01-31T12:00:00.123456789Z"
    assert make(time=Own(*arguments)).time_text == "2026-01-31T12:00:00Z"
    assert (
        make(time=datetime(2026, 7, 1, 12, tzinfo=ZoneInfo("Europe/Berlin"))).time_text
        == "2026-07-01T12:00:00+02:00"
    )


@pytest.mark.parametrize(
    "value",
    ["json", "a/b/c", "a/", "text plain", "text/plain; charset", "/json", "text/plain;" + " " * 9 + "x"],
)
def test_media_types_are_checked(value: str) -> None:
    assert "media type" in invalid("datacontenttype", datacontenttype=value)


def test_a_hostile_media_type_costs_little() -> None:
    invalid("datacontenttype", datacontenttype="text/plain" + " " * 200_000 + "x")
    decode = decode_json(
        b'{"specversion":"1.0","id":"1","source":"s","type":"t","data":"x","datacontenttype":"a/b%s!"}'
        % (b" ;" * 100_000)
    )
    assert decode.data == "x"


# --- immutable, comparable ---


def test_an_event_cannot_change() -> None:
    event = make(extensions={"a": "b"})
    for name in ("id", "source", "type", "time", "data", "extensions", "other"):
        with pytest.raises(AttributeError):
            setattr(event, name, "x")
    with pytest.raises(TypeError):
        event.extensions["a"] = "c"  # type: ignore[index]
    event.attributes()["id"] = "x"
    event.get_attributes()["a"] = "x"
    assert event == make(extensions={"a": "b"})


DIFFERENT = [
    {"id": "2"},
    {"source": "/x"},
    {"source": None},
    {"type": "x"},
    {"subject": "x"},
    {"dataschema": "x"},
    {"time": "2026-01-31T12:00:00Z"},
    {"time": "2026-01-31T12:00:00+00:00"},
    {"extensions": {"a": True}},
    {"extensions": {"a": 1}},
    {"extensions": {"a": "1"}},
    {"data": None},
    {"datacontenttype": "application/json"},
    {"data": {"a": 1}},
    {"data": {"a": True}},
    {"data": {"a": 1.0}},
    {"data": "1"},
    {"data": b"1"},
    {"data": 1},
    {"data": 1, "datacontenttype": None},
    {"data": [9007199254740993]},
    {"data": [9007199254740992]},
    {"data": "1", "datacontenttype": "application/json"},
    {"data": [[]]},
    {"data": [{}]},
    {"data": [0.1]},
    {"data": [0.10000000000000002]},
]


def test_what_differs_is_not_equal() -> None:
    made = [make()] + [make(**changes) for changes in DIFFERENT]
    for i, one in enumerate(made):
        assert [j for j, other in enumerate(made) if one == other] == [i]
    assert make() != "event"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b'{"a": 1, "b": [1.50, "\\u00e9"]}', '{"b":[1.5,"é"],"a":1}'.encode()),
        (b" [1e2] ", b"[100.0]"),
        (b'{"a":1,"a":2}', b'{"a":2}'),
    ],
)
def test_json_is_equal_however_it_is_written(one: bytes, other: bytes) -> None:
    events = [make(data=raw, datacontenttype="application/json") for raw in (one, other)]
    assert events[0] == events[1]
    assert hash(events[0]) == hash(events[1])


def test_json_that_cannot_be_decoded_is_equal_byte_by_byte() -> None:
    assert not same_json(b"{", b"{ ")
    assert not same_json(b"[" * 100_000, b"[" * 100_001)
    assert not same_json(b"1" * 5000, b"1" * 5001)


@given(events())
def test_copies_are_equal(event: Event) -> None:
    for other in (copy.copy(event), copy.deepcopy(event), event.replace(), event.with_attributes()):
        assert other == event
        assert hash(other) == hash(event)
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(event, protocol)) == event
    assert {event: 1}[pickle.loads(pickle.dumps(event))] == 1


@given(events())
def test_getters_agree(event: Event) -> None:
    found = event.attributes()
    assert found == {name: event.get(name) for name in found}
    assert list(found)[:2] == ["specversion", "id"]
    assert event.get_attributes() == {**found, **({"time": event.time} if event.time else {})}
    assert (event.get_id(), event.get_source(), event.get_type()) == (event.id, event.source, event.type)
    assert (event.get_specversion(), event.get_subject(), event.get_time()) == (
        "1.0",
        event.subject,
        event.time,
    )
    assert (event.get_datacontenttype(), event.get_dataschema()) == (event.datacontenttype, event.dataschema)
    assert all(event.get_extension(name) == value for name, value in event.extensions.items())
    assert event.get_data() == event.data
    assert event.get("nothing") is None


@given(events())
def test_the_text_of_an_event_is_short(event: Event) -> None:
    assert repr(event).startswith("Event(id=")
    assert len(repr(event)) < 3000


def test_the_text_of_a_huge_event_is_short() -> None:
    huge = "x" * 50_000
    event = make(id=huge, data=huge, extensions={f"e{n}": huge for n in range(200)})
    assert len(repr(event)) < 20_000
    assert "more" in repr(event)
    assert repr(make(data=b"\x00" * 100_000)).endswith("…)")
    assert repr(make(data="é" * 500)).count("é") <= 400
    assert repr(make()) == "Event(id='1', source='/s', type='t')"


# --- replace and the like ---


def test_replace_attributes() -> None:
    event = make(data={"a": 1}, extensions={"x": "1"}, subject="s", time="2026-01-31T12:00:00Z")
    changed = event.replace(type="u", source="/u", subject=None, time=None, extensions={"y": 2})
    assert (changed.type, changed.source, changed.subject, changed.time, dict(changed.extensions)) == (
        "u",
        "/u",
        None,
        None,
        {"y": 2},
    )
    assert changed.data_bytes is event.data_bytes
    assert event.replace(id=None).id != event.id
    assert event.replace(extensions=None).extensions == {}
    assert event.type == "t"
    with pytest.raises(TypeError, match="'kind'"):
        event.replace(kind=1)
    with pytest.raises(InvalidEvent):
        event.replace(type="")


def test_replace_data() -> None:
    as_json = make(data={"a": 1}, datacontenttype="application/vnd.acme+json")
    assert (as_json.replace(data=[1]).datacontenttype, as_json.replace(data=[1]).data) == (
        "application/vnd.acme+json",
        [1],
    )
    assert as_json.replace(data="x").data_kind is DataKind.JSON
    assert as_json.replace(data=None).data_bytes == b"null"
    text = make(data="x", datacontenttype="text/csv")
    assert (text.replace(data="y").datacontenttype, text.replace(data=b"y").data) == ("text/csv", "y")
    assert (text.replace(data={"a": 1}).datacontenttype, text.replace(data=1).data) == ("application/json", 1)
    assert make().replace(data="x").datacontenttype == "text/plain"
    untyped = make(data=[1], datacontenttype=None)
    assert (untyped.replace(data="x").datacontenttype, untyped.replace(data="x").data_kind) == (
        None,
        DataKind.JSON,
    )


def test_replace_the_content_type() -> None:
    as_json = make(data=b'{"a": 1.50}', datacontenttype="application/json")
    for other in ("application/vnd.acme+json", None):
        changed = as_json.replace(datacontenttype=other)
        assert (changed.datacontenttype, changed.data_bytes, changed.data_kind) == (
            other,
            b'{"a": 1.50}',
            DataKind.JSON,
        )
    with pytest.raises(InvalidEvent):
        as_json.replace(datacontenttype="text/plain")
    assert (
        make(data="x", datacontenttype=None).replace(datacontenttype="text/plain").data_kind is DataKind.TEXT
    )
    assert make(data="[1]").replace(datacontenttype="application/json").data == [1]
    assert make(data="[1]").replace(datacontenttype="image/png").data == b"[1]"
    assert make().replace(datacontenttype="image/png").has_data is False
    both = as_json.replace(data="x", datacontenttype="text/plain")
    assert (both.data, both.data_kind) == ("x", DataKind.TEXT)


def test_replace_keeps_what_a_new_event_may_not_hold() -> None:
    event = unchecked(
        id="1",
        source="s",
        type="t",
        time="noon",
        subject="",
        extensions={"Odd-name": "\x00"},
        kind=1,
        payload=b"{",
    )
    changed = event.replace(type="u")
    assert (changed.time_text, changed.time, changed.subject, changed.extensions, changed.data_bytes) == (
        "noon",
        None,
        "",
        {"Odd-name": "\x00"},
        b"{",
    )
    assert event.get_attributes()["time"] == "noon"


def test_extensions_come_and_go() -> None:
    event = make(data={"a": 1})
    marked = event.with_attributes(source="/new", crossbustopic="orders", n=1)
    assert (marked.source, dict(marked.extensions)) == ("/new", {"crossbustopic": "orders", "n": 1})
    assert marked.without_extensions("n", "other").extensions == {"crossbustopic": "orders"}
    assert marked.without_extensions("crossbustopic", "n").with_attributes(source="/s") == event
    assert event.without_extensions("n") is event
    assert event.extensions == {}
