"""Telemetry: spans, metrics and log fields, by OpenTelemetry's conventions.

Only `opentelemetry-api` is used: without an SDK a trace context passes through, and nothing else is done. This package
itself imports nothing of OpenTelemetry, which takes a while: a bus does, when it first needs it.

| module | what is in it |
|---|---|
| `names` | every name of a span, attribute, metric and log field |
| `options` | what a program says |
| `carrying` | trace context and baggage in an event |
| `sources` | whether there is an SDK, its tracer, and the instruments |
| `publishing`, `consuming` | the spans and metrics of one topic's publisher, of one subscription's consumer |
| `quiet` | keeping the spans of SDKs away from polls |
| `setting_up`, `tree` | for the command line: the SDK by `OTEL_*`; a trace as a tree in the terminal |
"""
