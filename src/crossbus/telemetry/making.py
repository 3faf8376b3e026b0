"""`Telemetries`: makes the telemetry of a bus's publishers and consumers, and imports OpenTelemetry only then."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crossbus.adapter import Adapter
from crossbus.clock import Clock
from crossbus.errors import ConfigurationError
from crossbus.telemetry.options import TelemetryOptions
from crossbus.topology import Subscription, Topic

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

    from crossbus.telemetry.consuming import ConsumeTelemetry
    from crossbus.telemetry.publishing import PublishTelemetry
    from crossbus.telemetry.sources import Source

__all__ = ["Telemetries"]


class Telemetries:
    """What one bus tells OpenTelemetry. Arguments as of `Bus`."""

    def __init__(
        self,
        options: TelemetryOptions | None,
        tracer_provider: TracerProvider | None,
        meter_provider: MeterProvider | None,
    ) -> None:
        if options is not None and not isinstance(options, TelemetryOptions):
            raise ConfigurationError(
                f"Bus(telemetry={options!r}): it must be TelemetryOptions, such as TelemetryOptions(mode='link')"
            )
        self._options = options or TelemetryOptions()
        self._providers = (tracer_provider, meter_provider)
        self._made: Source | None = None

    @property
    def _source(self) -> Source:
        if self._made is None:
            from crossbus.telemetry.sources import Source

            self._made = Source(*self._providers)
        return self._made

    def of_topic(self, topic: Topic, adapter: Adapter) -> PublishTelemetry:
        """Return the telemetry of publishing to a topic."""
        from crossbus.telemetry.publishing import PublishTelemetry

        options = self._options.with_settings(adapter.profile.telemetry)
        return PublishTelemetry(self._source, options, adapter.describe(), topic.name)

    def of_subscription(self, subscription: Subscription, adapter: Adapter, clock: Clock) -> ConsumeTelemetry:
        """Return the telemetry of consuming a subscription."""
        from crossbus.telemetry.consuming import ConsumeTelemetry

        options = self._options.with_settings(adapter.profile.telemetry)
        return ConsumeTelemetry(
            self._source, options, adapter.describe(), subscription, decode=adapter.decode, now=clock.time
        )
