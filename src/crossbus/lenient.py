"""The tolerant side of the codecs: attributes as they arrive become an event, and what is odd is noted.

What breaks a rule of CloudEvents but can be kept is kept; only what would have to be made up is refused.
"""

from __future__ import annotations

import base64
from typing import Any, Final

import msgspec

from crossbus.attributes import (
    INT32_MAX,
    INT32_MIN,
    is_extension_name,
    is_time,
    media_type,
    shorten,
    string_problem,
)
from crossbus.data import loads_tolerant
from crossbus.errors import DecodeError
from crossbus.event import NO_EXTENSIONS, SPECVERSION, Event
from crossbus.json_parts import members_of
from crossbus.payload import ABSENT, BINARY, JSON, TEXT

__all__ = ["KNOWN", "as_text", "collision", "decode_odd", "foreign", "kind_of", "make", "name_of"]

_REQUIRED = ("id", "source", "type")
_OPTIONAL = ("subject", "time", "datacontenttype", "dataschema")
_NAMES = _REQUIRED + _OPTIONAL
KNOWN: Final = frozenset({"specversion", *_NAMES, "data", "data_base64"})
"""The members that CloudEvents defines; all others are extensions."""

_new = Event.__new__

_decode = msgspec.json.Decoder().decode
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

_A_NUMBER = 0.5  # anything that an attribute cannot be: its JSON text is kept


def decode_odd(body: bytes, repairs: list[str] | None) -> Event:
    """Decode an event of which something is odd: note it, or say why it is no event."""
    try:
        members: dict[str, Any] = _decode_members(body)
    except (msgspec.DecodeError, RecursionError):
        members = members_of(body)
    data = members.pop("data", b"")
    try:
        decoded = _decode(b"[" + b",".join(members.values()) + b"]")
    except (msgspec.DecodeError, RecursionError):
        decoded = [_load_part(raw) for raw in members.values()]
    values: dict[str, Any] = {}
    for name, value in zip(members, decoded, strict=True):
        own = name_of(name, repairs)
        if own in values or (own == "data" and data):
            raise collision(own)
        if own == "data":
            data = members[name]
        elif value is None or (value.__class__ is str and value.isprintable()):
            values[own] = value
        else:
            values[own] = _scalar(own, value, members[name], repairs)
    in_base64 = values.pop("data_base64", None)
    kind, payload = kind_of(bytes(data), in_base64, values.get("datacontenttype"), repairs)
    return make(values, kind, payload, repairs)


def kind_of(
    data: bytes, in_base64: object, datacontenttype: object, repairs: list[str] | None
) -> tuple[int, bytes]:
    """Return the kind of the data and the payload: of the JSON of `data`, empty if absent, and of `data_base64`."""
    if in_base64 is not None:
        if data:
            raise DecodeError("event has both data and data_base64; CloudEvents allows one of them")
        return BINARY, _from_base64(in_base64)
    if not data:
        return ABSENT, b""
    if datacontenttype and data[0] == _QUOTE and not media_type(str(datacontenttype)).is_json:
        try:
            return TEXT, _load_part(data).encode("utf-8")
        except UnicodeEncodeError:  # a lone surrogate, which only the JSON escape can hold
            _note(repairs, "data is text with a lone surrogate; it is kept as JSON")
    return JSON, data


_QUOTE = ord('"')


def _from_base64(value: Any) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (ValueError, TypeError):
        raise DecodeError("data_base64 is not base64") from None


def _load_part(raw: Any) -> Any:
    """Decode the JSON of one member. Raises `DecodeError` if it is nested too deep."""
    try:
        return loads_tolerant(bytes(raw))
    except RecursionError:
        raise DecodeError("event has a member that is nested too deep to read") from None
    except ValueError:  # the only JSON that cannot be read: a number of thousands of digits
        return _A_NUMBER


def name_of(name: str, repairs: list[str] | None) -> str:
    """Return the name under which an attribute is kept: its own, with small letters."""
    if name in KNOWN or is_extension_name(name):
        return name
    lower = name.lower()
    if lower != name:
        what = "attribute" if lower in KNOWN else "extension"
        _note(repairs, f"{what} {shorten(name)[1:-1]} was lower-cased")
    return lower


def collision(name: str) -> DecodeError:
    """Return the error of two names that differ in capitals only."""
    return DecodeError(f"event has several attributes named {shorten(name)}, but for capitals")


def _scalar(name: str, value: Any, raw: Any, repairs: list[str] | None) -> str | bool | int:
    """Return the value of an attribute. What no attribute can be is kept as text: the JSON that was there."""
    if isinstance(value, str):
        return _text(name, value, repairs)
    if isinstance(value, bool):
        return value
    if isinstance(value, int) and INT32_MIN <= value <= INT32_MAX:
        return value
    text = bytes(raw).decode("utf-8")
    kinds: dict[Any, str] = {dict: "an object", list: "an array"}
    kind = kinds.get(type(value), "a number other than an integer of 32 bits")
    _note(repairs, f"{name} is {kind}, which no attribute can be; it is kept as text")
    return text


def _text(name: str, value: str, repairs: list[str] | None) -> str:
    """Return text as it is, but for lone surrogates, which UTF-8 cannot hold: they become escapes."""
    problem = string_problem(value)
    if problem is None:
        return str.__str__(value)
    _note(repairs, f"{name} {problem}")
    return value.encode("utf-8", "backslashreplace").decode("utf-8")


def as_text(value: str | bool | int) -> str:
    """Write a value as CloudEvents does where attributes are text, as in binary mode."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def make(values: dict[str, Any], kind: int, payload: bytes, repairs: list[str] | None) -> Event:
    """Make an event of attributes; those that CloudEvents defines are taken out of `values`, extensions remain.

    None is the value of an attribute that is absent.
    """
    take = values.pop
    version = take("specversion", None)
    if version != SPECVERSION:
        raise _wrong_version(version)
    known = [take(name, None) for name in _NAMES]
    for value in known:
        if value.__class__ is not str and value is not None:
            known = [_known(name, value, repairs) for name, value in zip(_NAMES, known, strict=True)]
            break
    id, source, type, subject, time, datacontenttype, dataschema = known
    if not (id and source and type):
        raise _incomplete(known)
    if repairs is not None:
        _note_oddities(dict(zip(_OPTIONAL, known[3:], strict=True)), values, repairs)
    if None in values.values():
        values = {name: value for name, value in values.items() if value is not None}
    made = _new(Event)
    made._id = id
    made._source = source
    made._type = type
    made._subject = subject
    made._time = time
    made._datacontenttype = datacontenttype
    made._dataschema = dataschema
    made._extensions = values or NO_EXTENSIONS
    made._kind = kind
    made._payload = payload
    return made


def _known(name: str, value: str | bool | int | None, repairs: list[str] | None) -> str | None:
    if value is None or isinstance(value, str):
        return value
    _note(repairs, f"{name} is {type(value).__name__}, not a string; it is kept as text")
    return as_text(value)


def _incomplete(known: list[Any]) -> DecodeError:
    name, value = next((name, value) for name, value in zip(_REQUIRED, known, strict=False) if not value)
    return DecodeError(
        f"event has {'no' if value is None else 'an empty'} {name}, which CloudEvents requires"
    )


def _wrong_version(version: object) -> DecodeError:
    if version is None or version == "":
        return DecodeError("event has no specversion, which CloudEvents requires; is it a CloudEvent at all?")
    return DecodeError(f"event has specversion {shorten(str(version))}; only {SPECVERSION} can be read")


def _note_oddities(known: dict[str, str | None], extensions: dict[str, Any], repairs: list[str]) -> None:
    time = known["time"]
    if time is not None and not is_time(time):
        repairs.append(f"time {shorten(time)} is not RFC 3339; it is kept as text")
    repairs.extend(f"{name} is empty" for name, value in known.items() if value == "" and name != "time")
    repairs.extend(
        f"extension name {shorten(name)} has other characters than a-z and 0-9"
        for name in extensions
        if not is_extension_name(name)
    )


def _note(repairs: list[str] | None, line: str) -> None:
    """Note something odd, if anyone wants to know."""
    if repairs is not None:
        repairs.append(line)


def foreign(name: str, value: Any, repairs: list[str] | None) -> str | bool | int:
    """Bring an attribute that a binding handed over into a form that an event holds."""
    if isinstance(value, str):
        return _text(name, value, repairs)
    if isinstance(value, bool):
        return value
    if isinstance(value, int) and INT32_MIN <= value <= INT32_MAX:
        return int(value)
    _note(repairs, f"{name} is {type(value).__name__}, which no attribute can be; it is kept as text")
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
