"""A receiver of OTLP over HTTP: takes what real exporters send, and decodes the protobuf."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

KINDS = ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")


@dataclass(frozen=True)
class Exported:
    """A span, as it came over the wire."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    kind: str
    failed: bool
    attributes: dict[str, Any]
    links: tuple[tuple[str, str], ...]
    """Trace id and span id of each."""
    service: str
    scope: str
    schema: str


@dataclass
class Received:
    """All that came."""

    url: str
    spans: list[Exported] = field(default_factory=list)
    metrics: dict[str, set[str]] = field(default_factory=dict)
    """By service, the names of the metrics that it measured."""

    def wait(self, condition: Callable[[list[Exported]], object], what: str, limit: float = 60.0) -> None:
        """Wait until the spans are as they should be."""
        end = time.monotonic() + limit
        while not condition(list(self.spans)):
            names = sorted({f"{one.service}: {one.name}" for one in self.spans})
            assert time.monotonic() < end, f"{what}; there came {names}"
            time.sleep(0.05)


@contextmanager
def receiving() -> Iterator[Received]:
    """Listen on a free port of loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            answer: Any
            if self.path == "/v1/traces":
                received.spans.extend(_spans(ExportTraceServiceRequest.FromString(body)))
                answer = ExportTraceServiceResponse()
            else:
                assert self.path == "/v1/metrics", self.path
                _note_metrics(ExportMetricsServiceRequest.FromString(body), received.metrics)
                answer = ExportMetricsServiceResponse()
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.end_headers()
            self.wfile.write(answer.SerializeToString())

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    received = Received(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield received
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    return None if kind is None else getattr(value, kind)


def _named(attributes: Any) -> dict[str, Any]:
    return {one.key: _value(one.value) for one in attributes}


def _spans(request: ExportTraceServiceRequest) -> Iterator[Exported]:
    for resource in request.resource_spans:
        service = str(_named(resource.resource.attributes)["service.name"])
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Exported(
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    span.name,
                    KINDS[span.kind],
                    span.status.code == 2,
                    _named(span.attributes),
                    tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
                    service,
                    scope.scope.name,
                    scope.schema_url,
                )


def _note_metrics(request: ExportMetricsServiceRequest, found: dict[str, set[str]]) -> None:
    for resource in request.resource_metrics:
        names = found.setdefault(str(_named(resource.resource.attributes)["service.name"]), set())
        names.update(metric.name for scope in resource.scope_metrics for metric in scope.metrics)
