"""The Grafana dashboard: rows of panels, each a few expressions, and what one panel is in Grafana's JSON.

https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model/
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from crossbus.telemetry import names
from crossbus.telemetry.names import Metric
from observability.series import SUBSCRIPTION, TOPIC, failed, label, series

_JOB, _IN_TOPIC, _IN_SUBSCRIPTION = 'job=~"$job"', f'{TOPIC}=~"$topic"', f'{SUBSCRIPTION}=~"$subscription"'
_PUBLISHED = (_JOB, _IN_TOPIC)
_CONSUMED = (_JOB, _IN_TOPIC, _IN_SUBSCRIPTION)
_EACH = f"{TOPIC}, {SUBSCRIPTION}"
_WHO = f"{{{{{TOPIC}}}}}/{{{{{SUBSCRIPTION}}}}}"
_BY_TOPIC = f"{{{{{TOPIC}}}}}"
_ERROR, _REASON = label(names.ERROR_TYPE), label(names.REASON)
_OUTCOME, _OPERATION = label(names.OUTCOME), label(names.OPERATION_NAME)
_DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
_COLUMNS = 24


class Panel(NamedTuple):
    """One panel."""

    title: str
    says: str
    queries: Sequence[tuple[str, str]]
    """Each an expression, and what its lines are called."""
    unit: str
    """Of Grafana's: `s`, `eps` (events a second), `reqps`, `percentunit`, `short`."""
    width: int = 8
    kind: str = "timeseries"
    height: int = 8
    bad_from: float | None = None
    """A number from which the panel of one number is red."""


def _rose(selector: str, by: str) -> str:
    return f"sum by ({by}) (increase({selector}[$__rate_interval]))"


def _rate(selector: str, by: str) -> str:
    return f"sum by ({by}) (rate({selector}[$__rate_interval]))"


def _quantile(metric: Metric, q: float, by: str, *matchers: str) -> str:
    bucket = series(metric, *matchers, part="bucket")
    return f"histogram_quantile({q}, sum by (le, {by}) (rate({bucket}[$__rate_interval])))"


def _share(of: str, among: str, by: str = "") -> str:
    total = f"sum by ({by})" if by else "sum"
    # What never failed has no series of failures: 0 of all, and no gap.
    return (
        f"({total}(rate({of}[$__rate_interval])) or {total}(rate({among}[$__rate_interval])) * 0)"
        f" / {total}(rate({among}[$__rate_interval]))"
    )


def _each_once(metric: Metric) -> str:
    """Return a backlog: every process that consumes a subscription tells the same of it."""
    return f"max by ({_EACH}) ({series(metric, *_CONSUMED)})"


_PROCESSED = series(names.PROCESS_DURATION, *_CONSUMED, part="count")
_PROCESS_FAILED = series(names.PROCESS_DURATION, *_CONSUMED, failed(), part="count")
_SENT = series(names.SENT, *_PUBLISHED)
_NOT_TAKEN = series(names.SENT, *_PUBLISHED, failed())

ROWS: Sequence[tuple[str, Sequence[Panel]]] = (
    (
        "Now",
        (
            Panel(
                "Waiting",
                names.WAITING.description,
                [(f"sum({_each_once(names.WAITING)})", "")],
                "short",
                4,
                "stat",
                4,
            ),
            Panel(
                "Oldest",
                names.OLDEST_AGE.description,
                [(f"max({_each_once(names.OLDEST_AGE)})", "")],
                "s",
                4,
                "stat",
                4,
                900,
            ),
            Panel(
                "Dead",
                names.DEAD.description,
                [(f"sum({_each_once(names.DEAD)})", "")],
                "short",
                4,
                "stat",
                4,
                1,
            ),
            Panel(
                "Published",
                "Events that the provider was given, a second.",
                [(f"sum(rate({_SENT}[$__rate_interval]))", "")],
                "eps",
                4,
                "stat",
                4,
            ),
            Panel(
                "Handled",
                "Calls of handlers, a second.",
                [(f"sum(rate({_PROCESSED}[$__rate_interval]))", "")],
                "eps",
                4,
                "stat",
                4,
            ),
            Panel(
                "Failing",
                "Of the calls of handlers.",
                [(_share(_PROCESS_FAILED, _PROCESSED), "")],
                "percentunit",
                4,
                "stat",
                4,
                0.05,
            ),
        ),
    ),
    (
        "Publishing",
        (
            Panel("Sent", names.SENT.description, [(_rate(_SENT, TOPIC), _BY_TOPIC)], "eps"),
            Panel(
                "Not taken",
                "Of these, what the provider refused or did not answer. What may be sent again is.",
                [(_rate(_NOT_TAKEN, f"{TOPIC}, {_ERROR}"), f"{_BY_TOPIC} {{{{{_ERROR}}}}}")],
                "eps",
            ),
            Panel(
                "How long a request to publish takes",
                "The median, and the slowest of twenty.",
                [
                    (
                        _quantile(
                            names.OPERATION_DURATION,
                            q,
                            TOPIC,
                            *_PUBLISHED,
                            f'{label(names.OPERATION_TYPE)}="send"',
                        ),
                        f"{_BY_TOPIC} {name}",
                    )
                    for q, name in ((0.5, "median"), (0.95, "p95"))
                ],
                "s",
            ),
        ),
    ),
    (
        "Handling",
        (
            Panel(
                "Age of events when they are handled",
                f"{names.AGE.description} The slowest of twenty.",
                [(_quantile(names.AGE, 0.95, _EACH, *_CONSUMED), _WHO)],
                "s",
            ),
            Panel(
                "Handled",
                "Calls of handlers, a second; one with several events counts once.",
                [(_rate(_PROCESSED, _EACH), _WHO)],
                "eps",
            ),
            Panel(
                "How long a handler takes",
                f"{names.PROCESS_DURATION.description} The median, and the slowest of twenty.",
                [
                    (_quantile(names.PROCESS_DURATION, q, _EACH, *_CONSUMED), f"{_WHO} {name}")
                    for q, name in ((0.5, "median"), (0.95, "p95"))
                ],
                "s",
            ),
            Panel(
                "Failing",
                "Of the calls of handlers.",
                [(_share(_PROCESS_FAILED, _PROCESSED, _EACH), _WHO)],
                "percentunit",
            ),
            Panel(
                "Failures",
                "By the class of the exception.",
                [(_rate(_PROCESS_FAILED, f"{_EACH}, {_ERROR}"), f"{_WHO} {{{{{_ERROR}}}}}")],
                "eps",
            ),
            Panel(
                "Retries",
                names.RETRIES.description,
                [
                    (
                        _rate(series(names.RETRIES, *_CONSUMED), f"{_EACH}, {_ERROR}"),
                        f"{_WHO} {{{{{_ERROR}}}}}",
                    )
                ],
                "eps",
            ),
        ),
    ),
    (
        "Backlog and dead letters",
        (
            Panel("Waiting", names.WAITING.description, [(_each_once(names.WAITING), _WHO)], "short"),
            Panel(
                "Oldest that waits", names.OLDEST_AGE.description, [(_each_once(names.OLDEST_AGE), _WHO)], "s"
            ),
            Panel(
                "In hand",
                f"{names.IN_HAND.description} By service: a server of crossbus tells it too.",
                [(f"sum by (job, {_EACH}) ({series(names.IN_HAND, *_CONSUMED)})", f"{{{{job}}}} {_WHO}")],
                "short",
            ),
            Panel(
                "Dead-lettered",
                f"{names.DEAD_LETTERED.description} By reason, within the time between two points.",
                [
                    (
                        _rose(series(names.DEAD_LETTERED, *_CONSUMED), f"{_EACH}, {_REASON}"),
                        f"{_WHO} {{{{{_REASON}}}}}",
                    )
                ],
                "short",
                12,
            ),
            Panel(
                "In the dead letter", names.DEAD.description, [(_each_once(names.DEAD), _WHO)], "short", 12
            ),
        ),
    ),
    (
        "Leases, and what is dropped here",
        (
            Panel(
                "Leases extended",
                f"{names.EXTENSIONS.description} A lease that is lost means an event that is handled twice.",
                [
                    (
                        _rate(series(names.EXTENSIONS, *_CONSUMED), f"{_EACH}, {_OUTCOME}"),
                        f"{_WHO} {{{{{_OUTCOME}}}}}",
                    )
                ],
                "eps",
            ),
            Panel(
                "Filtered here",
                names.FILTERED.description,
                [(_rate(series(names.FILTERED, *_CONSUMED), _EACH), _WHO)],
                "eps",
            ),
            Panel(
                "Duplicates dropped",
                names.DUPLICATES.description,
                [(_rate(series(names.DUPLICATES, *_CONSUMED), _EACH), _WHO)],
                "eps",
            ),
        ),
    ),
    (
        "Requests to the provider",
        (
            Panel(
                "Requests",
                f"{names.REQUESTS.description} About what is billed.",
                [
                    (
                        _rate(series(names.REQUESTS, *_PUBLISHED), f"{TOPIC}, {_OPERATION}"),
                        f"{_BY_TOPIC} {{{{{_OPERATION}}}}}",
                    )
                ],
                "reqps",
            ),
            Panel(
                "Requests that fail",
                "By the class of the error.",
                [
                    (
                        _rate(
                            series(names.REQUESTS, *_PUBLISHED, failed()), f"{TOPIC}, {_OPERATION}, {_ERROR}"
                        ),
                        f"{_BY_TOPIC} {{{{{_OPERATION}}}}} {{{{{_ERROR}}}}}",
                    )
                ],
                "reqps",
            ),
            Panel(
                "How long a request takes",
                f"{names.OPERATION_DURATION.description} The slowest of twenty.",
                [
                    (
                        _quantile(names.OPERATION_DURATION, 0.95, f"{TOPIC}, {_OPERATION}", *_PUBLISHED),
                        f"{_BY_TOPIC} {{{{{_OPERATION}}}}}",
                    )
                ],
                "s",
            ),
            Panel(
                "Deliveries received",
                names.CONSUMED.description,
                [(_rate(series(names.CONSUMED, *_CONSUMED), _EACH), _WHO)],
                "eps",
                24,
            ),
        ),
    ),
)
"""All of it."""


def dashboard() -> str:
    """Return the dashboard, as it is imported into Grafana."""
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in ROWS:
        panels.append(
            {
                "id": len(panels) + 1,
                "type": "row",
                "title": title,
                "collapsed": False,
                "gridPos": {"x": 0, "y": top, "w": _COLUMNS, "h": 1},
                "panels": [],
            }
        )
        top, left = top + 1, 0
        for panel in row:
            if left + panel.width > _COLUMNS:
                top, left = top + panel.height, 0
            place = {"x": left, "y": top, "w": panel.width, "h": panel.height}
            panels.append({"id": len(panels) + 1, "gridPos": place, **_panel(panel)})
            left += panel.width
        top += row[-1].height
    return json.dumps({**_FRAME, "panels": panels}, indent=2) + "\n"


def _panel(panel: Panel) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "text" if panel.kind == "stat" else "green", "value": None}]
    if panel.bad_from is not None:
        steps.append({"color": "red", "value": panel.bad_from})
    defaults: dict[str, Any] = {
        "unit": panel.unit,
        "min": 0,
        "thresholds": {"mode": "absolute", "steps": steps},
    }
    options: dict[str, Any]
    if panel.kind == "stat":
        options = {
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "graphMode": "area",
        }
    else:
        defaults["custom"] = {"fillOpacity": 10, "showPoints": "never", "spanNulls": False}
        options = {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.says,
        "datasource": _DATASOURCE,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": [
            {
                "refId": chr(ord("A") + number),
                "datasource": _DATASOURCE,
                "expr": expression,
                "legendFormat": name,
                # From a histogram a dot leads to a trace, where exemplars are kept.
                "exemplar": expression.startswith("histogram_quantile"),
            }
            for number, (expression, name) in enumerate(panel.queries)
        ],
    }


def _variable(name: str, title: str, of: str, *, of_metric: str) -> dict[str, Any]:
    query = f"label_values({of_metric}, {of})"
    return {
        "name": name,
        "label": title,
        "type": "query",
        "datasource": _DATASOURCE,
        "definition": query,
        "query": {"query": query, "refId": f"variable-{name}"},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
    }


_EITHER = f'{{__name__=~"{series(names.SENT)}|{series(names.CONSUMED)}"}}'
_FRAME: dict[str, Any] = {
    "uid": "crossbus",
    "title": "crossbus",
    "description": "What a bus publishes, handles, keeps waiting and gives up. Made by scripts/gen_observability.py.",
    "tags": ["crossbus", "messaging"],
    "schemaVersion": 39,
    "version": 1,
    "editable": True,
    "graphTooltip": 1,
    "refresh": "30s",
    "time": {"from": "now-3h", "to": "now"},
    "timezone": "browser",
    "templating": {
        "list": [
            {
                "name": "datasource",
                "label": "Data source",
                "type": "datasource",
                "query": "prometheus",
                "current": {},
            },
            _variable("job", "Service", "job", of_metric=_EITHER),
            _variable("topic", "Topic", TOPIC, of_metric=_EITHER),
            _variable(
                "subscription", "Subscription", SUBSCRIPTION, of_metric=series(names.CONSUMED, _IN_TOPIC)
            ),
        ]
    },
    "annotations": {"list": []},
    "links": [],
}
