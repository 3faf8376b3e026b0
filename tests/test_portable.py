"""The portable profile: every rule for publishing is provoked, and what is just allowed passes."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossbus.capabilities import Capabilities, LeaseLimits
from crossbus.errors import EventError, EventTooLarge, InvalidEvent
from crossbus.event import Event, unchecked
from crossbus.portable import check_portable, check_provider
from crossbus.rules import RULES

ROOT = Path(__file__).parent.parent


def event(**arguments: object) -> Event:
    return Event(**{"type": "com.acme.order.placed", "source": "/shop", "data": {"n": 1}, **arguments})  # type: ignore[arg-type]


def decoded(**parts: object) -> Event:
    """An event as tolerant decoding makes it: nothing was checked."""
    return unchecked(**{"id": "1", "type": "t", "source": "/s", "time": "2026-01-31T12:00:00Z", **parts})  # type: ignore[arg-type]


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


def of_size(size: int, **arguments: object) -> Event:
    """An event of exactly so many bytes as structured JSON."""
    empty = event(
        data="", datacontenttype="application/json", time="2026-01-31T12:00:00Z", id="1", **arguments
    )
    rest = len(json.dumps({**empty.attributes(), "data": ""}, separators=(",", ":")))
    return empty.replace(data="x" * (size - rest))


BROKEN: dict[str, list[tuple[Event, str]]] = {
    "source": [(event(source=None), "source"), (decoded(source=""), "source")],
    "well-formed": [
        (decoded(extensions={"methodName": "x"}), "methodName"),
        (decoded(extensions={"tenant": "a\x00b"}), "tenant"),
        (decoded(extensions={"tenant": 1.5}), "tenant"),
        (decoded(extensions={"tenant": 2**31}), "tenant"),
        (decoded(id=""), "id"),
        (decoded(type="a\nb"), "type"),
        (decoded(subject="\ud800"), "subject"),
        (decoded(time="yesterday"), "time"),
        (decoded(datacontenttype="json"), "datacontenttype"),
        (decoded(kind=1, payload=b"{"), "data"),
        (decoded(kind=1, payload=b"]" * 600 + b"[" * 600), "data"),
        (decoded(kind=1, payload=b'"\xff"'), "data"),
        (decoded(kind=2, payload=b"\xff"), "data"),
    ],
    "type-length": [(event(type="t" * 129), "type")],
    "source-aws": [(event(source="aws.s3"), "source")],
    "reserved-names": [
        (event(extensions={"crossbustopic": "orders"}), "crossbustopic"),
        (event(extensions={"crossbus": True}), "crossbus"),
    ],
    "name-length": [(event(extensions={"n" * 129: "x"}), "n" * 129)],
    "attribute-bytes": [
        (event(source="/" + "é" * 512), "source"),
        (event(id="i" * 1025), "id"),
        (event(subject="€" * 342), "subject"),
        (event(dataschema="d" * 1025), "dataschema"),
        (event(datacontenttype="application/json; a=" + "b" * 1025), "datacontenttype"),
        (
            event(extensions={"tenant": "t" * 1025}),
            "tenant",
        ),
        (event(time="2026-01-31T12:00:00." + "0" * 1020 + "Z"), "time"),
    ],
    "attribute-count": [(event(extensions={f"e{n}": n for n in range(85)}), "extensions")],
    "integers": [
        (event(data={"n": 2**63}), "data"),
        (event(data=[-(2**63) - 1]), "data"),
        (event(data=10**4000), "data"),
        (event(data=b'{"a": "1", "n": 92233720368547758070}', datacontenttype="application/json"), "data"),
    ],
    "nesting": [
        (event(data=nested(501), datacontenttype="application/json"), "data"),
        (event(data=b'{"a":' * 501 + b"1" + b"}" * 501, datacontenttype="application/json"), "data"),
    ],
    "event-bytes": [(of_size(1_000_001), "")],
}


def test_every_rule_for_publishing_is_provoked() -> None:
    assert set(BROKEN) == {rule.name for rule in RULES if rule.path == "publish"}
    assert len({rule.name for rule in RULES}) == len(RULES)


@pytest.mark.parametrize(
    ("rule", "broken", "attribute"), [(rule, *case) for rule, cases in BROKEN.items() for case in cases]
)
def test_what_breaks_a_rule_is_refused_by_name(rule: str, broken: Event, attribute: str) -> None:
    check_portable(event(extensions={"tenant": "t-1"}))
    for _ in range(2):  # nothing that was refused is remembered as allowed
        with pytest.raises(EventError) as caught:
            check_portable(broken)
        message = str(caught.value)
        assert "\n" not in message
        assert len(message) < 400
        if attribute:
            assert isinstance(caught.value, InvalidEvent)
            assert caught.value.attribute == attribute
        limit = next(found.limit for found in RULES if found.name == rule)
        if limit is not None:
            shown = "2^63-1" if rule == "integers" else f"{limit:,}" if rule == "event-bytes" else str(limit)
            assert shown in message


def test_the_size_is_told() -> None:
    with pytest.raises(
        EventTooLarge, match="has 1,000,001 bytes as structured JSON; at most 1,000,000"
    ) as caught:
        check_portable(of_size(1_000_001))
    assert (caught.value.size, caught.value.limit) == (1_000_001, 1_000_000)


def test_base64_counts() -> None:
    check_portable(event(data=bytes(740_000)))
    with pytest.raises(EventTooLarge, match=r"\(750,000 of data, which base64"):
        check_portable(event(data=bytes(750_000)))


def test_the_escapes_of_text_count() -> None:
    check_portable(event(data="x" * 990_000))
    check_portable(event(data='"' * 490_000))
    with pytest.raises(EventTooLarge):
        check_portable(event(data='"' * 510_000))
    with pytest.raises(EventTooLarge):
        check_portable(event(data="\x01" * 170_000))


def test_attributes_count() -> None:
    many = {f"e{n}": '"' * 1024 for n in range(80)}
    check_portable(of_size(1_000_000, extensions=many))
    with pytest.raises(EventTooLarge):
        check_portable(of_size(1_000_001, extensions=many))


ALLOWED = [
    event(),
    event(type="t" * 128),
    event(type="é" * 128),
    event(source="aws"),
    event(source="/aws.s3"),
    event(id="i" * 1024, subject="é" * 512),
    event(extensions={"n" * 128: "x", "flag": True, "count": 2**31 - 1, "low": -(2**31), "empty": ""}),
    event(extensions={f"e{n}": n for n in range(84)}),
    event(data={"n": 2**63 - 1, "m": -(2**63)}),
    event(data={"card": "9" * 40, "quoted\\": '"\\"99999999999999999999'}),
    event(data=b"[0.12345678901234567890123, 1e-12345678901234567890, 12345678901234567890.5]",
          datacontenttype="application/json"),
    event(data=nested(500), datacontenttype="application/json"),
    event(data=["[" * 3000, '\\"[[['] * 300),
    event(data=b'"' + b"]" * 2000 + b'"', datacontenttype="application/json"),
    event(data="9" * 25),
    event(data=b"9" * 25),
    event(data="\x00\x01\x7f control characters are for data"),
    Event(type="t", source="/s", time=None),
    decoded(kind=1, payload=b'{"a":1}', extensions={"rate": "1.5"}),
    of_size(1_000_000),
]  # fmt: skip


@pytest.mark.parametrize("allowed", ALLOWED, ids=range(len(ALLOWED)))
def test_what_is_just_allowed_passes(allowed: Event) -> None:
    check_portable(allowed)
    check_portable(allowed)  # and again when its type, source and names are remembered


@given(
    type=st.text(min_size=120, max_size=132),
    source=st.sampled_from(["/s", "aws.x", "aws", "é" * 600, ""]),
    id=st.text(max_size=300),
    subject=st.none() | st.text(max_size=400),
    extensions=st.dictionaries(st.sampled_from(["a", "crossbusx", "B"]), st.text(max_size=5) | st.integers()),
    data=st.sampled_from(
        [b"1", b"9223372036854775807", b"9223372036854775808", b"123456789012345678", nested(400)]
    ),
)
def test_the_quick_way_agrees_with_the_careful_one(**parts: object) -> None:
    data = parts.pop("data")
    made = decoded(kind=1, payload=data, **parts)
    # The same event as if Event(...) had made it, which is what the quick way looks at.
    made_here = made.with_attributes()
    made_here._time = event()._time  # type: ignore[attr-defined]
    first = outcome(made_here)
    check_portable(event(source="/s", extensions={"a": "x"}))  # remembered
    assert outcome(made_here) == first
    assert outcome(made) == first


def outcome(made: Event) -> str:
    try:
        check_portable(made)
    except EventError as error:
        return str(error)
    return "allowed"


def test_many_types_and_sources_do_not_fill_the_memory() -> None:
    from crossbus import portable

    for n in range(10_000):
        check_portable(event(type=f"t{n}", source=f"/s{n}"))
    assert len(portable._types) <= 4096
    assert len(portable._sources) <= 4096


# --- validate="provider" ---


def capabilities(attribute_bytes: int | None, attribute_count: int | None) -> Capabilities:
    return Capabilities(
        names=frozenset(),
        publish_batch=1,
        publish_batch_bytes=10**9,
        event_bytes=10**9,
        attribute_bytes=attribute_bytes,
        attribute_count=attribute_count,
        receive_batch=1,
        lease=LeaseLimits(),
    )


@pytest.mark.parametrize(
    "wide",
    [
        event(type="t" * 2000),
        event(source="aws.s3"),
        event(extensions={"n" * 200: "x" * 5000}),
        event(extensions={f"e{n}": n for n in range(200)}),
        event(data={"n": 2**70}),
        event(data=nested(700), datacontenttype="application/json"),
        event(data=bytes(2_000_000)),
    ],
)
def test_a_provider_without_limits_takes_more(wide: Event) -> None:
    check_provider(wide, capabilities(None, None))
    with pytest.raises(EventError):
        check_portable(wide)


def test_a_provider_has_its_own_limits() -> None:
    limits = capabilities(100, 10)
    check_provider(event(subject="s" * 100, extensions={f"e{n}": n for n in range(3)}), limits)
    with pytest.raises(
        InvalidEvent, match="subject has 101 bytes in UTF-8; at most 100 are allowed on this provider"
    ):
        check_provider(event(subject="s" * 101), limits)
    with pytest.raises(InvalidEvent, match="has 11 attributes, 5 of them extensions; at most 10"):
        check_provider(event(extensions={f"e{n}": n for n in range(5)}), limits)


@pytest.mark.parametrize("rule", ["source", "well-formed", "reserved-names"])
def test_a_provider_still_gets_cloudevents_only(rule: str) -> None:
    for broken, attribute in BROKEN[rule]:
        with pytest.raises(InvalidEvent) as caught:
            check_provider(broken, capabilities(None, None))
        assert caught.value.attribute == attribute


# --- the documentation ---


def test_the_reference_page_is_current() -> None:
    script = ROOT / "scripts" / "gen_event_rules.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_size_is_that_of_structured_json() -> None:
    payload = bytes(range(256)) * 2600
    made = event(data=payload, id="1")
    form = {**made.attributes(), "data_base64": base64.b64encode(payload).decode()}
    size = len(json.dumps(form, separators=(",", ":")))
    bigger = event(data=payload + bytes(200_000), id="1")
    with pytest.raises(EventTooLarge) as caught:
        check_portable(bigger)
    grown = (len(payload) + 200_000 + 2) // 3 * 4 - (len(payload) + 2) // 3 * 4
    # The time is another one, with as many digits unless its microseconds are 0.
    assert abs(caught.value.size - size - grown) <= 7
