"""The alert rules: what is asked, how long it must hold, and which page says what to do."""

from __future__ import annotations

import json
from typing import NamedTuple

from crossbus.adapter import LeaseOutcome
from crossbus.telemetry import names
from observability.series import SUBSCRIPTION, TOPIC, failed, label, series

SITE = "https://crossbus.example"
"""Where the documentation stands: nowhere, until whoever installs the rules says where."""

_EACH = f"{TOPIC}, {SUBSCRIPTION}"
_REASON = label(names.REASON)
_OPERATION = label(names.OPERATION_NAME)
_WHO = f"{{{{ $labels.{TOPIC} }}}}/{{{{ $labels.{SUBSCRIPTION} }}}}"
_WHICH_TOPIC = f"{{{{ $labels.{TOPIC} }}}}"


class Alert(NamedTuple):
    """One rule."""

    name: str
    when: str
    """For people: when it fires."""
    expression: str
    hold: str
    severity: str
    """``critical``: somebody is to look now; ``warning``: today; ``info``: when there is time."""
    summary: str
    runbook: str
    """The page below docs/runbooks."""


def _rose(selector: str, by: str, window: str) -> str:
    """Return whether a counter rose. `increase` does not see the first count of all, with which a series begins."""
    return f"""sum by ({by}) (increase({selector}[{window}])) > 0
or
sum by ({by}) ({selector} unless {selector} offset {window}) > 0"""


def _share(of: str, among: str, by: str, window: str, more_than: float) -> str:
    return f"""sum by ({by}) (rate({of}[{window}]))
/
sum by ({by}) (rate({among}[{window}]))
> {more_than}"""


_PROCESSED = series(names.PROCESS_DURATION, part="count")
_CONSUMERS = f'{SUBSCRIPTION}!=""'
_LOST = "|".join(one.value for one in LeaseOutcome if one is not LeaseOutcome.OK)

ALERTS = (
    Alert(
        "CrossbusEventsLate",
        "one event in twenty is older than 5 minutes when it is handled",
        f"""histogram_quantile(
  0.95,
  sum by (le, {_EACH}) (rate({series(names.AGE, part="bucket")}[10m]))
)
> 300""",
        "10m",
        "warning",
        f"{_WHO} handles events {{{{ $value | humanizeDuration }}}} after they were published",
        "late-events",
    ),
    Alert(
        "CrossbusBacklogOld",
        "an event waits for more than 15 minutes, where the provider tells",
        f"max by ({_EACH}) ({series(names.OLDEST_AGE)}) > 900",
        "5m",
        "warning",
        f"an event waits for {{{{ $value | humanizeDuration }}}} in {_WHO}",
        "late-events",
    ),
    Alert(
        "CrossbusNothingHandled",
        "events wait, and for 10 minutes no handler ended",
        f"""max by ({_EACH}) ({series(names.WAITING)}) > 0
unless on ({_EACH})
sum by ({_EACH}) (rate({_PROCESSED}[10m])) > 0""",
        "10m",
        "critical",
        f"{{{{ $value }}}} events wait in {_WHO}, and none is handled",
        "nothing-handled",
    ),
    Alert(
        "CrossbusHandlersFailing",
        "more than 5 % of the calls of a handler fail",
        _share(series(names.PROCESS_DURATION, failed(), part="count"), _PROCESSED, _EACH, "10m", 0.05),
        "10m",
        "warning",
        f"{{{{ $value | humanizePercentage }}}} of the calls of {_WHO} fail",
        "failing-handlers",
    ),
    Alert(
        "CrossbusDeadLettered",
        "an event was put into the dead letter in the last 15 minutes",
        _rose(series(names.DEAD_LETTERED), f"{_EACH}, {_REASON}", "15m"),
        "0m",
        "warning",
        f"{_WHO} dead-letters events: {{{{ $labels.{_REASON} }}}}",
        "dead-letters",
    ),
    Alert(
        "CrossbusDeadLettersLeft",
        "a dead letter has events for 6 hours, where the provider tells",
        f"max by ({_EACH}) ({series(names.DEAD)}) > 0",
        "6h",
        "info",
        f"{{{{ $value }}}} events are in the dead letter of {_WHO}",
        "dead-letters",
    ),
    Alert(
        "CrossbusPublishingFails",
        "more than 5 % of the events that are sent to the provider are not taken, tries included",
        _share(series(names.SENT, failed()), series(names.SENT), TOPIC, "5m", 0.05),
        "5m",
        "critical",
        f"{{{{ $value | humanizePercentage }}}} of what is published to {_WHICH_TOPIC} is not taken",
        "failing-publishes",
    ),
    Alert(
        "CrossbusLeasesLost",
        "a lease could not be extended in the last 15 minutes: its event is delivered again while it is handled",
        _rose(series(names.EXTENSIONS, f'{label(names.OUTCOME)}=~"{_LOST}"'), _EACH, "15m"),
        "0m",
        "warning",
        f"{_WHO} loses leases: events are handled twice",
        "lost-leases",
    ),
    Alert(
        "CrossbusRequestsFail",
        "more than 20 % of a consumer's requests to the provider fail",
        _share(
            series(names.REQUESTS, _CONSUMERS, failed()),
            series(names.REQUESTS, _CONSUMERS),
            f"{_EACH}, {_OPERATION}",
            "5m",
            0.2,
        ),
        "5m",
        "critical",
        f"{{{{ $value | humanizePercentage }}}} of the {{{{ $labels.{_OPERATION} }}}} requests of {_WHO} fail",
        "failing-requests",
    ),
)
"""All of them."""


def rules(site: str = SITE) -> str:
    """Return the file of rules."""
    return "\n".join((_HEAD.format(site=site), *(_rule(alert, site) for alert in ALERTS))) + "\n"


_HEAD = """\
# Alerts on crossbus, for Prometheus. Made by scripts/gen_observability.py: change the numbers in your copy.
# The pages of runbook_url stand in crossbus's documentation; say where yours is:
#   sed -i 's|{site}|https://docs.example.com/crossbus|' prometheus-rules.yaml
groups:
  - name: crossbus
    rules:"""


def _rule(alert: Alert, site: str) -> str:
    expression = "\n".join(f"          {line}" for line in alert.expression.splitlines())
    return f"""\
      - alert: {alert.name}
        expr: |
{expression}
        for: {alert.hold}
        labels:
          severity: {alert.severity}
        annotations:
          summary: {json.dumps(alert.summary)}
          description: {json.dumps(f"It fires when {alert.when}.")}
          runbook_url: {site}/runbooks/{alert.runbook}.html"""


def table() -> str:
    """Return the rules as rows of a page of documentation that stands beside the runbooks."""
    rows = ["| alert | fires when | severity | what to do |", "|---|---|---|---|"]
    rows += [
        f"| `{alert.name}` | {alert.when}; for {alert.hold} | {alert.severity} "
        f"| [{alert.runbook}]({alert.runbook}.md) |"
        for alert in ALERTS
    ]
    return "\n".join(rows).replace("; for 0m", "")
