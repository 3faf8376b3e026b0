"""Events of the `cloudevents` package: theirs go in, and its bindings take ours.

Both read each other where the package is right. Where version 2.2.0 is not is said at each test.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import Any

import mypy.api
import pytest
from cloudevents.core.bindings import amqp, http, kafka, rabbitmq
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v03.event import CloudEvent as CloudEventV03
from cloudevents.core.v1.event import CloudEvent
from hypothesis import assume, given
from hypothesis import strategies as st

from crossbus.codecs import decode_binary, decode_json, encode_binary, encode_json
from crossbus.errors import InvalidEvent
from crossbus.event import DataKind, Event, unchecked
from crossbus.interop import from_cloudevent, is_cloudevent, to_cloudevent
from events import REAL, events

FORMAT = JSONFormat()
ATTRIBUTES: dict[str, Any] = {"id": "1", "source": "/s", "type": "t"}

PROGRAM = """
from cloudevents.core.base import BaseCloudEvent
from crossbus.event import Event
from crossbus.interop import from_cloudevent, to_cloudevent

def take(event: BaseCloudEvent) -> str:
    return event.get_id()

take(Event(type="t"))
take(to_cloudevent(from_cloudevent(Event(type="t"))))
take("no event")
"""


def test_an_event_is_one_of_theirs_to_a_type_checker() -> None:
    said, problems, _ = mypy.api.run(
        ["--strict", "--config-file=", "--no-error-summary", "--hide-error-context", "-c", PROGRAM]
    )
    assert problems == ""
    (line,) = said.splitlines()
    assert line.startswith('<string>:11: error: Argument 1 to "take" has incompatible type "str"')


def theirs_can_hold(event: Event) -> bool:
    """Tell whether their class and JSON format keep this event.

    They cannot tell JSON null from no data; they invent a time where there is none, and hold microseconds only; their
    isoparse takes neither small letters nor leap seconds nor more than six digits.
    """
    text = event.time_text
    return (
        text is not None
        and event.time is not None
        and Event(type="t", time=event.time).time_text == text
        and not (event.data_kind is DataKind.JSON and event.data is None)
    )


def precise(event: Event) -> bool:
    """Tell whether Python's floats hold the data: the json module writes them in another way, but exactly."""
    return event.data_kind is not DataKind.JSON or json.loads(json.dumps(event.data)) == event.data


# --- theirs go in ---


@given(events())
def test_our_events_survive_their_class(event: Event) -> None:
    assume(theirs_can_hold(event))
    assert from_cloudevent(to_cloudevent(event)) == event


def test_their_events_go_in() -> None:
    time = datetime(2026, 1, 31, 12, 0, 0, 123456, UTC)
    given = CloudEvent(
        {**ATTRIBUTES, "time": time, "subject": "x", "tenant": "a", "n": 5, "yes": True}, {"a": [1]}
    )
    event = from_cloudevent(given)
    assert event == Event(
        **ATTRIBUTES,
        time=time,
        subject="x",
        extensions={"tenant": "a", "n": 5, "yes": True},
        data={"a": [1]},
        datacontenttype=None,
    )
    assert from_cloudevent(event) is event


@pytest.mark.parametrize("line", REAL)
def test_real_events_go_in(line: bytes) -> None:
    ours = decode_json(line)
    event = from_cloudevent(FORMAT.read(None, line))
    # They invent a time where there is none, and cut its fraction to microseconds.
    assert event.replace(time=ours.time_text) == ours
    assert ours.time is None or event.time == ours.time


@pytest.mark.parametrize(
    ("data", "datacontenttype", "kind"),
    [
        ({"a": 1}, None, DataKind.JSON),
        ("x", None, DataKind.JSON),  # their format writes it so
        ("x", "application/json", DataKind.JSON),
        ("x", "text/plain", DataKind.TEXT),
        (b"\xff", None, DataKind.BINARY),
        (b"\xff", "image/png", DataKind.BINARY),
        (b"{}", "application/json", DataKind.JSON),
        (None, None, DataKind.ABSENT),
        (None, "application/json", DataKind.ABSENT),
    ],
)
def test_kinds_of_their_data(data: Any, datacontenttype: str | None, kind: DataKind) -> None:
    more = {} if datacontenttype is None else {"datacontenttype": datacontenttype}
    event = from_cloudevent(CloudEvent({**ATTRIBUTES, **more}, data))
    assert (event.data_kind, event.datacontenttype) == (kind, datacontenttype)


@pytest.mark.parametrize(
    ("attributes", "data", "named"),
    [
        ({"f": 1.5}, None, "f"),  # they check no extension's value
        ({"n": 2**31}, None, "n"),
        ({"x": {"a": 1}}, None, "x"),
        ({"subject": "a\x00"}, None, "subject"),  # nor control characters
        ({"bad\n": "x"}, None, "bad\n"),  # their pattern ends in $
        ({}, {"a": float("nan")}, "data"),
        ({"datacontenttype": "text/plain"}, {"a": 1}, "data"),
        ({"datacontenttype": "application/json"}, b"{", "data"),
    ],
)
def test_what_only_they_allow_is_refused(attributes: dict[str, Any], data: Any, named: str) -> None:
    with pytest.raises(InvalidEvent) as caught:
        from_cloudevent(CloudEvent({**ATTRIBUTES, **attributes}, data))
    assert caught.value.attribute == named


def test_extensions_of_none_are_absent() -> None:
    assert from_cloudevent(CloudEvent({**ATTRIBUTES, "x": None})).extensions == {}


def test_other_versions_are_refused() -> None:
    with pytest.raises(InvalidEvent, match=r"0\.3"):
        from_cloudevent(CloudEventV03({**ATTRIBUTES, "specversion": "0.3"}))


@pytest.mark.parametrize("name", ["id", "source", "type"])
def test_nothing_is_invented(name: str) -> None:
    given = CloudEvent(dict(ATTRIBUTES))
    del given.get_attributes()[name]  # their events can change
    with pytest.raises(InvalidEvent, match=f"no {name}"):
        from_cloudevent(given)


def test_what_is_no_event() -> None:
    for other in (None, {}, "event", object(), 5):
        assert not is_cloudevent(other)
        with pytest.raises(TypeError, match="is no event"):
            from_cloudevent(other)
    assert is_cloudevent(Event(type="t"))
    assert is_cloudevent(CloudEvent(dict(ATTRIBUTES)))


# --- ours go out ---


def test_to_cloudevent() -> None:
    event = Event(**ATTRIBUTES, time="2026-01-31T12:00:00.123456789Z", data=[1], extensions={"yes": True})
    made = to_cloudevent(event)
    assert type(made) is CloudEvent
    assert made.get_attributes() == {
        **event.attributes(),
        "time": datetime(2026, 1, 31, 12, 0, 0, 123456, UTC),
    }
    assert made.get_data() == [1]  # type: ignore[comparison-overlap]
    made.get_attributes()["id"] = "2"
    assert event.id == "1"


def test_to_cloudevent_refuses_what_theirs_cannot_be() -> None:
    with pytest.raises(InvalidEvent, match="no source"):
        to_cloudevent(Event(type="t"))
    with pytest.raises(InvalidEvent, match="time"):
        to_cloudevent(unchecked(id="1", source="s", type="t", time="noon"))


def test_to_cloudevent_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cloudevents.core.v1.event", None)
    with pytest.raises(ImportError, match=r"pip install 'cloudevents>=2\.2'") as caught:
        to_cloudevent(Event(**ATTRIBUTES))
    assert "\n" not in str(caught.value)
    assert from_cloudevent(Event(**ATTRIBUTES)).id == "1"


@given(events())
def test_their_json_format_takes_ours(event: Event) -> None:
    # They write JSON null as no data, the time cut to microseconds, and text as JSON; all else is exact.
    written = FORMAT.write(event)
    assume(event.time_text is None or Event(type="t", time=event.time).time_text == event.time_text)
    assume(not (event.data_kind is DataKind.JSON and event.data is None) and precise(event))
    assert decode_json(written) == event


@given(events())
def test_they_read_our_json(event: Event) -> None:
    assume(theirs_can_hold(event))
    read = FORMAT.read(None, encode_json(event))
    assert read.get_attributes() == event.get_attributes()
    if event.data_kind is DataKind.BINARY:
        # An empty data_base64 is no data to them; else it is right.
        assert (read.get_data() or b"") == event.data
    else:
        assert read.get_data() == event.data


STRUCTURED: list[Any] = [
    lambda event: http.to_structured(event, FORMAT).body,
    lambda event: kafka.to_structured(event, FORMAT).value,
    lambda event: amqp.to_structured(event, FORMAT).application_data,
    lambda event: rabbitmq.to_structured(event, FORMAT).body,
]


@pytest.mark.parametrize("write", STRUCTURED)
@pytest.mark.parametrize("line", REAL)
def test_their_structured_bindings_take_ours(write: Any, line: bytes) -> None:
    event = decode_json(line)
    found = decode_json(write(event))
    assert found.replace(time=event.time_text) == event  # the fraction is cut to microseconds
    assert found.time == event.time


@pytest.mark.parametrize("line", REAL)
def test_their_binary_http_binding_takes_ours(line: bytes) -> None:
    event = decode_json(line)
    message = http.to_binary(event, FORMAT)
    read = http.from_binary(message, FORMAT)
    assert read.get_data() == event.data
    assert read.get_id() == event.id
    assert {name: read.get_extension(name) for name in event.extensions} == event.extensions


SIMPLE = st.builds(
    lambda **given: Event(**given, datacontenttype="application/json", data={"a": [1, "é", None]}),
    id=st.text("abc/ %\"é", min_size=1),
    source=st.text("abc/ %\"é", min_size=1),
    type=st.just("t"),
    time=st.just("2026-01-31T12:00:00.123456Z"),
    extensions=st.dictionaries(st.text("abc", min_size=2, max_size=5), st.text("abc%é ")),
)  # fmt: skip


@given(SIMPLE)
def test_binary_http_reads_both_ways(event: Event) -> None:
    # Objects with a JSON type and extensions of text are right in their binary mode. Not right are: lists and
    # scalars, written as Python's repr; text with a JSON type, written without quotes; Booleans, written as True;
    # bytes that are UTF-8, read as text. Percent signs are encoded and decoded, which is right for HTTP.
    message = http.to_binary(event, FORMAT)
    read = http.from_binary(message, FORMAT)
    assert from_cloudevent(read) == event


def test_where_their_binary_mode_is_wrong_ours_is_right() -> None:
    for data in (["a", "b"], True, "hi", None):
        event = Event(**ATTRIBUTES, datacontenttype="application/json", data=data)
        assert decode_binary(*encode_binary(event)).data == data
        with pytest.raises(json.JSONDecodeError):
            json.loads(http.to_binary(event, FORMAT).body)
    attributes, _ = encode_binary(Event(**ATTRIBUTES, extensions={"yes": True}))
    assert attributes["yes"] == "true"
    assert http.to_binary(Event(**ATTRIBUTES, extensions={"yes": True}), FORMAT).headers["ce-yes"] == "True"
