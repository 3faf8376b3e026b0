"""Dividing the bytes of a file or pipe into events."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossbus.cli.reading import LONGEST, Format, Item, splitter
from crossbus.errors import ConfigurationError


def split(text: str | bytes, format: Format = "auto", *, step: int | None = None) -> list[Item]:
    raw = text.encode() if isinstance(text, str) else text
    reader = splitter(format)
    step = step or max(len(raw), 1)
    items = [item for at in range(0, len(raw), step) for item in reader.feed(raw[at : at + step])]
    return items + reader.finish()


def bodies(items: list[Item]) -> list[object]:
    return [json.loads(item.body) for item in items]


ONE = '{"id": "1", "data": {"text": "a, ] } [ { \\" \\\\"}}'
TWO = '{"id": "2"}'
PRETTY = json.dumps({"id": "3", "data": {"list": [1, {"x": []}]}}, indent=2)
TALL = PRETTY.count("\n") + 1


@pytest.mark.parametrize("step", [1, 2, 7, None])
@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (f"{ONE}\n{TWO}\n", [1, 2]),
        (f"{ONE}\r\n\r\n  {TWO}", [1, 3]),
        (ONE, [1]),
        (f"\ufeff{ONE}\n{TWO}", [1, 2]),
        (PRETTY, [1]),
        (f"\n\n{PRETTY}\n{PRETTY}\n", [3, 3 + TALL]),
        (f"[{ONE},{TWO}]", [1, 1]),
        (f"[\n {ONE},\n\n {TWO}\n]\n", [2, 4]),
        (f"[\n{PRETTY},\n{PRETTY}]", [2, 2 + TALL]),
        (f"[{ONE}]\n[{TWO}]", [1, 2]),
        ("[]", []),
        ("", []),
        (" \n\t\n", []),
    ],
)
def test_every_form_is_found_out_whatever_the_pieces(text: str, lines: list[int], step: int | None) -> None:
    items = split(text, step=step)
    assert [item.line for item in items] == lines
    assert not [item.problem for item in items if item.problem]
    expected = [value for value in (ONE, TWO, PRETTY) for _ in range(text.count(value))]
    assert sorted(map(str, bodies(items))) == sorted(str(json.loads(value)) for value in expected)


@pytest.mark.parametrize("step", [1, 5, None])
@pytest.mark.parametrize("bad", ["no json", '{"id":', '{"id": }', '"text"', "}", "]", '{"a": "b'])
def test_a_bad_line_among_good_ones_is_one_item(bad: str, step: int | None) -> None:
    items = split(f"{TWO}\n{bad}\n{ONE}\n", step=step)
    assert [(item.line, item.body.decode()) for item in items] == [(1, TWO), (2, bad), (3, ONE)]


@pytest.mark.parametrize("bad", ["no json", '{"id": "x", "data": {', '{"id": "x"'])
def test_a_bad_first_line_does_not_hide_that_the_others_are_lines(bad: str) -> None:
    items = split(f"{bad}\n{ONE}\n{TWO}\n")
    assert [item.line for item in items] == [1, 2, 3]


def test_a_bad_entry_of_a_batch_is_one_item() -> None:
    items = split(f'[{TWO},\n{{"id": }},\n17,\n"text",\n{ONE}]')
    assert [item.line for item in items] == [1, 2, 3, 4, 5]
    assert items[1].body == b'{"id": }'
    assert json.loads(items[4].body)["id"] == "1"


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        (f"[{TWO},\n{TWO}", 2, "its last ] is missing"),
        (f'[{TWO},\n{{"id": "2"\n', 2, "not complete"),
        ('{"id":\n "2"\n', 1, "not complete"),
        (f"[{TWO}}}\n{TWO}]", 1, "closes nothing"),
    ],
)
def test_json_that_breaks_off_is_said_where_it_began(text: str, line: int, problem: str) -> None:
    items = split(text)
    assert items[-1].line == line
    assert problem in items[-1].problem


@pytest.mark.parametrize("format", ["lines", "json", "auto"])
def test_an_endless_item_is_refused_within_bounded_memory(format: Format) -> None:
    reader = splitter(format)
    piece = b'{"a": "' + b"x" * 1_000_000
    items = [item for _ in range(20) for item in reader.feed(piece.replace(b'"', b"'"))]
    items += reader.feed(b"\n{}\n") + reader.finish()
    assert [item.problem[:11] for item in items if item.problem] == ["longer than"]
    assert all(len(item.body) <= LONGEST for item in items)


def test_after_an_endless_line_the_next_one_is_read() -> None:
    items = split(b"x" * (LONGEST + 5) + b"\n" + TWO.encode() + b"\n", "lines", step=65536)
    assert [(item.line, bool(item.problem)) for item in items] == [(1, True), (2, False)]


def test_a_line_is_given_before_the_input_ends() -> None:
    reader = splitter()
    assert [item.line for item in reader.feed(f"{ONE}\n".encode())] == [1]
    assert [item.line for item in reader.feed(f"{TWO}\n".encode())] == [2]


def test_utf16_is_named() -> None:
    with pytest.raises(ConfigurationError, match="UTF-16"):
        split(TWO.encode("utf-16"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=15,
)


@given(
    events=st.lists(st.dictionaries(st.text(), JSON, min_size=1, max_size=4), min_size=1, max_size=5),
    form=st.sampled_from(["lines", "batch", "pretty batch", "pretty"]),
    step=st.integers(1, 40),
    ascii=st.booleans(),
)
def test_what_was_written_is_read(events: list[dict[str, object]], form: str, step: int, ascii: bool) -> None:
    indent = 2 if form.startswith("pretty") else None
    if form.endswith("batch"):
        text = json.dumps(events, indent=indent, ensure_ascii=ascii)
    else:
        text = "\n".join(json.dumps(event, indent=indent, ensure_ascii=ascii) for event in events)
    items = split(text.encode("utf-8", "surrogatepass"), step=step)
    assert bodies(items) == events
