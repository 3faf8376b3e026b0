"""What an event's data argument and content type become: a media type, a kind and a payload."""

from __future__ import annotations

from enum import IntEnum
from functools import lru_cache
from typing import Any, Final

import msgspec

from crossbus.attributes import check_string, is_utf8, media_type, shorten
from crossbus.data import checked_json, encode_json_data
from crossbus.errors import InvalidEvent

__all__ = ["ABSENT", "BINARY", "JSON", "TEXT", "UNSET", "DataKind", "canonical_data", "checked_media_type"]


class _Unset:
    """The default of an argument for which None means something."""

    def __repr__(self) -> str:
        return "<unset>"


UNSET: Final[Any] = _Unset()
"""The default of an argument for which None means something."""


class DataKind(IntEnum):
    """How the payload of an event is to be read: the four cases that CloudEvents' JSON format tells apart."""

    ABSENT = 0
    """There is no data. Not the same as JSON null."""
    JSON = 1
    """The payload is JSON text."""
    TEXT = 2
    """The payload is text, in UTF-8."""
    BINARY = 3
    """The payload is bytes."""


ABSENT, JSON, TEXT, BINARY = range(4)  # the values of DataKind, which are slower to look up


def canonical_data(data: Any, datacontenttype: Any) -> tuple[str | None, int, bytes]:
    """Encode data. Returns the content type, the `DataKind` and the payload."""
    if data is UNSET:
        return (None if datacontenttype is UNSET else checked_media_type(datacontenttype)), 0, b""
    encoded = isinstance(data, (bytes, bytearray, memoryview, msgspec.Raw))
    if datacontenttype is UNSET:
        datacontenttype = _default_content_type(data)
    datacontenttype = checked_media_type(datacontenttype)
    if encoded:
        return (datacontenttype, *_kind_of_bytes(bytes(data), datacontenttype))
    if datacontenttype is None or media_type(datacontenttype).is_json:
        return datacontenttype, 1, encode_json_data(data)
    if not isinstance(data, str):
        raise InvalidEvent(
            f"data is {type(data).__name__} but datacontenttype is {datacontenttype!r}; pass str or bytes, or use a "
            "JSON content type",
            attribute="data",
        )
    if not media_type(datacontenttype).utf8:
        raise InvalidEvent(
            f"datacontenttype {datacontenttype!r} names another charset than UTF-8; pass data as bytes in that charset",
            attribute="data",
        )
    return datacontenttype, 2, _encode_text(data)


def _default_content_type(data: Any) -> str:
    if isinstance(data, str):
        return "text/plain"
    return (
        "application/octet-stream" if isinstance(data, (bytes, bytearray, memoryview)) else "application/json"
    )


def _kind_of_bytes(payload: bytes, datacontenttype: str | None) -> tuple[int, bytes]:
    if datacontenttype is None:
        return 3, payload
    media = media_type(datacontenttype)
    if media.is_json:
        return 1, checked_json(payload)
    # Text keeps its kind whoever encoded it: a text type with UTF-8 bytes is text, as it is when decoded.
    return 2 if media.is_text and media.utf8 and is_utf8(payload) else 3, payload


def checked_media_type(value: Any) -> str | None:
    """Return a media type as a plain str, or None. Raises `InvalidEvent`."""
    if value is None:
        return None
    return _remembered_type(value) if isinstance(value, str) else check_string("datacontenttype", value)


@lru_cache(maxsize=1024)
def _remembered_type(value: str) -> str:
    text = check_string("datacontenttype", value)
    if not media_type(text).valid:
        raise InvalidEvent(
            f"datacontenttype {shorten(text)} is no media type such as application/json",
            attribute="datacontenttype",
        )
    return text


def _encode_text(data: str) -> bytes:
    try:
        return data.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidEvent(
            f"data is text that is not UTF-8: a lone surrogate at position {error.start}", attribute="data"
        ) from error
