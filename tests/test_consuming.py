"""Consuming, against an adapter that answers as told: outcomes, handlers that misbehave, batches."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest
from tests.consuming import NO_JITTER, consuming, event, record_of, until
from tests.scripted import ScriptedAdapter
from tests.support import run

from crossbus import (
    Bus,
    Delivery,
    Event,
    ForeignMessage,
    Reject,
    Retry,
    exact,
)

# --- outcomes ---------------------------------------------------------------------------------------------------


def test_an_event_is_acknowledged_only_after_its_handler_returned() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        proceed = asyncio.Event()

        async def handler(event: Event) -> None:
            await proceed.wait()

        async with consuming(adapter, handler):
            received = adapter.receiver.put(event())
            await asyncio.sleep(0.02)
            assert not adapter.receiver.settled
            proceed.set()
            await until(lambda: adapter.receiver.acked == [received.lease])

    run(scenario())


@pytest.mark.parametrize(
    ("raised", "delay"),
    [(ValueError("x"), 2.0), (Retry(after=7), 7.0), (Retry(), 2.0)],
)
def test_a_failure_is_given_back_with_a_delay(raised: Exception, delay: float) -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()

        async def handler(event: Event) -> None:
            raise raised

        async with consuming(adapter, handler, retry=NO_JITTER):
            received = adapter.receiver.put(event())
            await until(lambda: adapter.receiver.given_back == [(received.lease, delay)])
        assert not adapter.records()

    run(scenario())


def test_back_off_grows_with_the_attempt() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()

        async def handler(event: Event) -> None:
            raise ValueError

        async with consuming(adapter, handler, retry=NO_JITTER):
            for attempt in (1, 2, 3, 4):
                adapter.receiver.put(event(), attempt=attempt)
            await until(lambda: len(adapter.receiver.given_back) == 4)
        assert sorted(delay for _, delay in adapter.receiver.given_back) == [2, 4, 8, 16]

    run(scenario())


def test_the_last_failure_goes_to_the_dead_letter_before_the_ack() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        order: list[str] = []
        adapter.answers.append(lambda wires: order.append("record"))
        settle = adapter.receiver.settle

        async def watched(settlements: Any) -> Any:
            order.append("ack")
            return await settle(settlements)

        adapter.receiver.settle = watched  # type: ignore[method-assign]

        async def handler(event: Event) -> None:
            raise ValueError("no such order")

        original = event(data={"n": 1}, extensions={"traceparent": "00-" + "1" * 32 + "-" + "2" * 16 + "-01"})
        async with consuming(adapter, handler):
            adapter.receiver.put(original, attempt=5, published=1000.0)
            await until(lambda: adapter.receiver.acked)
        assert order == ["record", "ack"]
        data = record_of(adapter)
        assert data["reason"] == "failed"
        assert data["error"] == "ValueError: no such order"
        assert data["attempts"] == 5
        assert data["topic"] == "orders"
        assert data["subscription"] == "billing"
        assert data["first_time"] == "1970-01-01T00:16:40Z"
        assert data["event"]["data"] == {"n": 1}
        assert data["traceparent"] == original.extensions["traceparent"]
        assert adapter.records()[0].extensions["traceparent"] == original.extensions["traceparent"]

    run(scenario())


def test_no_count_alone_dead_letters() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()

        async def handler(event: Event) -> None:
            """Take it."""

        async with consuming(adapter, handler):
            received = adapter.receiver.put(event(), attempt=50)
            await until(lambda: adapter.receiver.acked == [received.lease])
        assert not adapter.records()

    run(scenario())


@pytest.mark.parametrize("handler_kind", ["async", "plain"])
def test_reject_goes_to_the_dead_letter_at_once(handler_kind: str) -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()

        async def handler(event: Event) -> None:
            raise Reject("no such customer")

        def plain(event: Event) -> None:
            assert threading.current_thread() is not threading.main_thread()
            raise Reject("no such customer")

        async with consuming(adapter, handler if handler_kind == "async" else plain):
            adapter.receiver.put(event())
            await until(lambda: adapter.receiver.acked)
        data = record_of(adapter)
        assert data["reason"] == "no such customer"
        assert data["attempts"] == 1
        assert data["handler"].endswith("handler" if handler_kind == "async" else "plain")

    run(scenario())


def test_undecodable_bytes_are_kept_in_the_dead_letter() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()

        async def handler(event: Event) -> None:
            raise AssertionError("never called")

        async with consuming(adapter, handler):
            adapter.receiver.put(b"\xff\x00 no event", attributes={"colour": "red"})
            await until(lambda: adapter.receiver.acked)
        data = record_of(adapter)
        assert data["reason"] == "undecodable"
        assert data["body_base64"] == "/wAgbm8gZXZlbnQ="
        assert data["attributes"] == {"colour": "red"}

    run(scenario())


def test_a_mapping_makes_an_event_of_a_foreign_message() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        seen: list[Event] = []

        async def handler(event: Event) -> None:
            seen.append(event)

        def mapping(message: ForeignMessage) -> Event:
            return message.event(type="legacy", source="/old", data=message.body)

        async with consuming(adapter, handler, mapping=mapping, filter=exact(type="legacy")):
            received = adapter.receiver.put(b"plain text")
            await until(lambda: adapter.receiver.acked)
        assert seen[0].id == received.message_id
        assert seen[0].data == b"plain text"
        assert seen[0].time is None

    run(scenario())


@pytest.mark.parametrize("answer", [None, ValueError("odd")])
def test_a_mapping_that_fails_dead_letters(answer: Any) -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()

        def mapping(message: ForeignMessage) -> Any:
            if answer is not None:
                raise answer

        async def handler(event: Event) -> None:
            """Take it."""

        async with consuming(adapter, handler, mapping=mapping):
            adapter.receiver.put(b"?")
            await until(lambda: adapter.receiver.acked)
        assert record_of(adapter)["reason"] == "undecodable"

    run(scenario())


def test_data_that_does_not_fit_is_rejected_retried_or_pauses() -> None:
    async def scenario(on_invalid: Any) -> tuple[ScriptedAdapter, str]:
        adapter = ScriptedAdapter()

        async def handler(order: dict[str, int]) -> None:
            raise AssertionError("never called")

        async with consuming(adapter, handler, on_invalid=on_invalid, retry=NO_JITTER) as bus:
            adapter.receiver.put(event(data=["no", "dict"]))
            await until(lambda: adapter.receiver.settled)
            return adapter, bus.health().subscriptions["orders/billing"].state

    adapter, state = run(scenario("reject"))
    assert record_of(adapter)["reason"] == "invalid data"
    assert "dict" in record_of(adapter)["error"]
    adapter, state = run(scenario("retry"))
    assert [delay for _, delay in adapter.receiver.given_back] == [2.0]
    adapter, state = run(scenario("pause"))
    assert state == "paused"
    assert [delay for _, delay in adapter.receiver.given_back] == [0.0]
    assert not adapter.records()


def test_handlers_are_told_apart_by_type() -> None:
    async def scenario(on_unhandled: Any) -> tuple[list[str], ScriptedAdapter]:
        adapter = ScriptedAdapter()
        bus = Bus(adapter=adapter)
        billing = bus.subscribe("orders", "billing", on_unhandled=on_unhandled)
        seen: list[str] = []

        @billing.on("placed", "changed")
        async def one(event: Event) -> None:
            seen.append(f"one {event.type}")

        @billing.on("paid")
        def two(event: Event) -> None:
            seen.append(f"two {event.type}")

        async with bus, bus.running():
            for type in ("placed", "changed", "paid", "other"):
                adapter.receiver.put(event(type=type))
            await until(lambda: len(adapter.receiver.acked) == 4)
        return sorted(seen), adapter

    seen, adapter = run(scenario("reject"))
    assert seen == ["one changed", "one placed", "two paid"]
    assert record_of(adapter)["reason"] == "no handler for its type"
    assert "'other'" in record_of(adapter)["error"]
    seen, adapter = run(scenario("drop"))
    assert len(seen) == 3
    assert not adapter.records()


def test_the_residual_of_a_filter_is_evaluated_here() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        seen: list[str] = []

        async def handler(event: Event) -> None:
            seen.append(event.id)

        async with consuming(adapter, handler, filter=exact(subject="a")):
            adapter.receiver.put(event("yes", subject="a"))
            adapter.receiver.put(event("no", subject="b"))
            await until(lambda: len(adapter.receiver.acked) == 2)
        assert seen == ["yes"]

    run(scenario())


@pytest.mark.parametrize("wish", ["release", "dead_letter", "drop"])
def test_an_external_subscription_says_what_happens_to_what_does_not_match(wish: Any) -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        adapter.residual = False

        async def handler(event: Event) -> None:
            raise AssertionError("never called")

        async with consuming(adapter, handler, filter=exact(subject="a"), external=True, on_mismatch=wish):
            adapter.receiver.put(event("no", subject="b"))
            await until(lambda: adapter.receiver.settled)
        if wish == "release":
            assert len(adapter.receiver.given_back) == 1
        else:
            assert len(adapter.receiver.acked) == 1
        assert len(adapter.records()) == (wish == "dead_letter")

    run(scenario())


def test_a_wire_form_of_a_later_release_is_given_back(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()

        async def handler(event: Event) -> None:
            raise AssertionError("never called")

        async with consuming(adapter, handler):
            adapter.receiver.put(event(extensions={"crossbuswire": 2}))
            await until(lambda: len(adapter.receiver.given_back) == 1)
        assert adapter.receiver.given_back[0][1] == 60.0
        assert not adapter.records()

    run(scenario())
    assert "wire form 2" in caplog.text


def test_a_copy_for_another_subscription_is_dropped_and_ours_is_bare() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        seen: list[tuple[Event, str | None]] = []

        async def handler(event: Event, delivery: Delivery) -> None:
            seen.append((event, delivery.replay))

        async with consuming(adapter, handler):
            adapter.receiver.put(event("other", extensions={"crossbussub": "orders/mailing"}))
            adapter.receiver.put(
                event("ours", extensions={"crossbussub": "orders/billing", "crossbusreplay": "r-1"})
            )
            await until(lambda: len(adapter.receiver.acked) == 2)
        assert [(event.id, dict(event.extensions), replay) for event, replay in seen] == [("ours", {}, "r-1")]

    run(scenario())


# --- handlers that misbehave ------------------------------------------------------------------------------------


def test_a_handler_beyond_its_timeout_is_cancelled_and_retried() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        cancelled = asyncio.Event()

        async def handler(event: Event) -> None:
            try:
                await asyncio.sleep(60)
            finally:
                cancelled.set()

        async with consuming(adapter, handler, timeout=0.05, retry=NO_JITTER):
            adapter.receiver.put(event("a"))
            adapter.receiver.put(event("b"))
            await until(lambda: len(adapter.receiver.given_back) == 2)
            assert cancelled.is_set()
            # The workers live on.
            adapter.receiver.put(event("c"))
            await until(lambda: len(adapter.receiver.given_back) == 3)

    run(scenario())


def test_a_thread_beyond_its_timeout_is_left_to_its_lease_and_fails_liveness(
    caplog: pytest.LogCaptureFixture,
) -> None:
    release = threading.Event()

    async def scenario() -> None:
        adapter = ScriptedAdapter()

        def handler(event: Event) -> None:
            release.wait(10)

        async with consuming(adapter, handler, timeout=0.05, lease=0.3) as bus:
            adapter.receiver.put(event(), lease_seconds=0.3)
            await until(lambda: not bus.health().alive)
            extended = len(adapter.receiver.extended)
            await asyncio.sleep(0.4)
            assert len(adapter.receiver.extended) == extended, "its lease was kept"
            assert "handler" in bus.health().subscriptions["orders/billing"].stuck[0]
            release.set()
            await until(lambda: bus.health().alive)

    run(scenario())
    assert "cannot be cancelled" in caplog.text


def test_a_handler_that_blocks_the_loop_is_named(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()

        async def blocking_handler(event: Event) -> None:
            time.sleep(0.6)  # noqa: ASYNC251

        async with consuming(adapter, blocking_handler, lease=0.4):
            adapter.receiver.put(event(), lease_seconds=60)
            await until(lambda: adapter.receiver.acked)

    run(scenario())
    assert "blocking_handler has blocked the event loop" in caplog.text
    assert "time.sleep(0.6)" in caplog.text


def test_what_a_handler_returns_is_ignored_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()

        async def handler(event: Event) -> dict[str, int]:
            return {"a": 1}

        async with consuming(adapter, handler):
            adapter.receiver.put(event())
            adapter.receiver.put(event())
            await until(lambda: len(adapter.receiver.acked) == 2)

    run(scenario())
    assert caplog.text.count("returned dict") == 1


def test_an_outcome_returned_instead_of_raised_counts() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()

        async def handler(event: Event) -> Any:
            return Reject("no")

        async with consuming(adapter, handler):
            adapter.receiver.put(event())
            await until(lambda: adapter.receiver.acked)
        assert record_of(adapter)["reason"] == "no"

    run(scenario())


def test_a_plain_function_that_returns_a_coroutine_is_told_so() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()

        async def real(event: Event) -> None:
            """Never awaited."""

        def handler(event: Event) -> Any:
            return real(event)

        async with consuming(adapter, handler):
            adapter.receiver.put(event(), attempt=5)
            await until(lambda: adapter.receiver.acked)
        assert "make it `async def`" in record_of(adapter)["error"]

    run(scenario())


@pytest.mark.parametrize("text", ["lone \ud800 surrogate", "x" * 10_000], ids=["a lone surrogate", "long"])
def test_any_text_of_an_exception_fits_into_a_record_and_a_log(
    text: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()

        async def handler(event: Event) -> None:
            raise ValueError(text)

        async with consuming(adapter, handler):
            adapter.receiver.put(event(), attempt=5)
            await until(lambda: adapter.receiver.acked)
        assert len(record_of(adapter)["error"]) < 5000

    run(scenario())
    assert caplog.text.encode(), "a log is written as UTF-8"


def test_a_record_that_cannot_be_written_gives_the_event_back(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        adapter.answers.append(lambda wires: PermissionError("no"))

        async def handler(event: Event) -> None:
            raise Reject("x")

        async with consuming(adapter, handler):
            adapter.receiver.put(event())
            await until(lambda: adapter.receiver.given_back)
        assert not adapter.receiver.acked

    run(scenario())
    assert "could not be written" in caplog.text


def test_a_record_too_large_is_left_to_the_backstop(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter(event_bytes=2000)

        async def handler(event: Event) -> None:
            raise Reject("x")

        async with consuming(adapter, handler):
            adapter.receiver.put(event(data="x" * 1950))
            await until(lambda: adapter.receiver.given_back)
        assert adapter.receiver.given_back[0][1] == 300.0

    run(scenario())
    assert "left to the backstop" in caplog.text


# --- batches ----------------------------------------------------------------------------------------------------


def test_a_handler_of_several_answers_for_each() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        sizes: list[int] = []

        async def handler(events: list[Event]) -> Any:
            sizes.append(len(events))
            return [
                {"good": None, "later": Retry(after=3), "bad": Reject("bad one")}[event.id]
                for event in events
            ]

        for id in ("good", "later", "bad"):
            adapter.receiver.put(event(id))
        async with consuming(adapter, handler):
            await until(lambda: len(adapter.receiver.settled) == 3)
        assert sizes == [3]
        assert sorted(adapter.receiver.acked) == [1, 3]
        assert adapter.receiver.given_back == [(2, 3.0)]
        assert record_of(adapter)["reason"] == "bad one"

    run(scenario())


@pytest.mark.parametrize("kind", ["none", "short", "nonsense", "number", "raises", "plain"])
def test_other_answers_of_a_handler_of_several(kind: str) -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()

        async def handler(events: list[Event]) -> Any:
            if kind == "raises":
                raise ValueError("all")
            return {"none": None, "short": [None], "nonsense": [None, "x"], "number": 3}[kind]

        def plain(events: list[Event]) -> None:
            assert threading.current_thread() is not threading.main_thread()

        adapter.receiver.put(event("a"), attempt=5)
        adapter.receiver.put(event("b"), attempt=5)
        async with consuming(adapter, plain if kind == "plain" else handler):
            await until(lambda: len(adapter.receiver.acked) == 2)
        errors = [record.data["error"] for record in adapter.records()]
        if kind in ("none", "plain"):
            assert not errors
        else:
            assert len(errors) == 2
            expected = {
                "short": "a list of 1 for 2",
                "nonsense": "str in it",
                "number": "int for 2",
                "raises": "all",
            }
            assert expected[kind] in errors[0]

    run(scenario())


def test_a_batch_is_no_larger_than_asked() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        sizes: list[int] = []

        async def handler(events: list[Event]) -> None:
            sizes.append(len(events))

        for i in range(7):
            adapter.receiver.put(event(f"e-{i}"))
        async with consuming(adapter, handler, batch=3):
            await until(lambda: len(adapter.receiver.acked) == 7)
        assert max(sizes) == 3

    run(scenario())
