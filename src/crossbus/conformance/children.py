"""`Child`: a consumer in a process of its own, as a case sees it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from crossbus.conformance.trial import Trial

__all__ = ["Child"]

TAIL: Final = 20
"""How many lines of what a child complained of are kept, for the message of a failure."""


class Child:
    """A consumer in another process, see `crossbus.conformance.child`: what it got, what it did, and its end.

    Args:
        trial: The run of a case that it belongs to.
        name: What failures call it.
        options: What it is told: the arguments of `crossbus.conformance.child.consume`.
    """

    def __init__(self, trial: Trial, name: str, options: Mapping[str, Any]) -> None:
        self.name = name
        self._trial = trial
        self.got: list[str] = []
        """The ids of the events that its handler was given."""
        self.done: list[str] = []
        """The ids of the events that its handler was done with."""
        self.ready = False
        """True once it has opened its bus."""
        self.drained = False
        """True once its bus is closed in order."""
        self._options = dict(options)
        self._process: asyncio.subprocess.Process | None = None
        self._complaints: deque[str] = deque(maxlen=TAIL)
        self._reading: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start the process; `ready` says when it is."""
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "crossbus.conformance.child", json.dumps(self._options)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, **self._trial.harness.environment(self._trial.id)},
        )
        self._reading = [asyncio.create_task(self._listen()), asyncio.create_task(self._note_complaints())]

    async def _listen(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        async for raw in self._process.stdout:
            word, _, id = raw.decode().rstrip("\n").partition(" ")
            if word == "got":
                self.got.append(id)
            elif word == "done":
                self.done.append(id)
            elif word == "ready":
                self.ready = True
            elif word == "ended":
                self.drained = True

    async def _note_complaints(self) -> None:
        assert self._process is not None and self._process.stderr is not None
        async for line in self._process.stderr:
            self._complaints.append(line.decode(errors="replace").rstrip())

    async def until(self, condition: Callable[[], object], what: str, within: float = 60.0) -> None:
        """Wait until something is so that it must bring about; fail saying `what` was not so, at once if it ends."""
        await self._trial.until(
            lambda: condition() or self._has_ended, lambda: f"{self.name}: {what}{self._complained()}", within
        )
        if not condition():
            await self.wait()
        assert condition(), f"{self.name} ended with exit code {self._code}; {what}{self._complained()}"

    async def stop(self, within: float = 60.0) -> None:
        """Ask it to end, with SIGTERM, and fail unless it drains and ends in order."""
        assert self._process is not None
        if not self._has_ended:
            self._process.terminate()
        await self._trial.until(
            lambda: self._has_ended,
            lambda: f"{self.name} did not end after SIGTERM{self._complained()}",
            within,
        )
        await self.wait()
        assert self.drained and self._code == 0, (
            f"{self.name} did not end in order after SIGTERM: exit code {self._code}{self._complained()}"
        )

    async def kill(self) -> None:
        """Kill it with SIGKILL, and note what it had said. Idempotent."""
        if self._process is None:
            return
        if not self._has_ended:
            self._process.kill()
        await self.wait()

    async def wait(self) -> None:
        """Wait for its end, and until all that it said is read."""
        assert self._process is not None
        await self._process.wait()
        await asyncio.gather(*self._reading)

    @property
    def _code(self) -> int | None:
        return None if self._process is None else self._process.returncode

    @property
    def _has_ended(self) -> bool:
        return self._code is not None

    def _complained(self) -> str:
        text = " / ".join(line for line in self._complaints if line.strip())
        return f"; it said: {text}" if text else ""
