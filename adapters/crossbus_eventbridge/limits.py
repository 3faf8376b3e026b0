"""What EventBridge with SQS can do, and the limits of both: plain data, without the SDK.

Sources: https://docs.aws.amazon.com/eventbridge/latest/APIReference/API_PutEvents.html,
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html.
"""

from __future__ import annotations

import dataclasses
from typing import Final

from crossbus.capabilities import CAPABILITIES, Capabilities, DelayRange, FilterSupport, LeaseLimits

__all__ = [
    "BATCH",
    "DEFAULT_BACKSTOP",
    "EVENTBRIDGE",
    "LONGEST_LEASE",
    "LONGEST_RETENTION",
    "MAX_PATTERN",
    "MAX_TYPE",
    "MAX_WAIT",
    "MESSAGE_BYTES",
    "POLLERS",
    "REQUEST_BYTES",
    "RULES",
    "RULE_NAME_LENGTH",
    "SHORTEST_RETENTION",
    "TARGETS",
    "USUAL_BYTES",
    "V2",
    "V2_BATCH",
    "V2_REQUEST_BYTES",
]

BATCH: Final = 10
"""The most entries of one PutEvents, and of every batch of SQS."""
POLLERS: Final = 10
"""The most ReceiveMessage calls of one receiver under way at once."""
MESSAGE_BYTES: Final = 1_048_576
"""The most bytes of a message of SQS."""
USUAL_BYTES: Final = 262_144
"""The most bytes of a message of SQS before August 2025, and so of most queues: few events are larger."""
REQUEST_BYTES: Final = 1_048_575
"""The most bytes of all entries of one PutEvents: less than 1 MB."""
ENVELOPE_BYTES: Final = 8_576
"""What is left for the envelope that EventBridge puts around an entry: a message that is too large for the queue is
dropped in silence."""
MAX_PATTERN: Final = 2048
"""Characters of an event pattern."""
MAX_TYPE: Final = 128
"""Characters of a DetailType."""
MAX_WAIT: Final = 20
"""Seconds of one long poll."""
LONGEST_LEASE: Final = 43_200.0
SHORTEST_RETENTION: Final = 60.0
LONGEST_RETENTION: Final = 14 * 86_400.0
DEFAULT_BACKSTOP: Final = 100
RULE_NAME_LENGTH: Final = 64
RULES: Final = 300
"""Rules of one bus, unless AWS raised it; in some regions 100.

Source: https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-quota.html#eb-quota-bus
"""
TARGETS: Final = 5
"""Targets of one rule."""

_ABSENT = {"ordering", "replay_position", "push", "restarts"}

EVENTBRIDGE: Final = Capabilities(
    names=frozenset(CAPABILITIES) - _ABSENT,
    publish_batch=BATCH,
    publish_batch_bytes=REQUEST_BYTES,
    event_bytes=MESSAGE_BYTES - ENVELOPE_BYTES,
    receive_batch=BATCH * POLLERS,
    receive_wait=(0.0, float(MAX_WAIT)),
    lease=LeaseLimits(minimum=1.0, maximum=LONGEST_LEASE, total=LONGEST_LEASE),
    retry_delays=DelayRange(0.0, LONGEST_LEASE - 60.0),
    backstop=(1, 1000),
    filters=FilterSupport(
        operators=frozenset({"exact", "prefix", "suffix", "all", "any", "not"}), max_size=MAX_PATTERN
    ),
    backlog="approximate",
    ways_out={
        "ordering": "order by what the events say (a number, a version of the record) when you handle them, publish "
        "such a topic through a profile that has ordering (pubsub, local, or eventbridge with api=v2, an experiment), "
        "or send it to a FIFO queue without a bus",
        "replay_position": "replay from a time, bus.replay(topic, name, time=...)",
        "push": "EventBridge pushes through rules with an API destination, which are no subscriptions of crossbus",
    },
    name_rule=r"[A-Za-z0-9_-]+",
    name_length=80,
)
"""The capabilities of EventBridge with SQS queues."""

V2_BATCH: Final = 100
"""The most entries of one PutRawEvents."""
V2_REQUEST_BYTES: Final = 1_048_576
"""The most bytes of all entries of one PutRawEvents. More, and none of them is published."""

V2: Final = dataclasses.replace(
    EVENTBRIDGE,
    names=(EVENTBRIDGE.names | {"ordering"}) - {"replay_time", "replay_ordered"},
    publish_batch=V2_BATCH,
    publish_batch_bytes=V2_REQUEST_BYTES,
    ways_out={
        "replay_time": "make a subscriber of your own with StartingPosition POINT_IN_TIME, which reads what the bus "
        "has kept, or use a profile with api=classic and archive=DAYS",
        "replay_position": "a Custom Event Bus knows times only",
        "push": "subscribers push to Lambda and HTTP, which are no subscriptions of crossbus",
    },
)
"""The capabilities of the newer EventBridge with SQS queues (``api=v2``).

Sources: the service model `eventbridgev2` of botocore, of 2025-05-15;
https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-quota.html#eb-custom-bus-quotas.
"""
