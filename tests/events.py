"""Generated events, for property tests."""

from __future__ import annotations

import enum
from datetime import UTC, timedelta, timezone
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import strategies as st

from crossbus.attributes import INT32_MAX, INT32_MIN, RESERVED
from crossbus.codecs import decode_json
from crossbus.errors import DecodeError, InvalidEvent
from crossbus.event import Event

DATA = Path(__file__).parent / "data"
REAL = [line for line in (DATA / "real-events.jsonl").read_bytes().splitlines() if line]
NONCONFORMING = [line for line in (DATA / "nonconforming-events.jsonl").read_bytes().splitlines() if line]

# What the type String of CloudEvents allows: no controls, no surrogates, no noncharacters.
_noncharacters = [chr(plane + end) for plane in range(0, 0x110000, 0x10000) for end in (0xFFFE, 0xFFFF)]
_noncharacters += [chr(code) for code in range(0xFDD0, 0xFDF0)]
characters = st.characters(exclude_categories=["Cc", "Cs"], exclude_characters=_noncharacters)
strings = st.text(characters, min_size=1, max_size=30)

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=12,
)

names = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=12).filter(
    lambda name: name not in RESERVED
)
extension_values = st.one_of(
    st.text(characters, max_size=30),
    st.booleans(),
    st.integers(INT32_MIN, INT32_MAX),
    st.binary(max_size=20),
    st.datetimes(timezones=st.just(UTC)),
)

offsets = st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@st.composite
def time_texts(draw: st.DrawFn) -> str:
    """Make RFC 3339 text with any offset, 0 to 12 digits of a fraction, and either case of its letters."""
    day = draw(st.datetimes())
    digits = draw(st.text("0123456789", max_size=12))
    offset = draw(st.sampled_from(["Z", "z", "+00:00", "-00:00", "+05:45", "-08:00", "+14:00", "-23:59"]))
    text = f"{day:%H:%M:%S}{'.' + digits if digits else ''}{offset}"
    return f"{day.year:04}-{day:%m-%d}{draw(st.sampled_from('Tt'))}{text}"


times = st.one_of(st.none(), time_texts(), st.datetimes(timezones=offsets | st.just(UTC)))

json_types = st.sampled_from(
    ["application/json", "application/json; charset=utf-8", "text/json", "application/vnd.acme+json"]
)
text_types = st.sampled_from(
    ["text/plain", "text/plain; charset=UTF-8", "application/xml", "image/svg+xml", "text/csv"]
)
byte_types = st.sampled_from(
    ["application/octet-stream", "image/png", "application/avro", "text/plain; charset=utf-16"]
)
any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)

data_arguments: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.just({}),
    st.fixed_dictionaries({"datacontenttype": json_types | text_types | byte_types}),
    st.fixed_dictionaries({"data": json_values, "datacontenttype": json_types}),
    st.fixed_dictionaries({"data": json_values, "datacontenttype": st.none()}),
    st.fixed_dictionaries({"data": any_text, "datacontenttype": text_types}),
    st.fixed_dictionaries({"data": any_text | st.binary(max_size=40) | json_values}),
    st.fixed_dictionaries(
        {"data": st.binary(max_size=40), "datacontenttype": byte_types | text_types | st.none()}
    ),
).filter(
    lambda given: (
        "data" not in given
        or "datacontenttype" in given
        or isinstance(given["data"], (str, bytes, dict, list))
    )
)


@st.composite
def events(draw: st.DrawFn) -> Event:
    """Make any event that `Event(...)` allows."""
    return Event(
        type=draw(strings),
        source=draw(strings),
        id=draw(strings),
        time=draw(times),
        subject=draw(st.none() | strings),
        dataschema=draw(st.none() | strings),
        extensions=draw(st.dictionaries(names, extension_values, max_size=4)),
        **draw(data_arguments),
    )


FULL: dict[str, Any] = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}


def body(**members: Any) -> bytes:
    """Write an event as JSON; a member given as bytes is JSON already."""
    written = {
        name: msgspec.Raw(value) if isinstance(value, bytes) else value for name, value in members.items()
    }
    return msgspec.json.encode({**FULL, **written})


def read(**members: Any) -> tuple[Event, list[str]]:
    repairs: list[str] = []
    event = decode_json(body(**members), repairs=repairs)
    assert decode_json(body(**members)) == event
    return event, repairs


def refused(raw: Any) -> str:
    with pytest.raises(DecodeError) as caught:
        decode_json(raw)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 250
    return message


def same(one: Event, other: Event) -> None:
    """Equal, and the payload byte for byte."""
    assert one == other
    assert one.data_kind is other.data_kind
    assert one.data_bytes == other.data_bytes
    assert one.attributes() == other.attributes()


class Colour(str, enum.Enum):
    RED = "red"


def make(**changes: Any) -> Event:
    return Event(**{"type": "t", "source": "/s", "id": "1", "time": None, **changes})


def invalid(attribute: str, **arguments: Any) -> str:
    with pytest.raises(InvalidEvent) as caught:
        make(**arguments)
    assert caught.value.attribute == attribute
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400
    return message
