"""What telemetry costs: without an SDK against none at all, and with one against the same calls by hand.

The program is that of `bench_throughput`. `python -m benchmarks.bench_telemetry` prints the tables; with the name of a
peer it takes one sample.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence

from opentelemetry import metrics, trace
from opentelemetry.metrics import MeterProvider, NoOpMeterProvider
from opentelemetry.sdk.metrics import MeterProvider as SDKMeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace import TracerProvider as SDKTracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON

import crossbus.telemetry.consuming
import crossbus.telemetry.publishing  # noqa: F401 - so that no sample has the time that imports take
from benchmarks import bench_throughput, telemetry_by_hand
from benchmarks.measure import Table, against, in_turn, per_second

COUNT, SLOWER = 40_000, 10_000
"""Events of a sample, without an SDK and with one."""
QUEUE = 1 << 18
"""So long that the batch processor drops no span, which would be cheaper than to export it."""
CONDITIONS = {
    "on": "spans, batch exporter; no metrics",
    "on-metrics": "spans, batch exporter; metrics",
    "out": "sampled out; no metrics",
    "out-metrics": "sampled out; metrics",
}
WHO = ("crossbus", "hand")


class Discarding(SpanExporter):
    """Takes spans, and throws them away: how they are sent is not crossbus's."""

    exported = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.exported += len(spans)
        return SpanExportResult.SUCCESS


def measure(peer: str) -> dict[str, float]:
    """Take one sample: events a second, CPU microseconds and spans for each event."""
    who, _, condition = peer.partition(" ")
    exporter = Discarding()
    spans: SDKTracerProvider | None = None
    if condition:
        spans = SDKTracerProvider(sampler=ALWAYS_ON if condition.startswith("on") else ALWAYS_OFF)
        spans.add_span_processor(
            BatchSpanProcessor(exporter, max_queue_size=QUEUE, schedule_delay_millis=1000)
        )
    measured: MeterProvider = NoOpMeterProvider()
    if condition.endswith("metrics"):
        measured = SDKMeterProvider([InMemoryMetricReader()])
    if who == "hand":
        assert spans is not None
        telemetry_by_hand.by_hand(spans, measured)
    elif who == "nothing":
        telemetry_by_hand.nothing()
    elif spans is not None:
        trace.set_tracer_provider(spans)
        metrics.set_meter_provider(measured)
    count = SLOWER if condition else COUNT
    began = time.process_time()
    took = bench_throughput.crossbus(count)
    if spans is not None:
        spans.force_flush()
    used = time.process_time() - began
    handled = count + count // 10  # with those that warm up
    return {"rate": count / took, "cpu": used * 1e6 / handled, "spans": exporter.exported / handled}


def without_sdk() -> Table:
    """Compare with no telemetry at all, where there is no SDK."""
    found = in_turn("bench_telemetry", ["nothing", "crossbus"], rounds=9)
    bare, own = found["nothing"], found["crossbus"]
    ratio = bare["cpu"] / own["cpu"]
    return Table(
        "Telemetry without an SDK: events a second",
        ("what", "events/s", "CPU for an event", "throughput by CPU"),
        [
            ("crossbus, its telemetry replaced by nothing", per_second(bare["rate"]), _us(bare["cpu"]), ""),
            ("crossbus", per_second(own["rate"]), _us(own["cpu"]), f"{ratio:.2f} of it"),
        ],
        "The program of the table on throughput, without an SDK set up. It has one thread and waits for nothing, so "
        "that its throughput is what its CPU time allows; events a second also tell what else the machine had to do. "
        "Target: at least 0.90.",
        against("0.90 of the throughput without telemetry", ratio >= 0.9),
    )


def with_sdk() -> Table:
    """Compare with the same calls by hand, where there is an SDK."""
    peers = [f"{who} {condition}" for condition in CONDITIONS for who in WHO]
    found = in_turn("bench_telemetry", ["nothing", *peers])
    bare = found["nothing"]["cpu"]
    rows, misses = [], []
    for condition, what in CONDITIONS.items():
        own, hand = found[f"crossbus {condition}"], found[f"hand {condition}"]
        ratio = (own["cpu"] - bare) / (hand["cpu"] - bare)
        rows.append(
            (
                what,
                f"{own['spans']:.1f}, {hand['spans']:.1f}",
                _us(own["cpu"] - bare),
                _us(hand["cpu"] - bare),
                f"{ratio:.2f} times",
                f"{own['cpu'] / hand['cpu']:.2f} times",
            )
        )
        misses += against(f"1.3 times the calls by hand: {what}", ratio <= 1.3)
    return Table(
        "Telemetry with an SDK: CPU for an event",
        ("what", "spans, by hand", "telemetry of crossbus", "by hand", "is", "all of the program is"),
        rows,
        "CPU of all threads of the same program, less that of the same program without telemetry "
        f"({bare:.0f} µs): publish, receive, process, acknowledge. By hand are the same spans, attributes, links, "
        "context and metrics, as an application would write them (`benchmarks/telemetry_by_hand.py`). The exporter "
        "throws away what it is given. Target: 1.3 times.",
        misses,
    )


def _us(value: float) -> str:
    return f"{value:.1f} µs"


def tables() -> list[Table]:
    return [without_sdk(), with_sdk()]


def main() -> None:
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1])))
    else:
        print(*tables(), sep="\n\n")


if __name__ == "__main__":
    main()
