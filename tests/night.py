"""A night on call, played with the commands that a person has: from a bad release until each event is handled.

``python -m tests.night``                                  200 events through `crossbus serve`, with SQLite under it
``python -m tests.night --on eventbridge --events 400``    the same with the EventBridge adapter, on moto's server
``python -m tests.night --on pubsub --kill``               on Google's emulator; the first redrive is killed

A program runs, in processes of its own. Its new release fails for some events, which fill the dead letter.
`dlq summary` says why, `pause` stops it, the fix is deployed, `dlq redrive --rate` puts the events back, is stopped
half way and goes on, `resume`; and each event is handled. It exits with 1 if one was not, or was handled twice and no
command said that it may be.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.test_cli_workers import Run, running, until
from tests.worlds import EXACT, WORLDS, World

__all__ = ["Night", "play"]

PROGRAM = """
import asyncio, json, os
from crossbus import Bus, Event, Reject, RetryPolicy

RELEASE = {release}
bus = Bus(source="/shop")

@bus.subscribe("{topic}", "billing", retry=RetryPolicy(attempts=2, first_delay=0), lease={lease})
async def bill(event: Event) -> None:
    order = event.data
    if RELEASE == 1 and order["currency"] == "SEK":
        raise Reject("unknown currency")
    if RELEASE == 1 and order["vip"]:
        raise KeyError("customer")
    print(f"billed {{event.id}} by release {{RELEASE}}\\n", end="", flush=True)
"""
BATCH = {"pubsub": 100}
"""The most records of a step of `redrive`, where it is not the 10 of SQS and Event Grid."""
LOST = re.compile(r"may be handled again|may come twice")
"""How a program says that an event may be handled twice."""
PATIENCE = 120.0


@dataclass(kw_only=True)
class Night:
    """What is played, and what came of it."""

    events: int = 40
    """How many are published in the evening; a quarter as many come while it is paused."""
    rate: float = 20.0
    workers: int = 2
    kill: bool = False
    """Whether the first redrive is killed, rather than interrupted."""
    handled: Counter[str] = field(default_factory=Counter)
    published: int = 0
    dead: int = 0
    announced: int = 0
    """How many events may come twice, as the commands and the program said."""

    @property
    def again(self) -> int:
        return self.handled.total() - len(self.handled)

    @property
    def lost(self) -> int:
        return self.published - len(self.handled)

    @property
    def ok(self) -> bool:
        return not self.lost and self.again <= self.announced


class _Play:
    def __init__(self, night: Night, world: World, folder: Path, say: Callable[[str], None]) -> None:
        self.night = night
        self.world = world
        self.folder = folder
        self.say = say
        # A folder of sockets of its own: `pause` shall find this night's processes. Its path must be short.
        self.run_dir = tempfile.TemporaryDirectory(prefix="cb-")
        self.variables = {
            "CROSSBUS_URL": world.url,
            "CROSSBUS_RUN_DIR": self.run_dir.name,
            **world.environment,
        }
        self.redrive_words = ("dlq", "redrive", world.where, "--rate", f"{night.rate:g}", "-o", "json")
        self.for_all = world.kind in EXACT
        """Whether the provider holds a pause for all consumers."""

    def play(self) -> None:
        where, events = self.world.where, self.night.events
        with self.run_dir:
            self.say(f"$ export CROSSBUS_URL='{self.world.url}'")
            with self.release(1) as old:
                self.say(f"\n# the release went out; {events} orders come")
                self.publish(range(events))
                good, failed, rejected = _expected(events)
                self.night.dead = failed + rejected
                until(lambda: len(self.billed(old)) >= good, limit=PATIENCE)
                until(lambda: self.world.dead() >= failed + rejected, limit=PATIENCE)
                self.say("\n# the alarm rings: what is it?")
                self.command("dlq", "summary", where, "-o", "table")
                found = self.world.summary()
                assert found == {"failed": failed, "unknown currency": rejected}, found
                self.command("dlq", "list", where, "--reason", "failed", "--limit", "2")
                self.say("\n# stop it, until there is a fix; more orders come")
                self.command("pause", where)
                self.publish(range(events, events + events // 4))
                self.stop(old)
                assert len(self.billed(old)) == good, "it handled something while it was paused"
            self.say("\n# the fix is deployed")
            with self.release(2) as new:
                if not self.for_all:
                    # A process begins running: what waited shows whether the fix is one.
                    until(lambda: len(self.billed(new)) >= events // 4, limit=PATIENCE)
                    self.command("pause", where)
                self.say("\n# put the events back, slowly; it is stopped half way, and goes on")
                self.redrive()
                if not self.night.kill:
                    assert self.world.dead() == 0
                    assert len(self.billed(new)) == (0 if self.for_all else events // 4)
                self.command("stats", where, "-o", "table")
                self.say("\n# go on")
                self.command("resume", where)
                until(lambda: self.all_handled(old, new), limit=PATIENCE)
                self.stop(new)
        for run in (old, new):
            self.night.handled.update(self.billed(run))
            self.night.announced += sum(bool(LOST.search(line)) for line in run.errors)
        # What is in the subscription now would have been handled again.
        self.night.handled.update(self.world.waiting(0))
        assert self.world.dead() == 0, "something failed again"

    # --- the steps ----------------------------------------------------------------------------------------------

    @contextmanager
    def release(self, number: int) -> Iterator[Run]:
        """Run a release of the program."""
        module = f"shop_{number}"
        text = PROGRAM.format(release=number, topic=self.world.topic, lease=self.world.lease)
        (self.folder / f"{module}.py").write_text(text)
        words = (f"{module}:bus", "--workers", str(self.night.workers), "--health", ":0")
        self.say(f"$ crossbus run {' '.join(words)} &")
        with running(*words, cwd=self.folder, **self.variables) as run:
            until(lambda: run.said("consuming .* in . process"), limit=PATIENCE)
            yield run

    def stop(self, run: Run) -> None:
        self.say("$ kill %1")
        assert run.end() == 0, run.errors

    def publish(self, numbers: range) -> None:
        file = self.folder / f"orders-{numbers.start}.jsonl"
        file.write_text("".join(f"{json.dumps(_order(n))}\n" for n in numbers))
        self.command("publish", self.world.topic, str(file))
        self.night.published += len(numbers)

    def command(self, *words: str) -> str:
        """Run a command as a person does, and return what it printed."""
        self.say(f"$ crossbus {' '.join(words)}")
        done = self.world.crossbus(*words, cwd=self.folder, CROSSBUS_RUN_DIR=self.run_dir.name)
        self.say((done.stdout + done.stderr).rstrip())
        assert done.returncode == 0, done.stderr
        return done.stdout

    def redrive(self) -> None:
        """Put all back at a rate: the first half, and the rest."""
        words = self.redrive_words
        self.say(f"$ crossbus {' '.join(words)}")
        with self.world.started(*words, cwd=self.folder) as process:
            self._half_way(process)
            process.send_signal(signal.SIGKILL if self.night.kill else signal.SIGINT)
            out, err = process.communicate(timeout=PATIENCE)
        self.say((("^C" if not self.night.kill else "killed") + f"\n{out}{err}").rstrip())
        if self.night.kill:
            # A record is removed after its event was put back: the step under way may be done again.
            self.night.announced += 0 if self.for_all else BATCH.get(self.world.kind, 10)
        else:
            assert process.returncode == 130, (process.returncode, err)
            self.night.announced += int(json.loads(out)["twice"])
        self.redrive_rest()

    def redrive_rest(self) -> None:
        self.night.announced += int(json.loads(self.command(*self.redrive_words))["twice"])

    def all_handled(self, *runs: Run) -> bool:
        if (
            self.night.kill and self.world.dead()
        ):  # what the killed command had in hand was hidden from the next
            self.redrive_rest()
        return len({id for run in runs for id in self.billed(run)}) >= self.night.published

    def _half_way(self, process: subprocess.Popen[str]) -> None:
        """Wait until about half is put back: seen where a look hides nothing, else by the time that it takes."""
        half = self.night.dead / 2
        if self.for_all:
            until(lambda: self.world.dead() <= half, limit=PATIENCE)
            return
        assert process.stderr is not None
        process.stderr.readline()  # that it can be seen only by handing it out: it has begun
        time.sleep(half / self.night.rate)

    def billed(self, run: Run) -> list[str]:
        return [line.split()[1] for line in list(run.output) if line.startswith("billed ")]


def _order(n: int) -> dict[str, object]:
    data = {"order": f"o-{n}", "total": 9.5, "currency": "SEK" if n % 8 == 3 else "EUR", "vip": n % 4 == 1}
    return {"specversion": "1.0", "id": f"e-{n}", "type": "shop.placed", "source": "/shop", "data": data}


def _expected(events: int) -> tuple[int, int, int]:
    """Of the first so many: how many the bad release handles, how many fail in it, and how many it rejects."""
    failed = len(range(1, events, 4))
    rejected = len(range(3, events, 8))
    return events - failed - rejected, failed, rejected


def play(night: Night, world: World, folder: Path, say: Callable[[str], None]) -> None:
    """Play a night; the outcome is in `night`. Raises `AssertionError` where it is not as it should be."""
    _Play(night, world, folder, say).play()


def report(night: Night, world: World, seconds: float) -> str:
    """Say what came of it."""
    return (
        f"\n{world.kind}: {night.published:,} events in {seconds:.0f} s; {night.dead:,} were dead, and put back\n"
        f"  handled more than once: {night.again:,}; announced: at most {night.announced:,}\n"
        f"  LOST: {night.lost:,}   -> {'ok' if night.ok else 'FAILED'}"
    )


def main() -> int:
    """Play a night, say what is done, and print the report."""
    parser = argparse.ArgumentParser(prog="python -m tests.night", description=__doc__.partition("\n")[0])
    parser.add_argument("--on", choices=tuple(WORLDS), default="sqlite", help="the provider's stand-in")
    parser.add_argument("--events", type=int, default=200)
    parser.add_argument("--rate", type=float, default=20.0, help="events put back in a second, at most")
    parser.add_argument("--kill", action="store_true", help="kill the first redrive, instead of Ctrl-C")
    arguments = parser.parse_args()
    night = Night(events=arguments.events, rate=arguments.rate, kill=arguments.kill)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="night-") as name:
        folder = Path(name)
        with WORLDS[arguments.on](folder) as world:
            play(night, world, folder, lambda text: print(text, flush=True))
            print(report(night, world, time.monotonic() - began))
    return 0 if night.ok else 1


if __name__ == "__main__":
    sys.exit(main())
