"""The forms of ``/crossbus/v1/``, for both of its ends.

What is managed is JSON; what carries events is MessagePack, so that bodies, attributes and numbers arrive exactly. A
field that is unknown, missing or of another type is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import quote

import msgspec

from crossbus.adapter import Backlog, Received
from crossbus_local.engine import QueueInfo, TopicInfo
from crossbus_local.provisioning import Snapshot
from crossbus_local.records import NO_ATTRIBUTES
from crossbus_local.settings_json import settings_from_json, settings_to_json

__all__ = [
    "DATA_TYPE",
    "JSON_TYPE",
    "LONGEST_WAIT",
    "PATH",
    "PROTOCOL",
    "REQUEST_ID",
    "Abandon",
    "Deliveries",
    "Extend",
    "Info",
    "LeaseAnswers",
    "Publish",
    "Published",
    "PutBackAnswer",
    "PutBackForm",
    "PutBackOne",
    "Receive",
    "Records",
    "Replay",
    "Settle",
    "SettleOne",
    "WireForm",
    "backlog_from_json",
    "backlog_to_json",
    "data_decoder",
    "encode_data",
    "encode_json",
    "path_of",
    "snapshot_from_json",
    "snapshot_to_json",
]

PROTOCOL: Final = 1
"""The version of the protocol. It stands in the path."""
PATH: Final = f"/crossbus/v{PROTOCOL}"
DATA_TYPE: Final = "application/vnd.msgpack"
JSON_TYPE: Final = "application/json"
REQUEST_ID: Final = "Idempotency-Key"
"""The header whose value names a request: sent again with the same value it is answered as it was, not done again."""
LONGEST_WAIT: Final = 60.0
"""The most seconds that one receive waits. Who wants to wait longer asks again."""

_T = TypeVar("_T")
Id = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e12)]


class _Form(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A map, by the names of its fields."""


class WireForm(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """An event on its way in: an array of body, ordering key and attributes, of which the latter may be left out."""

    body: bytes
    key: str | None = None
    attributes: dict[str, str | int | float | bool | None] = NO_ATTRIBUTES  # type: ignore[assignment]  # one object for all that have none


class Publish(_Form):
    """Events for a topic, a subscription or a dead letter."""

    wires: Annotated[list[WireForm], msgspec.Meta(min_length=1, max_length=1000)]


class Published(_Form):
    """They were taken. Message ids are numbers that follow each other; this is the first."""

    first: int


class Receive(_Form):
    """Ask for deliveries.

    A receiver asks under a channel of its own and numbers what it asks. What an answer to it held that never arrived
    is given back, without costing an attempt, when the channel says that it lost this number, or those before it, and
    that what arrived has a lower one.
    """

    channel: Id
    number: int
    max: Annotated[int, msgspec.Meta(ge=1, le=1000)]
    wait: Annotated[float, msgspec.Meta(ge=0, le=LONGEST_WAIT)]
    lease: Annotated[float, msgspec.Meta(gt=0, le=1e12)]
    lost: int = 0
    arrived: int = 0


class Abandon(_Form):
    """Give up what was asked for under a channel, up to a number: nobody waits for the answer any more."""

    channel: Id
    lost: int
    arrived: int = 0


class Deliveries(_Form):
    """What was handed out. Leases are texts that mean something to the server alone."""

    deliveries: list[Received]


class SettleOne(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """How one delivery ends: an array of lease, delay and `again`.

    `again` says that it was asked before, and the answer was lost.
    """

    lease: str
    delay: Seconds | None = None
    again: bool = False


class Settle(_Form):
    """Acknowledge deliveries, or give them back."""

    settlements: list[SettleOne]


class Extend(_Form):
    """Make leases last so many seconds from now."""

    leases: list[str]
    seconds: Annotated[float, msgspec.Meta(gt=0, le=1e12)]


class LeaseAnswers(_Form):
    """For each lease, in order: ``ok`` or ``lost``."""

    outcomes: list[str]


class Records(_Form):
    """Records of a dead letter, by the leases that browsing gave."""

    leases: list[str]


class PutBackOne(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """A record that is put back: an array of its lease, and of body, ordering key and attributes of the event."""

    lease: str
    body: bytes
    key: str | None = None
    attributes: dict[str, str | int | float | bool | None] = NO_ATTRIBUTES  # type: ignore[assignment]  # as above


class PutBackForm(_Form):
    """Events for a subscription, each in the place of a record."""

    topic: str
    subscription: str
    records: Annotated[list[PutBackOne], msgspec.Meta(min_length=1, max_length=1000)]


class PutBackAnswer(_Form):
    """For each, in order, whether its record was there; and the message id of the first, as of `Published`."""

    first: int
    there: list[bool]


class Replay(_Form):
    """Where a replay begins: seconds since the epoch, or a position."""

    time: float | None = None
    position: str | None = None


class Info(msgspec.Struct):
    """What a server says of itself. Unknown fields are ignored: the first thing that is said must be understood."""

    crossbus: str
    """The version of crossbus."""
    protocol: int
    broker: str
    """Another one for each broker: each start of a server that keeps all in memory, each file of one that does not."""
    storage: str
    """``memory`` or ``sqlite``."""
    history: int
    """How many events of each topic are kept for replay."""


def path_of(*parts: str) -> str:
    """Return the path of a thing; names are percent-encoded, and may hold anything."""
    return "/".join((PATH, *(_quoted(part) for part in parts)))


def _quoted(part: str) -> str:
    # A segment of dots alone means something in a path, also where it is percent-encoded once.
    return quote(part, safe="") if part.strip(".") else part.replace(".", "%2E")


# --- encoding ---------------------------------------------------------------------------------------------------


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"an attribute of type {type(value).__name__} cannot be sent to a server")


encode_data: Final = msgspec.msgpack.Encoder(enc_hook=_plain).encode
encode_json: Final = msgspec.json.Encoder().encode


def data_decoder(form: type[_T]) -> msgspec.msgpack.Decoder[_T]:
    """Return what reads a form."""
    return msgspec.msgpack.Decoder(form)


# --- what there is ----------------------------------------------------------------------------------------------


def snapshot_to_json(found: Snapshot) -> dict[str, Any]:
    """Return what there is as what a JSON object decodes to."""
    return {
        "topics": {
            name: {
                "published": topic.published,
                "dropped": topic.dropped,
                "subscriptions": {
                    each: {
                        "settings": settings_to_json(queue.settings),
                        "waiting": queue.waiting,
                        "in_hand": queue.in_hand,
                        "temporary": queue.temporary,
                    }
                    for each, queue in topic.queues.items()
                },
            }
            for name, topic in found.topics.items()
        },
        "dead_letters": found.dead_letters,
    }


def snapshot_from_json(found: Mapping[str, Any]) -> Snapshot:
    """Read what `snapshot_to_json` made."""
    topics = {
        name: TopicInfo(
            topic["published"],
            topic["dropped"],
            {
                each: QueueInfo(
                    settings_from_json(queue["settings"]),
                    queue["waiting"],
                    queue["in_hand"],
                    queue["temporary"],
                )
                for each, queue in topic["subscriptions"].items()
            },
        )
        for name, topic in found["topics"].items()
    }
    return Snapshot(topics, dict(found["dead_letters"]))


def backlog_to_json(backlog: Backlog) -> dict[str, Any]:
    """Return a backlog as what a JSON object decodes to."""
    return backlog._asdict()


def backlog_from_json(found: Mapping[str, Any]) -> Backlog:
    """Read what `backlog_to_json` made."""
    return Backlog(**found)
