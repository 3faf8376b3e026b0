"""The clock that tests move."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime

import pytest
from tests.support import run

from crossbus.clock import sleep
from crossbus.testing import Clock


def test_time_stands_still_until_it_is_moved() -> None:
    async def main() -> None:
        clock = Clock(start=1000.0)
        await asyncio.sleep(0.01)
        assert (clock.time(), clock.monotonic()) == (1000.0, 0.0)
        await clock.advance(2.5)
        assert (clock.time(), clock.monotonic()) == (1002.5, 2.5)

    run(main())


def test_it_starts_where_it_is_told() -> None:
    assert Clock(datetime(2030, 1, 1, tzinfo=UTC)).time() == datetime(2030, 1, 1, tzinfo=UTC).timestamp()
    assert Clock().time() == datetime(2025, 1, 1, tzinfo=UTC).timestamp()
    with pytest.raises(ValueError, match="no time zone"):
        Clock(datetime(2030, 1, 1))


@pytest.mark.parametrize("seconds", [-1, float("nan")])
def test_time_goes_forward_only(seconds: float) -> None:
    with pytest.raises(ValueError, match="forward only"):
        run(Clock().advance(seconds))


def test_timers_fire_in_order_each_at_its_own_time() -> None:
    async def main() -> None:
        clock = Clock()
        seen: list[tuple[str, float]] = []
        for name, when in [("c", 3.0), ("a", 1.0), ("b1", 2.0), ("b2", 2.0), ("late", 9.0)]:
            clock.call_at(when, lambda name=name: seen.append((name, clock.monotonic())))
        await clock.advance(0.5)
        assert seen == []
        await clock.advance(3.5)
        assert seen == [("a", 1.0), ("b1", 2.0), ("b2", 2.0), ("c", 3.0)]
        assert clock.monotonic() == 4.0

    run(main())


def test_a_cancelled_timer_does_not_fire() -> None:
    async def main() -> None:
        clock = Clock()
        seen: list[str] = []
        timer = clock.call_at(1.0, lambda: seen.append("a"))
        clock.call_at(1.0, lambda: seen.append("b"))
        past = clock.call_at(0.0, lambda: seen.append("past"))
        past.cancel()
        timer.cancel()
        timer.cancel()
        await clock.advance(2)
        timer.cancel()
        assert seen == ["b"]

    run(main())


def test_what_a_task_begins_after_its_sleep_is_due_in_the_same_advance() -> None:
    async def main() -> None:
        clock = Clock()
        seen: list[float] = []

        async def ticks() -> None:
            while True:
                await sleep(clock, 10)
                seen.append(clock.monotonic())

        task = asyncio.create_task(ticks())
        await clock.advance(35)
        assert seen == [10.0, 20.0, 30.0]
        task.cancel()

    run(main())


def test_a_timer_in_the_past_fires_soon_without_moving() -> None:
    async def main() -> None:
        clock = Clock()
        await clock.advance(5)
        fired = asyncio.Event()
        clock.call_at(1.0, fired.set)
        assert not fired.is_set()
        await asyncio.wait_for(fired.wait(), 5)

    run(main())


def test_timers_fire_in_the_loop_that_set_them() -> None:
    clock = Clock()
    seen: list[tuple[str, float]] = []
    ready = threading.Barrier(3)
    stop = threading.Event()

    def other(name: str, first: float) -> None:
        async def main() -> None:
            async def ticks() -> None:
                while True:
                    await sleep(clock, first)
                    assert threading.current_thread().name == name
                    seen.append((name, clock.monotonic()))

            task = asyncio.create_task(ticks())
            await asyncio.sleep(0)
            await asyncio.to_thread(ready.wait, 10)
            await asyncio.to_thread(stop.wait, 10)
            task.cancel()

        asyncio.run(main())

    threads = [
        threading.Thread(target=other, args=(name, first), name=name)
        for name, first in [("x", 2.0), ("y", 3.0)]
    ]
    for thread in threads:
        thread.start()

    async def main() -> None:
        await asyncio.to_thread(ready.wait, 10)
        await clock.advance(6.5)

    run(main())
    stop.set()
    for thread in threads:
        thread.join(10)
    assert [time for _, time in seen] == sorted(time for _, time in seen)
    assert sorted(seen) == [("x", 2.0), ("x", 4.0), ("x", 6.0), ("y", 3.0), ("y", 6.0)]


def test_timers_of_a_loop_that_is_gone_are_passed_over() -> None:
    clock = Clock()

    async def leave() -> None:
        clock.call_at(1.0, lambda: pytest.fail("its loop is closed"))

    run(leave())

    async def main() -> None:
        seen: list[str] = []
        clock.call_at(2.0, lambda: seen.append("mine"))
        await clock.advance(3)
        assert seen == ["mine"]

    run(main())
