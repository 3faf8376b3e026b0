"""Deliveries that reached nobody are put back as if they had never been taken."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from crossbus.adapter import LeaseOutcome, Received, Settlement, Wire
from crossbus.testing import Clock
from crossbus_local.engine import Engine
from crossbus_local.queue import Queue, QueueSettings
from crossbus_local.records import NO_ATTRIBUTES

OK, LOST = LeaseOutcome.OK, LeaseOutcome.LOST


def made(**settings: object) -> tuple[Engine, Queue]:
    engine = Engine(Clock())
    engine.create_topic("orders")
    engine.put_subscription("orders", "billing", QueueSettings(dead_letter="dead", **settings))  # type: ignore[arg-type]
    return engine, engine.find("orders", "billing")


def publish(engine: Engine, *messages: tuple[str, str | None]) -> None:
    engine.publish("orders", [Wire(body.encode(), NO_ATTRIBUTES, 1, key) for body, key in messages])


def take(engine: Engine, queue: Queue, most: int = 100, room: float = float("inf")) -> list[Received]:
    return engine.receive(queue, most, 60.0, None, room)[0]


def shown(taken: list[Received]) -> list[tuple[str, int | None]]:
    return [(one.body.decode(), one.attempt) for one in taken]


def tokens(taken: list[Received]) -> list[int]:
    return [one.lease for one in taken]


def test_it_comes_again_at_once_in_order_and_on_the_same_attempt() -> None:
    engine, queue = made()
    publish(engine, *((body, None) for body in "abc"))
    first = take(engine, queue, 2)
    engine.untake(queue, tokens(first))
    assert queue.in_hand == 0
    assert engine.settle(queue, [Settlement(one.lease) for one in first]) == [LOST, LOST]
    assert shown(take(engine, queue)) == [("a", 1), ("b", 1), ("c", 1)]


def test_what_was_settled_or_ended_meanwhile_is_not_put_back() -> None:
    engine, queue = made()
    publish(engine, ("a", None), ("b", None))
    taken = take(engine, queue)
    engine.settle(queue, [Settlement(taken[0].lease)])
    engine.untake(queue, [*tokens(taken), 12345])
    assert shown(take(engine, queue)) == [("b", 1)]
    assert queue.waiting == 0


def test_a_key_is_held_and_its_order_kept() -> None:
    engine, queue = made(ordered=True)
    publish(engine, ("a1", "a"), ("a2", "a"), ("b1", "b"))
    taken = take(engine, queue)
    assert shown(taken) == [("a1", 1), ("b1", 1)]
    engine.untake(queue, tokens(taken))
    again = take(engine, queue)
    assert shown(again) == [("a1", 1), ("b1", 1)]
    engine.settle(queue, [Settlement(one.lease) for one in again])
    assert shown(take(engine, queue)) == [("a2", 1)]


def test_it_is_not_counted_towards_the_backstop() -> None:
    engine, queue = made(backstop=2)
    publish(engine, ("a", None))
    for _ in range(10):
        engine.untake(queue, tokens(take(engine, queue)))
    for attempt in (1, 2):
        taken = take(engine, queue)
        assert shown(taken) == [("a", attempt)]
        engine.settle(queue, [Settlement(taken[0].lease, 0.0)])
    assert engine.dead_letters()["dead"] == 1


def test_who_waits_is_woken() -> None:
    engine, queue = made()
    publish(engine, ("a", None))
    taken = take(engine, queue)
    woken: list[bool] = []

    class Waiting:
        called = False

        def wake(self) -> bool:
            woken.append(True)
            return True

    waiter = Waiting()
    engine.receive(queue, 1, 60.0, waiter)
    engine.untake(queue, tokens(taken))
    assert woken
    engine.leave(queue, waiter)


def test_a_receive_takes_no_more_bytes_than_there_is_room_for() -> None:
    engine, queue = made()
    publish(engine, *((body * 10, None) for body in "abcde"))
    assert len(take(engine, queue, room=20)) == 2
    assert len(take(engine, queue, room=21)) == 3, "the last may go beyond it"
    assert take(engine, queue) == []


@given(
    messages=st.lists(st.sampled_from([None, "a", "b", "c"]), max_size=20),
    ordered=st.booleans(),
    rounds=st.lists(st.tuples(st.integers(1, 8), st.booleans()), max_size=15),
)
def test_nothing_is_lost_and_no_attempt_is_counted(
    messages: list[str | None], ordered: bool, rounds: list[tuple[int, bool]]
) -> None:
    engine, queue = made(ordered=ordered)
    publish(engine, *((f"{n}", key) for n, key in enumerate(messages))) if messages else None
    done: list[Received] = []
    for most, reaches in [*rounds, *[(100, True)] * (len(messages) + 1)]:
        taken = take(engine, queue, most)
        assert {one.attempt for one in taken} <= {1}
        if reaches:
            assert set(engine.settle(queue, [Settlement(one.lease) for one in taken])) <= {OK}
            done += taken
        else:
            engine.untake(queue, tokens(taken))
    assert sorted(int(one.body) for one in done) == list(range(len(messages)))
    assert (queue.waiting, queue.in_hand) == (0, 0)
    if ordered:
        for key in "abc":
            assert [int(one.body) for one in done if one.key == key] == sorted(
                int(one.body) for one in done if one.key == key
            )
