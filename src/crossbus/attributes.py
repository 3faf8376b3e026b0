"""The rules of CloudEvents 1.0 for context attributes: names, strings, integers, times, media types.

Source: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md (sections "Naming Conventions" and
"Type System"), https://www.rfc-editor.org/rfc/rfc3339 and https://www.rfc-editor.org/rfc/rfc2046.

Every check comes in a cheap form for what nearly all events hold, and a careful one that says what is wrong.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec

from crossbus.errors import InvalidEvent

__all__ = [
    "INT32_MAX",
    "INT32_MIN",
    "RESERVED",
    "CheckedStrings",
    "MediaType",
    "canonical_extension",
    "canonical_extensions",
    "canonical_time",
    "check_extension_name",
    "check_string",
    "check_time",
    "format_time",
    "is_extension_name",
    "is_time",
    "is_utf8",
    "media_type",
    "parse_time",
    "shorten",
    "string_problem",
]

_encode = msgspec.json.Encoder().encode

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1

RESERVED = frozenset(
    {
        "specversion",
        "id",
        "source",
        "type",
        "subject",
        "time",
        "datacontenttype",
        "dataschema",
        "data",
        "data_base64",
    }
)
"""Names that an extension cannot have: the attributes of the specification, and the members of its JSON format."""

# What the specification's String type forbids: C0 and C1 controls, surrogates, and noncharacters.
_FORBIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef"
    + "".join(f"{chr(plane + 0xFFFE)}{chr(plane + 0xFFFF)}" for plane in range(0, 0x110000, 0x10000))
    + "]"
)
_NAME = re.compile(r"[a-z0-9]+\Z")
_RFC3339 = re.compile(
    r"\d{4}-\d\d-\d\d[Tt](?:[01]\d|2[0-3]):[0-5]\d:(?:[0-5]\d|60)(?:\.\d+)?(?:[Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d)\Z",
    re.ASCII,
)
_TCHARS = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
_MEDIA = re.compile(rf"{_TCHARS}/{_TCHARS}(?:\s*;\s*{_TCHARS}=(?:{_TCHARS}|\"[^\"]*\"))*\s*;?\Z")
_CHARSET = re.compile(r";\s*charset=\"?([^\s\";]+)", re.IGNORECASE)


def string_problem(value: object) -> str | None:
    """Say why a value is no CloudEvents String; None when it is one. An empty string is one."""
    if not isinstance(value, str):
        return f"is {type(value).__name__}, not str"
    if value.isprintable():
        return None
    found = _FORBIDDEN.search(value)
    if found is None:
        return None
    kind = "a lone surrogate" if "\ud800" <= found[0] <= "\udfff" else "a character that CloudEvents forbids"
    return f"holds {kind}, U+{ord(found[0]):04X}, at position {found.start()}"


def shorten(text: str, limit: int = 60) -> str:
    """Quote text for a message: on one line, and not the whole of a long one."""
    return repr(text if len(text) <= limit else text[:limit] + "…")


def check_string(name: str, value: object) -> str:
    """Return a non-empty CloudEvents String as a plain str. Raises `InvalidEvent` for anything else."""
    problem = "is empty" if value == "" else string_problem(value)
    if problem is not None:
        raise InvalidEvent(f"{name} {problem}; it must be a non-empty string", attribute=name)
    return str.__str__(value)


class CheckedStrings(dict[str, str]):
    """Strings of one attribute that passed `check_string`, for an attribute whose values repeat.

    ``strings[value]`` checks a value that is not known yet, and raises `InvalidEvent`. Equal values become one object,
    which saves memory too. Bounded: it forgets all when full, and keeps no long values.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def __missing__(self, value: str) -> str:
        checked = check_string(self._name, value)
        if len(checked) <= 256:
            if len(self) >= 4096:
                self.clear()
            self[checked] = checked
        return checked


@lru_cache(maxsize=4096)
def check_extension_name(name: str) -> str:
    """Return the name of an extension, as a plain str.

    Raises `InvalidEvent` unless it may name one: lower-case ASCII letters and digits, and no attribute's name.
    """
    if not isinstance(name, str) or _NAME.match(name) is None:
        hint = ""
        if isinstance(name, str) and (better := re.sub("[^a-z0-9]", "", name.lower())):
            hint = f"; use {shorten(better)}"
        shown = shorten(name) if isinstance(name, str) else repr(name)
        raise InvalidEvent(
            f"extension name {shown} is not allowed: only the letters a-z and digits 0-9{hint}",
            attribute=str(name),
        )
    own = str.__str__(name)
    if own in RESERVED:
        raise InvalidEvent(
            f"{own!r} cannot be an extension: CloudEvents defines it; pass it as {own}= instead",
            attribute=own,
        )
    return own


def is_extension_name(name: str) -> bool:
    """Tell whether a name may name an extension."""
    return _NAME.match(name) is not None and name not in RESERVED


def canonical_extension(name: str, value: Any) -> str | bool | int:
    """Bring an extension's value into the form in which events hold it.

    String, Boolean and Integer stay what they are. Binary becomes base64 text and Timestamp RFC 3339 text, which is
    how every CloudEvents format writes them; URI and URI-reference are strings.

    Raises `InvalidEvent` for anything else, and for an integer outside 32 bits (the specification's Integer).
    """
    if value.__class__ is str:
        if not value.isprintable() and (problem := string_problem(value)):
            raise InvalidEvent(f"extension {name} {problem}", attribute=name)
        return value
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        if INT32_MIN <= value <= INT32_MAX:
            return int(value)
        raise InvalidEvent(
            f"extension {name} is {value}: CloudEvents integers have 32 bits; pass it as a string",
            attribute=name,
        )
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(bytes(value)).decode("ascii")
    if isinstance(value, datetime):
        return format_time(value, name)
    if isinstance(value, str):
        return canonical_extension(name, str.__str__(value))
    raise InvalidEvent(
        f"extension {name} is {type(value).__name__}; allowed are str, bool, int, bytes and datetime",
        attribute=name,
    )


def canonical_time(name: str, value: object) -> str:
    """Return a timestamp as RFC 3339 text: a datetime written out, text as it is.

    Raises `InvalidEvent` for text that is no RFC 3339 timestamp of a day that exists, for a datetime without a time
    zone, and for anything else.
    """
    if isinstance(value, datetime):
        return format_time(value, name)
    if not isinstance(value, str):
        raise InvalidEvent(
            f"{name} is {type(value).__name__}; it must be a datetime or RFC 3339 text", attribute=name
        )
    if parse_time(value) is None:
        raise InvalidEvent(
            f"{name} {shorten(value)} is not an RFC 3339 timestamp such as 2026-01-31T12:00:00Z (the offset is "
            "required)",
            attribute=name,
        )
    return str.__str__(value)


def canonical_extensions(extensions: Mapping[str, Any]) -> dict[str, str | bool | int]:
    """Check the extensions of an event, and bring their values into form. Raises `InvalidEvent`."""
    if extensions.__class__ is not dict and not isinstance(extensions, Mapping):
        raise InvalidEvent(
            f"extensions is {type(extensions).__name__}; pass a mapping of names to values",
            attribute="extensions",
        )
    return {
        (own := check_extension_name(name)): canonical_extension(own, value)
        for name, value in extensions.items()
    }


def check_time(value: str) -> None:
    """Raise `InvalidEvent` unless the text is an RFC 3339 timestamp of a day that exists."""
    canonical_time("time", value)


def is_time(value: str) -> bool:
    """Tell whether text is an RFC 3339 timestamp of a day that exists."""
    return parse_time(value) is not None


def parse_time(text: str) -> datetime | None:
    """Read an RFC 3339 timestamp; None if it is none.

    A datetime holds microseconds: further digits are cut. A leap second becomes the last microsecond before it.
    """
    if _RFC3339.match(text) is None:
        return None
    text = text.upper()
    leap = text[17:19] == "60"
    if leap:
        text = f"{text[:17]}59.999999{text[19:].lstrip('.0123456789')}"
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def format_time(value: datetime, name: str = "time") -> str:
    """Write a datetime as RFC 3339. Raises `InvalidEvent` if it has no offset: its instant would be a guess."""
    if value.tzinfo is UTC and value.__class__ is datetime:
        return _encode(value)[1:-1].decode("ascii")  # the same as isoformat, and ten times as fast
    offset = value.utcoffset()
    if offset is None:
        raise InvalidEvent(
            f"{name} has no time zone; make it aware, for example datetime.now(timezone.utc)", attribute=name
        )
    try:
        if offset.microseconds or offset.seconds % 60:
            value = value.astimezone(UTC)  # RFC 3339 offsets have whole minutes
    except OverflowError:
        raise InvalidEvent(
            f"{name} is before the year 1 or after the year 9999 in UTC", attribute=name
        ) from None
    text = value.isoformat()
    if value.__class__ is not datetime and _RFC3339.match(text) is None:
        text = datetime.isoformat(value)  # a subclass that writes itself in a form of its own
    return text[:-6] + "Z" if text.endswith("+00:00") else text


def is_utf8(payload: bytes) -> bool:
    """Tell whether bytes are text in UTF-8."""
    if payload.isascii():
        return True
    try:
        payload.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


class MediaType:
    """What crossbus needs to know of a `datacontenttype`: is its data JSON, text, or bytes?"""

    __slots__ = ("is_json", "is_text", "utf8", "valid")

    def __init__(self, text: str) -> None:
        text = text.strip()
        self.valid = _MEDIA.match(text) is not None
        main, _, sub = text.partition(";")[0].strip().lower().partition("/")
        self.is_json = sub == "json" or sub.endswith("+json")
        self.is_text = not self.is_json and (main == "text" or sub == "xml" or sub.endswith("+xml"))
        charset = _CHARSET.search(text)
        self.utf8 = charset is None or charset[1].lower() in {"utf-8", "utf8", "us-ascii"}


_remembered_media_type = lru_cache(maxsize=1024)(MediaType)


def media_type(text: str) -> MediaType:
    """Return the `MediaType` of a `datacontenttype`. Those of a sane length are remembered."""
    return _remembered_media_type(text) if len(text) <= 128 else MediaType(text)
