"""`Source`: whether there is an SDK, its tracer, and the instruments of its meter.

Asking for each event would cost more than all else that is done without an SDK, so the answer is kept for a while.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final
from weakref import WeakKeyDictionary

from opentelemetry import metrics, trace
from opentelemetry.metrics import CallbackOptions, Counter, Histogram, Meter, MeterProvider, Observation

from crossbus.telemetry import names

if TYPE_CHECKING:
    from crossbus.adapter import Backlog

__all__ = ["Instruments", "Source", "Watched"]

REFRESH_EVERY: Final = 64
"""After so many events it is asked again whether there is an SDK."""

Attributes = Mapping[str, Any]


class Source:
    """Where spans and metrics go. One for each bus.

    Args:
        tracer_provider: OpenTelemetry's; None for the global one, whenever it is set.
        meter_provider: The same for metrics.
    """

    __slots__ = ("_meter_provider", "_tracer_provider", "active", "countdown", "instruments", "tracer")

    def __init__(
        self,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        self._tracer_provider = tracer_provider
        self._meter_provider = meter_provider
        self.tracer: trace.Tracer | None = None
        """None if nobody wants spans."""
        self.instruments: Instruments | None = None
        """None if nobody wants metrics."""
        self.active = False
        """True if somebody wants either."""
        self.countdown = 0
        """Events until it is to be refreshed. Counted down where it is looked at: a call would cost too much."""
        self.refresh()

    def refresh(self) -> bool:
        """Look whether there is an SDK by now; returns `active`."""
        self.countdown = REFRESH_EVERY
        tracer_provider = self._tracer_provider or trace.get_tracer_provider()
        if isinstance(tracer_provider, (trace.ProxyTracerProvider, trace.NoOpTracerProvider)):
            self.tracer = None
        elif self.tracer is None:
            tracer = trace.get_tracer(
                names.SCOPE, _version(), tracer_provider=tracer_provider, schema_url=names.SCHEMA_URL
            )
            self.tracer = None if isinstance(tracer, trace.NoOpTracer) else tracer
        meter_provider = self._meter_provider or metrics.get_meter_provider()
        if _is_the_apis(meter_provider):
            self.instruments = None
        elif self.instruments is None:
            self.instruments = Instruments.of(meter_provider)
        self.active = self.tracer is not None or self.instruments is not None
        return self.active


def _is_the_apis(provider: MeterProvider) -> bool:
    """True for the API's own providers, which do nothing; the one that waits for an SDK has no public name."""
    return type(provider).__module__.startswith("opentelemetry.metrics")


def _version() -> str:
    from crossbus import __version__

    return __version__


class Watched:
    """One consumer, as the observed instruments see it."""

    def __init__(
        self, attributes: Attributes, in_hand: Callable[[], int], backlog: Backlog | None = None
    ) -> None:
        self.attributes = attributes
        self.in_hand = in_hand
        self.backlog = backlog
        """What was last seen of it; None while nobody has looked."""


class Instruments:
    """The instruments of one meter."""

    _made: ClassVar[WeakKeyDictionary[MeterProvider, Instruments | None]] = WeakKeyDictionary()
    _lock: ClassVar = threading.Lock()

    @classmethod
    def of(cls, provider: MeterProvider) -> Instruments | None:
        """Return those of a provider, made once; None if its meter does nothing."""
        with cls._lock:
            if provider not in cls._made:
                meter = provider.get_meter(names.SCOPE, _version(), schema_url=names.SCHEMA_URL)
                cls._made[provider] = None if type(meter) is metrics.NoOpMeter else cls(meter)
            return cls._made[provider]

    def __init__(self, meter: Meter) -> None:
        def counter(metric: names.Metric) -> Counter:
            return meter.create_counter(metric.name, metric.unit, metric.description)

        def histogram(metric: names.Metric) -> Histogram:
            return meter.create_histogram(
                metric.name,
                metric.unit,
                metric.description,
                explicit_bucket_boundaries_advisory=metric.buckets,
            )

        self.sent = counter(names.SENT)
        self.consumed = counter(names.CONSUMED)
        self.operation_duration = histogram(names.OPERATION_DURATION)
        self.process_duration = histogram(names.PROCESS_DURATION)
        self.age = histogram(names.AGE)
        self.retries = counter(names.RETRIES)
        self.dead_lettered = counter(names.DEAD_LETTERED)
        self.filtered = counter(names.FILTERED)
        self.extensions = counter(names.EXTENSIONS)
        self.duplicates = counter(names.DUPLICATES)
        self.requests = counter(names.REQUESTS)
        self._watched: set[Watched] = set()
        self._sources: set[Callable[[], Iterable[Watched]]] = set()
        self._watching = threading.Lock()
        in_hand = names.IN_HAND
        meter.create_observable_up_down_counter(
            in_hand.name, [self._seeing(lambda one: one.in_hand())], in_hand.unit, in_hand.description
        )
        for metric, value in (
            (names.WAITING, lambda one: one.backlog and one.backlog.waiting),
            (names.OLDEST_AGE, lambda one: one.backlog and one.backlog.oldest_age),
            (names.DEAD, lambda one: one.backlog and one.backlog.dead),
        ):
            meter.create_observable_gauge(metric.name, [self._seeing(value)], metric.unit, metric.description)

    def watch(self, watched: Watched) -> None:
        """Begin to observe a consumer."""
        with self._watching:
            self._watched.add(watched)

    def unwatch(self, watched: Watched) -> None:
        """Observe it no more."""
        with self._watching:
            self._watched.discard(watched)

    def watch_all(self, source: Callable[[], Iterable[Watched]]) -> None:
        """Begin to observe what a function returns at each time. It is called from any thread."""
        with self._watching:
            self._sources.add(source)

    def unwatch_all(self, source: Callable[[], Iterable[Watched]]) -> None:
        """Observe it no more."""
        with self._watching:
            self._sources.discard(source)

    def _seeing(
        self, value: Callable[[Watched], float | None]
    ) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(_: CallbackOptions) -> Iterable[Observation]:
            with self._watching:  # an exporter asks from a thread of its own
                watched, sources = list(self._watched), list(self._sources)
            for source in sources:
                watched.extend(source())
            return [
                Observation(found, dict(one.attributes))
                for one in watched
                if (found := value(one)) is not None
            ]

        return observe
