"""Filters: which events a subscription wants, in the dialects of the CloudEvents Subscriptions specification.

>>> wanted = prefix(type="com.acme.") & ~exact(tenant=["test", "demo"])
>>> print(wanted)
type starts with "com.acme." and not (tenant = "test" or tenant = "demo")
>>> (prefix(type="com.acme.") & ~exact(tenant="test")).to_json()
'{"all":[{"prefix":{"type":"com.acme."}},{"not":{"exact":{"tenant":"test"}}}]}'
>>> parse(wanted.to_json()) == wanted
True

This module builds, and re-exports: `crossbus.filter_tree` says what a filter is and evaluates it,
`crossbus.filter_parse` reads JSON, `crossbus.filter_split` divides a filter between a provider and us.
`crossbus.filter_index` finds the matching ones of many.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from crossbus.errors import DeclarationError
from crossbus.filter_parse import parse
from crossbus.filter_split import split
from crossbus.filter_tree import All, Any, Comparison, Exact, Filter, Not, Prefix, Suffix

__all__ = [
    "All",
    "Any",
    "Comparison",
    "Exact",
    "Filter",
    "Not",
    "Prefix",
    "Suffix",
    "all_",
    "any_",
    "exact",
    "not_",
    "parse",
    "prefix",
    "split",
    "suffix",
]

Values = str | Sequence[str]


def exact(attributes: Mapping[str, Values] | None = None, /, **more: Values) -> Filter:
    """Match events whose attributes equal these texts, case-sensitively. Several attributes: all of them.

    A list or tuple of texts means any of them. A mapping takes the names that Python keeps for itself, as in
    ``exact({"class": "gold"})``. A missing attribute matches nothing. Extensions that are Boolean or Integer
    are compared as ``"true"``, ``"false"`` or decimal.

    Raises `DeclarationError` for an empty or non-text value, and for a name that no attribute can have.
    """
    return _comparison(Exact, attributes, more)


def prefix(attributes: Mapping[str, Values] | None = None, /, **more: Values) -> Filter:
    """Match events whose attributes start with these texts. Otherwise as `exact`."""
    return _comparison(Prefix, attributes, more)


def suffix(attributes: Mapping[str, Values] | None = None, /, **more: Values) -> Filter:
    """Match events whose attributes end with these texts. Otherwise as `exact`."""
    return _comparison(Suffix, attributes, more)


def all_(*filters: Filter) -> All:
    """Match events that every filter matches; also ``a & b``. `DeclarationError` if there is none."""
    return All(filters)


def any_(*filters: Filter) -> Any:
    """Match events that one filter or more matches; also ``a | b``. `DeclarationError` if there is none."""
    return Any(filters)


def not_(filter: Filter) -> Not:
    """Match events that the filter does not match, also those that lack the attribute; also ``~a``."""
    return Not(filter)


def _comparison(kind: type[Comparison], attributes: object, more: Mapping[str, object]) -> Filter:
    given = _merged(kind.dialect, attributes, more)
    texts: dict[str, str] = {}
    parts: list[Filter] = []
    for name, value in given.items():
        if not isinstance(value, (list, tuple)):
            texts[name] = value  # type: ignore[assignment]  # the comparison checks it
        elif not value:
            raise DeclarationError(
                f"{kind.dialect}: {name} is an empty list; give at least one text, or leave it out"
            )
        elif len(value) == 1:
            texts[name] = value[0]
        else:
            parts.append(Any(kind({name: text}) for text in value))
    if texts or not parts:
        parts.insert(0, kind(texts))
    return parts[0] if len(parts) == 1 else All(parts)


def _merged(dialect: str, attributes: object, more: Mapping[str, object]) -> dict[str, object]:
    if attributes is None:
        return dict(more)
    if not isinstance(attributes, Mapping):
        raise DeclarationError(
            f"{dialect} takes attributes by name, as in {dialect}(type='com.acme'), or one mapping; "
            f"not {type(attributes).__name__}"
        )
    twice = attributes.keys() & more.keys()
    if twice:
        raise DeclarationError(f"{dialect}: {min(twice)} is given twice; use a list for any of several texts")
    return {**attributes, **more}
