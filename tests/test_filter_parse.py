"""Reading filters from the specification's JSON, and writing it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from crossbus.errors import DeclarationError
from crossbus.filter_rules import MAX_CONDITIONS, MAX_DEPTH
from crossbus.filters import Filter, all_, any_, exact, not_, parse, prefix, suffix

# Examples of the specification, section "Filters".
PUSH = {"exact": {"type": "com.github.push", "subject": "https://github.com/cloudevents/spec"}}
EXAMPLES: list[tuple[dict[str, Any], Filter]] = [
    (PUSH, exact(type="com.github.push", subject="https://github.com/cloudevents/spec")),
    (
        {"prefix": {"type": "com.github.", "subject": "https://github.com/cloudevents"}},
        prefix(type="com.github.", subject="https://github.com/cloudevents"),
    ),
    (
        {"suffix": {"type": ".created", "subject": "/cloudevents/spec"}},
        suffix(type=".created", subject="/cloudevents/spec"),
    ),
    (
        {"all": [{"exact": {"type": "com.github.push"}}, {"exact": {"subject": "x"}}]},
        all_(exact(type="com.github.push"), exact(subject="x")),
    ),
    (
        {"any": [{"exact": {"type": "com.github.push"}}, {"exact": {"subject": "x"}}]},
        any_(exact(type="com.github.push"), exact(subject="x")),
    ),
    ({"not": {"exact": {"type": "com.github.push"}}}, not_(exact(type="com.github.push"))),
    (
        {"not": {"any": [{"all": [{"suffix": {"a": "ü🎉"}}]}, {"not": {"prefix": {"b": '"\\'}}}]}},
        not_(any_(all_(suffix(a="ü🎉")), not_(prefix(b='"\\')))),
    ),
]


@pytest.mark.parametrize(("source", "filter"), EXAMPLES, ids=lambda value: str(value)[:40])
def test_reads_and_writes_the_specifications_json(source: dict[str, Any], filter: Filter) -> None:
    assert parse(source) == filter
    assert parse(json.dumps(source)) == filter
    assert parse(json.dumps(source).encode()) == filter
    assert parse(bytearray(json.dumps(source, ensure_ascii=False), "utf-8")) == filter
    assert filter.as_dict() == source
    assert json.loads(filter.to_json()) == source
    assert parse(filter.to_json()) == filter


def test_an_array_is_the_filters_of_a_subscription() -> None:
    a, b = {"exact": {"type": "a"}}, {"prefix": {"type": "b"}}
    assert parse([a, b]) == all_(exact(type="a"), prefix(type="b"))
    assert parse((a, b)) == parse(json.dumps([a, b]))
    assert parse([a]) == exact(type="a")
    assert parse([]) is None
    assert parse("[]") is None


KNOWN = "exact, prefix, suffix, all, any, not"
DEEP: dict[str, Any] = {"exact": {"type": "a"}}
for _ in range(MAX_DEPTH):
    DEEP = {"not": DEEP}
ITSELF: dict[str, Any] = {}
ITSELF["all"] = [ITSELF, ITSELF]

REFUSED: list[tuple[object, str]] = [
    ("", "filter: not JSON: Expecting value"),
    ("type = 'a'", "filter: not JSON: Expecting value: line 1 column 1"),
    ('{"exact": {"type": "a"}', "filter: not JSON: Expecting ',' delimiter"),
    (b"\xff\xfe\xfa", "filter: not JSON: "),
    (b"\xff", "filter: not JSON: 'utf-8' codec can't decode byte 0xff"),
    ("[" * 100_000, "filter: nested deeper than 32; write it flatter"),
    ("9" * 5000, "filter: holds a number of too many digits; compare with text"),
    ("null", 'filter: must be an object such as {"exact": {"type": "com.acme"}}, not null'),
    ("5", "not 5"),
    ('"exact"', "not 'exact'"),
    (None, "not null"),
    (object(), 'filter: must be an object such as {"exact": {"type": "com.acme"}}, not object'),
    (10**9999, "not int"),
    ([5], "filters[0]: must be an object"),
    ([PUSH, []], 'filters[1]: must be an object such as {"exact": {"type": "com.acme"}}, not an empty array'),
    ([PUSH, [PUSH]], 'filters[1]: must be an object such as {"exact": {"type": "com.acme"}}, not an array'),
    ({}, f"filter: a filter has one dialect of {KNOWN}; this one is empty"),
    ({"exact": {"a": "1"}, "prefix": {"a": "1"}}, "this one has 2 ('exact', 'prefix'); put them into an all"),
    (
        '{"exact": {"a": "1"}, "exact": {"b": "1"}}',
        "filter: an object has 'exact' twice, of which JSON keeps one",
    ),
    (
        '{"exact": {"a": "1", "a": "2"}}',
        "filter: an object has 'a' twice, of which JSON keeps one; write several filters",
    ),
    (
        {"sql": "type = 'a'"},
        f"filter: the dialect 'sql' (CloudEvents SQL) is not supported; write the condition with {KNOWN}",
    ),
    ({"all": [PUSH, {"not": {"sql": "TRUE"}}]}, "filter.all[1].not: the dialect 'sql'"),
    ({"cesql": "TRUE"}, f"filter: unknown dialect 'cesql'; known: {KNOWN}"),
    ({"prefixes": {"a": "1"}}, f"filter: unknown dialect 'prefixes'; did you mean 'prefix'? known: {KNOWN}"),
    ({"EXACT": {"a": "1"}}, "unknown dialect 'EXACT'"),
    ({"type": "a"}, "unknown dialect 'type'"),
    ({"filters": [PUSH]}, "unknown dialect 'filters'"),
    ({5: PUSH}, "filter: unknown dialect 5; known:"),
    ({"x" * 10_000: PUSH}, "unknown dialect 'xxx"),
    (
        {"exact": {}},
        'filter.exact: must be an object of attributes, such as {"type": "com.acme"}, not an empty object',
    ),
    (
        {"exact": [PUSH]},
        'filter.exact: must be an object of attributes, such as {"type": "com.acme"}, not an array',
    ),
    ({"exact": "a"}, "not 'a'"),
    ({"exact": None}, "not null"),
    ({"exact": {"type": ""}}, "filter.exact: type is empty; the specification forbids empty text"),
    ({"prefix": {"type": ""}}, "filter.prefix: type is empty"),
    ({"suffix": {"type": ""}}, "filter.suffix: type is empty"),
    ({"exact": {"": "a"}}, "filter.exact: attribute name '' is not allowed"),
    (
        {"exact": {"type": ["a", "b"]}},
        "filter.exact: type is list, not str; it must be non-empty text; "
        "several texts are several filters in an any",
    ),
    ({"exact": {"type": {"a": 1}}}, "filter.exact: type is dict, not str; it must be non-empty text"),
    ({"exact": {"type": None}}, "filter.exact: type is NoneType, not str"),
    ({"exact": {"urgent": True}}, "filter.exact: urgent is True; compare with text: 'true'"),
    ({"exact": {"priority": 5}}, "filter.exact: priority is 5; compare with text: '5'"),
    ('{"exact": {"priority": NaN}}', "filter.exact: priority is nan"),
    ('{"exact": {"type": "\\ud800"}}', "filter.exact: type holds a lone surrogate, U+D800, at position 0"),
    ({"exact": {"data": "a"}}, "filter.exact: 'data' cannot be filtered on"),
    (
        {"exact": {"Type": "a"}},
        "filter.exact: attribute name 'Type' is not allowed: only the letters a-z and digits 0-9; use 'type'",
    ),
    ({"all": []}, "filter.all: must be an array of at least one filter, not an empty array"),
    ({"any": []}, "filter.any: must be an array of at least one filter, not an empty array"),
    ({"any": PUSH}, "filter.any: must be an array of at least one filter, not an object"),
    ({"all": "exact"}, "filter.all: must be an array of at least one filter, not 'exact'"),
    ({"all": [PUSH, {"any": [PUSH, None]}]}, "filter.all[1].any[1]: must be an object"),
    ({"not": []}, "filter.not: must be an object"),
    ({"not": [PUSH]}, 'filter.not: must be an object such as {"exact": {"type": "com.acme"}}, not an array'),
    ([PUSH, {"not": {"exact": {"type": 5}}}], "filters[1].not.exact: type is 5"),
    (DEEP, "not.not.not: nested deeper than 32; write it flatter"),
    ([PUSH, DEEP["not"]], "nested deeper than 32"),
    (ITSELF, "nested deeper than 32"),
    (
        {"any": [PUSH] * MAX_CONDITIONS},
        f"filter.any[{MAX_CONDITIONS // 2 - 1}].exact: a filter may hold {MAX_CONDITIONS} conditions",
    ),
    ([{"not": PUSH}] * MAX_CONDITIONS, f"a filter may hold {MAX_CONDITIONS} conditions"),
]


@pytest.mark.parametrize(("source", "message"), REFUSED, ids=[message[:50] for _, message in REFUSED])
def test_refused_in_one_clear_line_with_the_path(source: object, message: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        parse(source)
    text = str(caught.value)
    assert message in text
    assert text.startswith("filter")
    assert "\n" not in text
    assert len(text) < 320


def test_the_largest_that_is_allowed_is_read() -> None:
    assert parse({"any": [{"exact": {"a": str(n)}} for n in range(MAX_CONDITIONS - 1)]}) is not None
    assert parse(DEEP["not"]) is not None
    assert parse([PUSH, DEEP["not"]["not"]]) is not None
