"""The dashboard and the alert rules: they parse, and all that they ask for comes out of Prometheus' exporter."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from tests.consuming import until
from tests.support import run

from crossbus import Bus, Deduplicate, Event, MemoryStore, Reject, RetryPolicy, TelemetryOptions, exact
from crossbus.adapter import SendOutcome
from crossbus.clock import SystemClock
from crossbus.errors import ErrorCode, PermissionDenied
from crossbus.profiles import Profile
from crossbus.telemetry import names
from crossbus_local import LocalAdapter

DOCS = Path(__file__).parent.parent / "docs"
DASHBOARD = json.loads((DOCS / "observability" / "grafana-dashboard.json").read_text("utf-8"))
RULES = yaml.safe_load((DOCS / "observability" / "prometheus-rules.yaml").read_text("utf-8"))
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"]]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
VARIABLES = [one for one in DASHBOARD["templating"]["list"] if one["type"] == "query"]
EXPRESSIONS = {
    **{f"alert {rule['alert']}": rule["expr"] for rule in ALERTS},
    **{
        f"panel {panel['id']} {panel['title']} {target['refId']}": target["expr"]
        for panel in PANELS
        for target in panel["targets"]
    },
    **{
        f"variable {one['name']}": re.fullmatch(r"label_values\((.*), \w+\)", one["definition"])[1]  # type: ignore[index]
        for one in VARIABLES
    },
}
PROMETHEUS_OWN = {"job", "instance", "le", "__name__"}
"""Labels that Prometheus sets, or that are no attribute."""

Asked = dict[str, set[str]]
"""The labels of each series."""


def parsed(expression: str) -> Any:
    return promql_parser.parse(expression.replace("$__rate_interval", "5m"))


def asked(node: Any, by: set[str] | None = None) -> Iterator[tuple[str, set[str]]]:
    """Yield each series of an expression, with the labels that are asked of it: to match, and to group by."""
    by = by or set()
    match node:
        case promql_parser.AggregateExpr():
            labels = set(node.modifier.labels) if node.modifier else set()
            yield from asked(node.expr, by | labels)
        case promql_parser.BinaryExpr():
            yield from asked(node.lhs, by)
            yield from asked(node.rhs, by)
        case promql_parser.Call():
            for argument in node.args:
                yield from asked(argument, by)
        case promql_parser.ParenExpr():
            yield from asked(node.expr, by)
        case promql_parser.MatrixSelector():
            yield from asked(node.vector_selector, by)
        case promql_parser.VectorSelector():
            labels = {one.name for one in node.matchers.matchers} | by
            named = [one.value for one in node.matchers.matchers if one.name == "__name__"]
            for name in [node.name] if node.name else named[0].split("|"):
                yield name, labels
        case _:
            assert isinstance(node, (promql_parser.NumberLiteral, promql_parser.StringLiteral)), node


# --- what is exposed ----------------------------------------------------------------------------------------------


class Refusing(LocalAdapter):
    """The local broker, which refuses what is published to the topic ``refused``."""

    async def send(self, topic: Any, wires: Any) -> Any:
        if topic.name == "refused":
            return [SendOutcome(code=ErrorCode.PERMISSION_DENIED, message="no") for _ in wires]
        return await super().send(topic, wires)


async def busy(provider: MeterProvider, registry: CollectorRegistry) -> str:
    """Let a bus do all that has a metric, and return what Prometheus then scrapes."""
    adapter = Refusing(Profile(), clock=SystemClock())
    bus = Bus(
        adapter=adapter,
        source="/shop",
        meter_provider=provider,
        telemetry=TelemetryOptions(backlog=0.05),
        handle_middleware=[Deduplicate(MemoryStore())],
    )
    handled: list[str] = []
    release = asyncio.Event()

    @bus.subscribe(
        "orders",
        "billing",
        filter=exact(type="com.acme.order.placed"),
        native_filter={"local": {"prefix": {"type": "com.acme."}}},
        concurrency=1,
        retry=RetryPolicy(attempts=2, first_delay=0, jitter=False),
        lease=1,
    )
    async def bill(event: Event) -> None:
        handled.append(event.id)
        if event.id == "slow":
            await release.wait()
        if event.id == "fails":
            raise ValueError
        if event.id == "bad":
            raise Reject("no order")

    def event(id: str, type: str = "com.acme.order.placed") -> Event:
        return Event(id=id, type=type)

    def scrape() -> str:
        return generate_latest(registry).decode()

    async with bus, bus.running():
        await bus.publish("orders", event("good"))
        await until(lambda: "good" in handled)
        await bus.publish("orders", event("other", "com.acme.order.cancelled"))
        for id in ("good", "fails", "bad"):
            await bus.publish("orders", event(id))
        await until(lambda: handled.count("fails") == 2 and "bad" in handled)
        for id in ("slow", *(f"waits-{number}" for number in range(50))):
            await bus.publish("orders", event(id))
        with pytest.raises(PermissionDenied):
            await bus.publish("refused", event("no"))
        wanted = (
            "crossbus_lease_extensions_total",
            "crossbus_backlog_dead{",
            "crossbus_duplicates_dropped_total",
        )
        await until(lambda: handled.count("fails") == 2 and all(name in scrape() for name in wanted))
        await until(lambda: 'crossbus_dead_letter_reason="failed"' in scrape())
        found = scrape()
        release.set()
    return found


@pytest.fixture(scope="module")
def exposed() -> Asked:
    """The labels of each series, by its name, of a bus on `local:`."""
    logging.getLogger("crossbus").setLevel(logging.CRITICAL)
    registry = CollectorRegistry()
    reader = PrometheusMetricReader(registry=registry)
    provider = MeterProvider([reader])
    try:
        text = run(busy(provider, registry))
    finally:
        provider.shutdown()
        logging.getLogger("crossbus").setLevel(logging.NOTSET)
    found: Asked = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


# --- tests --------------------------------------------------------------------------------------------------------


def test_what_is_committed_is_made_from_the_names() -> None:
    script = Path(__file__).parent.parent / "scripts" / "gen_observability.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("where", EXPRESSIONS)
def test_all_that_is_asked_for_is_exposed(where: str, exposed: Asked) -> None:
    found = list(asked(parsed(EXPRESSIONS[where])))
    assert found
    for name, labels in found:
        assert name in exposed, f"{name} is exposed by nothing; there are {sorted(exposed)}"
        missing = labels - exposed[name] - PROMETHEUS_OWN
        assert not missing, f"{name} has no label {missing}; it has {sorted(exposed[name])}"


def test_a_wrong_name_is_noticed(exposed: Asked) -> None:
    (wrong,) = asked(parsed('sum by (topic) (rate(crossbus_retries{error="x"}[5m]))'))
    assert wrong == ("crossbus_retries", {"topic", "error"})
    assert wrong[0] not in exposed


def test_every_metric_stands_in_the_dashboard(exposed: Asked) -> None:
    shown = {
        name
        for where, expression in EXPRESSIONS.items()
        if where.startswith("panel")
        for name, _ in asked(parsed(expression))
    }
    for metric in names.METRICS:
        base = metric.name.replace(".", "_")
        assert any(name.startswith(base) for name in shown), f"{metric.name} is in no panel"


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_it_is_about_and_what_to_do(rule: dict[str, Any]) -> None:
    labels = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
    expression = parsed(rule["expr"])
    kept = [by for _, by in asked(expression)]
    assert labels
    assert all(labels <= by for by in kept), "the summary names a label that the expression does not keep"
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    address = rule["annotations"]["runbook_url"]
    page = DOCS / re.fullmatch(r"https://crossbus\.example/(runbooks/[a-z-]+)\.html", address)[1]  # type: ignore[index]
    text = page.with_suffix(".md").read_text("utf-8")
    assert f"`{rule['alert']}`" in text, "the runbook does not name the alert"
    assert f"{page.name}.md" in (DOCS / "runbooks" / "index.md").read_text("utf-8")


def test_panels_do_not_lie_over_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        own = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not own & taken, panel["title"]
        assert max(x for x, _ in own) < 24
        taken |= own
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_rules_are_written_for_another_site(tmp_path: Path) -> None:
    script = Path(__file__).parent.parent / "scripts" / "gen_observability.py"
    file = tmp_path / "rules.yaml"
    subprocess.run([sys.executable, script, "--site", "https://docs.acme.com/bus/", file], check=True)
    rules = yaml.safe_load(file.read_text("utf-8"))["groups"][0]["rules"]
    assert {rule["annotations"]["runbook_url"].rpartition("/")[0] for rule in rules} == {
        "https://docs.acme.com/bus/runbooks"
    }
