"""The command line and OpenTelemetry: its variables, what is said if they cannot be followed, and `--trace`."""

from __future__ import annotations

import io
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from opentelemetry.context import Context
from opentelemetry.trace import Link, StatusCode
from rich.console import Console
from tests.otlp import receiving
from tests.support import run
from tests.test_cli import environment
from tests.traced import Traced, context_of

from crossbus import Bus, ConfigurationError, Event
from crossbus.telemetry.setting_up import asking, set_up
from crossbus.telemetry.tree import TreePrinter, tree_of

LIMIT = 60.0
PROGRAM = """
import os, signal
from crossbus import Bus, Event, Reject

bus = Bus("local:", source="/shop")

@bus.subscribe("orders", "billing")
async def bill(event: Event) -> None:
    await bus.publish("invoices", Event(type="com.acme.invoice.sent", id="i-1"))

@bus.subscribe("invoices", "mail")
async def mail(event: Event) -> None:
    os.kill(os.getpid(), signal.SIGINT)
    raise Reject("no address")

@bus.on_start
async def one_order(bus: Bus) -> None:
    await bus.publish("orders", Event(type="com.acme.order.placed", id="o-1"))
"""


def crossbus_run(
    folder: Path, *options: str, program: str = PROGRAM, before: str = "", **variables: str
) -> subprocess.CompletedProcess[str]:
    (folder / "shop.py").write_text(before + program, "utf-8")
    clean = {name: value for name, value in environment().items() if not name.startswith("OTEL_")}
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "crossbus", "run", "shop", *options],
        cwd=folder,
        env=clean | variables,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


# --- in a process -------------------------------------------------------------------------------------------------


def test_a_trace_is_printed_as_a_tree_without_any_backend(tmp_path: Path) -> None:
    done = crossbus_run(tmp_path, "--trace")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    text = re.sub(r"\d+\.\d+ m?s", "TIME", done.stderr)
    (tree,) = [part for part in re.split(r"(?m)^trace ", text) if "publish orders" in part]
    for line in (
        "└── publish orders  TIME  com.acme.order.placed  o-1",
        "process orders  TIME  com.acme.order.placed  o-1",
        "publish invoices  TIME  com.acme.invoice.sent  i-1",
        "process invoices  TIME  Reject  com.acme.invoice.sent  i-1",
        "publish invoices--mail--dead  TIME  dev.crossbus.deadletter.v1",
    ):
        assert line in tree, done.stderr


def test_spans_and_metrics_go_where_the_variables_say(tmp_path: Path) -> None:
    with receiving() as received:
        done = crossbus_run(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=received.url)
        assert done.returncode == 0, done.stderr
    assert {span.service for span in received.spans} == {"shop"}, (
        "the module's name, where nobody says another"
    )
    assert {"publish orders", "process orders", "process invoices"} <= {span.name for span in received.spans}
    assert "messaging.process.duration" in received.metrics["shop"]


def test_one_signal_can_go_and_the_other_not(tmp_path: Path) -> None:
    with receiving() as received:
        done = crossbus_run(
            tmp_path,
            OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"{received.url}/v1/traces",
            OTEL_RESOURCE_ATTRIBUTES="service.name=billing",
        )
        assert done.returncode == 0, done.stderr
    assert {span.service for span in received.spans} == {"billing"}
    assert received.metrics == {}


def test_any_exporter_that_is_installed_can_be_named(tmp_path: Path) -> None:
    done = crossbus_run(tmp_path, OTEL_TRACES_EXPORTER="console")
    assert done.returncode == 0, done.stderr
    assert '"name": "process orders"' in done.stdout


def test_a_provider_of_the_programs_own_is_left_alone_and_its_traces_are_printed(tmp_path: Path) -> None:
    own = (
        "from opentelemetry import trace\n"
        "from opentelemetry.sdk.trace import TracerProvider\n"
        "from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor\n"
        "provider = TracerProvider()\n"
        "provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter()))\n"
        "trace.set_tracer_provider(provider)\n"
    )
    done = crossbus_run(
        tmp_path,
        "--trace",
        before=own,
        OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9",
        OTEL_METRICS_EXPORTER="none",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('"name": "process orders"') == 1
    assert "└── publish orders" in done.stderr


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        (
            {"OTEL_TRACES_EXPORTER": "otpl"},
            "OTEL_TRACES_EXPORTER=otpl: there is no such exporter; did you mean 'otlp'?",
        ),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"},
            "OTEL_EXPORTER_OTLP_PROTOCOL=http/json: it must be http/protobuf or grpc",
        ),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "grpc"},
            "otlp over grpc needs a package: pip install opentelemetry-exporter-otlp-proto-grpc",
        ),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path: Path, variables: dict[str, str], said: str) -> None:
    done = crossbus_run(tmp_path, **variables)
    assert done.returncode == 2
    assert f"error: {said}" in done.stderr
    assert "Traceback" not in done.stderr


NO_SDK = """
import sys
for name in ("opentelemetry.sdk", "opentelemetry.sdk.resources", "opentelemetry.sdk.trace"):
    sys.modules[name] = None
"""


def test_without_the_extra_one_note_says_what_to_install(tmp_path: Path) -> None:
    done = crossbus_run(tmp_path, before=NO_SDK, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9")
    assert done.returncode == 0, done.stderr
    note = (
        "note: OTEL_EXPORTER_OTLP_ENDPOINT is set, but OpenTelemetry's SDK is not installed, so nothing is exported: "
        "pip install 'crossbus[otel]'"
    )
    assert done.stderr.count("OTEL_") == 1
    assert note in done.stderr
    done = crossbus_run(tmp_path, "--trace", before=NO_SDK)
    assert done.returncode == 2
    assert "error: --trace needs OpenTelemetry's SDK: pip install 'crossbus[otel]'" in done.stderr


def test_the_server_tells_of_its_subscriptions() -> None:
    with receiving() as received:
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "crossbus", "serve", "--port", "0"],
            env=environment(OTEL_EXPORTER_OTLP_ENDPOINT=received.url, OTEL_METRIC_EXPORT_INTERVAL="100"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        greeting = process.stdout.readline()
        url = greeting.rpartition(" ")[2].strip().replace("http:", "local+http:")

        async def leave_something() -> None:
            bus = Bus(url, source="/shop")
            bus.subscribe("orders", "billing")
            async with bus:
                await bus.publish("orders", Event(type="t"))

        run(leave_something())
        received.wait(
            lambda _: "crossbus.backlog.oldest_age" in received.metrics.get("crossbus-serve", ()), "nothing"
        )
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=LIMIT)
        assert process.returncode == 0, errors
        assert "Traceback" not in errors
    assert received.metrics == {
        "crossbus-serve": {
            *("crossbus.backlog.waiting", "crossbus.backlog.oldest_age", "crossbus.backlog.dead"),
            "crossbus.deliveries.in_hand",
        }
    }


# --- which variables ask for something ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "by"),
    [
        ({}, None),
        ({"OTEL_SERVICE_NAME": "x"}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://x"}, "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"),
        ({"OTEL_METRICS_EXPORTER": "prometheus"}, "OTEL_METRICS_EXPORTER"),
        ({"OTEL_TRACES_EXPORTER": "none"}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_SDK_DISABLED": "True"}, None),
        (
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x",
                "OTEL_TRACES_EXPORTER": "none",
                "OTEL_METRICS_EXPORTER": "none",
            },
            None,
        ),
    ],
)
def test_what_asks_for_an_export(variables: Mapping[str, str], by: str | None) -> None:
    assert asking(variables) == by


def test_nothing_is_done_if_nothing_asks() -> None:
    notes: list[str] = []
    set_up("shop", note=notes.append, environ={})()
    set_up("shop", note=notes.append, environ={"OTEL_SDK_DISABLED": "true", "OTEL_TRACES_EXPORTER": "otlp"})()
    assert notes == []
    with pytest.raises(ConfigurationError, match="no such exporter"):
        set_up("shop", note=notes.append, environ={"OTEL_METRICS_EXPORTER": "nonsense"})


# --- the tree -----------------------------------------------------------------------------------------------------


def shown(traced: Traced) -> list[str]:
    console = Console(file=io.StringIO(), width=120, color_system=None)
    console.print(tree_of(traced.spans))
    assert isinstance(console.file, io.StringIO)
    return [re.sub(r"\d+\.\d+ m?s", "TIME", line.rstrip()) for line in console.file.getvalue().splitlines()]


def test_a_tree_shows_children_errors_links_and_what_is_elsewhere() -> None:
    traced = Traced()
    with traced.tracer.start_as_current_span("other"):
        pass
    other = context_of(traced.named("other"))
    traced._exporter.clear()
    with (
        traced.tracer.start_as_current_span("elsewhere") as elsewhere,
        traced.tracer.start_as_current_span("process orders") as process,
    ):
        process.set_attributes(
            {
                "cloudevents.event_id": "o-\x1b1",
                "cloudevents.event_type": "com.acme.order",
                "crossbus.delivery.attempt": 2,
            }
        )
        with traced.tracer.start_as_current_span(
            "send invoices", attributes={"messaging.batch.message_count": 3}, links=[Link(other)]
        ) as send:
            send.set_attribute("error.type", "Throttled")
            send.set_status(StatusCode.ERROR)
        elsewhere_id = f"{elsewhere.get_span_context().span_id:016x}"
        trace_id = f"{elsewhere.get_span_context().trace_id:032x}"
        process.end()
        assert shown(traced) == [
            f"trace {trace_id}  TIME",
            f"└── span {elsewhere_id}, in another process or not ended",
            "    └── process orders  TIME  com.acme.order  o-\N{REPLACEMENT CHARACTER}1  attempt 2",
            f"        └── send invoices  TIME  Throttled  3 events  links to {f'{other.trace_id:032x}'[:8]}",
        ]


def test_traces_are_printed_when_they_are_complete_and_the_rest_at_the_end() -> None:
    traced = Traced()
    console = Console(file=io.StringIO(), width=120)
    assert isinstance(console.file, io.StringIO)
    printer = TreePrinter(console)
    traced.provider.add_span_processor(printer)
    with traced.tracer.start_as_current_span("open"):
        with traced.tracer.start_as_current_span("closed"):
            pass
        with traced.tracer.start_as_current_span("root", context=Context()):
            pass
        end = time.monotonic() + LIMIT
        while "root" not in console.file.getvalue():
            assert time.monotonic() < end
            time.sleep(0.01)
        assert "closed" not in console.file.getvalue(), "its trace has a span that did not end"
    printer.shutdown()
    assert "open" in console.file.getvalue()
    assert "closed" in console.file.getvalue()
