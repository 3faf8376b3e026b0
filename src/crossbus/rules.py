"""The rules for events, in one table, from which the reference page is made.

An event meets rules in three places, and each rule stands under its own:

- ``event``: `Event(...)` enforces CloudEvents 1.0;
- ``publish``: publishing enforces the portable profile, the narrowest limits of all providers;
- ``decode``: reading what arrives is tolerant.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

__all__ = ["RULES", "Rule"]

TYPE_CHARACTERS: Final = 128
NAME_CHARACTERS: Final = 128
ATTRIBUTE_BYTES: Final = 1024
ATTRIBUTE_COUNT: Final = 90
INTEGER_MIN: Final = -(2**63)
INTEGER_MAX: Final = 2**63 - 1
NESTING: Final = 500
EVENT_BYTES: Final = 1_000_000

_SPEC = "https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md"
_JSON_FORMAT = "https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md"
_PUT_EVENTS = "https://docs.aws.amazon.com/eventbridge/latest/APIReference/API_PutEvents.html"
_ENTRY = "https://docs.aws.amazon.com/eventbridge/latest/APIReference/API_PutEventsRequestEntry.html"
_PUBSUB = "https://cloud.google.com/pubsub/quotas#resource_limits"
_EVENT_GRID = "https://learn.microsoft.com/azure/event-grid/quotas-limits"


class Rule(NamedTuple):
    """One rule for events."""

    name: str
    """Its name in the documentation and in tests."""
    path: Literal["event", "publish", "decode"]
    """Where it applies: making an `Event`, publishing (the portable profile), or decoding what arrives."""
    text: str
    because: str
    """Whose rule it is, and what happens there beyond it."""
    source: str = ""
    """The page that says so."""
    limit: int | None = None
    """The number in it, if it has one; the text names its unit."""


RULES: Final[tuple[Rule, ...]] = (
    Rule(
        "required",
        "event",
        "`type` is given; what is given of `id` and `source` is not empty.",
        "CloudEvents",
        _SPEC,
    ),
    Rule(
        "characters",
        "event",
        "Attributes hold no control characters, lone surrogates or noncharacters.",
        "CloudEvents, type String",
        _SPEC,
    ),
    Rule(
        "extension-names",
        "event",
        "Extension names are lower-case ASCII letters and digits, and none that CloudEvents defines.",
        "CloudEvents, naming conventions",
        _SPEC,
    ),
    Rule(
        "extension-values",
        "event",
        "Extensions are str, bool, int, bytes (kept as base64) or aware datetime (kept as RFC 3339).",
        "CloudEvents, type system",
        _SPEC,
    ),
    Rule(
        "extension-integers",
        "event",
        "Integers in extensions have 32 bits: up to this one.",
        "CloudEvents, type Integer",
        _SPEC,
        2**31 - 1,
    ),
    Rule("time", "event", "`time` is an aware datetime, or RFC 3339 with an offset.", "CloudEvents", _SPEC),
    Rule("media-type", "event", "`datacontenttype` is a media type.", "CloudEvents, RFC 2046", _SPEC),
    Rule(
        "json-data",
        "event",
        "Data with a JSON content type is what JSON can hold: no NaN, no infinities, no lone surrogates.",
        "CloudEvents, JSON format",
        _JSON_FORMAT,
    ),
    Rule(
        "source", "publish", "There is a `source`: the event's own, or that of the Bus.", "CloudEvents", _SPEC
    ),
    Rule(
        "well-formed",
        "publish",
        "All rules above hold, also for an event that was decoded and is published again.",
        "CloudEvents: publishing is strict where decoding is tolerant",
        _SPEC,
    ),
    Rule(
        "type-length",
        "publish",
        "`type` has at most this many characters.",
        "EventBridge: it becomes DetailType",
        _ENTRY,
        TYPE_CHARACTERS,
    ),
    Rule(
        "source-aws",
        "publish",
        "`source` does not begin with `aws.`.",
        "EventBridge: kept for AWS's own events",
        _PUT_EVENTS,
    ),
    Rule(
        "reserved-names",
        "publish",
        'No extension name begins with `crossbus`, also with `validate="provider"`.',
        "crossbus: its own extensions, added on the wire and taken off before the handler",
    ),
    Rule(
        "name-length",
        "publish",
        "Extension names have at most this many characters.",
        "Pub/Sub: the key of a message attribute has 256 bytes, `ce-` included; 128 is a round number below",
        _PUBSUB,
        NAME_CHARACTERS,
    ),
    Rule(
        "attribute-bytes",
        "publish",
        "The value of an attribute has at most this many bytes in UTF-8.",
        "Pub/Sub: the value of a message attribute",
        _PUBSUB,
        ATTRIBUTE_BYTES,
    ),
    Rule(
        "attribute-count",
        "publish",
        "An event has at most this many attributes, `specversion`, `id`, `source` and `type` included.",
        "Pub/Sub: 100 attributes; ten are left for tracing and for crossbus",
        _PUBSUB,
        ATTRIBUTE_COUNT,
    ),
    Rule(
        "integers",
        "publish",
        "Integers in JSON data have 64 bits: from -2^63 to this one.",
        "EventBridge: refuses others",
        _PUT_EVENTS,
        INTEGER_MAX,
    ),
    Rule(
        "nesting",
        "publish",
        "JSON data is nested at most this deep.",
        "EventBridge: 1000 levels; half leaves room for what surrounds the data, and for readers' own limits",
        _PUT_EVENTS,
        NESTING,
    ),
    Rule(
        "event-bytes",
        "publish",
        "An event has at most this many bytes as structured JSON, its largest form (base64 adds a third).",
        "EventBridge and Event Grid: 1 MB, with what surrounds the event",
        _EVENT_GRID,
        EVENT_BYTES,
    ),
    Rule(
        "decode-required",
        "decode",
        "What has no `specversion`, `id`, `source` or `type` is refused.",
        "CloudEvents",
    ),
    Rule(
        "decode-names",
        "decode",
        "Capitals in extension names are lower-cased, and counted.",
        "Google's own events",
    ),
    Rule(
        "decode-null",
        "decode",
        "An attribute that is null is absent.",
        "CloudEvents, JSON format",
        _JSON_FORMAT,
    ),
    Rule("decode-absent", "decode", "What is absent stays absent: nothing is invented.", "crossbus"),
    Rule("decode-time", "decode", "`time` is kept as written, also where it is not RFC 3339.", "crossbus"),
    Rule("decode-limits", "decode", "No limit of the portable profile is applied.", "crossbus"),
)
"""Every rule for events, each once."""
