"""Dividing a filter between a provider that knows only some operators and ourselves."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from crossbus.errors import DeclarationError, nearest
from crossbus.filter_rules import DIALECTS
from crossbus.filter_tree import All, Any, Comparison, Filter, Group, Not

__all__ = ["Split", "split"]


class Split(NamedTuple):
    """A filter, divided."""

    native: Filter | None
    """What the provider can evaluate: it matches at least all that the filter matches. None: everything."""
    residual: Filter | None
    """What must be evaluated here: the whole filter; None if `native` is exact."""


def split(
    filter: Filter,
    operators: Collection[str],
    *,
    accepts: Callable[[Comparison], bool] | None = None,
    case_sensitive: bool = True,
) -> Split:
    """Find the narrowest filter that a provider can evaluate and that loses no event.

    Conditions that the provider cannot evaluate are dropped from an `all`; an `any` that holds one is dropped
    whole. A `not` moves inwards until what it negates can be evaluated exactly: the negation of a superset
    would lose events. What the provider can evaluate whole is left as it was written.

    Args:
        filter: What the subscription wants.
        operators: Of ``exact prefix suffix all any not``, as in `FilterSupport.operators`. `all` means here
            that conditions can be joined, so a comparison of several attributes needs it too. `not` means
            that events which lack the attribute match, as they do here: leave it out where they do not.
        accepts: Asked about each comparison of one attribute; False if this provider cannot make this one (a
            long value, an attribute that it does not carry). Default: it can make all.
        case_sensitive: False for a provider that ignores case: nothing is exact then, or can be negated.

    Raises:
        ValueError: an operator that is none.
    """
    for operator in operators:
        if operator not in DIALECTS:
            raise ValueError(f"{operator!r} is no filter operator; {nearest(operator, DIALECTS)}")
    provider = _Provider(frozenset(operators), accepts, case_sensitive)
    try:
        native, whole = provider.superset(filter)
    except DeclarationError:  # negations moved inwards made it larger than a filter may be
        native, whole = None, False
    return Split(native, None if whole else filter)


class _Provider(NamedTuple):
    operators: frozenset[str]
    accepts: Callable[[Comparison], bool] | None
    case_sensitive: bool

    def superset(self, filter: Filter) -> tuple[Filter | None, bool]:
        """Return the superset, None if it is everything; and whether it is the filter itself."""
        if self.case_sensitive and self.evaluates(filter):
            return filter, True
        if isinstance(filter, Not):
            return self.negated(filter.filter)
        if isinstance(filter, Comparison):
            if len(filter.pairs) > 1:
                return self.joined(All, singles(filter))
            return (filter, self.case_sensitive) if self.evaluates(filter) else (None, False)
        return self.joined(type(filter), _children(filter))

    def negated(self, filter: Filter) -> tuple[Filter | None, bool]:
        """The same for the negation of a filter that the provider cannot negate as it was written."""
        if isinstance(filter, Not):
            return self.superset(filter.filter)
        if isinstance(filter, Comparison):
            parts = singles(filter)
            return self.joined(Any, [Not(part) for part in parts]) if len(parts) > 1 else (None, False)
        opposite = Any if isinstance(filter, All) else All
        return self.joined(opposite, [~child for child in _children(filter)])

    def joined(self, group: type[Filter], filters: Collection[Filter]) -> tuple[Filter | None, bool]:
        """The same for several filters, of which all or any must match."""
        divided = [self.superset(child) for child in filters]
        parts = [part for part, _ in divided if part is not None]
        exact = all(whole for _, whole in divided)
        if not parts or (group is Any and len(parts) < len(divided)):
            return None, False
        if len(parts) == 1:
            return parts[0], exact
        if group.dialect in self.operators:
            return (All(parts) if group is All else Any(parts)), exact
        return (parts[0] if group is All else None), False

    def evaluates(self, filter: Filter) -> bool:
        """True if the provider can evaluate the filter as it was written."""
        if isinstance(filter, Comparison):
            if len(filter.pairs) > 1:
                return "all" in self.operators and all(map(self.evaluates, singles(filter)))
            return filter.dialect in self.operators and (self.accepts is None or self.accepts(filter))
        if filter.dialect not in self.operators:
            return False
        return all(map(self.evaluates, _children(filter)))


def singles(filter: Comparison) -> list[Filter]:
    """Return the comparisons of one attribute each that a comparison of several is made of."""
    return [type(filter)({name: value}) for name, value in filter.pairs]


def _children(filter: Filter) -> Sequence[Filter]:
    if isinstance(filter, Not):
        return (filter.filter,)
    assert isinstance(filter, Group)
    return filter.filters
