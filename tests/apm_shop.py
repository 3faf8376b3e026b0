"""A shop of two programs, whose one order is followed in an APM tool.

The consumer is run by ``crossbus run tests.apm_shop:bus``; the publisher is ``python -m tests.apm_shop``, and prints
the id of its trace.
"""

from __future__ import annotations

import asyncio

from opentelemetry import trace
from opentelemetry.trace import SpanKind

from crossbus import Bus, Delivery, Event, Retry

__all__ = ["bus"]

tracer = trace.get_tracer("shop")


def bus() -> Bus:
    """Return the consumer: it bills an order at the second attempt, and mails the invoice."""
    bus = Bus(source="/billing", provision="always")

    @bus.subscribe("orders", "billing")
    async def bill(order: dict[str, str], delivery: Delivery) -> None:
        with tracer.start_as_current_span("charge card"):
            await asyncio.sleep(0.03)
        if delivery.attempt == 1:
            raise Retry(after=0.1, reason="the bank is busy")
        await bus.publish("invoices", Event(id="i-1", type="com.acme.invoice.sent", data=order))

    @bus.subscribe("invoices", "mail")
    async def mail(invoice: dict[str, str]) -> None:
        with tracer.start_as_current_span("send mail"):
            await asyncio.sleep(0.02)

    return bus


async def order() -> str:
    """Publish one order, as within a request; returns the id of the trace."""
    event = Event(id="o-1", type="com.acme.order.placed", source="/shop", data={"order": "o-1"})
    async with Bus(provision="never") as shop:
        with tracer.start_as_current_span("POST /orders", kind=SpanKind.SERVER) as span:
            await shop.publish("orders", event)
        return f"{span.get_span_context().trace_id:032x}"


def main() -> None:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    print(asyncio.run(order()))
    provider.shutdown()


if __name__ == "__main__":
    main()
