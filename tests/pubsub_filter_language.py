"""Pub/Sub's filter language as Google documents it, parsed and evaluated: what the compiled filters are tried on.

Written from https://cloud.google.com/pubsub/docs/subscription-message-filter alone, without a look at the compiler:

- ``attributes:KEY`` is true if a message has the attribute;
- ``attributes.KEY = "VALUE"`` and ``!=``, of which ``!=`` is true where the attribute is absent;
- ``hasPrefix(attributes.KEY, "VALUE")``;
- ``AND``, ``OR``, ``NOT`` or ``-``, in capitals; NOT binds most tightly; AND and OR in one expression need parentheses;
- a KEY of other characters than alphanumeric, ``_`` and ``-`` is a string literal;
- keys and values are case-sensitive; literals escape backslash, quotation mark and what does not print;
- at most 256 bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

Predicate = Callable[[Mapping[str, str]], bool]

_TOKEN = re.compile(
    r'\s*(?:(?P<text>"(?:[^"\\\x00-\x1f\x7f]|\\.)*")|(?P<word>[A-Za-z0-9_-]+)|(?P<sign>!=|[=:.,()]))',
    re.DOTALL,
)
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|x([0-9a-fA-F]{2})|([0-7]{3})|(.))", re.DOTALL)
_SIMPLE = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}


class FilterSyntaxError(ValueError):
    """The service would refuse this filter."""


def parse(text: str) -> Predicate:
    """Parse a filter; raises `FilterSyntaxError` for what the service would refuse. The empty filter matches all."""
    if len(text.encode()) > 256:
        raise FilterSyntaxError(f"{len(text.encode())} bytes")
    if not text:
        return lambda attributes: True
    parser = _Parser(_tokens(text))
    found = parser.expression()
    parser.end()
    return found


def _tokens(text: str) -> list[tuple[str, str]]:
    found = []
    place = 0
    while text[place:].strip():
        match = _TOKEN.match(text, place)
        if match is None:
            raise FilterSyntaxError(f"nothing known at {text[place:]!r}")
        kind = match.lastgroup or ""
        found.append((kind, match[kind]))
        place = match.end()
    return found


class _Parser:
    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self.tokens = tokens
        self.place = 0

    def peek(self) -> tuple[str, str]:
        return self.tokens[self.place] if self.place < len(self.tokens) else ("end", "")

    def take(self, kind: str, value: str | None = None) -> str:
        found = self.peek()
        if found[0] != kind or (value is not None and found[1] != value):
            raise FilterSyntaxError(f"expected {value or kind}, found {found[1]!r}")
        self.place += 1
        return found[1]

    def end(self) -> None:
        if self.peek()[0] != "end":
            raise FilterSyntaxError(f"expected the end, found {self.peek()[1]!r}")

    def expression(self) -> Predicate:
        parts = [self.factor()]
        words = []
        while self.peek() in (("word", "AND"), ("word", "OR")):
            words.append(self.take("word"))
            parts.append(self.factor())
        if len(set(words)) > 1:
            raise FilterSyntaxError("AND and OR together need parentheses")
        if words and words[0] == "OR":
            return lambda attributes: any(part(attributes) for part in parts)
        return lambda attributes: all(part(attributes) for part in parts)

    def factor(self) -> Predicate:
        if self.peek() == ("word", "NOT") or self.peek() == ("word", "-"):
            self.place += 1
            inner = self.factor()
            return lambda attributes: not inner(attributes)
        if self.peek() == ("sign", "("):
            self.take("sign", "(")
            inner = self.expression()
            self.take("sign", ")")
            return inner
        return self.comparison()

    def comparison(self) -> Predicate:
        word = self.take("word")
        if word == "hasPrefix":
            self.take("sign", "(")
            self.take("word", "attributes")
            self.take("sign", ".")
            key = self.key()
            self.take("sign", ",")
            start = self.literal()
            self.take("sign", ")")
            return lambda attributes: key in attributes and attributes[key].startswith(start)
        if word != "attributes":
            raise FilterSyntaxError(f"only attributes can be compared, not {word!r}")
        if self.peek() == ("sign", ":"):
            self.take("sign", ":")
            named = self.key()
            return lambda attributes: named in attributes
        self.take("sign", ".")
        key = self.key()
        if self.peek() == ("sign", "!="):
            self.take("sign", "!=")
            value = self.literal()
            return lambda attributes: attributes.get(key) != value
        self.take("sign", "=")
        value = self.literal()
        return lambda attributes: attributes.get(key) == value

    def key(self) -> str:
        return self.literal() if self.peek()[0] == "text" else self.take("word")

    def literal(self) -> str:
        return _ESCAPE.sub(_unescaped, self.take("text")[1:-1])


def _unescaped(match: re.Match[str]) -> str:
    for group, base in ((1, 16), (2, 16), (3, 16), (4, 8)):
        if match[group] is not None:
            return chr(int(match[group], base))
    return _SIMPLE.get(match[5], match[5])
