"""Every name that telemetry gives away: of spans, attributes, metrics and log fields. No other module spells one.

They follow OpenTelemetry's messaging and CloudEvents conventions, version 1.44.0 (status: development), and stand here
because the constants of `opentelemetry-semantic-conventions` are private and change between its minor versions.
What the conventions have no name for begins with ``crossbus.``.

https://opentelemetry.io/docs/specs/semconv/messaging/ and https://opentelemetry.io/docs/specs/semconv/cloudevents/
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

SCOPE: Final = "crossbus"
"""The name of the tracer and of the meter."""
SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.44.0"

# --- operations -------------------------------------------------------------------------------------------------------

PUBLISH: Final = "publish"
"""One event that was published alone: a span of type `send`, in whose context the event travels."""
CREATE: Final = "create"
"""One event of several: a span of type `create`, in whose context the event travels."""
SEND: Final = "send"
"""One request with several events: a span of type `send`, which links to each of them."""
RECEIVE: Final = "receive"
"""One request that brought deliveries: a span of type `receive`. A poll that brings nothing has no span."""
PROCESS: Final = "process"
"""One call of a handler: a span of type `process`."""
ACK: Final = "ack"
"""One request that acknowledges deliveries: a span of type `settle`."""
RETRY: Final = "retry"
"""One request that gives deliveries back."""
SETTLE: Final = "settle"
"""One request that acknowledges some deliveries and gives others back; and the type of all three."""
EXTEND: Final = "extend"
"""One request that extends leases. It has no span, and is counted."""
REDRIVE: Final = "redrive"
"""One event that was put back from the dead letter: a span of type `send`."""

SPANS: Final[Mapping[str, str]] = {
    CREATE: "create",
    PUBLISH: "send",
    SEND: "send",
    REDRIVE: "send",
    RECEIVE: "receive",
    PROCESS: "process",
    ACK: "settle",
    RETRY: "settle",
    SETTLE: "settle",
}
"""The operations that have spans, each with its `messaging.operation.type`. A span is called ``OPERATION TOPIC``."""

# --- attributes -------------------------------------------------------------------------------------------------------

SYSTEM: Final = "messaging.system"
OPERATION_NAME: Final = "messaging.operation.name"
OPERATION_TYPE: Final = "messaging.operation.type"
DESTINATION: Final = "messaging.destination.name"
SUBSCRIPTION: Final = "messaging.destination.subscription.name"
MESSAGE_ID: Final = "messaging.message.id"
BATCH_COUNT: Final = "messaging.batch.message_count"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
EVENT_ID: Final = "cloudevents.event_id"
EVENT_SOURCE: Final = "cloudevents.event_source"
EVENT_TYPE: Final = "cloudevents.event_type"
EVENT_SUBJECT: Final = "cloudevents.event_subject"
ERROR_TYPE: Final = "error.type"
EXCEPTION_MESSAGE: Final = "exception.message"
"""What a `redact` hook is asked for the text of an exception by. It stands in log messages only, never in a span."""
ATTEMPT: Final = "crossbus.delivery.attempt"
"""How often the event was received, this time included."""
REASON: Final = "crossbus.dead_letter.reason"
"""Why an event was dead-lettered: one of `crossbus.Reason`, or ``rejected`` whatever a handler's own reason is."""
OUTCOME: Final = "crossbus.lease.outcome"
"""What the provider said to extending a lease: ``ok``, ``lost`` or ``failed``."""

SPAN_ATTRIBUTES: Final[Mapping[str, str]] = {
    SYSTEM: "the provider: `aws_eventbridge` and `aws_sqs`, `gcp_pubsub`, `eventgrid`, or `crossbus`",
    OPERATION_NAME: "what is done: the first word of the span's name",
    OPERATION_TYPE: "`create`, `send`, `receive`, `process` or `settle`",
    DESTINATION: "the topic",
    SUBSCRIPTION: "the subscription; on the consumer's side",
    MESSAGE_ID: "the provider's id of the message; of several, on the links",
    BATCH_COUNT: "how many events, on spans that may be of several",
    SERVER_ADDRESS: "the provider's host",
    SERVER_PORT: "and port",
    EVENT_ID: "the event's `id`; of several, on the links",
    EVENT_SOURCE: "its `source`",
    EVENT_TYPE: "its `type`",
    EVENT_SUBJECT: "its `subject`, only if that is switched on",
    ATTEMPT: "how often the event was received, this time included",
    ERROR_TYPE: "the class of what went wrong; absent if nothing did",
}
"""The attributes of spans, each with what it says."""

# --- metrics ----------------------------------------------------------------------------------------------------------

Kind = Literal["counter", "histogram", "updown", "gauge"]


class Metric(NamedTuple):
    """One metric."""

    name: str
    kind: Kind
    unit: str
    description: str
    attributes: tuple[str, ...]
    """Beside `messaging.system`, the topic and, for consumers, the subscription."""
    buckets: tuple[float, ...] | None = None


_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""What the conventions advise for durations."""
_AGES: Final = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
    *(30.0, 60.0, 300.0, 900.0, 3600.0, 21600.0, 86400.0),
)

SENT: Final = Metric(
    "messaging.client.sent.messages",
    "counter",
    "{message}",
    "Events that were sent to the provider, each time that it was tried.",
    (OPERATION_NAME, ERROR_TYPE, SERVER_ADDRESS, SERVER_PORT),
)
CONSUMED: Final = Metric(
    "messaging.client.consumed.messages",
    "counter",
    "{message}",
    "Deliveries that the provider handed out.",
    (OPERATION_NAME, SERVER_ADDRESS, SERVER_PORT),
)
OPERATION_DURATION: Final = Metric(
    "messaging.client.operation.duration",
    "histogram",
    "s",
    "How long a request took: to send, to receive (polls that brought nothing not included), to settle.",
    (OPERATION_NAME, OPERATION_TYPE, ERROR_TYPE, SERVER_ADDRESS, SERVER_PORT),
    _SECONDS,
)
PROCESS_DURATION: Final = Metric(
    "messaging.process.duration",
    "histogram",
    "s",
    "How long a call of a handler took.",
    (OPERATION_NAME, OPERATION_TYPE, ERROR_TYPE, SERVER_ADDRESS, SERVER_PORT),
    _SECONDS,
)
AGE: Final = Metric(
    "crossbus.event.age",
    "histogram",
    "s",
    "How old an event was when its handler was called: since the provider accepted it, else since its time.",
    (),
    _AGES,
)
IN_HAND: Final = Metric(
    "crossbus.deliveries.in_hand", "updown", "{delivery}", "Deliveries whose leases are held here.", ()
)
RETRIES: Final = Metric(
    "crossbus.retries",
    "counter",
    "{delivery}",
    "Deliveries that will come again after a failure.",
    (ERROR_TYPE,),
)
DEAD_LETTERED: Final = Metric(
    "crossbus.dead_lettered", "counter", "{event}", "Events that were put into the dead letter.", (REASON,)
)
FILTERED: Final = Metric(
    "crossbus.filtered",
    "counter",
    "{delivery}",
    "Deliveries that the filter dropped here, after the provider delivered them.",
    (),
)
EXTENSIONS: Final = Metric(
    "crossbus.lease.extensions", "counter", "{delivery}", "Leases that were to be extended.", (OUTCOME,)
)
DUPLICATES: Final = Metric(
    "crossbus.duplicates.dropped",
    "counter",
    "{delivery}",
    "Duplicates that `Deduplicate` acknowledged without handling.",
    (),
)
REQUESTS: Final = Metric(
    "crossbus.provider.requests",
    "counter",
    "{request}",
    "Requests to the provider, polls that brought nothing included: what it bills.",
    (OPERATION_NAME, ERROR_TYPE, SERVER_ADDRESS, SERVER_PORT),
)
WAITING: Final = Metric(
    "crossbus.backlog.waiting", "gauge", "{event}", "Events that wait in the subscription.", ()
)
OLDEST_AGE: Final = Metric(
    "crossbus.backlog.oldest_age",
    "gauge",
    "s",
    "The age of the oldest event that waits, where the provider tells.",
    (),
)
DEAD: Final = Metric("crossbus.backlog.dead", "gauge", "{event}", "Events in the dead letter.", ())

METRICS: Final = (
    *(SENT, CONSUMED, OPERATION_DURATION, PROCESS_DURATION),
    *(
        AGE,
        IN_HAND,
        RETRIES,
        DEAD_LETTERED,
        FILTERED,
        EXTENSIONS,
        DUPLICATES,
        REQUESTS,
        WAITING,
        OLDEST_AGE,
        DEAD,
    ),
)
"""All of them."""

# --- log fields -------------------------------------------------------------------------------------------------------

LOG_FIELDS: Final[Mapping[str, str]] = {
    "topic": "the topic",
    "subscription": "the subscription",
    "message_id": "the provider's id of the message",
    "attempt": "how often the event was received, this time included; None where the provider does not tell",
    "event_id": "the event's `id`",
    "event_source": "its `source`",
    "event_type": "its `type`",
    "event_subject": "its `subject`, only if that is switched on",
    "error_type": "the class of the exception",
}
"""The fields of log records, each with what it says. A record has those that are known."""

FIELD_OF: Final[Mapping[str, str]] = {
    EVENT_ID: "event_id",
    EVENT_SOURCE: "event_source",
    EVENT_TYPE: "event_type",
    EVENT_SUBJECT: "event_subject",
}
"""The log fields that say the same as an attribute: a `redact` hook is asked by the attribute's name."""

# --- what travels beside the trace context ----------------------------------------------------------------------------

BAGGAGE: Final = "baggage"
"""The extension in which allowed baggage travels, in the form of the W3C header of that name."""
