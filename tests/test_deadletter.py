"""Dead letters: the record, reading it whatever stands there, and redriving and purging."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.scripted import ScriptedAdapter
from tests.silent import publishing_silently
from tests.support import run

from crossbus import (
    Bus,
    DeadLetter,
    DeadLetters,
    Event,
    InvalidRequest,
    NotFound,
    Reason,
    Reject,
    RetryPolicy,
    Subscription,
    Throttled,
    Unavailable,
)
from crossbus.adapter import DeadLetterQueue, LeaseOutcome, Received, SendOutcome, Wire
from crossbus.codecs import encode_json
from crossbus.deadletter import RECORD_TYPE, make_record
from crossbus.errors import ErrorCode
from crossbus.letters import ATTEMPTS, Tally
from crossbus.testing import Clock
from crossbus.topology import Topic

BILLING = Subscription(topic=Topic("orders"), name="billing")
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def event(id: str = "e-1", **fields: Any) -> Event:
    return Event(**{"id": id, "type": "t", "source": "/s", "time": None, **fields})


def received(body: bytes, **fields: Any) -> Received:
    return Received(
        **{"lease": 1, "body": body, "attributes": {}, "message_id": "m-1", "attempt": 5, **fields}
    )


class ScriptedQueue(DeadLetterQueue):
    """Holds what a test puts in, and answers as it is told."""

    def __init__(self, *bodies: bytes) -> None:
        self.held = {
            number: received(body, lease=number, message_id=f"d-{number}")
            for number, body in enumerate(bodies, 1)
        }
        self.redelivered: list[Wire] = []
        self.steps: list[str] = []
        self.redeliver_answers: list[SendOutcome] = []
        self.delete_answer: LeaseOutcome | None = None

    async def browse(self, limit: int) -> Sequence[Received]:
        return list(self.held.values())[:limit]

    async def redeliver(self, wires: Sequence[Wire]) -> Sequence[SendOutcome]:
        self.steps.append("redeliver")
        answer = self.redeliver_answers.pop(0) if self.redeliver_answers else SendOutcome("p")
        if answer.code is None:
            self.redelivered.extend(wires)
        return [answer] * len(wires)

    async def delete(self, leases: Sequence[Any]) -> Sequence[LeaseOutcome]:
        self.steps.append("delete")
        if self.delete_answer is not None:
            return [self.delete_answer] * len(leases)
        return [
            LeaseOutcome.LOST if self.held.pop(lease, None) is None else LeaseOutcome.OK for lease in leases
        ]


def dead_letters(*records: Event | bytes) -> tuple[DeadLetters, ScriptedQueue]:
    queue = ScriptedQueue(*(r if isinstance(r, bytes) else encode_json(r) for r in records))

    class Adapter(ScriptedAdapter):
        def dead_letters(self, subscription: Subscription) -> DeadLetterQueue:
            return queue

    adapter = Adapter()
    return DeadLetters(adapter, BILLING, publishing_silently(adapter, BILLING.topic)), queue


def record(original: Event, *, reason: str = "no", **arguments: Any) -> Event:
    values: dict[str, Any] = {"reason": reason, "error": None, "handler": "pay", "now": 1_700_000_000.0}
    return make_record(
        BILLING,
        received(encode_json(original), message_id=f"m-{original.id}"),
        original,
        **{**values, **arguments},
    )


def only(records: Sequence[DeadLetter]) -> DeadLetter:
    assert len(records) == 1
    return records[0]


# --- the record ---------------------------------------------------------------------------------------------------


def test_a_record_holds_all_that_was_known() -> None:
    original = event(data={"total": -1}, extensions={"traceparent": TRACEPARENT, "tracestate": "a=b"})
    made = make_record(
        BILLING,
        received(encode_json(original), attempt=3, published=1_699_999_000.0),
        original,
        reason="the total is negative",
        error=ValueError("-1"),
        handler="pay",
        now=1_700_000_000.5,
    )
    assert (made.type, made.source, made.id) == (
        RECORD_TYPE,
        "/crossbus/orders/billing",
        "orders--billing/m-1",
    )
    assert dict(made.extensions) == {"traceparent": TRACEPARENT, "tracestate": "a=b"}
    assert made.data == {
        "reason": "the total is negative",
        "topic": "orders",
        "subscription": "billing",
        "error": "ValueError: -1",
        "handler": "pay",
        "attempts": 3,
        "first_time": "2023-11-14T21:56:40Z",
        "last_time": "2023-11-14T22:13:20.500000Z",
        "message_id": "m-1",
        "traceparent": TRACEPARENT,
        "tracestate": "a=b",
        "event": json.loads(encode_json(original)),
    }


def test_a_record_made_twice_has_one_id() -> None:
    assert record(event()).id == record(event(), reason="other", now=1_800_000_000.0).id


def test_a_record_of_bytes_that_are_no_event_holds_the_bytes() -> None:
    made = make_record(
        BILLING,
        received(b"\xff\x00", attributes={"Content-Type": "text/plain", "n": 5}),
        None,
        reason=Reason.UNDECODABLE,
        error=None,
        handler=None,
        now=0.0,
    )
    assert base64.b64decode(made.data["body_base64"]) == b"\xff\x00"
    assert made.data["attributes"] == {"Content-Type": "text/plain", "n": "5"}
    assert "event" not in made.data
    assert "error" not in made.data


def test_long_texts_are_cut() -> None:
    made = record(event(), reason="r" * 9000, error=ValueError("e" * 9000))
    assert made.data["reason"] == "r" * 4000
    assert len(made.data["error"]) == 4000


# --- reading ------------------------------------------------------------------------------------------------------


def test_a_record_is_read_as_it_was_written() -> None:
    original = event(data={"total": -1}, extensions={"traceparent": TRACEPARENT})
    letters, _ = dead_letters(record(original, error=ValueError("no")))
    found = only(run(letters.list()))
    assert found.event == original
    assert (found.id, found.reason, found.error, found.handler) == ("d-1", "no", "ValueError: no", "pay")
    assert (found.topic, found.subscription, found.attempts) == ("orders", "billing", 5)
    assert found.last_time == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    assert found.first_time is None
    assert (found.traceparent, found.body, dict(found.attributes)) == (TRACEPARENT, None, {})


def test_what_the_backstop_moved_is_listed_as_that() -> None:
    letters, _ = dead_letters(event("moved", extensions={"traceparent": TRACEPARENT}), b"\xff no event")
    moved, bytes_ = run(letters.list())
    assert (moved.reason, moved.event, moved.traceparent) == (
        Reason.BACKSTOP,
        event("moved", extensions={"traceparent": TRACEPARENT}),
        TRACEPARENT,
    )
    assert (moved.topic, moved.subscription, moved.attempts, moved.error) == ("orders", "billing", None, None)
    assert (bytes_.reason, bytes_.event, bytes_.body) == (Reason.BACKSTOP, None, b"\xff no event")


def test_an_event_that_only_has_the_type_of_a_record_is_not_lost() -> None:
    impostor = event("impostor", type=RECORD_TYPE, data={"hello": 1})
    letters, _ = dead_letters(impostor)
    found = only(run(letters.list()))
    assert (found.reason, found.event) == (Reason.BACKSTOP, impostor)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"event": {"no": "event"}}, {"event": None, "body": b'{"no":"event"}'}),
        ({"event": None, "body_base64": "AAE="}, {"event": None, "body": b"\x00\x01"}),
        ({"event": None, "body_base64": "not base64"}, {"event": None, "body": b"not base64"}),
        ({"last_time": "yesterday"}, {"last_time": None}),
        ({"future": [1, 2]}, {"reason": "no"}),
    ],
)
def test_a_record_that_others_touched_is_read_as_far_as_it_goes(
    changes: dict[str, Any], expected: dict[str, Any]
) -> None:
    written = record(event())
    data = {name: value for name, value in {**written.data, **changes}.items() if value is not None}
    letters, _ = dead_letters(event(type=RECORD_TYPE, data=data))
    found = only(run(letters.list()))
    assert {name: getattr(found, name) for name in expected} == expected


def test_a_list_is_narrowed_by_type_and_reason_before_it_is_cut() -> None:
    letters, _ = dead_letters(
        record(event("a")),
        record(event("b", type="other")),
        record(event("c"), reason="late"),
        record(event("d")),
        b"no event",
    )

    def ids(**arguments: Any) -> list[str | None]:
        return [letter.event.id if letter.event else None for letter in run(letters.list(**arguments))]

    assert ids() == ["a", "b", "c", "d", None]
    assert ids(limit=2) == ["a", "b"]
    assert ids(type="t") == ["a", "c", "d"]
    assert ids(type="t", reason="no", limit=1) == ["a"]
    assert ids(reason="late") == ["c"]
    assert ids(reason=Reason.BACKSTOP) == [None]
    assert ids(type="nothing") == []


# --- redriving and purging ----------------------------------------------------------------------------------------


def test_each_is_put_back_before_its_record_is_removed() -> None:
    letters, queue = dead_letters(record(event("a")), record(event("b")))
    queue.batch = 1
    assert run(letters.redrive()) == 2
    assert queue.steps == ["redeliver", "delete", "redeliver", "delete"]
    assert [json.loads(wire.body)["id"] for wire in queue.redelivered] == ["a", "b"]
    assert not queue.held


def test_bytes_that_are_no_event_are_put_back_as_they_were() -> None:
    made = make_record(
        BILLING,
        received(b"\xff", attributes={"kind": "x"}),
        None,
        reason="undecodable",
        error=None,
        handler=None,
        now=0.0,
    )
    letters, queue = dead_letters(made)
    assert run(letters.redrive()) == 1
    assert [(wire.body, dict(wire.attributes), wire.size) for wire in queue.redelivered] == [
        (b"\xff", {"kind": "x"}, 1)
    ]


def test_some_are_chosen_by_id() -> None:
    letters, queue = dead_letters(record(event("a")), record(event("b")), record(event("c")))
    assert run(letters.redrive(["d-3", "d-1", "d-3"])) == 2
    assert [json.loads(wire.body)["id"] for wire in queue.redelivered] == ["a", "c"], "as they stand there"
    assert run(letters.purge("b")) == 1, "one id as it is, and it may be that of the event"
    assert not queue.held


@pytest.mark.parametrize("what", ["redrive", "purge"])
def test_an_id_that_is_not_there_stops_it_before_it_begins(what: str) -> None:
    letters, queue = dead_letters(record(event("a")))
    with pytest.raises(NotFound) as caught:
        run(getattr(letters, what)(["d-1", "d-9"]))
    assert str(caught.value) == "there is no dead letter 'd-9' in orders/billing; nothing was done"
    assert queue.steps == []
    assert len(queue.held) == 1


def test_nothing_to_do_is_nothing_done() -> None:
    letters, _ = dead_letters()
    assert (run(letters.redrive()), run(letters.purge()), run(letters.redrive([]))) == (0, 0, 0)


def test_one_that_cannot_be_put_back_keeps_its_record_and_says_how_far_it_came() -> None:
    letters, queue = dead_letters(record(event("a")), record(event("b")), record(event("c")))
    queue.batch = 1
    slow_down = SendOutcome(code=ErrorCode.THROTTLED, message="slow down", retryable=True)
    queue.redeliver_answers = [SendOutcome("p"), *[slow_down] * ATTEMPTS]
    with pytest.raises(Throttled) as caught:
        run(letters.redrive())
    assert str(caught.value) == (
        "dead letter 'd-2' of orders/billing was not put back (1 before it were): slow down"
    )
    assert caught.value.retryable
    assert list(queue.held) == [2, 3]


def test_a_record_that_cannot_be_removed_is_said() -> None:
    letters, queue = dead_letters(record(event("a")), record(event("b")))
    queue.delete_answer = LeaseOutcome.FAILED
    with pytest.raises(Unavailable) as caught:
        run(letters.purge())
    assert str(caught.value) == "2 of 2 dead letters of orders/billing remain"
    queue.delete_answer = LeaseOutcome.LOST
    tally = Tally()
    assert run(letters.purge(tally=tally)) == 0, "somebody else removed them"
    assert tally.gone == 2


def test_what_is_not_taken_keeps_its_record_and_the_others_go_on() -> None:
    letters, queue = dead_letters(record(event("a")), record(event("b")), record(event("c")))
    queue.batch = 1
    queue.redeliver_answers = [
        SendOutcome("p"),
        SendOutcome(code=ErrorCode.INVALID_REQUEST, message="no JSON"),
    ]
    tally = Tally()
    with pytest.raises(InvalidRequest) as caught:
        run(letters.redrive(tally=tally))
    assert str(caught.value) == (
        "1 dead letters of orders/billing were not put back, and keep their records (2 others were); of the first it "
        "was said: no JSON"
    )
    assert (tally.done, tally.refused, list(queue.held)) == (2, 1, [2])


def test_one_that_somebody_else_had_meanwhile_is_said(caplog: pytest.LogCaptureFixture) -> None:
    letters, queue = dead_letters(record(event("a")))
    queue.delete_answer = LeaseOutcome.LOST
    tally = Tally()
    assert run(letters.redrive(tally=tally)) == 1
    assert tally.twice == 1
    assert "1 dead letters of orders/billing were put back while somebody else had them" in caplog.text
    queue.delete_answer = LeaseOutcome.FAILED
    with pytest.raises(Unavailable, match="was put back, but its record remains"):
        run(letters.redrive())


def test_some_are_chosen_by_what_they_share() -> None:
    def made() -> tuple[DeadLetters, ScriptedQueue]:
        return dead_letters(
            record(event("a", type="t.a"), now=1_700_000_000.0),
            record(event("b", type="t.b"), reason="no money", now=1_700_000_100.0),
            record(event("c", type="t.a"), reason="no time", now=1_700_000_200.0),
            b"\xff",
        )

    since = datetime.fromtimestamp(1_700_000_100, UTC)
    choices: list[tuple[dict[str, Any], list[int]]] = [
        ({"type": "t.*"}, [4]),
        ({"type": "t.a"}, [2, 4]),
        ({"reason": "no*"}, [4]),
        ({"reason": "no m*y"}, [1, 3, 4]),
        ({"since": since}, [1, 4]),
        ({"limit": 2}, [3, 4]),
        ({"type": "t.a", "limit": 1}, [2, 3, 4]),
    ]
    for arguments, left in choices:
        letters, queue = made()
        assert run(letters.redrive(**arguments)) == 4 - len(left), arguments
        assert list(queue.held) == left, arguments


def test_what_came_after_the_beginning_is_left() -> None:
    letters, queue = dead_letters(record(event("a")), record(event("b"), now=9_000_000_000.0))
    tally = Tally()
    assert run(letters.redrive(tally=tally)) == 1
    assert (tally.newer, list(queue.held)) == (1, [2])
    assert run(letters.redrive("b")) == 1, "unless it is asked for by its id"


def test_it_stops_between_steps_and_keeps_to_a_rate() -> None:
    async def scenario() -> None:
        letters, queue = dead_letters(*(record(event(f"e-{n}")) for n in range(10)))
        stop, tally = asyncio.Event(), Tally()

        def progress(now: Tally) -> None:
            if now.done == 4:
                stop.set()

        assert await letters.redrive(rate=400, tally=tally, progress=progress, stop=stop) in (4, 10)
        queue.batch = 2
        letters, queue = dead_letters(*(record(event(f"e-{n}")) for n in range(10)))
        queue.batch = 2
        stop.clear()
        assert await letters.redrive(rate=1000, progress=progress, stop=stop) == 4
        assert len(queue.held) == 6

    run(scenario())


def test_a_summary_counts_by_what_they_share() -> None:
    letters, queue = dead_letters(
        record(event("a", type="t.a"), now=1_700_000_000.5),
        record(event("b", type="t.a"), now=1_700_000_000.0),
        record(event("c", type="t.b"), reason="other", handler=None),
        b"\xff",
    )
    found = run(letters.summary())
    assert (found.count, found.others, found.complete) == (4, 0, True)
    first, *others = found.groups
    assert (first.reason, first.type, first.handler, first.count) == ("no", "t.a", "pay", 2)
    assert first.first == datetime.fromtimestamp(1_700_000_000, UTC)
    assert first.last == datetime.fromtimestamp(1_700_000_000.5, UTC)
    assert {(one.reason, one.type, one.handler) for one in others} == {
        ("other", "t.b", None),
        ("backstop", None, None),
    }
    assert len(queue.held) == 4


def test_a_summary_of_too_many_reasons_is_not_endless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crossbus.letter_summary.GROUPS", 3)
    letters, _ = dead_letters(*(record(event(f"e-{n}"), reason=f"order {n}") for n in range(10)))
    found = run(letters.summary())
    assert (len(found.groups), found.others, found.count) == (3, 7, 10)


def test_dead_letters_are_given_one_after_the_other() -> None:
    async def scenario() -> None:
        letters, _ = dead_letters(*(record(event(f"e-{n}")) for n in range(7)))
        tally = Tally()
        found = [letter.id async for letter in letters.scan(limit=3, tally=tally)]
        assert found == ["d-1", "d-2", "d-3"]
        found = [letter.id async for letter in letters.scan(ids=["e-4", "d-2"])]
        assert found == ["d-2", "d-5"]

    run(scenario())


# --- from end to end ----------------------------------------------------------------------------------------------


def test_a_redriven_event_is_handled_again_and_by_nobody_else() -> None:
    async def scenario() -> None:
        clock = Clock()
        bus = Bus("local:", clock=clock, source="/shop")
        fixed = False
        handled: list[str] = []

        @bus.subscribe("orders", "billing", retry=RetryPolicy(attempts=2, first_delay=1, jitter=False))
        async def bill(event: Event) -> None:
            if not fixed:
                raise ValueError("no money") if event.id == "e-1" else Reject("never")
            handled.append(event.id)

        @bus.subscribe("orders", "audit")
        async def audit(event: Event) -> None:
            handled.append(f"audit {event.id}")

        async with bus, bus.running():
            await bus.publish_many("orders", [event("e-1", data={"n": 1}), event("e-2")])
            await clock.advance(5)
            letters = bus.dead_letters("orders", "billing")
            found = {letter.event.id: letter for letter in await letters.list() if letter.event}
            assert (found["e-1"].reason, found["e-1"].error) == ("failed", "ValueError: no money")
            assert (found["e-1"].attempts, found["e-2"].attempts) == (2, 1)
            assert found["e-2"].reason == "never"
            assert (await bus.backlog("orders", "billing")).dead == 2
            assert await letters.purge([found["e-2"].id]) == 1
            fixed = True
            assert await letters.redrive() == 1
            await clock.advance(1)
            assert await letters.list() == []
        assert sorted(handled) == ["audit e-1", "audit e-2", "e-1"]

    run(scenario())
