"""Filters: what matches, how they are built, compared and printed, and what is refused."""

from __future__ import annotations

import copy
import enum
import pickle

import pytest

from crossbus import filters
from crossbus.errors import CrossbusError, DeclarationError
from crossbus.event import Event
from crossbus.event import unchecked as read_event
from crossbus.filter_rules import MAX_CONDITIONS, MAX_DEPTH
from crossbus.filters import (
    All,
    Any,
    Exact,
    Filter,
    Not,
    Prefix,
    Suffix,
    all_,
    any_,
    exact,
    not_,
    prefix,
    suffix,
)

EVENT = Event(
    type="com.acme.order.placed",
    source="/shop/berlin",
    id="o-1",
    subject="Grüße/日本/🎉",
    time="2026-01-31T12:00:00.000+01:00",
    datacontenttype="application/json",
    dataschema="https://acme.example/order.json",
    data={"type": "not this one"},
    extensions={
        "tenant": "t-1",
        "urgent": True,
        "draft": False,
        "priority": 42,
        "offset": -7,
        "class": "gold",
    },
)

MATCHING = [
    exact(type="com.acme.order.placed"),
    exact(source="/shop/berlin"),
    exact(id="o-1"),
    exact(subject="Grüße/日本/🎉"),
    exact(datacontenttype="application/json"),
    exact(dataschema="https://acme.example/order.json"),
    exact(specversion="1.0"),
    exact(time="2026-01-31T12:00:00.000+01:00"),
    prefix(time="2026-01-31"),
    exact(tenant="t-1"),
    exact(urgent="true"),
    exact(draft="false"),
    exact(priority="42"),
    exact(offset="-7"),
    exact({"class": "gold"}),
    exact(type="com.acme.order.placed", tenant="t-1", priority="42"),
    prefix(type="com.acme."),
    prefix(type="com.acme.order.placed"),
    prefix(subject="Grüße/日"),
    prefix(urgent="tr", priority="4"),
    suffix(type=".placed"),
    suffix(type="com.acme.order.placed"),
    suffix(subject="🎉"),
    suffix(draft="se", offset="7"),
    all_(exact(tenant="t-1"), prefix(type="com."), suffix(type=".placed")),
    all_(exact(tenant="t-1")),
    any_(exact(tenant="t-2"), prefix(type="com.")),
    any_(exact(type="x"), exact(type="com.acme.order.placed")),
    any_(exact(priority="41"), exact(priority="42")),
    not_(exact(tenant="t-2")),
    not_(exact(missing="x")),
    not_(prefix(missing="x")),
    not_(suffix(missing="x")),
    not_(not_(exact(tenant="t-1"))),
    not_(any_(exact(tenant="t-2"), all_(prefix(type="com."), not_(suffix(type=".placed"))))),
]

NOT_MATCHING = [
    exact(type="com.acme.order.Placed"),
    exact(type="com.acme.order"),
    exact(type="com.acme.order.placed "),
    exact(
        subject="Gru\u0308ße/日本/🎉"
    ),  # the same to the eye, decomposed: text is compared, not its meaning
    exact(time="2026-01-31T11:00:00.000Z"),  # the same instant, written differently
    exact(urgent="True"),
    exact(urgent="1"),
    exact(draft="0"),
    exact(priority="42.0"),
    exact(priority="042"),
    exact(missing="x"),
    exact(type="com.acme.order.placed", tenant="t-2"),
    exact(type="com.acme.order.placed", tenant="t-1", missing="x"),
    prefix(type="COM."),
    prefix(type="acme"),
    prefix(type="com.acme.order.placed.twice"),
    prefix(missing="x"),
    prefix(type="com.", tenant="x"),
    suffix(type=".PLACED"),
    suffix(type="order"),
    suffix(type="a.com.acme.order.placed"),
    suffix(missing="x"),
    all_(exact(tenant="t-1"), exact(missing="x")),
    all_(exact(tenant="t-1"), prefix(type="com."), exact(missing="x")),
    any_(exact(tenant="t-2"), exact(tenant="t-3")),
    any_(exact(tenant="t-2"), exact(missing="x"), prefix(type="x")),
    any_(exact(missing="x"), exact(missing="y")),
    not_(exact(tenant="t-1")),
    not_(all_(exact(tenant="t-1"), prefix(type="com."))),
]

EVERY_KIND = [
    exact(type="a"),
    prefix(type="a"),
    suffix(type="a"),
    all_(exact(a="1")),
    any_(exact(a="1")),
    not_(exact(a="1")),
]


@pytest.mark.parametrize("filter", MATCHING, ids=str)
def test_matches(filter: Filter) -> None:
    assert filter.matches(EVENT) is True
    assert filter.predicate(EVENT) is True
    assert not_(filter).matches(EVENT) is False


@pytest.mark.parametrize("filter", NOT_MATCHING, ids=str)
def test_does_not_match(filter: Filter) -> None:
    assert filter.matches(EVENT) is False
    assert filter.predicate(EVENT) is False
    assert not_(filter).matches(EVENT) is True


def test_an_event_that_has_only_what_it_must() -> None:
    bare = read_event(id="1", source=None, type="t")
    for name in ("source", "subject", "time", "datacontenttype", "dataschema", "tenant"):
        for build in (exact, prefix, suffix):
            assert not build({name: "x"}).matches(bare)
            assert not_(build({name: "x"})).matches(bare)
    assert exact(type="t", id="1").matches(bare)


def test_an_empty_attribute_of_a_foreign_event_matches_nothing() -> None:
    foreign = read_event(id="1", source="/s", type="t", subject="", extensions={"tenant": ""})
    assert not prefix(subject="x").matches(foreign)
    assert not suffix(tenant="x").matches(foreign)


def test_a_time_that_is_a_datetime_is_compared_as_it_is_written() -> None:
    event = Event(type="t", source="/s")
    assert exact(time=str(event.time_text)).matches(event)


def test_several_attributes_must_all_match() -> None:
    assert exact(type="a", source="b") == Exact({"source": "b", "type": "a"})
    both = exact({"type": "a"}, source="b")
    assert both.as_dict() == {"exact": {"type": "a", "source": "b"}}
    assert isinstance(both, Exact)
    assert both.pairs == (("type", "a"), ("source", "b"))


@pytest.mark.parametrize(("build", "kind"), [(exact, Exact), (prefix, Prefix), (suffix, Suffix)])
def test_a_list_of_texts_means_any_of_them(build: object, kind: type[Exact]) -> None:
    assert callable(build)
    assert build(type=["a", "b"]) == Any([kind({"type": "a"}), kind({"type": "b"})])
    assert build(type=("a",)) == kind({"type": "a"})
    assert build(source="/s", type=["a", "b"], id="1") == All(
        [kind({"source": "/s", "id": "1"}), Any([kind({"type": "a"}), kind({"type": "b"})])]
    )
    assert build(source=["c", "d"], type=["a", "b"]) == All(
        [
            Any([kind({"source": "c"}), kind({"source": "d"})]),
            Any([kind({"type": "a"}), kind({"type": "b"})]),
        ]
    )


def test_operators_join_without_nesting() -> None:
    a, b, c = exact(a="1"), prefix(b="2"), suffix(c="3")
    assert a & b & c == all_(a, b, c)
    assert a & (b & c) == all_(a, b, c)
    assert a | b | c == any_(a, b, c)
    assert (a | b) & c == all_(any_(a, b), c)
    assert ~a == not_(a)
    assert ~~a == a


def test_operators_take_only_filters() -> None:
    for wrong in (lambda: exact(a="1") & "b", lambda: exact(a="1") | None):
        with pytest.raises(TypeError, match="unsupported operand"):
            wrong()  # type: ignore[no-untyped-call]


def test_and_or_not_of_python_are_refused_since_they_would_drop_a_condition() -> None:
    with pytest.raises(TypeError, match="combine filters with & "):
        exact(a="1") and exact(b="2")
    with pytest.raises(TypeError, match="is None"):
        bool(exact(a="1"))


def test_a_filter_is_one_of_six_kinds() -> None:
    assert [type(each) for each in EVERY_KIND] == [Exact, Prefix, Suffix, All, Any, Not]
    assert [each.dialect for each in EVERY_KIND] == ["exact", "prefix", "suffix", "all", "any", "not"]
    with pytest.raises(TypeError, match="abstract"):
        Filter()  # type: ignore[abstract]


def test_the_parts_of_a_filter_can_be_walked() -> None:
    a, b = exact(type="a"), prefix(type="b")
    assert all_(a, b).filters == (a, b)
    assert any_(a, b).filters == (a, b)
    assert not_(a).filter is a


def test_equality_and_hash() -> None:
    assert len({exact(a="1", b="2"), exact(b="2", a="1")}) == 1
    assert len(set(EVERY_KIND)) == len(EVERY_KIND)
    assert exact(a="1") != prefix(a="1")
    assert all_(exact(a="1")) != any_(exact(a="1"))
    assert all_(exact(a="1"), exact(b="1")) != all_(exact(b="1"), exact(a="1"))
    assert exact(a="1") != {"exact": {"a": "1"}}


@pytest.mark.parametrize("filter", MATCHING + NOT_MATCHING, ids=str)
def test_copies_pickles_and_repr(filter: Filter) -> None:
    again = pickle.loads(pickle.dumps(filter))
    assert again == filter
    assert hash(again) == hash(filter)
    assert again.matches(EVENT) == filter.matches(EVENT)
    assert copy.copy(filter) is filter
    assert copy.deepcopy(filter) is filter
    assert eval(repr(filter), vars(filters).copy()) == filter


def test_filters_cannot_be_changed() -> None:
    for filter in EVERY_KIND:
        for name in ("predicate", "pairs", "filters", "filter", "other"):
            with pytest.raises(AttributeError):
                setattr(filter, name, None)
    given = {"type": "a"}
    filter = Exact(given)
    given["type"] = "b"
    filter.as_dict()["exact"]["type"] = "c"  # type: ignore[index]
    assert filter == exact(type="a")


def test_repr_is_what_a_user_writes() -> None:
    assert repr(exact(type="a", source="b")) == "exact(type='a', source='b')"
    assert repr(exact({"class": "a"})) == "exact({'class': 'a'})"
    assert repr(exact({"1st": "a"})) == "exact({'1st': 'a'})"
    assert repr(all_(exact(a="1"), not_(prefix(b="2")))) == "all_(exact(a='1'), not_(prefix(b='2')))"
    assert repr(any_(suffix(a="1"))) == "any_(suffix(a='1'))"


def test_text_is_one_readable_line() -> None:
    assert str(exact(type="com.acme")) == 'type = "com.acme"'
    assert str(prefix(type="a") | suffix(source="ü")) == 'type starts with "a" or source ends with "ü"'
    assert str(exact(a="1", b="2") | exact(c="3")) == '(a = "1" and b = "2") or c = "3"'
    assert str((exact(a="1") | exact(b="2")) & ~(exact(c="3") & exact(d='"'))) == (
        '(a = "1" or b = "2") and not (c = "3" and d = "\\"")'
    )
    assert str(all_(exact(a="1"))) == 'a = "1"'


def test_text_of_the_deepest_filter_is_quick() -> None:
    filter: Filter = exact(a="1")
    for turn in range(MAX_DEPTH - 1):
        filter = all_(filter, exact(b="2")) if turn % 2 else any_(filter, exact(b="2"))
    assert str(filter).count("(") == MAX_DEPTH - 2


class Kind(str, enum.Enum):  # str() of a member is not its value
    PLACED = "com.acme.order.placed"


def test_a_text_enum_is_text() -> None:
    filter = exact(type=Kind.PLACED)
    assert filter.matches(EVENT)
    assert repr(filter) == "exact(type='com.acme.order.placed')"
    assert filter.to_json() == '{"exact":{"type":"com.acme.order.placed"}}'


REFUSED = [
    (lambda: exact(), "exact needs attributes with their text, as in exact(type='com.acme')"),
    (lambda: prefix({}), "prefix needs attributes with their text, as in prefix(type='com.acme')"),
    (
        lambda: exact("com.acme"),
        "takes attributes by name, as in exact(type='com.acme'), or one mapping; not str",
    ),
    (lambda: Exact([("a", "b")]), "exact needs attributes"),
    (lambda: exact({"type": "a"}, type="b"), "exact: type is given twice; use a list"),
    (
        lambda: exact(type=""),
        "exact: type is empty; the specification forbids empty text: leave type out",
    ),
    (lambda: prefix(type=""), "prefix: type is empty"),
    (lambda: suffix(type=""), "suffix: type is empty"),
    (lambda: exact(type=["a", ""]), "exact: type is empty"),
    (lambda: exact(type=[]), "exact: type is an empty list; give at least one text, or leave it out"),
    (lambda: exact(urgent=True), "exact: urgent is True; compare with text: 'true'"),
    (lambda: exact(priority=5), "exact: priority is 5; compare with text: '5'"),
    (lambda: exact(ratio=0.5), "exact: ratio is 0.5; compare with text: '0.5'"),
    (lambda: exact(priority=10**9999), "exact: priority is int; compare with text"),
    (lambda: exact(type=None), "exact: type is NoneType, not str; it must be non-empty text"),
    (lambda: exact(type=b"a"), "exact: type is bytes, not str; it must be non-empty text"),
    (lambda: exact(type={"a"}), "exact: type is set, not str; it must be non-empty text"),
    (
        lambda: exact(type="a\x00"),
        "exact: type holds a character that CloudEvents forbids, U+0000, at position 1",
    ),
    (lambda: exact(type="\ud800"), "exact: type holds a lone surrogate, U+D800, at position 0"),
    (lambda: exact({"": "a"}), "attribute name '' is not allowed: only the letters a-z and digits 0-9"),
    (
        lambda: exact(orderId="a"),
        "attribute name 'orderId' is not allowed: only the letters a-z and digits 0-9; use 'orderid'",
    ),
    (lambda: exact({"ce-type": "a"}), "only the letters a-z and digits 0-9; use 'type'"),
    (lambda: exact({"größe": "a"}), "attribute name 'größe' is not allowed"),
    (lambda: exact({"type\n": "a"}), "attribute name 'type\\n' is not allowed"),
    (lambda: exact({5: "a"}), "attribute name 5 is not allowed"),
    (lambda: exact({None: "a"}), "attribute name None is not allowed"),
    (lambda: exact({"A" * 500: "a"}), "AAA… is not allowed"),
    (lambda: exact({"a" * 500: ""}), "aaa… is empty"),
    (
        lambda: exact(data="a"),
        "'data' cannot be filtered on: filters see no data; publish an extension to filter on",
    ),
    (lambda: exact(data_base64="a"), "'data_base64' cannot be filtered on"),
    (
        lambda: exact({"data.order\n": "a"}),
        "'data.order\\n' cannot be filtered on: filters see no data",
    ),
    (
        lambda: exact({"Data": "a"}),
        "attribute name 'Data' is not allowed: only the letters a-z and digits 0-9",
    ),
    (
        lambda: exact(crossbussub="a"),
        "'crossbussub' cannot be filtered on: names that start with crossbus are for crossbus itself",
    ),
    (lambda: all_(), "all_ needs at least one filter, as in all_(exact(type='a'))"),
    (lambda: any_(), "any_ needs at least one filter, as in any_(exact(type='a'))"),
    (lambda: all_([exact(a="1")]), "all_ takes filters, not list; unpack it with *"),
    (lambda: any_({"exact": {"a": "1"}}), "any_ takes filters, not dict, such as exact(type='com.acme')"),
    (lambda: not_("type"), "not_ takes filters, not str, such as exact(type='com.acme')"),
    (lambda: not_(None), "not_ takes filters, not NoneType"),
]


@pytest.mark.parametrize(("build", "message"), REFUSED, ids=[message[:60] for _, message in REFUSED])
def test_refused_in_one_clear_line(build: object, message: str) -> None:
    assert callable(build)
    with pytest.raises(DeclarationError) as caught:
        build()
    text = str(caught.value)
    assert message in text
    assert "\n" not in text
    assert len(text) < 240
    assert isinstance(caught.value, CrossbusError)


def test_depth_is_limited() -> None:
    filter: Filter = exact(a="1")
    for _ in range(MAX_DEPTH - 1):
        filter = not_(filter)
    assert filter.matches(EVENT) is True  # an odd number of negations of what does not match
    with pytest.raises(
        DeclarationError, match=f"nested {MAX_DEPTH} deep, not {MAX_DEPTH + 1}; write it flatter"
    ):
        not_(filter)


def test_size_is_limited() -> None:
    texts = [str(n) for n in range(MAX_CONDITIONS - 1)]
    filter = exact(tenant=texts)
    assert filter.matches(Event(type="t", source="/s", extensions={"tenant": "77"}))
    with pytest.raises(
        DeclarationError, match=f"may hold {MAX_CONDITIONS} conditions, not {MAX_CONDITIONS + 1};"
    ):
        exact(tenant=[*texts, "one more"])
    with pytest.raises(DeclarationError, match="conditions"):
        not_(filter) & exact(a="1")
