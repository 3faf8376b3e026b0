"""Servers of the local broker that are wrong on purpose, for the cases that need processes of their own.

Each spoils the engine of the process that it is called in; `tests.served` calls it in the server's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from tests.wrong_adapters import fails

from crossbus.adapter import LeaseOutcome, Received, Settlement, Wire
from crossbus_local.engine import Engine
from crossbus_local.queue import Queue, QueueSettings


class WrongServer:
    """Right in everything, until a subclass is wrong in one thing."""

    durable: ClassVar[bool] = True
    """Whether it keeps what it holds, as it says."""

    @classmethod
    def spoil(cls) -> None:
        """Put the fault into the engine."""


@fails("resilience/killed-consumer")
class NeverEndsLeases(WrongServer):
    @classmethod
    def spoil(cls) -> None:
        receive, extend = Engine.receive, Engine.extend

        def forever(
            self: Engine, queue: Queue, most: int, lease: float, *rest: Any, **more: Any
        ) -> tuple[list[Received], float]:
            return receive(self, queue, most, 1e9, *rest, **more)

        def longer(self: Engine, queue: Queue, tokens: Iterable[int], seconds: float) -> list[LeaseOutcome]:
            return extend(self, queue, tokens, 1e9)

        Engine.receive, Engine.extend = forever, longer  # type: ignore[method-assign]


@fails("resilience/competing-processes")
class TakesEachTwice(WrongServer):
    @classmethod
    def spoil(cls) -> None:
        publish = Engine.publish

        def twice(self: Engine, topic: str, wires: Sequence[Wire]) -> int:
            publish(self, topic, wires)
            return publish(self, topic, wires)

        Engine.publish = twice  # type: ignore[method-assign]


@fails("lifecycle/sigterm-process")
class LosesWhatIsGivenBack(WrongServer):
    @classmethod
    def spoil(cls) -> None:
        settle = Engine.settle

        def acknowledge(self: Engine, queue: Queue, settlements: Iterable[Settlement]) -> list[LeaseOutcome]:
            return settle(self, queue, [Settlement(one.lease) for one in settlements])

        Engine.settle = acknowledge  # type: ignore[method-assign]


@fails("retry/consumers-killed")
class GivesUpEarly(WrongServer):
    @classmethod
    def spoil(cls) -> None:
        put = Engine.put_subscription

        def early(self: Engine, topic: str, name: str, settings: QueueSettings, **more: Any) -> None:
            put(self, topic, name, dataclasses.replace(settings, backstop=2), **more)

        Engine.put_subscription = early  # type: ignore[method-assign]


@fails("resilience/provider-restarts", "resilience/provider-killed")
class KeepsNothing(WrongServer):
    durable = False
