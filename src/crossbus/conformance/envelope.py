"""Envelope: an event arrives as it was sent, whatever it holds."""

from __future__ import annotations

from typing import Any

from crossbus.conformance.cases import case
from crossbus.conformance.compare import AWKWARD, same_events
from crossbus.conformance.trial import Trial
from crossbus.delivery import ForeignMessage
from crossbus.errors import EventError
from crossbus.event import Event

TYPE = "com.example.conformance.envelope"


def _event(**arguments: Any) -> Event:
    arguments.setdefault("type", TYPE)
    arguments.setdefault("source", "/conformance/envelope")
    return Event(**arguments)


async def _unchanged(t: Trial, events: list[Event]) -> None:
    same_events(events, await t.round_trip(events))


async def _refused(t: Trial, what: str, **arguments: Any) -> None:
    """Fail unless an event is refused when it is made, or else when it is published."""
    bus, topic = t.bus(), t.topic()
    bus.topic(topic)
    async with bus:
        try:
            await bus.publish(topic, _event(**arguments))
        except EventError:
            return
    raise AssertionError(f"an event with {what} was published; it should be refused with InvalidEvent")


@case("envelope/required-attributes", "the required attributes arrive exactly")
async def required_attributes(t: Trial) -> None:
    await _unchanged(t, [_event(id=f"{t.id}-{n}", time=None, type=f"com.example.{n}") for n in range(3)])


@case("envelope/optional-attributes", "the optional attributes arrive exactly; those left out stay out")
async def optional_attributes(t: Trial) -> None:
    await _unchanged(
        t,
        [
            _event(
                subject="orders/o-1",
                time="2026-01-31T12:00:00Z",
                dataschema="https://example.com/schema/order.json",
                datacontenttype="application/json",
                data={"order": "o-1"},
            ),
            _event(time=None),
            _event(time=None, subject="only a subject"),
            _event(time=None, dataschema="urn:example:schema:1"),
            _event(time=None, datacontenttype="application/json"),
        ],
    )


@case("envelope/extension-types", "an extension of each CloudEvents type arrives as that type")
async def extension_types(t: Trial) -> None:
    await _unchanged(
        t,
        [
            _event(
                extensions={
                    "astring": "gold",
                    "atrue": True,
                    "afalse": False,
                    "azero": 0,
                    "anint": 42,
                    "themost": 2**31 - 1,
                    "theleast": -(2**31),
                    "abinary": bytes(range(256)),
                    "auri": "https://example.com/a?b=c#d",
                    "areference": "../a/b",
                    "atime": "2026-01-31T12:00:00.123456789+05:30",
                    "a1b2c3": "name with digits",
                }
            ),
            # What looks like another type stays a string.
            _event(
                extensions={"looksbool": "true", "looksint": "1", "looksnull": "null", "looksfloat": "1.0"}
            ),
            _event(extensions={f"extension{n}": f"value {n}" for n in range(50)}),
        ],
    )


@case("envelope/any-id-and-source", "any string is a good id, and a good source", starred=True)
async def any_id_and_source(t: Trial) -> None:
    events = [_event(id=text, source=f"/{t.id}/{n}") for n, text in enumerate(AWKWARD)]
    events += [_event(id=f"{t.id}-{n}", source=text) for n, text in enumerate(AWKWARD)]
    events.append(_event(id="x" * 1000, source=f"urn:example:{'y' * 1000}"))
    await _unchanged(t, events)


@case("envelope/time-as-written", "the time keeps its offset and every digit of its fraction", starred=True)
async def time_as_written(t: Trial) -> None:
    times = (
        "2026-01-31T12:00:00Z",
        "2026-01-31T12:00:00.5Z",
        "2026-01-31T12:00:00.500000Z",
        "2026-01-31T12:00:00.123456789Z",
        "2026-01-31T12:00:00.123456789012Z",
        "2026-01-31T12:00:00+05:30",
        "2026-01-31T12:00:00.25-08:00",
        "2026-01-31T12:00:00+00:00",
        "2026-01-31T12:00:00-00:00",
        "2026-01-31t12:00:00z",
        "1990-12-31T23:59:60Z",
        "2024-02-29T00:00:00Z",
        "0001-01-01T00:00:00Z",
        "9999-12-31T23:59:59.999999999Z",
    )
    await _unchanged(t, [_event(id=f"{t.id}-{n}", time=time) for n, time in enumerate(times)])


@case("envelope/content-types", "data of every content type arrives: none, JSON, text, XML, binary")
async def content_types(t: Trial) -> None:
    every_byte = bytes(range(256))
    await _unchanged(
        t,
        [
            _event(datacontenttype=None, data={"a": [1, "two", None]}),
            _event(datacontenttype=None, data=every_byte),
            _event(datacontenttype="application/json", data={"a": [1, "two", None]}),
            _event(datacontenttype="application/json; charset=utf-8", data=[]),
            _event(datacontenttype="application/vnd.example.order+json", data={"nested": {"deep": [[[]]]}}),
            _event(datacontenttype="text/plain", data="text, with ünïcödé and\nlines\r\nof both kinds\t"),
            _event(datacontenttype="text/plain; charset=utf-8", data="日本語"),
            _event(datacontenttype="text/csv", data='a,b\n"1,5",2\n'),
            _event(datacontenttype="application/xml", data='<?xml version="1.0"?><a b="c">d &amp; e</a>'),
            _event(datacontenttype="image/png", data=b"\x89PNG\r\n\x1a\n" + every_byte),
            _event(datacontenttype="application/octet-stream", data=every_byte),
            _event(datacontenttype="text/plain; charset=iso-8859-1", data="é".encode("latin-1")),
        ],
    )


@case("envelope/null-and-absent", "data that is null, absent, empty or false stays what it is", starred=True)
async def null_and_absent(t: Trial) -> None:
    json_values: list[Any] = [None, False, 0, 0.0, "", [], {}, [None], {"a": None}]
    await _unchanged(
        t,
        [
            _event(),
            *(_event(datacontenttype="application/json", data=value) for value in json_values),
            _event(datacontenttype="text/plain", data=""),
            _event(datacontenttype="application/octet-stream", data=b""),
            _event(datacontenttype=None, data=None),
            _event(datacontenttype="application/json"),
            _event(datacontenttype="text/plain"),
        ],
    )


@case(
    "envelope/not-re-encoded",
    "text, a JSON string and an object stay apart: nothing is encoded twice",
    starred=True,
)
async def not_re_encoded(t: Trial) -> None:
    await _unchanged(
        t,
        [
            _event(datacontenttype="text/plain", data="hello"),
            _event(datacontenttype="application/json", data="hello"),
            _event(datacontenttype="text/plain", data='{"a": 1}'),
            _event(datacontenttype="application/json", data='{"a": 1}'),
            _event(datacontenttype="application/json", data={"a": 1}),
            _event(datacontenttype="application/json", data='"hello"'),
            _event(datacontenttype="text/plain", data='"hello"'),
            _event(datacontenttype="application/json", data=b'{"raw": [1, 2]}'),
            _event(datacontenttype="application/octet-stream", data=b'{"a": 1}'),
            _event(datacontenttype="text/plain", data="aGVsbG8="),
            _event(datacontenttype="application/json", data="aGVsbG8="),
        ],
    )


@case(
    "envelope/exact-numbers",
    "integers of 64 bits and floats are exact; larger integers are refused",
    starred=True,
)
async def exact_numbers(t: Trial) -> None:
    exact = [2**63 - 1, -(2**63), 2**53 + 1, -(2**53) - 1, 2**31, 0, -1]
    floats = [0.1, 1.0, -0.0, 1e308, 5e-324, 1 / 3, 123456789.123456789, 1e16, 2.5e-8]
    await _unchanged(t, [_event(data={"integers": exact, "floats": floats})])
    for large in (2**64, -(2**63) - 1, 10**30):
        await _refused(t, f"the integer {large} in its data", data={"large": large})


@case("envelope/awkward-strings", "awkward strings arrive in subject, source, extensions and data")
async def awkward_strings(t: Trial) -> None:
    events = [
        _event(id=f"{t.id}-{n}", subject=text, source=text, extensions={"awkward": text}, data={text: [text]})
        for n, text in enumerate(AWKWARD)
    ]
    events += [
        _event(id=f"{t.id}-text-{n}", datacontenttype="text/plain", data=text)
        for n, text in enumerate(AWKWARD)
    ]
    await _unchanged(t, events)


@case("envelope/control-characters", "control characters arrive in data, and are refused in attributes")
async def control_characters(t: Trial) -> None:
    controls = "".join(map(chr, [*range(0x20), *range(0x7F, 0xA0)]))
    await _unchanged(
        t,
        [
            _event(data={"controls": controls, controls: 1}),
            _event(datacontenttype="text/plain", data=controls),
            _event(data=controls, datacontenttype="application/json"),
        ],
    )
    for character in ("\x00", "\n", "\x1b", "\x7f", "\x85"):
        await _refused(t, f"U+{ord(character):04X} in its subject", subject=f"a{character}b")
        await _refused(t, f"U+{ord(character):04X} in its id", id=f"a{character}b")
        await _refused(t, f"U+{ord(character):04X} in an extension", extensions={"x": f"a{character}b"})


@case("envelope/invalid-utf8", "what is not UTF-8 is refused early, or arrives as the bytes it is")
async def invalid_utf8(t: Trial) -> None:
    await _refused(t, "a lone surrogate in its subject", subject="a\ud800b")
    await _refused(t, "a lone surrogate in its JSON data", data={"a": "\ud800"})
    await _refused(t, "a lone surrogate in its text", data="\udfff", datacontenttype="text/plain")
    await _refused(t, "bytes that are not UTF-8 as JSON", data=b'"\xff"', datacontenttype="application/json")
    await _unchanged(
        t,
        [
            _event(data=b"\xff\xfe\x00\x80", datacontenttype="application/octet-stream"),
            _event(data=b"\xc3\x28 not UTF-8", datacontenttype="text/plain"),
        ],
    )


@case(
    "envelope/event-in-event",
    "an event that carries an event, or is passed on, is not wrapped twice",
    starred=True,
)
async def event_in_event(t: Trial) -> None:
    inner = {
        "specversion": "1.0",
        "id": "inner",
        "source": "/inner",
        "type": "com.example.inner",
        "data": {"a": 1},
    }
    outer = [
        _event(id=f"{t.id}-structured", datacontenttype="application/cloudevents+json", data=inner),
        _event(id=f"{t.id}-json", data=inner),
        _event(id=f"{t.id}-text", datacontenttype="text/plain", data=str(inner)),
        _event(id=f"{t.id}-batch", datacontenttype="application/cloudevents-batch+json", data=[inner, inner]),
    ]
    received = await t.round_trip(outer)
    same_events(outer, received)
    same_events(outer, await t.round_trip(received))


@case(
    "envelope/foreign-mapped",
    "a message that is no CloudEvent becomes an event by `mapping`",
    starred=True,
    requires={"foreign"},
)
async def foreign_mapped(t: Trial) -> None:
    seen: list[ForeignMessage] = []

    def mapping(message: ForeignMessage) -> Event:
        seen.append(message)
        return message.event(type="com.example.foreign", source="/foreign", data=message.body)

    bus, topic = t.bus(), t.topic()
    inbox = t.inbox(bus, topic, "mapped", mapping=mapping)
    body = b"\x00\x01 no CloudEvent"
    async with t.consuming(bus):
        await t.send_raw(bus, topic, body)
        await t.until(lambda: inbox.deliveries, "a foreign message with a mapping did not reach the handler")
        event, message = inbox.events[0], seen[0]
        assert event.type == "com.example.foreign", (
            f"the handler was given type {event.type!r}, not the mapping's"
        )
        assert event.data == body, (
            f"the body {body!r} of a foreign message came to the mapping as {message.body!r}"
        )
        assert event.id == message.id == inbox.deliveries[0].message_id, (
            f"the mapped event has id {event.id!r}, not the provider's id of the message, "
            f"{inbox.deliveries[0].message_id!r}"
        )


@case(
    "envelope/foreign-dead-lettered",
    "a message that is no CloudEvent goes to the dead letter without a mapping",
    starred=True,
    requires={"dead_letters", "foreign"},
)
async def foreign_dead_lettered(t: Trial) -> None:
    bus, topic = t.bus(), t.topic()
    inbox = t.inbox(bus, topic, "unmapped")
    body = b"\x00\x01 no CloudEvent"
    async with t.consuming(bus):
        await t.send_raw(bus, topic, body)
        await bus.publish(topic, _event(id=t.id))
        await t.until(lambda: inbox.has([t.id]), "an event behind a foreign message did not arrive")
        letters = await t.dead(bus, topic, "unmapped", 1)
    assert not any(event.id != t.id for event in inbox.events), (
        "a foreign message reached the handler as an event"
    )
    assert letters[0].body == body, (
        f"the dead letter of a foreign message holds {letters[0].body!r}, not {body!r}"
    )
    assert letters[0].event is None, "the dead letter of a foreign message claims to hold an event"
