"""`FilterIndex`: of many filters, find those that match an event, without asking them one by one.

For each filter it picks conditions of which at least one must hold if the filter matches: of an `all` one
inner condition is enough, of an `any` it takes one from each. They go into tables by attribute, where the
event's own text finds them; only what is found is evaluated. Of several possible conditions it takes those
that the fewest other filters share. Filters without such a condition, as every `not`, are evaluated for each
event.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Hashable, Iterable, Iterator
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeVar

from crossbus.filter_tree import All, Any, Comparison, Exact, Filter, Prefix, Suffix, reader

if TYPE_CHECKING:
    from crossbus.event import Event
    from crossbus.filter_tree import Predicate, Reader

__all__ = ["FilterIndex"]

K = TypeVar("K", bound=Hashable)


class _Entry(NamedTuple, Generic[K]):
    key: K
    predicate: Predicate | None


class _Condition(NamedTuple):
    kind: type[Comparison]
    name: str
    text: str


_Bucket = dict[int, _Entry[K]]  # by place in the order of keys


FEW: Final = 4
"""So many filters are evaluated one by one, unless the index is told otherwise."""


class FilterIndex(Generic[K]):
    """Filters by key, and the keys whose filters match an event. Not thread-safe: one thread at a time.

    >>> from crossbus import Event, exact
    >>> index = FilterIndex()
    >>> index.add("billing", exact(type="order.placed"))
    >>> index.add("audit", None)
    >>> index.matching(Event(type="order.placed", source="/shop"))
    ['billing', 'audit']
    """

    def __init__(self, *, few: int = FEW) -> None:
        self._at_most_few = few
        self._places: dict[K, tuple[int, frozenset[_Condition]]] = {}
        self._next = 0
        self._scan: _Bucket[K] = {}  # what is evaluated for each event, in order
        self._tables: dict[str, _Table[K]] = {}
        self._entries: _Bucket[K] = {}  # all, by place
        self._few: list[_Entry[K]] | None = []

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: object) -> bool:
        return key in self._places

    def add(self, key: K, filter: Filter | None) -> None:
        """Add a key with its filter; None matches every event. A key that is there keeps its place."""
        if key in self._places:
            place = self._places[key][0]
            self._take_out(place, self._places[key][1])
        else:
            place = self._next
            self._next += 1
        entry = _Entry(key, None if filter is None else filter.predicate)
        self._entries[place] = entry
        self._count()
        conditions = None if filter is None else self._cheapest(filter)
        self._places[key] = place, conditions or frozenset()
        if conditions is None:
            self._scan[place] = entry
            if place != self._next - 1:  # a key whose filter was changed; the order is that of the places
                self._scan = dict(sorted(self._scan.items()))
        else:
            for condition in conditions:
                self._table(condition.name).bucket(condition)[place] = entry

    def remove(self, key: K) -> None:
        """Remove a key. Raises `KeyError` if it is not there."""
        place, conditions = self._places.pop(key)
        self._take_out(place, conditions)
        del self._entries[place]
        self._count()

    def matching(self, event: Event) -> list[K]:
        """Return the keys whose filters match, in the order in which they were added."""
        if self._few is not None:
            return [entry.key for entry in self._few if entry.predicate is None or entry.predicate(event)]
        found: _Bucket[K] = {}
        for table in self._tables.values():
            text = table.read(event)
            if text is not None:
                table.find(text, found)
        if not found:
            entries: Iterable[_Entry[K]] = self._scan.values()
        else:
            if self._scan:
                found.update(self._scan)
            entries = [found[place] for place in sorted(found)] if len(found) > 1 else found.values()
        return [entry.key for entry in entries if entry.predicate is None or entry.predicate(event)]

    def _count(self) -> None:
        # A few filters are evaluated faster than they are looked up.
        few = len(self._entries) <= self._at_most_few
        self._few = [self._entries[place] for place in sorted(self._entries)] if few else None

    def _take_out(self, place: int, conditions: frozenset[_Condition]) -> None:
        self._scan.pop(place, None)
        for condition in conditions:
            table = self._tables[condition.name]
            table.drop(condition, place)
            if table.empty:
                del self._tables[condition.name]

    def _table(self, name: str) -> _Table[K]:
        if name not in self._tables:
            self._tables[name] = _Table(reader(name))
        return self._tables[name]

    def _cheapest(self, filter: Filter) -> frozenset[_Condition] | None:
        """Choose conditions of which one holds whenever the filter matches; None if there are none."""
        choices: list[frozenset[_Condition] | None]
        if isinstance(filter, Comparison):
            kind = type(filter)
            choices = [frozenset({_Condition(kind, name, text)}) for name, text in filter.pairs]
        elif isinstance(filter, All):
            choices = [self._cheapest(child) for child in filter.filters]
        elif isinstance(filter, Any):
            parts = [self._cheapest(child) for child in filter.filters]
            known = [part for part in parts if part is not None]
            choices = [frozenset().union(*known)] if len(known) == len(parts) else []
        else:
            choices = []
        return min((choice for choice in choices if choice is not None), key=self._load, default=None)

    def _load(self, conditions: frozenset[_Condition]) -> tuple[int, int, int]:
        """Weigh: first how many filters share them, then exact before prefix, then longer before shorter."""
        shared = sum(
            len(self._tables[condition.name].filed(condition)) if condition.name in self._tables else 0
            for condition in conditions
        )
        vague = sum(condition.kind is not Exact for condition in conditions)
        return shared, vague, -min(len(condition.text) for condition in conditions)


class _Table(Generic[K]):
    """The conditions on one attribute."""

    __slots__ = ("_exact", "_prefixes", "_suffixes", "read")

    def __init__(self, read: Reader) -> None:
        self.read = read
        self._exact: dict[str, _Bucket[K]] = {}
        self._prefixes: _Starts[K] = _Starts()
        self._suffixes: _Starts[K] = _Starts()

    @property
    def empty(self) -> bool:
        return not (self._exact or self._prefixes.buckets or self._suffixes.buckets)

    def find(self, text: str, found: _Bucket[K]) -> None:
        """Add to `found` all that is filed under conditions that the text meets."""
        bucket = self._exact.get(text)
        if bucket is not None:
            found.update(bucket)
        if self._prefixes.buckets:
            for bucket in self._prefixes.of(text):
                found.update(bucket)
        if self._suffixes.buckets:
            for bucket in self._suffixes.of(text[::-1]):
                found.update(bucket)

    def filed(self, condition: _Condition) -> _Bucket[K]:
        """Return what is filed under a condition, without making room for it."""
        buckets, text = self._place(condition)
        return buckets.get(text, {})

    def bucket(self, condition: _Condition) -> _Bucket[K]:
        """Return where to file under a condition."""
        buckets, text = self._place(condition)
        if text not in buckets:
            buckets[text] = {}
            self._changed()
        return buckets[text]

    def drop(self, condition: _Condition, place: int) -> None:
        """Take a place out from under a condition."""
        buckets, text = self._place(condition)
        del buckets[text][place]
        if not buckets[text]:
            del buckets[text]
            self._changed()

    def _place(self, condition: _Condition) -> tuple[dict[str, _Bucket[K]], str]:
        if condition.kind is Prefix:
            return self._prefixes.buckets, condition.text
        if condition.kind is Suffix:
            return self._suffixes.buckets, condition.text[::-1]
        return self._exact, condition.text

    def _changed(self) -> None:
        self._prefixes.ordered = self._suffixes.ordered = None


class _Starts(Generic[K]):
    """Texts that others may start with, in order, each linked to the longest other one that it starts with.

    The greatest of them that is not greater than a text starts with every one that the text starts with, so
    all of these lie on its chain of links: one bisection finds them, however many there are.
    """

    __slots__ = ("buckets", "links", "ordered")

    def __init__(self) -> None:
        self.buckets: dict[str, _Bucket[K]] = {}
        self.ordered: list[str] | None = None
        self.links: list[int] = []

    def of(self, text: str) -> Iterator[_Bucket[K]]:
        ordered = self._order() if self.ordered is None else self.ordered
        at = bisect_right(ordered, text) - 1
        while at >= 0:
            start = ordered[at]
            if text.startswith(start):
                yield self.buckets[start]
            at = self.links[at]

    def _order(self) -> list[str]:
        self.ordered = ordered = sorted(self.buckets)
        self.links = []
        open_: list[int] = []
        for at, text in enumerate(ordered):
            while open_ and not text.startswith(ordered[open_[-1]]):
                open_.pop()
            self.links.append(open_[-1] if open_ else -1)
            open_.append(at)
        return ordered
