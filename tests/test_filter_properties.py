"""What holds for every filter and every event: round trips, the index against asking each, and splitting."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossbus import filters
from crossbus.errors import DeclarationError
from crossbus.event import Event
from crossbus.event import unchecked as read_event
from crossbus.filter_index import FilterIndex
from crossbus.filter_rules import DIALECTS, MAX_DEPTH
from crossbus.filters import (
    All,
    Exact,
    Filter,
    Not,
    Prefix,
    Suffix,
    all_,
    any_,
    exact,
    not_,
    parse,
    prefix,
    split,
    suffix,
)

# Few names and few letters, so that filters meet events; and letters whose case is awkward.
NAMES = ["type", "source", "subject", "tenant", "n"]
TEXTS = st.text("abB1ßé🎉", min_size=1, max_size=4)
VALUES = TEXTS | st.sampled_from(["true", "false", "1", "-1"])
PAIRS = st.dictionaries(st.sampled_from(NAMES), VALUES, min_size=1, max_size=3)
COMPARISONS = st.builds(lambda kind, pairs: kind(pairs), st.sampled_from([Exact, Prefix, Suffix]), PAIRS)
FILTERS: st.SearchStrategy[Filter] = st.recursive(
    COMPARISONS,
    lambda inner: st.lists(inner, min_size=1, max_size=3).flatmap(
        lambda some: st.sampled_from([all_(*some), any_(*some), not_(some[0])])
    ),
    max_leaves=8,
)
EXTENSIONS = st.fixed_dictionaries(
    {}, optional={"tenant": VALUES | st.booleans(), "n": VALUES | st.integers(-1, 1)}
)
EVENTS: st.SearchStrategy[Event] = st.builds(
    read_event,
    id=st.just("1"),
    source=st.none() | VALUES,
    type=VALUES,
    subject=st.none() | st.just("") | VALUES,
    extensions=EXTENSIONS,
)


def meaning(filter: dict[str, Any], event: Event, fold: Callable[[str], str] = str) -> bool:
    """The specification, read word by word; the other way to evaluate a filter."""
    [(dialect, body)] = filter.items()
    if dialect == "not":
        return not meaning(body, event, fold)
    if dialect in ("all", "any"):
        return (all if dialect == "all" else any)([meaning(each, event, fold) for each in body])
    compare = {"exact": str.__eq__, "prefix": str.startswith, "suffix": str.endswith}[dialect]
    attributes = {
        name: json.dumps(value) if isinstance(value, (bool, int)) else value
        for name, value in event.attributes().items()
    }
    return all(
        name in attributes and compare(fold(attributes[name]), fold(text)) for name, text in body.items()
    )


@given(FILTERS, EVENTS)
def test_evaluates_as_the_specification_reads(filter: Filter, event: Event) -> None:
    assert filter.matches(event) == meaning(filter.as_dict(), event)


@given(FILTERS)
def test_json_and_repr_round_trip(filter: Filter) -> None:
    assert parse(filter.to_json()) == filter
    assert parse(filter.as_dict()) == filter
    assert eval(repr(filter), vars(filters).copy()) == filter
    assert "\n" not in str(filter)


@given(FILTERS, FILTERS, EVENTS)
def test_operators_mean_what_they_say(a: Filter, b: Filter, event: Event) -> None:
    assert (a & b).matches(event) == (a.matches(event) and b.matches(event))
    assert (a | b).matches(event) == (a.matches(event) or b.matches(event))
    assert (~a).matches(event) == (not a.matches(event))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from([*DIALECTS, "sql"]) | st.text(max_size=3), inner, max_size=2)
        ),
    )
)
def test_whatever_a_stranger_sends_is_a_filter_or_one_clear_line(source: object) -> None:
    problem = None
    try:
        found = parse(source)
    except DeclarationError as error:
        problem = str(error)
    if problem is None:
        assert found is None or parse(found.as_dict()) == found
    else:
        assert problem.startswith("filter")
        assert "\n" not in problem


# --- the index -------------------------------------------------------------------------------------------

STEPS = st.lists(
    st.tuples(st.integers(0, 9), st.sampled_from(["remove", "add", "add", "add"]), FILTERS | st.none())
)


@given(STEPS, st.lists(EVENTS, min_size=1, max_size=4), st.sampled_from([0, 0, 2, 4]))
@settings(max_examples=300)
def test_the_index_finds_what_asking_each_finds(
    steps: list[tuple[int, str, Filter | None]], events: list[Event], few: int
) -> None:
    index: FilterIndex[int] = FilterIndex(few=few)
    asked: dict[int, Filter | None] = {}  # a dict, too, keeps the place of a key that is set again
    for key, action, filter in steps:
        if action == "add":
            index.add(key, filter)
            asked[key] = filter
        elif key in asked:
            index.remove(key)
            del asked[key]
        assert len(index) == len(asked)
        for event in events:
            assert index.matching(event) == [
                key for key, filter in asked.items() if filter is None or filter.matches(event)
            ]


@pytest.mark.parametrize("few", [0, 9])
def test_keys_come_in_the_order_they_were_added(few: int) -> None:
    index: FilterIndex[str] = FilterIndex(few=few)
    for key in "cab":
        index.add(key, exact(type="t"))
    index.add("d", None)
    index.add("a", prefix(type="t"))
    assert index.matching(Event(type="t", source="/s")) == ["c", "a", "b", "d"]
    assert "a" in index
    index.remove("a")
    assert "a" not in index
    index.add("a", None)
    assert index.matching(Event(type="t", source="/s")) == ["c", "b", "d", "a"]


def test_removing_what_is_not_there_is_a_key_error() -> None:
    index: FilterIndex[str] = FilterIndex()
    with pytest.raises(KeyError):
        index.remove("a")


class Counted(Event):
    """An event that counts how often its extensions are asked for."""

    __slots__ = ("asked",)

    def get(self, name: str) -> str | bool | int | None:
        self.asked: int = getattr(self, "asked", 0) + 1
        return super().get(name)


@pytest.mark.parametrize(
    "build",
    [
        lambda n: exact(tenant=f"t-{n}"),
        lambda n: exact(tenant=f"t-{n}", kind="order"),
        lambda n: exact(kind="order", tenant=f"t-{n}"),
        lambda n: prefix(tenant=f"t-{n}/"),
        lambda n: suffix(tenant=f"-{n}/orders"),
        lambda n: all_(exact(kind="order"), prefix(tenant=f"t-{n}"), not_(exact(tenant="x"))),
        lambda n: any_(exact(tenant=f"t-{n}"), prefix(tenant=f"t-{n}/")),
        lambda n: exact(tenant=[f"t-{n}", f"t-{n}/orders", f"u-{n}"]),
    ],
)
def test_a_thousand_filters_are_not_asked_one_by_one(build: Callable[[int], Filter]) -> None:
    index: FilterIndex[int] = FilterIndex()
    for n in range(1000, 2000):
        index.add(n, build(n))
    asked = 0
    for tenant in ("t-1234", "t-1234/orders"):
        event = Counted(type="t", source="/s", extensions={"kind": "order", "tenant": tenant})
        assert index.matching(event) in ([1234], [])
        asked += event.asked
    assert asked <= 20


# --- splitting -------------------------------------------------------------------------------------------

OPERATORS = st.sets(st.sampled_from(DIALECTS)).map(frozenset)


def used(filter: Filter) -> set[str]:
    """Every operator that a provider needs for a filter."""
    [(dialect, body)] = filter.as_dict().items()
    if isinstance(filter, Not):
        return {"not"} | used(filter.filter)
    if isinstance(filter, (All, filters.Any)):
        return {dialect}.union(*map(used, filter.filters))
    return {dialect} | ({"all"} if len(body) > 1 else set())  # type: ignore[arg-type]


@given(FILTERS, OPERATORS, st.lists(EVENTS, min_size=1, max_size=8))
@settings(max_examples=200)
def test_splitting_loses_no_event(filter: Filter, operators: frozenset[str], events: list[Event]) -> None:
    native, residual = split(filter, operators)
    assert residual in (None, filter)
    assert native is None or used(native) <= operators
    assert not (native is None and residual is None)
    for event in events:
        delivered = native is None or native.matches(event)
        assert delivered >= filter.matches(event)
        assert (delivered and (residual is None or residual.matches(event))) == filter.matches(event)


@given(FILTERS, OPERATORS, st.sets(st.sampled_from(NAMES)), st.lists(EVENTS, min_size=1, max_size=8))
@settings(max_examples=200)
def test_splitting_for_a_provider_that_ignores_case(
    filter: Filter, operators: frozenset[str], carried: set[str], events: list[Event]
) -> None:
    native, residual = split(
        filter, operators, accepts=lambda one: one.pairs[0][0] in carried, case_sensitive=False
    )
    assert residual == filter
    for event in events:
        assert native is None or meaning(native.as_dict(), event, str.lower) >= filter.matches(event)


@given(FILTERS)
def test_a_provider_that_knows_all_operators_is_given_the_filter_as_written(filter: Filter) -> None:
    assert split(filter, DIALECTS) == (filter, None)
    assert split(filter, ()) == (None, filter)


NO_SUFFIX = {"exact", "prefix", "all", "any", "not"}
A, B, BAD = exact(a="1"), prefix(b="2"), suffix(c="3")

SPLITS = [
    (A, NO_SUFFIX, A, True),
    (BAD, NO_SUFFIX, None, False),
    (A & BAD, NO_SUFFIX, A, False),
    (A & B & BAD, NO_SUFFIX, A & B, False),
    (A | BAD, NO_SUFFIX, None, False),
    ((A & BAD) | B, NO_SUFFIX, A | B, False),
    (~BAD, NO_SUFFIX, None, False),
    (~(A & BAD), NO_SUFFIX, None, False),
    (~(A | BAD), NO_SUFFIX, ~A, False),
    (~(A | B | BAD), NO_SUFFIX, ~A & ~B, False),
    (not_(not_(A & BAD)), NO_SUFFIX, A, False),
    (~(~A & BAD) & B, NO_SUFFIX, B, False),
    (~(~A | BAD), NO_SUFFIX, A, False),
    (A & B, {"exact", "prefix"}, A, False),
    (A | B, {"exact", "prefix"}, None, False),
    (all_(A), {"exact"}, A, True),
    (any_(A), {"exact"}, A, True),
    (exact(a="1", b="2"), {"exact"}, exact(a="1"), False),
    (exact(a="1", b="2"), {"exact", "all"}, exact(a="1", b="2"), True),
    (~exact(a="1", b="2"), {"exact", "any", "not"}, ~exact(a="1") | ~exact(b="2"), True),
    (~exact(a="1", b="2"), {"exact", "not"}, None, False),
    (~(A | B), {"exact", "prefix", "all", "not"}, ~A & ~B, True),
    (~A & B, {"exact", "prefix", "all"}, B, False),
]


@pytest.mark.parametrize(
    ("filter", "operators", "native", "whole"),
    SPLITS,
    ids=lambda value: str(sorted(value) if isinstance(value, set) else value)[:50],
)
def test_how_filters_split(filter: Filter, operators: set[str], native: Filter | None, whole: bool) -> None:
    assert split(filter, operators) == (native, None if whole else filter)


def test_a_comparison_that_the_provider_cannot_make() -> None:
    def short(one: filters.Exact | filters.Prefix | filters.Suffix) -> bool:
        return len(one.pairs[0][1]) < 5

    found = split(exact(a="1", b="too long"), DIALECTS, accepts=short)
    assert found.native == exact(a="1")
    assert found.residual == exact(a="1", b="too long")


def test_ignoring_case_widens_and_is_never_negated() -> None:
    wanted = exact(a="1", b="2") & ~exact(c="3")
    assert split(wanted, DIALECTS, case_sensitive=False) == (exact(a="1") & exact(b="2"), wanted)


def test_a_filter_that_moving_negations_would_make_too_deep_is_evaluated_here() -> None:
    filter: Filter = not_(exact(a="1", b="2"))
    for _ in range(MAX_DEPTH - 2):
        filter = any_(filter, B)
    assert split(filter, {"exact", "prefix", "any", "not"}) == (None, filter)


def test_an_operator_that_is_none() -> None:
    with pytest.raises(ValueError, match="'prefixes' is no filter operator; did you mean 'prefix'"):
        split(A, {"prefixes"})
