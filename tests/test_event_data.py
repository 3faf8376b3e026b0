"""The data of an `Event`: what becomes JSON, text or bytes, what is refused, what it is decoded into."""

from __future__ import annotations

import dataclasses
import types
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple, TypedDict

import msgspec
import pydantic
import pytest
from hypothesis import given

from crossbus.errors import DataError
from crossbus.event import DataKind, Event, unchecked
from events import Colour, invalid, json_values, make

# --- data ---


class Struct(msgspec.Struct):
    n: float


@dataclasses.dataclass
class Data:
    n: Any


class Model(pydantic.BaseModel):
    n: Any


class FloatModel(pydantic.BaseModel):
    n: float


class Pair(NamedTuple):
    a: int
    b: int


class Typed(TypedDict):
    n: float


@pytest.mark.parametrize(
    ("data", "read"),
    [
        ({"a": [1, 2.5, "x", None, True]}, {"a": [1, 2.5, "x", None, True]}),
        (None, None),
        ([], []),
        (5, 5),
        (2**64 + 1, 2**64 + 1),
        ({"n": -(2**63)}, {"n": -(2**63)}),
        (Struct(1.5), {"n": 1.5}),
        (Data([Pair(1, 2)]), {"n": [[1, 2]]}),
        (Model(n={"deep": [1]}), {"n": {"deep": [1]}}),
        ([Model(n=1), Data(2)], [{"n": 1}, {"n": 2}]),
        (Data(Model(n=1)), {"n": {"n": 1}}),
        ({Colour.RED: Colour.RED, 5: 1, 1.5: 2}, {"red": "red", "5": 1, "1.5": 2}),
        (types.MappingProxyType({"a": 1}), {"a": 1}),
        ({"n": None, "m": [Model(n=None)]}, {"n": None, "m": [{"n": None}]}),
        (Decimal("1.5"), "1.5"),
        (
            {"at": datetime(2026, 1, 1, tzinfo=UTC), "raw": b"ab"},
            {"at": "2026-01-01T00:00:00Z", "raw": "YWI="},
        ),
        ("text", "text"),
        (
            [type("Name", (str,), {})("x"), type("Number", (float,), {})(1.5), type("Int", (int,), {})(3)],
            ["x", 1.5, 3],
        ),
    ],
)
def test_data_becomes_json(data: Any, read: Any) -> None:
    event = make(data=data, datacontenttype="application/json")
    assert event.data == read
    assert type(event.data) is type(read)
    assert event.data_kind is DataKind.JSON
    assert event.has_data


def test_the_content_type_follows_the_data() -> None:
    assert make(data={"a": 1}).datacontenttype == "application/json"
    assert make(data=None).datacontenttype == "application/json"
    assert make(data=[1]).datacontenttype == "application/json"
    assert make(data=msgspec.Raw(b"[1]")).data == [1]
    assert (make(data="x").datacontenttype, make(data="x").data_kind) == ("text/plain", DataKind.TEXT)
    for raw in (b"x", bytearray(b"x"), memoryview(b"x")):
        event = make(data=raw)
        assert (event.datacontenttype, event.data_kind, event.data) == (
            "application/octet-stream",
            DataKind.BINARY,
            b"x",
        )


def test_bytes_with_a_json_type_are_json_text_already() -> None:
    for raw in (b'{"a": 1.50}', bytearray(b'{"a": 1.50}'), memoryview(b'{"a": 1.50}')):
        event = make(data=raw, datacontenttype="application/json")
        assert event.data == {"a": 1.5}
        assert event.data_bytes == b'{"a": 1.50}'


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"{}x",
        b"NaN",
        b'"\xff"',
        b'"\xed\xa0\x80"',
        b'"\\ud800"',
        b"\xef\xbb\xbf{}",
        b"[" * 5000,
        b"'a'",
    ],
)
def test_bytes_that_are_no_json_are_refused(raw: bytes) -> None:
    assert "not JSON text" in invalid("data", data=raw, datacontenttype="application/json")


def test_text_and_bytes_by_their_types() -> None:
    assert make(data="é", datacontenttype="application/xml").data == "é"
    assert make(data="é".encode(), datacontenttype="text/plain").data == "é"
    assert make(data=b"\xff", datacontenttype="text/plain").data == b"\xff"
    assert make(data=b"ab", datacontenttype="text/plain; charset=latin-1").data == b"ab"
    assert make(data=b"ab", datacontenttype=None).data == b"ab"
    assert make(data="ab", datacontenttype=None).data_kind is DataKind.JSON
    assert make(data="x", datacontenttype="image/png").data == "x"


def test_data_that_does_not_fit_its_type_is_refused() -> None:
    assert "pass str or bytes" in invalid("data", data={"a": 1}, datacontenttype="text/plain")
    assert "charset" in invalid("data", data="x", datacontenttype="text/plain; charset=latin-1")
    assert "lone surrogate at position 1" in invalid("data", data="a\ud800", datacontenttype="text/plain")


NAN = float("nan")


class Huge:
    def __repr__(self) -> str:
        return "x" * 100_000


@pytest.mark.parametrize(
    "data",
    [
        NAN,
        float("inf"),
        -float("inf"),
        {"a": [{"b": NAN}]},
        [None, NAN],
        {"a": "null", "b": NAN},
        (1.0, NAN),
        {NAN},
        Struct(NAN),
        Data(NAN),
        Data([None, NAN]),
        Model(n=NAN),
        [Model(n=[float("inf")])],
        FloatModel(n=NAN),
        Model(n=Model(n={"a": NAN})),
        Data(Model(n=NAN)),
        {"x": [1.0] * 500 + [NAN]},
        [type("Number", (float,), {})("nan")],
        [None, {Colour.RED: NAN}],
    ],
)
def test_nan_and_infinities_are_refused_wherever_they_are(data: Any) -> None:
    assert "JSON has no NaN" in invalid("data", data=data, datacontenttype="application/json")


def test_a_model_that_writes_nan_as_text_may_hold_it() -> None:
    class Lenient(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(ser_json_inf_nan="strings")
        n: float

    assert make(data=Lenient(n=NAN)).data == {"n": "NaN"}
    assert make(data=Model(n={"a": [None, 1.5]})).data == {"n": {"a": [None, 1.5]}}


def test_the_message_says_where_a_nan_is() -> None:
    assert invalid("data", data={"a": [1, {"b": NAN}]}).startswith("data['a'][1]['b'] is nan")


def loop() -> list[Any]:
    endless: list[Any] = []
    endless.append(endless)
    return endless


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    "data",
    [
        loop(),
        {"a": loop()},
        deep(100_000),
        "\ud800",
        {"\udfff": 1},
        ["a", {"b": "\ud800"}],
        Model(n="\ud800"),
        {True: 1},
        {None: 1},
        [None, {NAN: 1}],
        object(),
        {"a": Huge()},
        {Huge(): 1},
        [10**5000],
        [object],
        {"a": lambda: 1},
        Data(object()),
        {(1, 2): 1},
        [Model(n="x"), loop()],
    ],
)
def test_what_json_cannot_hold_is_refused(data: Any) -> None:
    invalid("data", data=data, datacontenttype="application/json")


@given(json_values)
def test_json_survives(data: Any) -> None:
    event = make(data=data, datacontenttype="application/json")
    assert event.data == data
    assert repr(event.data) == repr(data)  # integers stay integers, floats floats


def test_nobody_shares_an_object_with_the_event() -> None:
    data = {"a": [1]}
    event = make(data=data)
    data["a"].append(2)
    event.data["a"].append(3)
    assert event.data == {"a": [1]}


def test_data_from_elsewhere_that_cannot_be_read() -> None:
    def read(payload: bytes) -> Event:
        return unchecked(
            id="1", source="s", type="t", datacontenttype="application/json", kind=1, payload=payload
        )

    assert read(b'"\\ud800"').data == "\ud800"
    assert read(b"1e999").data == float("inf")
    for payload in (b"{", b"NaN", b"\xff", b"", b"[" * 100_000, b"1" * 5000):
        with pytest.raises(DataError) as caught:
            read(payload).data  # noqa: B018
        assert "\n" not in str(caught.value)


# --- typed data ---


@pytest.mark.parametrize("type", [Data, Struct, Model, Typed, dict[str, float]])
def test_data_is_decoded_into_a_type(type: Any) -> None:
    made = make(data={"n": 1.5, "more": 2.0}).data_as(type)
    assert (made["n"] if isinstance(made, dict) else made.n) == 1.5


@pytest.mark.parametrize(
    "type", [Struct, Typed, dict[str, float], pydantic.create_model("N", n=(float, ...)), list, int]
)
def test_data_that_does_not_fit_a_type(type: Any) -> None:
    for event in (make(data={"n": "secret"}), make(), make(data=b"\xff"), make(data="text")):
        with pytest.raises(DataError) as caught:
            event.data_as(type)
        assert "secret" not in str(caught.value)
        assert "\n" not in str(caught.value)


def test_data_as_str_and_bytes() -> None:
    assert make(data="é").data_as(str) == "é"
    assert make(data="é").data_as(bytes) == "é".encode()
    assert make(data="é", datacontenttype="application/json").data_as(str) == "é"
    assert make(data=b"ab").data_as(str) == "ab"
    for event in (make(data={"a": 1}), make(), make(data=b"\xff")):
        with pytest.raises(DataError):
            event.data_as(str)
