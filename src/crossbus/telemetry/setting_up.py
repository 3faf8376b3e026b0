"""Setting the SDK up for the command line: by OpenTelemetry's own variables, if its extra is installed.

A program that runs by itself sets its SDK up itself, or is started by `opentelemetry-instrument`; crossbus never sets a
global provider where it is a library. `crossbus run`, `crossbus serve` and `crossbus dlq redrive` are programs.

https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from crossbus.errors import ConfigurationError, nearest

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import SpanProcessor

__all__ = ["asking", "set_up"]

_ENDPOINT: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"
_SIGNALS: Final = ("TRACES", "METRICS")
_PROTOCOLS: Final = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}
_INSTALL: Final = "pip install 'crossbus[otel]'"


def asking(environ: Mapping[str, str] = os.environ) -> str | None:
    """Return the first variable by which something is to be exported; None if there is none."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    for signal in _SIGNALS:
        name = f"OTEL_{signal}_EXPORTER"
        if environ.get(name, "").strip() not in ("", "none"):
            return name
    for name in (_ENDPOINT, *(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT" for signal in _SIGNALS)):
        if environ.get(name, "").strip() and any(_exporters(signal, environ) for signal in _SIGNALS):
            return name
    return None


def set_up(
    service: str,
    *,
    note: Callable[[str], None],
    processor: Callable[[], SpanProcessor] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Callable[[], None]:
    """Set the global providers up as the variables say, unless the program did; returns what flushes and ends them.

    Args:
        service: What the program is called where no variable says so.
        note: Is told in one line if something is to be exported and nothing can be.
        processor: Makes a processor that is given all spans beside, for `--trace`.
        environ: The variables.

    Raises:
        ConfigurationError: a variable says what cannot be, or there is a `processor` and no SDK.
    """
    asked = asking(environ)
    if asked is None and processor is None:
        return lambda: None
    try:
        from opentelemetry.sdk.resources import Resource
    except ImportError:
        if processor is not None:
            raise ConfigurationError(f"--trace needs OpenTelemetry's SDK: {_INSTALL}") from None
        note(f"{asked} is set, but OpenTelemetry's SDK is not installed, so nothing is exported: {_INSTALL}")
        return lambda: None
    named = "OTEL_SERVICE_NAME" in environ or "service.name=" in environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    resource = Resource.create({} if named else {"service.name": service})
    traces = _exporters("TRACES", environ) if asked else []
    ends = [_set_up_traces(resource, traces, environ, processor)]
    if asked:
        ends.append(_set_up_metrics(resource, _exporters("METRICS", environ), environ))

    def end() -> None:
        for one in ends:
            one()

    return end


def _exporters(signal: str, environ: Mapping[str, str]) -> list[str]:
    """Return which exporters a signal is to have: `otlp` where only an endpoint is given."""
    given = environ.get(f"OTEL_{signal}_EXPORTER", "").strip()
    if not given:
        endpoints = (_ENDPOINT, f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT")
        return ["otlp"] if any(environ.get(name, "").strip() for name in endpoints) else []
    return [name for name in (part.strip() for part in given.split(",")) if name not in ("", "none")]


def _set_up_traces(
    resource: Resource,
    exporters: list[str],
    environ: Mapping[str, str],
    processor: Callable[[], SpanProcessor] | None,
) -> Callable[[], None]:
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = trace.get_tracer_provider()
    own = not isinstance(provider, TracerProvider)
    if own:
        if not exporters and processor is None:
            return lambda: None
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        for name in exporters:
            provider.add_span_processor(BatchSpanProcessor(_load("TRACES", name, environ)()))
        trace.set_tracer_provider(provider)
    assert isinstance(provider, TracerProvider)
    if processor is not None:
        provider.add_span_processor(processor())
    return provider.shutdown if own else lambda: None


def _set_up_metrics(
    resource: Resource, exporters: list[str], environ: Mapping[str, str]
) -> Callable[[], None]:
    from opentelemetry import metrics
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader

    if not exporters or isinstance(metrics.get_meter_provider(), MeterProvider):
        return lambda: None
    made = [_load("METRICS", name, environ)() for name in exporters]
    readers = [one if isinstance(one, MetricReader) else PeriodicExportingMetricReader(one) for one in made]
    provider = MeterProvider(readers, resource=resource, shutdown_on_exit=False)
    metrics.set_meter_provider(provider)
    return provider.shutdown


def _load(signal: str, name: str, environ: Mapping[str, str]) -> Callable[[], Any]:
    """Return what makes an exporter: by the entry points through which the SDK finds them."""
    from importlib.metadata import entry_points

    group = f"opentelemetry_{signal.lower()}_exporter"
    wanted = _protocol(signal, environ) if name == "otlp" else name
    for entry in entry_points(group=group, name=wanted):
        try:
            found: Callable[[], Any] = entry.load()
        except ImportError as error:
            raise ConfigurationError(
                f"OTEL_{signal}_EXPORTER={name}: the module {error.name!r} is not installed"
            ) from error
        return found
    if wanted in _PROTOCOLS.values():
        package = f"opentelemetry-exporter-{wanted.replace('_', '-')}"
        raise ConfigurationError(
            f"{name} over {wanted.rpartition('_')[2]} needs a package: pip install {package}"
        )
    known = ["otlp", "none", *(entry.name for entry in entry_points(group=group))]
    raise ConfigurationError(
        f"OTEL_{signal}_EXPORTER={name}: there is no such exporter; {nearest(name, known)}"
    )


def _protocol(signal: str, environ: Mapping[str, str]) -> str:
    for name in (f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if given := environ.get(name, "").strip():
            if given not in _PROTOCOLS:
                raise ConfigurationError(f"{name}={given}: it must be {' or '.join(_PROTOCOLS)}")
            return _PROTOCOLS[given]
    return _PROTOCOLS["http/protobuf"]
