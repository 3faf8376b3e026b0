"""The forms of the native protocol, and the small parts of its server: what is sent is what arrives."""

from __future__ import annotations

import math
from typing import Any
from urllib.parse import unquote

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossbus.adapter import Backlog, LeaseOutcome, Received
from crossbus.errors import InvalidRequest
from crossbus.filters import exact
from crossbus_local.engine import QueueInfo, TopicInfo
from crossbus_local.http.remembered import Remembered
from crossbus_local.protocol import (
    PATH,
    Deliveries,
    LeaseAnswers,
    Publish,
    Receive,
    Settle,
    SettleOne,
    WireForm,
    backlog_from_json,
    backlog_to_json,
    data_decoder,
    encode_data,
    path_of,
    snapshot_from_json,
    snapshot_to_json,
)
from crossbus_local.provisioning import Snapshot
from crossbus_local.queue import QueueSettings
from crossbus_local.records import NO_ATTRIBUTES

texts = st.text(st.characters(exclude_categories=["Cs"]))
numbers = st.integers(-(2**63), 2**64 - 1)
floats = st.floats(allow_nan=False)
attributes = st.dictionaries(texts, st.one_of(texts, numbers, floats, st.booleans(), st.none()))


@given(st.lists(st.tuples(st.binary(), st.none() | texts, attributes), min_size=1, max_size=5))
def test_what_is_published_arrives_exactly(wires: list[tuple[bytes, str | None, dict[str, Any]]]) -> None:
    found = data_decoder(Publish).decode(encode_data(Publish([WireForm(*wire) for wire in wires])))
    assert [(wire.body, wire.key, wire.attributes) for wire in found.wires] == wires
    kinds = [[type(value) for value in wire.attributes.values()] for wire in found.wires]
    assert kinds == [[type(value) for value in given.values()] for _, _, given in wires]


def test_a_wire_without_key_and_attributes_is_its_body_alone() -> None:
    found = data_decoder(Publish).decode(msgspec.msgpack.encode({"wires": [[b"x"]]}))
    assert (found.wires[0].key, found.wires[0].attributes) == (None, NO_ATTRIBUTES)


@given(
    st.lists(
        st.builds(
            Received,
            lease=texts,
            body=st.binary(),
            attributes=attributes,
            message_id=texts,
            attempt=st.none() | st.integers(0, 2**63),
            lease_seconds=st.just(math.inf) | floats,
            key=st.none() | texts,
            published=st.none() | floats,
        ),
        max_size=5,
    )
)
def test_a_delivery_arrives_exactly(deliveries: list[Received]) -> None:
    assert data_decoder(Deliveries).decode(encode_data(Deliveries(deliveries))).deliveries == deliveries


def test_the_attributes_that_a_message_has_none_of_can_be_sent() -> None:
    one = Received("lease", b"", NO_ATTRIBUTES, "1")
    (found,) = data_decoder(Deliveries).decode(encode_data(Deliveries([one]))).deliveries
    assert found.attributes == {}


@given(st.lists(st.tuples(texts, st.none() | st.floats(0, 1e12), st.booleans())))
def test_settlements_arrive_exactly(settlements: list[tuple[str, float | None, bool]]) -> None:
    form = Settle([SettleOne(*one) for one in settlements])
    found = data_decoder(Settle).decode(encode_data(form))
    assert [(one.lease, one.delay, one.again) for one in found.settlements] == settlements


@given(st.binary(max_size=200))
def test_noise_is_refused_and_nothing_else(noise: bytes) -> None:
    for form in (Publish, Receive, Settle):
        try:
            data_decoder(form).decode(noise)
        except msgspec.DecodeError:
            continue
        raise AssertionError(f"{noise!r} was taken for a {form.__name__}")


def test_every_outcome_has_its_word() -> None:
    words = [outcome.value for outcome in (LeaseOutcome.OK, LeaseOutcome.LOST)]
    assert data_decoder(LeaseAnswers).decode(encode_data(LeaseAnswers(words))).outcomes == ["ok", "lost"]


@given(st.lists(texts.filter(bool), min_size=1, max_size=4))
def test_names_in_a_path_are_one_segment_each(names: list[str]) -> None:
    path = path_of(*names)
    assert path.isascii()
    assert not set("?# ") & set(path)
    segments = path.removeprefix(f"{PATH}/").split("/")
    assert [unquote(segment) for segment in segments] == names
    assert not {".", ".."} & set(segments)


def test_what_there_is_arrives_as_it_was() -> None:
    settings = QueueSettings(
        filter=exact(type="a"), ordered=True, retention=5.0, dead_letter="d", lease=7.0, backstop=3
    )
    found = Snapshot(
        {"orders": TopicInfo(5, 1, {"billing": QueueInfo(settings, 3, 2, True)}), "empty": TopicInfo(0, 0)},
        {"d": 4},
    )
    assert snapshot_from_json(msgspec.json.decode(msgspec.json.encode(snapshot_to_json(found)))) == found
    for backlog in (Backlog(), Backlog(1, 2, 3.5, 4)):
        assert backlog_from_json(backlog_to_json(backlog)) == backlog


# --- answers that are remembered ----------------------------------------------------------------------------------


def test_an_answer_is_remembered_for_its_own_request_only() -> None:
    remembered = Remembered()
    assert remembered.find("id", "/a", b"x") is None
    remembered.keep("id", "/a", b"x", b"answer")
    assert remembered.find("id", "/a", b"x") == b"answer"
    for path, body in (("/b", b"x"), ("/a", b"xy")):
        with pytest.raises(InvalidRequest, match="used for another request"):
            remembered.find("id", path, body)


def test_answers_are_forgotten_in_time_and_in_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crossbus_local.http.remembered.MOST", 3)
    now = 1000.0
    monkeypatch.setattr("crossbus_local.http.remembered.time.monotonic", lambda: now)
    remembered = Remembered()
    for n in range(5):
        remembered.keep(f"{n}", "/", b"", b"answer")
    assert [remembered.find(f"{n}", "/", b"") for n in range(5)] == [None, None, *[b"answer"] * 3]
    now += 301
    remembered.keep("new", "/", b"", b"answer")
    assert [remembered.find(id, "/", b"") for id in ("3", "4", "new")] == [None, None, b"answer"]
