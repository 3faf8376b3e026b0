"""What a filter may name and compare with, and how large it may be; shared by building and parsing.

Source: https://github.com/cloudevents/spec/blob/main/subscriptions/spec.md, section "Filters": names and
values must not be empty. The limits are our own, against filters that strangers send.
"""

from __future__ import annotations

import re
from typing import Final

from crossbus.attributes import string_problem

__all__ = ["DIALECTS", "MAX_CONDITIONS", "MAX_DEPTH", "pair_problem", "shown"]

DIALECTS: Final = ("exact", "prefix", "suffix", "all", "any", "not")
"""The filter dialects that the specification demands of every implementation. There are no others here."""

MAX_DEPTH: Final = 32
"""How deep filters may be nested; one comparison alone is 1 deep."""

MAX_CONDITIONS: Final = 4096
"""How many groups, negations and compared attributes one filter may hold, all told."""

_ATTRIBUTE = re.compile(r"[a-z0-9]+\Z")


def pair_problem(name: object, value: object) -> str | None:
    """Say why a filter cannot compare this attribute with this value; None if it can."""
    if not isinstance(name, str) or _ATTRIBUTE.match(name) is None or name == "data":
        return _name_problem(name)
    if name.startswith("crossbus"):
        return f"{shown(name)} cannot be filtered on: names that start with crossbus are for crossbus itself"
    if len(name) > 60:
        name = f"{name[:59]}…"
    if isinstance(value, (bool, int, float)):
        text = shown(value)
        example = f": '{text.lower()}'" if text != type(value).__name__ else ""
        return f"{name} is {text}; compare with text{example}"
    if isinstance(value, str) and not value:
        return f"{name} is empty; the specification forbids empty text: leave {name} out"
    problem = string_problem(value)
    return None if problem is None else f"{name} {problem}; it must be non-empty text"


def _name_problem(name: object) -> str:
    text = name if isinstance(name, str) else ""
    if re.match(r"data(_base64)?(\Z|[.\[/])", text):
        return f"{shown(text)} cannot be filtered on: filters see no data; publish an extension to filter on"
    better = re.sub("[^a-z0-9]", "", re.sub("^ce[-_]", "", text.lower())) if text.isascii() else ""
    hint = f"; use {shown(better)}" if better not in ("", "data") else ""
    return f"attribute name {shown(name)} is not allowed: only the letters a-z and digits 0-9{hint}"


def shown(value: object) -> str:
    """Return the `repr` of what a stranger sent, short enough for one line."""
    try:
        text = repr(value) if isinstance(value, (str, int, float, type(None))) else type(value).__name__
    except ValueError:  # an int of more digits than Python writes
        text = type(value).__name__
    return text if len(text) <= 60 else text[:59] + "…"
