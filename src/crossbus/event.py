"""`Event`: a CloudEvents 1.0 event that cannot change."""

from __future__ import annotations

import builtins
import os
import random
from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final, TypeVar, cast

import msgspec

from crossbus.attributes import (
    CheckedStrings,
    canonical_extensions,
    canonical_time,
    check_string,
    format_time,
    media_type,
    parse_time,
)
from crossbus.data import decode_json_data, decode_typed, encode_json_data, same_json
from crossbus.payload import UNSET, DataKind, canonical_data, checked_media_type

__all__ = ["SPECVERSION", "DataKind", "Event", "new_id"]

SPECVERSION: Final = "1.0"
"""The version of CloudEvents that events have."""

T = TypeVar("T")


NO_EXTENSIONS: Final[dict[str, str | bool | int]] = {}  # of every event without extensions; never changed
_utc = UTC
_decode = msgspec.json.Decoder().decode
_types, _sources, _schemas = CheckedStrings("type"), CheckedStrings("source"), CheckedStrings("dataschema")

_random = random.Random()
if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_random.seed)
_random_bits = _random.getrandbits


def new_id() -> str:
    """Make a unique event id: 128 random bits in hexadecimal, safe after a fork."""
    return _random_bits(128).to_bytes(16, "big").hex()


class Event:
    """A CloudEvents 1.0 event: immutable, comparable, hashable.

    All arguments are keyword-only. The data is encoded at once, so that nobody shares an object with the event;
    `data` decodes it anew at every access.

    Args:
        type: What happened, such as ``com.acme.order.placed``. Required.
        source: Where it happened: any non-empty string, usually a URI such as ``/shop``. If absent, publishing puts
            the source of the `Bus` there.
        data: The payload. With a JSON content type anything that JSON can hold (dict, list, str, number, bool, None,
            dataclass, TypedDict, msgspec Struct, pydantic model), or bytes that are JSON text already. With any
            other content type str or bytes. Leave it out for an event without data; None is JSON null.
        id: Unique within the source. Default: a new random one.
        time: When it happened: an aware datetime, or RFC 3339 text, which is kept as written (any offset, any
            number of digits). Default: now. None for an event without a time.
        subject: What it happened to, within the source. Default: none.
        datacontenttype: The media type of the data. Default: ``application/json``, ``text/plain`` for str, and
            ``application/octet-stream`` for bytes. None leaves it out; the data is JSON then, or bytes.
        dataschema: URI of the schema of the data. Default: none.
        extensions: Further attributes. Names are lower-case ASCII letters and digits; values are str, bool, int of
            32 bits, bytes (kept as base64 text) or aware datetime (kept as RFC 3339 text).

    Raises:
        InvalidEvent: an attribute or the data breaks a rule of CloudEvents 1.0. The message names it.

    Source of the rules: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md. What is narrower on
    some provider is checked when publishing (the portable profile), not here.
    """

    __slots__ = (
        "_datacontenttype",
        "_dataschema",
        "_extensions",
        "_id",
        "_kind",
        "_payload",
        "_source",
        "_subject",
        "_time",
        "_type",
    )

    _id: str
    _source: str | None
    _type: str
    _subject: str | None
    _time: str | datetime | None
    _datacontenttype: str | None
    _dataschema: str | None
    _extensions: dict[str, str | bool | int]
    _kind: int
    _payload: bytes

    def __init__(
        self,
        *,
        type: str,
        source: str | None = None,
        data: Any = UNSET,
        id: str | None = None,
        time: datetime | str | None = UNSET,
        subject: str | None = None,
        datacontenttype: str | None = UNSET,
        dataschema: str | None = None,
        extensions: Mapping[str, Any] | None = None,
    ) -> None:
        # Types, sources and schemas repeat, and are remembered. Of the rest, text that is printable holds nothing
        # that CloudEvents forbids; whatever else it is, the careful check says.
        self._type = _types[type] if type.__class__ is str else check_string("type", type)
        if source is not None:
            source = _sources[source] if source.__class__ is str else check_string("source", source)
        self._source = source
        if id is None:
            id = new_id()
        elif id.__class__ is not str or not id or not id.isprintable():
            id = check_string("id", id)
        self._id = id
        if time is UNSET:
            time = datetime.now(_utc)
        elif time is not None and (time.__class__ is not datetime or time.tzinfo is not _utc):
            time = canonical_time("time", time)
        self._time = time
        if subject is not None and (subject.__class__ is not str or not subject or not subject.isprintable()):
            subject = check_string("subject", subject)
        self._subject = subject
        if dataschema is not None:
            dataschema = (
                _schemas[dataschema]
                if dataschema.__class__ is str
                else check_string("dataschema", dataschema)
            )
        self._dataschema = dataschema
        self._extensions = canonical_extensions(extensions) if extensions else NO_EXTENSIONS
        if data.__class__ is dict and (datacontenttype is UNSET or datacontenttype == "application/json"):
            self._datacontenttype = "application/json"
            self._kind = 1
            self._payload = encode_json_data(data)
        else:
            self._datacontenttype, self._kind, self._payload = canonical_data(data, datacontenttype)

    # --- context attributes -------------------------------------------------------------------------------------

    @property
    def specversion(self) -> str:
        """The version of CloudEvents: ``1.0``."""
        return SPECVERSION

    @property
    def id(self) -> str:
        """The id, unique within the source."""
        return self._id

    @property
    def source(self) -> str:
        """Where it happened. Empty only while an event that was made without a source is not yet published."""
        return self._source or ""

    @property
    def type(self) -> str:
        """What happened."""
        return self._type

    @property
    def subject(self) -> str | None:
        """What it happened to, or None."""
        return self._subject

    @property
    def time(self) -> datetime | None:
        """When it happened, aware, to the microsecond; or None. `time_text` has what was written."""
        time = self._time
        return parse_time(time) if time.__class__ is str else cast("datetime | None", time)

    @property
    def time_text(self) -> str | None:
        """The time in RFC 3339, exactly as it was written, with every digit and its offset; or None."""
        time = self._time
        return format_time(time) if isinstance(time, datetime) else time

    @property
    def datacontenttype(self) -> str | None:
        """The media type of the data, or None."""
        return self._datacontenttype

    @property
    def dataschema(self) -> str | None:
        """URI of the data's schema, or None."""
        return self._dataschema

    @property
    def extensions(self) -> Mapping[str, str | bool | int]:
        """The extension attributes, read-only."""
        return MappingProxyType(self._extensions)

    def get(self, name: str) -> str | bool | int | None:
        """Return an attribute or extension by its name as it is written on the wire; None if absent."""
        if name in _GETTERS:
            return cast("str | None", _GETTERS[name](self))
        return self._extensions.get(name)

    def attributes(self) -> dict[str, str | bool | int]:
        """Return all attributes and extensions that are there, by name, as they are written on the wire."""
        found: dict[str, str | bool | int] = {"specversion": SPECVERSION, "id": self._id}
        if self._source is not None:
            found["source"] = self._source
        found["type"] = self._type
        if self._subject is not None:
            found["subject"] = self._subject
        time = self._time
        if time is not None:
            found["time"] = time if isinstance(time, str) else format_time(time)
        if self._datacontenttype is not None:
            found["datacontenttype"] = self._datacontenttype
        if self._dataschema is not None:
            found["dataschema"] = self._dataschema
        if self._extensions:
            found.update(self._extensions)
        return found

    # --- data ---------------------------------------------------------------------------------------------------

    @property
    def data(self) -> Any:
        """The data, decoded anew: an object for JSON, str for text, bytes for anything else; None if absent.

        Raises `DataError` if the payload came from elsewhere and cannot be decoded.
        """
        kind = self._kind
        if kind == 1:
            try:
                return _decode(self._payload)
            except Exception:
                return decode_json_data(self._payload)
        if kind == 2:
            return self._payload.decode("utf-8")
        return self._payload if kind == 3 else None

    @property
    def has_data(self) -> bool:
        """True if there is data; JSON null is data."""
        return self._kind != 0

    @property
    def data_kind(self) -> DataKind:
        """Whether the data is absent, JSON, text or bytes."""
        return DataKind(self._kind)

    @property
    def data_bytes(self) -> bytes:
        """The payload as bytes: JSON text, UTF-8 text, or the bytes themselves. Empty if absent."""
        return self._payload

    def data_as(self, type: builtins.type[T]) -> T:
        """Decode the data into a type: dataclass, TypedDict, msgspec Struct, pydantic model, dict, str, bytes ...

        Fields that the type does not have are ignored. Raises `DataError` if the data does not fit.
        """
        return decode_typed(self._payload, self._kind, type)

    # --- making others ------------------------------------------------------------------------------------------

    def replace(self, **changes: Any) -> Event:
        """Return a copy with other values for some arguments of the constructor; `extensions` are replaced whole.

        Other data keeps `datacontenttype` where it fits, else gets the default. Another `datacontenttype` alone keeps
        the payload and reads it anew. Raises `InvalidEvent` as the constructor does.
        """
        unknown = changes.keys() - _SLOT_OF.keys() - {"data"}
        if unknown:
            raise TypeError(f"Event has no {sorted(unknown)[0]!r} to replace")
        data = changes.pop("data", UNSET)
        datacontenttype = changes.pop("datacontenttype", UNSET)
        # Only what changes is checked: an event that was read may hold what a new one may not.
        made = Event(**{"type": "-", "id": "-", "time": None, **changes})
        for name, slot in _SLOT_OF.items():
            if name not in changes:
                setattr(made, slot, getattr(self, slot))
        if data is not UNSET:
            if datacontenttype is UNSET and self._keeps_content_type(data):
                datacontenttype = self._datacontenttype
            parts = canonical_data(data, datacontenttype)
        elif datacontenttype is not UNSET:
            parts = self._with_content_type(datacontenttype)
        else:
            parts = self._datacontenttype, self._kind, self._payload
        made._datacontenttype, made._kind, made._payload = parts
        return made

    def _keeps_content_type(self, data: Any) -> bool:
        """Tell whether the content type goes on to fit when the data is replaced by other data."""
        if self._datacontenttype is None:
            return self._kind != 0
        return media_type(self._datacontenttype).is_json or isinstance(
            data, (str, bytes, bytearray, memoryview)
        )

    def _with_content_type(self, datacontenttype: str | None) -> tuple[str | None, int, bytes]:
        if self._kind == 0:
            return canonical_data(UNSET, datacontenttype)
        if self._kind == 1:
            datacontenttype = checked_media_type(datacontenttype)
            if datacontenttype is None or media_type(datacontenttype).is_json:
                return datacontenttype, 1, self._payload
            return canonical_data(self.data, datacontenttype)
        return canonical_data(self._payload, datacontenttype)

    def with_attributes(self, *, source: str | None = None, **extensions: str | bool | int) -> Event:
        """Return a copy with extensions added, and the source if one is given. The data is shared, not encoded again.

        The values are not checked: for code that adds what it knows to be valid.
        """
        made = Event.__new__(Event)
        made._id = self._id
        made._source = self._source if source is None else source
        made._type = self._type
        made._subject = self._subject
        made._time = self._time
        made._datacontenttype = self._datacontenttype
        made._dataschema = self._dataschema
        made._extensions = {**self._extensions, **extensions} if extensions else self._extensions
        made._kind = self._kind
        made._payload = self._payload
        return made

    def without_extensions(self, *names: str) -> Event:
        """Return a copy without some extensions; the event itself if it has none of them."""
        if not any(name in self._extensions for name in names):
            return self
        made = self.with_attributes()
        made._extensions = {name: value for name, value in self._extensions.items() if name not in names}
        return made

    # --- comparing and showing ----------------------------------------------------------------------------------

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Event):
            return NotImplemented
        return (
            self._id == other._id
            and self._source == other._source
            and self._type == other._type
            and self._subject == other._subject
            and self.time_text == other.time_text
            and self._datacontenttype == other._datacontenttype
            and self._dataschema == other._dataschema
            and self._kind == other._kind
            and _same_extensions(self._extensions, other._extensions)
            and (
                self._payload == other._payload
                or (self._kind == DataKind.JSON and same_json(self._payload, other._payload))
            )
        )

    def __hash__(self) -> int:
        return hash((self._id, self._source, self._type))

    def __repr__(self) -> str:
        shown = [
            f"{name}={_shown(value)}" for name, value in self.attributes().items() if name != "specversion"
        ]
        if len(shown) > 40:
            shown[40:] = [f"… {len(shown) - 40} more"]
        if self._kind:
            head = self._payload[:800]
            shown.append(f"data={_shown(head if self._kind == 3 else head.decode('utf-8', 'ignore'))}")
        return f"Event({', '.join(shown)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (Event.__slots__, [getattr(self, slot) for slot in Event.__slots__])

    def __copy__(self) -> Event:
        return self

    def __deepcopy__(self, memo: object) -> Event:
        return self

    # --- the BaseCloudEvent protocol of the `cloudevents` package -----------------------------------------------

    def get_id(self) -> str:
        """Return `id`. This and the methods below make an Event a `cloudevents.core.base.BaseCloudEvent`."""
        return self._id

    def get_source(self) -> str:
        """Return `source`."""
        return self.source

    def get_type(self) -> str:
        """Return `type`."""
        return self._type

    def get_specversion(self) -> str:
        """Return `specversion`."""
        return SPECVERSION

    def get_datacontenttype(self) -> str | None:
        """Return `datacontenttype`."""
        return self._datacontenttype

    def get_dataschema(self) -> str | None:
        """Return `dataschema`."""
        return self._dataschema

    def get_subject(self) -> str | None:
        """Return `subject`."""
        return self._subject

    def get_time(self) -> datetime | None:
        """Return `time`."""
        return self.time

    def get_extension(self, extension_name: str) -> Any:
        """Return an extension's value, or None."""
        return self._extensions.get(extension_name)

    def get_data(self) -> Any:
        """Return `data`."""
        return self.data

    def get_attributes(self) -> dict[str, Any]:
        """Return `attributes()`, with `time` as a datetime."""
        found: dict[str, Any] = self.attributes()
        if self._time is not None:
            found["time"] = self.time or self._time
        return found


_SLOT_OF: Final = {
    name: f"_{name}"
    for name in ("type", "source", "id", "time", "subject", "datacontenttype", "dataschema", "extensions")
}
"""The arguments of the constructor but `data`, and where their values are kept."""

_GETTERS: dict[str, Any] = {
    "specversion": lambda event: SPECVERSION,
    "id": lambda event: event._id,
    "source": lambda event: event._source,
    "type": lambda event: event._type,
    "subject": lambda event: event._subject,
    "time": lambda event: event.time_text,
    "datacontenttype": lambda event: event._datacontenttype,
    "dataschema": lambda event: event._dataschema,
}


def unchecked(
    *,
    id: str,
    source: str | None,
    type: str,
    subject: str | None = None,
    time: str | None = None,
    datacontenttype: str | None = None,
    dataschema: str | None = None,
    extensions: dict[str, str | bool | int] | None = None,
    kind: int = 0,
    payload: bytes = b"",
) -> Event:
    """Make an event from parts that a codec read, without checks: reading is tolerant, and invents nothing."""
    made = Event.__new__(Event)
    made._id = id
    made._source = source
    made._type = type
    made._subject = subject
    made._time = time
    made._datacontenttype = datacontenttype
    made._dataschema = dataschema
    made._extensions = NO_EXTENSIONS if extensions is None else extensions
    made._kind = kind
    made._payload = payload
    return made


def _restore(slots: tuple[str, ...], values: list[Any]) -> Event:
    made = Event.__new__(Event)
    for slot, value in zip(slots, values, strict=True):
        setattr(made, slot, value)
    return made


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else text[:200] + "…"


def _same_extensions(a: dict[str, str | bool | int], b: dict[str, str | bool | int]) -> bool:
    # True == 1 in Python, but a CloudEvents Boolean is no Integer.
    return a is b or (a == b and all(type(value) is type(b[name]) for name, value in a.items()))
