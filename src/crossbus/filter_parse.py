"""Reading filters from the JSON of the CloudEvents Subscriptions specification, whoever wrote it."""

from __future__ import annotations

import json
from collections.abc import Mapping

from crossbus.errors import DeclarationError, nearest
from crossbus.filter_rules import DIALECTS, MAX_CONDITIONS, MAX_DEPTH, pair_problem, shown
from crossbus.filter_tree import All, Any, Exact, Filter, Not, Prefix, Suffix

__all__ = ["parse"]

_COMPARISONS: dict[str, type[Exact] | type[Prefix] | type[Suffix]] = {
    "exact": Exact,
    "prefix": Prefix,
    "suffix": Suffix,
}
_GROUPS: dict[str, type[All] | type[Any]] = {"all": All, "any": Any}


def parse(source: object) -> Filter | None:
    """Read a filter: JSON text or bytes, or what such text decodes to.

    An object is one filter. An array is the `filters` of a subscription: all of them must match, and the
    empty array is no filter, for which this returns None.

    Raises `DeclarationError` in one line that starts with the path to the mistake, such as
    ``filter.all[1].exact``. The dialect `sql`, and any other than the six that the specification demands, is
    refused by name.
    """
    if isinstance(source, (str, bytes, bytearray)):
        source = _decode(source)
    reading = _Reading()
    if not isinstance(source, (list, tuple)):
        return reading.filter(source, "filter", 1)
    if not source:
        return None
    if len(source) == 1:
        return reading.filter(source[0], "filters[0]", 1)
    reading.count("filters")
    return All([reading.filter(each, f"filters[{n}]", 2) for n, each in enumerate(source)])


def _decode(text: str | bytes | bytearray) -> object:
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except RecursionError:
        raise DeclarationError(f"filter: nested deeper than {MAX_DEPTH}; write it flatter") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DeclarationError(f"filter: not JSON: {error}") from None
    except ValueError:  # what else the decoder refuses: an integer of thousands of digits
        raise DeclarationError("filter: holds a number of too many digits; compare with text") from None


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in pairs:
        if name in found:
            raise DeclarationError(
                f"filter: an object has {shown(name)} twice, of which JSON keeps one; write several filters "
                "in an array"
            )
        found[name] = value
    return found


class _Reading:
    """One reading; counts what it makes, since what a stranger sent may share parts, or hold itself."""

    def __init__(self) -> None:
        self._count = 0

    def count(self, path: str) -> None:
        self._count += 1
        if self._count > MAX_CONDITIONS:
            raise DeclarationError(f"{path}: a filter may hold {MAX_CONDITIONS} conditions, no more")

    def filter(self, source: object, path: str, depth: int) -> Filter:
        if depth > MAX_DEPTH:
            raise DeclarationError(f"{path}: nested deeper than {MAX_DEPTH}; write it flatter")
        dialect, body = _dialect(source, path)
        path = f"{path}.{dialect}"
        if dialect in _COMPARISONS:
            return _COMPARISONS[dialect](self._attributes(body, path))
        self.count(path)
        if dialect == "not":
            return Not(self.filter(body, path, depth + 1))
        if not isinstance(body, (list, tuple)) or not body:
            raise DeclarationError(f"{path}: must be an array of at least one filter, not {_kind(body)}")
        return _GROUPS[dialect]([self.filter(each, f"{path}[{n}]", depth + 1) for n, each in enumerate(body)])

    def _attributes(self, body: object, path: str) -> dict[str, str]:
        if not isinstance(body, Mapping) or not body:
            raise DeclarationError(
                f'{path}: must be an object of attributes, such as {{"type": "com.acme"}}, not {_kind(body)}'
            )
        for name, value in body.items():
            self.count(path)
            problem = pair_problem(name, value)
            if problem is not None:
                hint = (
                    "; several texts are several filters in an any"
                    if isinstance(value, (list, tuple))
                    else ""
                )
                raise DeclarationError(f"{path}: {problem}{hint}")
        return dict(body)


def _dialect(source: object, path: str) -> tuple[str, object]:
    if not isinstance(source, Mapping):
        raise DeclarationError(
            f'{path}: must be an object such as {{"exact": {{"type": "com.acme"}}}}, not {_kind(source)}'
        )
    if len(source) != 1:
        names = ", ".join(shown(name) for name in list(source)[:8])
        found = f"has {len(source)} ({names}); put them into an all" if source else "is empty"
        raise DeclarationError(f"{path}: a filter has one dialect of {', '.join(DIALECTS)}; this one {found}")
    [(dialect, body)] = source.items()
    if dialect == "sql":
        raise DeclarationError(
            f"{path}: the dialect 'sql' (CloudEvents SQL) is not supported; write the condition with "
            f"{', '.join(DIALECTS)}"
        )
    if dialect not in DIALECTS:
        guess = nearest(dialect, DIALECTS) if isinstance(dialect, str) else ""
        hint = f"{guess} " if guess.startswith("did you mean") else ""
        raise DeclarationError(
            f"{path}: unknown dialect {shown(dialect)}; {hint}known: {', '.join(DIALECTS)}"
        )
    return dialect, body


def _kind(value: object) -> str:
    if isinstance(value, (Mapping, list, tuple)):
        return f"an {'' if value else 'empty '}{'object' if isinstance(value, Mapping) else 'array'}"
    return "null" if value is None else shown(value)
