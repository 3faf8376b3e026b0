"""The real time, and waiting by a clock."""

from __future__ import annotations

import asyncio
import time

import pytest
from tests.support import run

from crossbus.clock import SystemClock, sleep
from crossbus.testing import Clock


def test_the_real_time_is_that_of_the_machine() -> None:
    clock = SystemClock()
    assert abs(clock.time() - time.time()) < 5
    assert abs(clock.monotonic() - time.monotonic()) < 5


def test_a_timer_of_the_real_time_calls_back_unless_cancelled() -> None:
    async def scenario() -> None:
        clock, fired = SystemClock(), []
        clock.call_at(clock.monotonic() + 0.02, lambda: fired.append("soon"))
        clock.call_at(clock.monotonic() - 5, lambda: fired.append("past"))
        clock.call_at(clock.monotonic(), lambda: fired.append("cancelled")).cancel()
        await sleep(clock, 0.1)
        assert fired == ["past", "soon"]

    run(scenario())


@pytest.mark.parametrize("seconds", [0, -1])
def test_waiting_for_nothing_lets_others_run_once(seconds: float) -> None:
    async def scenario() -> None:
        ran: list[str] = []
        asyncio.get_running_loop().call_soon(ran.append, "other")
        await sleep(Clock(), seconds)
        assert ran == ["other"]

    run(scenario())


def test_a_wait_that_is_cancelled_leaves_no_timer() -> None:
    async def scenario() -> None:
        clock = Clock()
        waiting = asyncio.create_task(sleep(clock, 60))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await clock.advance(120)
        assert waiting.cancelled()

    run(scenario())
