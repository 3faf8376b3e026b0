"""One process of `crossbus run --workers`: ``python -m crossbus.cli.worker FD``, started by the supervisor.

What to run comes over the channel, not as an argument: others on the machine can see the arguments of a process.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from typing import Any, Final

from crossbus.bus import Bus
from crossbus.cli.channel import Channel
from crossbus.cli.control import PATIENCE, Steering
from crossbus.cli.exits import ExitCode, guarded, set_debug

__all__ = ["main"]

BEAT: Final = 0.5
"""Seconds between two reports to the supervisor."""


def main(descriptor: int) -> None:
    """Run what the supervisor says until it, or a signal, says stop; exit with the code of `crossbus run`."""
    channel = Channel(socket.socket(fileno=descriptor))
    order = channel.receive()
    if order is None:
        raise SystemExit(ExitCode.FAILED)
    raise SystemExit(guarded(lambda **_: _Worker(channel, order).run()))


class _Worker:
    def __init__(self, channel: Channel, order: dict[str, Any]) -> None:
        self._channel = channel
        self._order = order
        self._bus: Bus | None = None
        self._began = False
        self._steering: Steering | None = None
        self._made = threading.Event()
        self._making = threading.Lock()

    def run(self) -> ExitCode:
        """Import the program and handle its events."""
        from crossbus.cli.run import consume, consumed, inner, load_program, notices

        set_debug(self._order["debug"])
        threading.Thread(target=self._listen, name="crossbus orders", daemon=True).start()
        url, profile = self._order["chosen"]
        bus = load_program(self._order["program"], (url, profile))
        self._bus = inner(bus)
        with self._making:
            self._steering = Steering(self._bus)
            for question in self._order["paused"]:
                self._steering.do(question)
        self._made.set()

        @self._bus.on_start
        def started(bus: Bus) -> None:
            self._began = True
            self._channel.send({"notices": notices(bus), "consumed": consumed(bus)})

        threading.Thread(target=self._report, name="crossbus reports", daemon=True).start()
        consume(self._order["program"], bus, trace=self._order["trace"])
        return ExitCode.OK

    def _listen(self) -> None:
        """Do what the supervisor says. When it is gone, nobody would start this process anew, or stop it: drain."""
        while (question := self._channel.receive()) is not None:
            self._channel.send({"answer": self._do(question), "number": question["number"]})
        # While it drains, the default is back in force, and another signal would end it at once.
        if not self._began or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
            os.kill(os.getpid(), signal.SIGTERM)

    def _do(self, question: dict[str, Any]) -> dict[str, Any] | None:
        """Pause or resume; None if that cannot be answered in time. While the program is imported it is waited for."""
        if not self._made.wait(PATIENCE / 2):
            with self._making:
                if self._steering is None:
                    self._order["paused"].append(question)  # it begins so
                    return None
        assert self._steering is not None
        with suppress(TimeoutError):  # its loop is blocked
            return self._steering.do(question)
        return None

    def _report(self) -> None:
        """Say how it does, from a thread: also while the loop is blocked."""
        while self._channel.send(self._status()):
            time.sleep(BEAT)

    def _status(self) -> dict[str, Any]:
        assert self._bus is not None
        health = self._bus.health()
        return {
            "alive": health.alive,
            "ready": health.ready and bool(health.subscriptions),
            "drain_limit": self._bus.drain_limit,
        }


if __name__ == "__main__":
    main(int(sys.argv[1]))
