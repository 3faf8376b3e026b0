"""Stress: the kit beside itself, and how long an event takes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median

from crossbus.conformance.cases import all_cases, case
from crossbus.conformance.harness import Harness
from crossbus.conformance.trial import Trial
from crossbus.delivery import Delivery

__all__ = ["Latency", "measure"]


@case("stress/ten-times-in-parallel", "the whole kit ten times in parallel", timeout=20, exclusive=True)
async def ten_times_in_parallel(t: Trial) -> None:
    from crossbus.conformance.runner import run

    times = t.size(10, least=2)
    # Ten runs at a tenth of the sizes: as much work as one, beside each other.
    report = await run(
        t.harness,
        select=lambda case: case.group != "stress" and not case.exclusive,
        parallel=times,
        repeat=times,
        scale=t.scale / t.harness.scale / times,
    )
    failed = report.failed
    names = sorted({result.case.name for result in failed})
    assert not failed, (
        f"of {len(report.results)} runs {len(failed)} failed: {', '.join(names)}; the first: {failed[0].detail}"
    )


@case(
    "stress/latency", "publish, consume and end-to-end latency can be measured, and nothing is lost meanwhile"
)
async def latency(t: Trial) -> None:
    found = await _measure(t, t.size(500, least=50))
    assert 0 < found.publish_p50 <= found.publish_p99, f"the latencies of publishing make no sense: {found}"
    t.notes.append(str(found))


@dataclass(frozen=True, slots=True)
class Latency:
    """How long an event took, in real seconds."""

    events: int
    publish_p50: float
    publish_p99: float
    """From `publish` to its receipt."""
    end_to_end_p50: float
    end_to_end_p99: float
    """From `publish` to the handler."""
    consumed_per_second: float
    """How fast a backlog of as many events was handled."""

    def __str__(self) -> str:
        return (
            f"publish {self.publish_p50 * 1e3:.2f} ms (p99 {self.publish_p99 * 1e3:.2f}), "
            f"end to end {self.end_to_end_p50 * 1e3:.2f} ms (p99 {self.end_to_end_p99 * 1e3:.2f}), "
            f"consume {self.consumed_per_second:,.0f}/s"
        )


async def measure(harness: Harness, events: int = 1000) -> Latency:
    """Measure an adapter: events published one by one while they are consumed, then a backlog."""
    chosen = next(case for case in all_cases() if case.name == "stress/latency")
    async with Trial(harness, chosen) as t:
        return await _measure(t, events)


async def _measure(t: Trial, count: int) -> Latency:
    bus, topic = t.bus(), t.topic()
    arrived: dict[str, float] = {}

    async def note(delivery: Delivery) -> None:
        arrived.setdefault(delivery.event.id, time.perf_counter())

    inbox = t.inbox(bus, topic, "measured", note)
    sent: dict[str, float] = {}
    published: list[float] = []
    events = t.events(count)
    async with t.consuming(bus):
        for event in events:
            sent[event.id] = began = time.perf_counter()
            await bus.publish(topic, event)
            published.append(time.perf_counter() - began)
        await t.arrive(inbox, events, within=300)
    backlog = [event.replace(id=f"{event.id}-backlog") for event in events]
    async with bus:
        await bus.publish_many(topic, backlog)
        began = time.perf_counter()
        async with bus.running():
            await t.arrive(inbox, backlog, within=300)
        last = max(arrived[event.id] for event in backlog)
    taken = sorted(arrived[id] - at for id, at in sent.items())
    published.sort()
    high = int(count * 0.99)
    return Latency(
        count, median(published), published[high], median(taken), taken[high], count / max(last - began, 1e-9)
    )
