"""What a server tells of its subscriptions in metrics, if OpenTelemetry is set up; also of those nobody consumes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial

from crossbus.errors import NotFound
from crossbus.telemetry import names
from crossbus.telemetry.sources import Source, Watched
from crossbus_local.engine import Engine

__all__ = ["measure"]


def measure(engine: Engine) -> Callable[[], None]:
    """Let whoever collects metrics see the backlog of each subscription; returns what ends that."""
    instruments = Source().instruments
    if instruments is None:
        return lambda: None

    def watched() -> Iterator[Watched]:
        for topic, info in engine.topics().items():
            for queue in info.queues:
                name = queue.rpartition("/")[2]
                with suppress(NotFound):  # deleted meanwhile
                    backlog = engine.backlog(topic, name)
                    about = {names.SYSTEM: "crossbus", names.DESTINATION: topic, names.SUBSCRIPTION: name}
                    yield Watched(about, partial(int, backlog.in_hand or 0), backlog)

    instruments.watch_all(watched)
    return lambda: instruments.unwatch_all(watched)
