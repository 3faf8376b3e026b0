"""JSON that the fast reader refuses, taken apart.

It may hold only a lone surrogate escape (valid JSON, though of no use to anyone), or one bad entry of a batch. The
outermost level is taken apart without recursion, in time that grows with the length and no faster, and each part is
judged alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from crossbus.data import is_json_tolerant, loads_tolerant
from crossbus.errors import DecodeError

__all__ = ["elements_of", "members_of", "utf8_of"]

_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+'  # possessive, and without its end: a string that has none costs no second look
_TOKEN = re.compile(_STRING + rb"(?:\"|\\?\Z)|[\[\]{},]", re.DOTALL)
_KEY = re.compile(rb"(" + _STRING + rb"\")\s*:\s*(.*)\Z", re.DOTALL)


def _parts(body: bytes, opening: bytes, closing: bytes) -> Iterator[bytes]:
    """Split the one array or object that the body is at its outermost commas. Raises ValueError if it is none."""
    inner = body.strip(b" \t\r\n")
    if inner[:1] != opening or inner[-1:] != closing:
        raise ValueError
    start, end, depth = 1, len(inner) - 1, 0
    if not inner[1:end].strip(b" \t\r\n"):
        return
    for token in _TOKEN.finditer(inner, 1, end):
        sign = token[0]
        if sign in (b"[", b"{"):
            depth += 1
        elif sign in (b"]", b"}"):
            depth -= 1
            if depth < 0:
                raise ValueError
        elif sign == b"," and depth == 0:
            yield inner[start : token.start()].strip(b" \t\r\n")
            start = token.end()
    if depth:
        raise ValueError
    yield inner[start:end].strip(b" \t\r\n")


def members_of(body: bytes, *, judged: bool = True) -> dict[str, bytes]:
    """Return the members of a JSON object, each as its JSON. Raises `DecodeError` if the body is none.

    With `judged=False` nobody looks whether a member itself is JSON: whoever takes it apart further will.
    """
    found: dict[str, bytes] = {}
    try:
        for part in _parts(body, b"{", b"}"):
            member = _KEY.match(part)
            if member is None or (judged and not is_json_tolerant(member[2])):
                raise ValueError
            found[loads_tolerant(member[1]).encode("utf-8", "backslashreplace").decode("utf-8")] = member[2]
    except (ValueError, RecursionError):
        raise _not_json(body, "object") from None
    return found


def elements_of(body: bytes) -> list[bytes]:
    """Return the elements of a JSON array, which may be no JSON. Raises `DecodeError` if the body is no array."""
    try:
        return list(_parts(body, b"[", b"]"))
    except ValueError:
        raise _not_json(body, "array of events") from None


def _not_json(body: bytes, wanted: str) -> DecodeError:
    """Say why a body is not the JSON that it should be, without showing it."""
    if not body.strip():
        return DecodeError(f"body is empty; it must be a JSON {wanted}")
    if body.startswith(b"\xef\xbb\xbf"):
        return DecodeError(
            "body begins with a byte order mark, which JSON does not allow; send UTF-8 without it"
        )
    try:
        value = loads_tolerant(body)
    except RecursionError:
        return DecodeError("body is JSON that is nested too deep to read")
    except ValueError as error:
        where = f" at position {error.pos}" if isinstance(error, json.JSONDecodeError) else ""
        return DecodeError(f"body is not JSON: it breaks off or has something unexpected{where}")
    what = "array; read it as a batch" if isinstance(value, list) else _JSON_NAMES.get(type(value), "number")
    return DecodeError(f"body must be a JSON {wanted}, and is a JSON {what}")


_JSON_NAMES = {dict: "object", str: "string", bool: "true or false", type(None): "null"}


def utf8_of(body: bytes | str) -> bytes:
    """Return a body as bytes. Raises `DecodeError` if it is not UTF-8."""
    if isinstance(body, str):
        try:
            return body.encode("utf-8")
        except UnicodeEncodeError as error:
            raise DecodeError(f"body holds a lone surrogate at position {error.start}") from None
    raw = bytes(body)
    if not raw.isascii():
        try:
            raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DecodeError(f"body is not UTF-8: invalid byte at position {error.start}") from None
    return raw
