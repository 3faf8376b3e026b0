"""Processes that are killed in the middle of load: what each was answered is what the file says afterwards."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from tests.sqlite_child import SUBSCRIPTION, TOPIC, opened
from tests.support import run

from crossbus.adapter import LeaseOutcome, ReplayFrom, Settlement

ROOT = Path(__file__).parent.parent
RUNS = 4


def killed(path: Path, number: int, lines: int, how: signal.Signals) -> list[list[str]]:
    """Let a process work until it has said so much, end it, and return what it said."""
    said: list[list[str]] = []
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.sqlite_child", str(path), str(number)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    with child:
        assert child.stdout is not None
        for line in child.stdout:
            said.append(line.split())
            if len(said) == lines:
                child.send_signal(how)  # what it says until it is dead is read, too
    assert child.returncode == -how
    return said


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_process_loses_nothing_that_it_was_answered(tmp_path: Path, how: signal.Signals) -> None:
    path = tmp_path / "events.db"
    choose = random.Random(7)
    said: list[list[str]] = []
    for number in range(RUNS):
        said += killed(path, number, choose.randint(50, 2500), how)
    check(said, run(rest(str(path)), limit=120))


async def rest(path: str) -> tuple[list[tuple[str, int, int]], list[str]]:
    """Return what is left in the file, with attempts, in order; and what its history holds."""
    local = opened(path)
    await local.open()
    receiver = await local.open_receiver(SUBSCRIPTION, 100)

    async def drain() -> list[tuple[str, int, int]]:
        found = []
        for _ in range(10_000):
            taken = await receiver.receive(100, 0.1)
            if not taken:
                return found
            for one in taken:
                key, _, number = local.decode(one).id.partition("-")
                found.append((key, int(number), one.attempt or 0))
            outcomes = await receiver.settle([Settlement(one.lease) for one in taken])
            assert set(outcomes) == {LeaseOutcome.OK}
        raise AssertionError("it never ends")

    left = await drain()
    first = local.engine._topics[TOPIC.name].history[0].sequence
    await local.replay(SUBSCRIPTION, ReplayFrom(position=str(first)))
    history = [f"{key}-{number}" for key, number, _ in await drain()]
    await local.close()
    return left, history


def check(said: list[list[str]], found: tuple[list[tuple[str, int, int]], list[str]]) -> None:
    left, history = found
    published: set[tuple[str, int]] = set()
    acknowledged: set[tuple[str, int]] = set()
    attempts: Counter[tuple[str, int]] = Counter()
    turns: dict[str, list[int]] = defaultdict(list)

    def received(key: str, number: int, attempt: int) -> None:
        assert (key, number) not in acknowledged, f"{key} {number} was acknowledged and came again"
        assert attempt > attempts[key, number], "an attempt was forgotten"
        attempts[key, number] = attempt
        if number not in turns[key][-1:]:
            turns[key].append(number)

    for what, key, number, *more in said:
        one = key, int(number)
        if what == "published":
            published.add(one)
        elif what == "received":
            received(*one, int(more[0]))
        elif what == "acknowledged":
            acknowledged.add(one)
    for one in left:
        received(*one)

    assert published
    assert acknowledged
    remaining = {(key, number) for key, number, _ in left}
    doubt = in_doubt(said)
    assert len(doubt) <= 10 * RUNS, "more than what was in hand is not answered for"
    lost = published - acknowledged - remaining - doubt
    assert not lost
    assert len(left) == len(remaining), "something waits twice"
    for key, numbers in turns.items():
        assert numbers == sorted(set(numbers)), f"{key} came out of order"
    assert {f"{key}-{number}" for key, number in published} <= set(history)
    assert len(history) == len(set(history))


def in_doubt(said: list[list[str]]) -> set[tuple[str, int]]:
    """What each run had received last and was not answered for: it may be acknowledged, or not."""
    doubt: set[tuple[str, int]] = set()
    for what, key, number, *_ in said:
        one = key, int(number)
        if what == "received":
            doubt.add(one)
        elif what in ("acknowledged", "returned"):
            doubt.discard(one)
    return doubt
