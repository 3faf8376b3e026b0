"""Names of metrics and attributes as they come out of Prometheus, whichever way they go in.

What is no letter, digit or underscore becomes an underscore, the unit ``s`` is written out, a unit in braces is left
out, and a counter ends in ``_total``.
https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/
"""

from __future__ import annotations

import re

from crossbus.telemetry import names
from crossbus.telemetry.names import Metric

_UNITS = {"s": "_seconds"}

TOPIC = re.sub(r"\W", "_", names.DESTINATION)
SUBSCRIPTION = re.sub(r"\W", "_", names.SUBSCRIPTION)


def label(attribute: str) -> str:
    """Return the label of an attribute."""
    return re.sub(r"\W", "_", attribute)


def series(metric: Metric, *matchers: str, part: str = "") -> str:
    """Return a selector of a metric, of a histogram's `part` (bucket, count or sum), with these matchers."""
    name = label(metric.name)
    if not metric.unit.startswith("{"):
        name += _UNITS[metric.unit]
    if metric.kind == "counter":
        name += "_total"
    if part:
        name += f"_{part}"
    return f"{name}{{{','.join(matchers)}}}" if matchers else name


def failed() -> str:
    """Return the matcher of what went wrong: the attribute is absent where nothing did."""
    return f'{label(names.ERROR_TYPE)}!=""'
