"""What a filter is: six immutable kinds, each of which can be evaluated, compared, printed and pickled.

Source of the meaning: https://github.com/cloudevents/spec/blob/main/subscriptions/spec.md, section "Filters".
Where the specification is silent:

- a missing attribute matches no comparison, so that `not` of the comparison matches;
- an extension that is a Boolean or an Integer is compared as CloudEvents writes it: ``true``, ``false``,
  decimal;
- `time` is compared as the text that was written, not as an instant.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from keyword import iskeyword
from operator import attrgetter
from typing import TYPE_CHECKING, ClassVar, Final, TypeAlias

from crossbus.errors import DeclarationError
from crossbus.filter_rules import MAX_CONDITIONS, MAX_DEPTH, pair_problem

if TYPE_CHECKING:
    from crossbus.event import Event

__all__ = [
    "All",
    "Any",
    "Comparison",
    "Exact",
    "Filter",
    "Group",
    "Not",
    "Prefix",
    "Suffix",
    "reader",
]

Predicate: TypeAlias = "Callable[[Event], bool]"
Reader: TypeAlias = "Callable[[Event], str | None]"


class Filter(ABC):
    """A condition on the attributes and extensions of an event; never on its data.

    Made by `exact`, `prefix`, `suffix`, `all_`, `any_`, `not_` and `parse`; combined with ``&``, ``|`` and
    ``~``. Immutable, comparable, hashable, picklable. `repr` is the Python that makes it, `str` is for
    people, and `to_json` is the specification's form.

    Raises `DeclarationError` when it grows beyond 32 levels or 4,096 conditions.
    """

    __slots__ = ("_conditions", "_depth", "_hash", "_key", "_predicate")

    dialect: ClassVar[str]
    """The specification's name of this kind of filter."""

    _conditions: int
    _depth: int
    _hash: int
    _key: object
    _predicate: Predicate

    def _seal(self, key: object, predicate: Predicate, children: Sequence[Filter], conditions: int) -> None:
        self._key = key
        self._hash = hash((self.dialect, key))
        self._predicate = predicate
        self._depth = 1 + max((child._depth for child in children), default=0)
        self._conditions = conditions + sum(child._conditions for child in children)
        if self._depth > MAX_DEPTH:
            raise DeclarationError(
                f"a filter may be nested {MAX_DEPTH} deep, not {self._depth}; write it flatter"
            )
        if self._conditions > MAX_CONDITIONS:
            raise DeclarationError(
                f"a filter may hold {MAX_CONDITIONS} conditions, not {self._conditions}; compare by prefix, "
                "or publish an extension to filter on"
            )

    @property
    def predicate(self) -> Predicate:
        """The filter as a function of an event, compiled once: for code that asks about many events."""
        return self._predicate

    def matches(self, event: Event) -> bool:
        """True if the event meets the condition."""
        return self._predicate(event)

    @abstractmethod
    def as_dict(self) -> dict[str, object]:
        """Return the specification's JSON object, as new dicts and lists."""

    def to_json(self) -> str:
        """Return the specification's JSON, compact; `parse` reads it back."""
        return json.dumps(self.as_dict(), ensure_ascii=False, separators=(",", ":"))

    def __and__(self, other: Filter) -> Filter:
        return _combined(All, self, other)

    def __or__(self, other: Filter) -> Filter:
        return _combined(Any, self, other)

    def __invert__(self) -> Filter:
        return Not(self)

    def __bool__(self) -> bool:
        raise TypeError(
            "a filter is neither true nor false: combine filters with & | ~ in place of `and`, `or`, `not`, "
            "and compare with `is None` to see whether there is one"
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Filter):
            return NotImplemented
        return self is other or (self.dialect == other.dialect and self._key == other._key)

    def __hash__(self) -> int:
        return self._hash

    def __copy__(self) -> Filter:
        return self

    def __deepcopy__(self, memo: object) -> Filter:
        return self


class Comparison(Filter):
    """What `Exact`, `Prefix` and `Suffix` share: attributes, each with its text. All of them must match.

    Raises `DeclarationError` for an attribute that filters cannot name, and a value that is no text or empty.
    """

    __slots__ = ("_pairs",)

    _verb: ClassVar[str]

    def __init__(self, attributes: Mapping[str, str]) -> None:
        if not isinstance(attributes, Mapping) or not attributes:
            raise DeclarationError(
                f"{self.dialect} needs attributes with their text, as in {self.dialect}(type='com.acme')"
            )
        for name, value in attributes.items():
            problem = pair_problem(name, value)
            if problem is not None:
                raise DeclarationError(f"{self.dialect}: {problem}")
        # Plain str: that of an Enum which is a str would print as something else.
        self._pairs = tuple((str.__str__(name), str.__str__(value)) for name, value in attributes.items())
        tests = [self._test(reader(name), value) for name, value in self._pairs]
        self._seal(frozenset(self._pairs), _every(tests), (), len(self._pairs))

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Names of attributes, each with its text, as given. At least one. In any order they are equal."""
        return self._pairs

    @staticmethod
    @abstractmethod
    def _test(read: Reader, value: str) -> Predicate: ...

    def as_dict(self) -> dict[str, object]:
        """Return the specification's JSON object, as new dicts and lists."""
        return {self.dialect: dict(self._pairs)}

    def __str__(self) -> str:
        return " and ".join(
            f"{name} {self._verb} {json.dumps(value, ensure_ascii=False)}" for name, value in self._pairs
        )

    def __repr__(self) -> str:
        if all(name.isidentifier() and not iskeyword(name) for name, _ in self._pairs):
            return f"{self.dialect}({', '.join(f'{name}={value!r}' for name, value in self._pairs)})"
        return f"{self.dialect}({dict(self._pairs)!r})"

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (dict(self._pairs),)


class Exact(Comparison):
    """Each attribute equals its text, case-sensitively."""

    __slots__ = ()
    dialect = "exact"
    _verb = "="

    @staticmethod
    def _test(read: Reader, value: str) -> Predicate:
        return lambda event: read(event) == value


class Prefix(Comparison):
    """Each attribute starts with its text, case-sensitively."""

    __slots__ = ()
    dialect = "prefix"
    _verb = "starts with"

    @staticmethod
    def _test(read: Reader, value: str) -> Predicate:
        return lambda event: (text := read(event)) is not None and text.startswith(value)


class Suffix(Comparison):
    """Each attribute ends with its text, case-sensitively."""

    __slots__ = ()
    dialect = "suffix"
    _verb = "ends with"

    @staticmethod
    def _test(read: Reader, value: str) -> Predicate:
        return lambda event: (text := read(event)) is not None and text.endswith(value)


class Group(Filter):
    """What `All` and `Any` share: filters, in order. Raises `DeclarationError` if there is none."""

    __slots__ = ("_filters",)

    _word: ClassVar[str]

    def __init__(self, filters: Iterable[Filter]) -> None:
        self._filters = tuple(filters)
        if not self._filters:
            raise DeclarationError(
                f"{self.dialect}_ needs at least one filter, as in {self.dialect}_(exact(type='a'))"
            )
        for child in self._filters:
            _check_filter(f"{self.dialect}_", child)
        self._seal(self._filters, self._compile(), self._filters, 1)

    @property
    def filters(self) -> tuple[Filter, ...]:
        """The filters inside, in the order given. At least one."""
        return self._filters

    @abstractmethod
    def _compile(self) -> Predicate: ...

    def as_dict(self) -> dict[str, object]:
        """Return the specification's JSON object, as new dicts and lists."""
        return {self.dialect: [child.as_dict() for child in self._filters]}

    def __str__(self) -> str:
        if len(self._filters) == 1:
            return str(self._filters[0])
        return self._word.join(f"({child})" if _compound(child) else str(child) for child in self._filters)

    def __repr__(self) -> str:
        return f"{self.dialect}_({', '.join(map(repr, self._filters))})"

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self._filters,)


class All(Group):
    """Every filter inside matches."""

    __slots__ = ()
    dialect = "all"
    _word = " and "

    def _compile(self) -> Predicate:
        return _every([child.predicate for child in self._filters])


class Any(Group):
    """At least one filter inside matches."""

    __slots__ = ()
    dialect = "any"
    _word = " or "

    def _compile(self) -> Predicate:
        singles = [
            child.pairs[0] for child in self._filters if isinstance(child, Exact) and len(child.pairs) == 1
        ]
        if len(singles) == len(self._filters) and len({name for name, _ in singles}) == 1:
            read, values = reader(singles[0][0]), frozenset(value for _, value in singles)
            return lambda event: read(event) in values
        return _some([child.predicate for child in self._filters])


class Not(Filter):
    """The filter inside does not match. Raises `DeclarationError` for anything but a filter."""

    __slots__ = ("_filter",)
    dialect = "not"

    def __init__(self, filter: Filter) -> None:
        _check_filter("not_", filter)
        self._filter = filter
        test = filter.predicate
        self._seal(filter, lambda event: not test(event), (filter,), 1)

    @property
    def filter(self) -> Filter:
        """The filter inside."""
        return self._filter

    def as_dict(self) -> dict[str, object]:
        """Return the specification's JSON object, as new dicts and lists."""
        return {"not": self._filter.as_dict()}

    def __invert__(self) -> Filter:
        return self._filter

    def __str__(self) -> str:
        return f"not ({self._filter})"

    def __repr__(self) -> str:
        return f"not_({self._filter!r})"

    def __reduce__(self) -> tuple[object, ...]:
        return Not, (self._filter,)


def _check_filter(where: str, value: object) -> None:
    if not isinstance(value, Filter):
        kind = type(value).__name__
        hint = (
            "; unpack it with *"
            if isinstance(value, (list, tuple, set))
            else ", such as exact(type='com.acme')"
        )
        raise DeclarationError(f"{where} takes filters, not {kind}{hint}")


def _compound(filter: Filter) -> bool:
    return isinstance(filter, Group) or (isinstance(filter, Comparison) and len(filter.pairs) > 1)


def _combined(group: type[All] | type[Any], left: Filter, right: object) -> Filter:
    if not isinstance(right, Filter):
        return NotImplemented  # type: ignore[no-any-return]
    parts: list[Filter] = []
    for side in (left, right):
        parts += side.filters if isinstance(side, group) else (side,)
    return group(parts)


# --- evaluating ---------------------------------------------------------------------------------------------

# The slots themselves: this runs for every event and subscription, and a property costs twice as much.
_QUICK: Final[dict[str, Reader]] = {
    name: attrgetter(f"_{name}")
    for name in ("id", "source", "type", "subject", "datacontenttype", "dataschema")
}


def reader(name: str) -> Reader:
    """Make the function that reads an attribute of an event as filters see it: text, or None if missing."""
    quick = _QUICK.get(name)
    if quick is not None:
        return quick

    def read(event: Event) -> str | None:
        value = event.get(name)
        if value is None or isinstance(value, str):
            return value
        return str(value).lower()  # of Boolean and Integer: true, false, decimal

    return read


def _every(tests: Sequence[Predicate]) -> Predicate:
    if len(tests) == 1:
        return tests[0]
    if len(tests) == 2:
        first, second = tests
        return lambda event: first(event) and second(event)

    def test(event: Event) -> bool:
        for each in tests:  # noqa: SIM110 - all() would make a generator for every event
            if not each(event):
                return False
        return True

    return test


def _some(tests: Sequence[Predicate]) -> Predicate:
    def test(event: Event) -> bool:
        for each in tests:  # noqa: SIM110
            if each(event):
                return True
        return False

    return test
