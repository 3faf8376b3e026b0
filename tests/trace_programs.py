"""A publisher and two consumers in processes of their own, all with every instrumentation that lies under crossbus.

The consumers are run by ``crossbus run tests.trace_consumers:bus`` and ``:sync_bus``; the publisher is
``python -m tests.trace_programs``. The variable ``TRACE_WORLD`` has the first part of all names.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

from azure.core.settings import settings as azure_settings
from opentelemetry import trace
from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor
from opentelemetry.instrumentation.botocore import BotocoreInstrumentor
from opentelemetry.instrumentation.grpc import GrpcAioInstrumentorClient

from crossbus import Bus, Delivery, Event, Reject, Retry, SyncBus

OWN = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
OWN_STATE = "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"
BATCH = 5
TYPE = "com.example.traced"

WORLD = os.environ.get("TRACE_WORLD", "world")
tracer = trace.get_tracer("the program's")


def topic(path: str) -> str:
    return f"{WORLD}-{path}"


def instrument() -> None:
    BotocoreInstrumentor().instrument()
    GrpcAioInstrumentorClient().instrument()
    AioHttpClientInstrumentor().instrument()
    azure_settings.tracing_implementation = "opentelemetry"


# --- the consumers ------------------------------------------------------------------------------------------------


def consumer() -> Bus:
    instrument()
    bus = Bus(source="/billing", provision="always")
    rejected: set[str] = set()

    @bus.subscribe(topic("success"), "async")
    async def success(event: Event) -> None:
        await bus.publish(topic("next"), Event(id=f"{event.id}-next", type=TYPE))

    @bus.subscribe(topic("next"), "async")
    async def following(event: Event) -> None: ...

    @bus.subscribe(topic("retry"), "async")
    async def retry(delivery: Delivery) -> None:
        if delivery.attempt == 1:
            raise Retry(after=0.1)

    @bus.subscribe(topic("dead"), "async")
    async def dead(event: Event) -> None:
        if event.id not in rejected:
            rejected.add(event.id)
            raise Reject("for a trace")

    @bus.subscribe(topic("batch"), "async", batch=BATCH)
    async def batch(events: list[Event]) -> None: ...

    @bus.subscribe(topic("plain"), "thread")
    def plain(event: Event) -> None:
        with tracer.start_as_current_span("work in a thread"):
            pass

    @bus.subscribe(topic("own"), "async")
    async def own(event: Event) -> None:
        kept = (event.extensions.get("traceparent"), event.extensions.get("tracestate"))
        trace.get_current_span().set_attribute("kept", kept == (OWN, OWN_STATE))

    @bus.subscribe(topic("absent"), "async")
    async def absent(event: Event) -> None: ...

    return bus


def sync_consumer() -> SyncBus:
    instrument()
    bus = SyncBus(source="/billing", provision="always")

    @bus.subscribe(topic("sync"), "thread")
    def sync(event: Event) -> None:
        bus.publish(topic("next"), Event(id=f"{event.id}-next", type=TYPE))

    return bus


# --- the publisher ------------------------------------------------------------------------------------------------


def event(path: str, number: int = 0, **extensions: Any) -> Event:
    return Event(id=f"{path}-{number}", type=TYPE, source="/shop", extensions=extensions)


async def publish() -> None:
    bus = Bus(provision="never")
    bus.subscribe(topic("dead"), "async")
    async with bus:
        for path in ("success", "retry", "dead", "plain"):
            with tracer.start_as_current_span(f"request {path}"):
                await bus.publish(topic(path), event(path))
        with tracer.start_as_current_span("request batch"):
            await bus.publish_many(topic("batch"), [event("batch", number) for number in range(BATCH)])
        with tracer.start_as_current_span("request own"):
            await bus.publish(topic("own"), event("own", traceparent=OWN, tracestate=OWN_STATE))
        # Below the bus, as a program would that knows no traces.
        adapter = bus.adapter_for(topic("absent"))
        declared = bus.topic(topic("absent"))
        (outcome,) = await adapter.send(declared, [adapter.encode(declared, event("absent"))])
        assert outcome.code is None, outcome.message
        letters = bus.dead_letters(topic("dead"), "async")
        while not await letters.list():  # noqa: ASYNC110 - it is another process that writes it
            await asyncio.sleep(0.1)
        assert await letters.redrive() == 1


def publish_sync() -> None:
    with SyncBus(provision="never") as bus, tracer.start_as_current_span("request sync"):
        bus.publish(topic("sync"), event("sync"))


def main() -> None:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    instrument()
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    asyncio.run(publish())
    publish_sync()
    provider.shutdown()


if __name__ == "__main__":
    main()
