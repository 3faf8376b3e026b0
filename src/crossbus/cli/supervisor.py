"""`crossbus run --workers`: starts processes, watches them, starts anew what died, and has all drain at a signal.

A worker is a new interpreter, not a fork: a fork would share the parent's connections, and threads that are gone in it.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from typing import Any, Final

from crossbus.cli.channel import LONGEST, line
from crossbus.cli.control import PATIENCE, controlled
from crossbus.cli.exits import ExitCode, debugging, fail, note
from crossbus.cli.run import Chosen, health_line
from crossbus.errors import ConfigurationError
from crossbus.probes import serve
from crossbus.stopping import stop_at_signals

__all__ = ["Supervisor", "supervise"]

FIRST_DELAY: Final = 1.0
LONGEST_DELAY: Final = 30.0
"""Seconds before a worker that died is started anew: doubled each time, up to this."""
WELL_AFTER: Final = 60.0
"""A worker that lived so many seconds is forgiven its death: the next delay is the first again."""
SILENT_AFTER: Final = 10.0
"""A worker that reported nothing for so many seconds is not alive."""
GRACE: Final = 20.0
"""Seconds beyond its drain limit that a worker has to cancel, settle and disconnect, before it is killed."""


def supervise(
    program: str, chosen: Chosen, *, workers: int, health: tuple[str, int] | None, reload: bool, trace: bool
) -> ExitCode:
    """Run a program in `workers` processes until a signal; with `trace` each prints its traces as trees.

    Raises:
        ConfigurationError: this system has no processes that can be watched so, or the address cannot be listened on.
    """
    if os.name != "posix":
        raise ConfigurationError(
            "--workers and --reload need POSIX signals; on this system start several crossbus run"
        )
    changes: AsyncIterator[list[str]] | None = None
    if reload:
        from crossbus.cli.reloading import changes_of

        changes = changes_of(os.getcwd())
    return asyncio.run(Supervisor(program, chosen, workers, trace=trace).run(health, changes))


class Worker:
    """A place for one process, and the process in it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.process: Process | None = None
        self.opened = asyncio.Event()
        """Set once the bus of the process was open."""
        self.status: dict[str, Any] = {}
        self.reloading = False
        """True while its process is ended only to be started anew."""
        self.writer: asyncio.StreamWriter | None = None
        self.asked: dict[int, asyncio.Future[dict[str, Any] | None]] = {}
        """The questions that it has not answered, by number."""
        self.heard = 0.0
        """When it reported last, by `time.monotonic`."""

    @property
    def alive(self) -> bool:
        """False if its process says so, or says nothing any more. One that is being started anew is no failure."""
        if self.process is None or not self.status:
            return True
        return bool(self.status["alive"]) and time.monotonic() - self.heard < SILENT_AFTER

    @property
    def ready(self) -> bool:
        """True if its process is there, and says so."""
        return self.process is not None and bool(self.status.get("ready")) and self.alive


class Supervisor:
    """The processes of one `crossbus run`."""

    def __init__(self, program: str, chosen: Chosen, count: int, *, trace: bool = False) -> None:
        self._order = {"program": program, "chosen": chosen, "trace": trace, "debug": debugging()}
        self._workers = [Worker(number) for number in range(1, count + 1)]
        self._stop = asyncio.Event()
        self._code = ExitCode.OK
        self._greeted = False
        self._number = 0
        self._paused: dict[str, dict[str, Any]] = {}
        """By subscription, what paused it: for processes that are started later."""
        self._changed: asyncio.Event | None = None
        """Set when files changed, if they are watched: then nothing is started anew before."""

    async def run(
        self, health: tuple[str, int] | None, changes: AsyncIterator[list[str]] | None = None
    ) -> ExitCode:
        """Start the workers, and keep them until a signal."""
        stack = AsyncExitStack()
        server = None if health is None else await serve(*health, self.ask)
        if server is not None:
            note(health_line(*server.sockets[0].getsockname()[:2]))
        loop = asyncio.get_running_loop()
        tasks: list[asyncio.Task[None]] = []
        try:
            with stop_at_signals(lambda: loop.call_soon_threadsafe(self._stop.set)):
                await stack.enter_async_context(controlled(self.steer))
                if changes is not None:
                    self._changed = asyncio.Event()
                    tasks.append(asyncio.create_task(self._reload(changes, self._changed)))
                tasks.append(asyncio.create_task(self._begin(tasks)))
                await self._stop.wait()
                await self._end()
        finally:
            for worker in self._workers:  # left over by a second signal
                _signal(worker, signal.SIGKILL)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await stack.aclose()
            if server is not None:
                server.close()
        if self._code is ExitCode.OK:
            note("stopped; what was in hand is done or given back")
        return self._code

    def ask(self) -> tuple[bool, bool]:
        """Say whether all are alive, and all are ready."""
        alive = all(worker.alive for worker in self._workers)
        return alive, not self._stop.is_set() and all(worker.ready for worker in self._workers)

    async def steer(self, question: dict[str, Any]) -> dict[str, Any]:
        """Have all workers pause or resume a subscription, and those that are started later; or say how they do."""
        found = await asyncio.gather(*(self._ask(worker, question) for worker in self._workers))
        concerned = [answer for answer in found if answer != {}]
        if any(concerned):
            if question["do"] == "pause":
                self._paused[question["subscription"]] = question
            elif question["do"] == "resume":
                self._paused.pop(question["subscription"], None)
        return {"program": self._order["program"], "pid": os.getpid(), "processes": concerned}

    async def _ask(self, worker: Worker, question: dict[str, Any]) -> dict[str, Any] | None:
        """Ask one worker. ``{}``: it does not concern it, or it is being started anew. None: it did not answer."""
        if worker.writer is None:
            return {}
        self._number += 1
        number = self._number
        answer = worker.asked[number] = asyncio.get_running_loop().create_future()
        worker.writer.write(line({**question, "number": number}))
        try:
            return await asyncio.wait_for(answer, PATIENCE * 0.8)
        except TimeoutError:
            return None
        finally:
            del worker.asked[number]

    # --- keeping ----------------------------------------------------------------------------------------------------

    async def _begin(self, tasks: list[asyncio.Task[None]]) -> None:
        """Start one, and the others when its bus is open: a mistake that all would make is told once."""
        first, *others = self._workers
        tasks.append(asyncio.create_task(self._keep(first)))
        await first.opened.wait()
        tasks.extend(asyncio.create_task(self._keep(worker)) for worker in others)

    async def _keep(self, worker: Worker) -> None:
        """Run one process after another in a worker's place."""
        delay = FIRST_DELAY
        while True:
            began = time.monotonic()
            code = await self._live(worker)
            if self._stop.is_set():
                return
            if worker.reloading:
                worker.reloading = False
                continue
            if self._changed is None and not self._greeted:
                self._give_up(worker, code)
                return
            if time.monotonic() - began >= WELL_AFTER:
                delay = FIRST_DELAY
            await self._wait(worker, code, delay)
            delay = min(delay * 2, LONGEST_DELAY)
            if self._stop.is_set():
                return

    async def _wait(self, worker: Worker, code: int, delay: float) -> None:
        """Wait until a worker that died is to be started anew."""
        if self._changed is not None:
            self._changed.clear()
            note(f"worker {worker.number} {_ended(code)}; it is started anew when a file changes")
            await self._changed.wait()
            return
        note(f"worker {worker.number} {_ended(code)}; another is started in {delay:.0f} s")
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), delay)

    def _give_up(self, worker: Worker, code: int) -> None:
        """End for what every worker would end for: it has said what that is, unless a signal ended it."""
        if code <= 0:
            fail(f"worker {worker.number} {_ended(code)} before it consumed anything")
        self._code = ExitCode(code) if code in (1, 2, 3) else ExitCode.FAILED
        self._stop.set()

    async def _live(self, worker: Worker) -> int:
        """Start a process, listen to it, and return its exit code when it has ended."""
        ours, theirs = socket.socketpair()
        try:
            worker.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "crossbus.cli.worker",
                str(theirs.fileno()),
                pass_fds=[theirs.fileno()],
                stdin=DEVNULL,
                process_group=0,  # Ctrl-C is for the supervisor, which tells them
            )
        except OSError as error:
            ours.close()
            fail(f"worker {worker.number} cannot be started: {error.strerror}")
            return ExitCode.FAILED
        finally:
            theirs.close()
        reader, writer = await asyncio.open_connection(sock=ours, limit=LONGEST)
        worker.writer = writer
        writer.write(line({**self._order, "paused": list(self._paused.values())}))
        try:
            if self._stop.is_set():
                _signal(worker, signal.SIGTERM)
            await self._listen(worker, reader)
            return await worker.process.wait()
        finally:
            worker.process, worker.writer, worker.status = None, None, {}
            for asked in worker.asked.values():
                if not asked.done():
                    asked.set_result({})
            writer.close()

    async def _listen(self, worker: Worker, reader: asyncio.StreamReader) -> None:
        with suppress(OSError):
            while text := await reader.readline():
                message = json.loads(text)
                worker.heard = time.monotonic()
                if "consumed" in message:
                    self._greet(message)
                    worker.opened.set()
                elif "answer" in message:
                    asked = worker.asked.get(message["number"])
                    if asked is not None and not asked.done():
                        asked.set_result(message["answer"])
                else:
                    worker.status = message

    def _greet(self, message: dict[str, Any]) -> None:
        if self._greeted:
            return
        self._greeted = True
        for text in message["notices"]:
            note(text)
        count = len(self._workers)
        note(
            f"consuming {', '.join(message['consumed'])} in {count} process{'es' if count > 1 else ''}; "
            "Ctrl-C finishes what is in hand and stops"
        )

    # --- ending -----------------------------------------------------------------------------------------------------

    async def _end(self) -> None:
        """Have all drain at once, each within its limit; kill who does not end."""
        await asyncio.gather(*(self._end_one(worker) for worker in self._workers))

    async def _end_one(self, worker: Worker) -> None:
        process = worker.process
        if process is None:
            return
        consumes = bool(worker.status)
        limit = 2 * float(worker.status.get("drain_limit", 25.0)) + GRACE
        _signal(worker, signal.SIGTERM)
        try:
            code = await asyncio.wait_for(process.wait(), limit)
        except TimeoutError:
            fail(f"worker {worker.number} did not end in {limit:.0f} s and is killed; its events come again")
            _signal(worker, signal.SIGKILL)
            code = await process.wait()
        if consumes and code != ExitCode.OK and self._code is ExitCode.OK and self._stop.is_set():
            self._code = ExitCode.FAILED

    async def _reload(self, changes: AsyncIterator[list[str]], changed: asyncio.Event) -> None:
        async for names in changes:
            note(f"{', '.join(names)} changed: starting anew")
            for worker in self._workers:
                worker.reloading = worker.process is not None
            changed.set()
            await self._end()


def _signal(worker: Worker, number: signal.Signals) -> None:
    if worker.process is not None:
        with suppress(ProcessLookupError):
            worker.process.send_signal(number)


def _ended(code: int) -> str:
    if code < 0:
        try:
            return f"was ended by {signal.Signals(-code).name}"
        except ValueError:
            return f"was ended by signal {-code}"
    return "ended by itself" if code == 0 else f"ended with exit code {code}"
