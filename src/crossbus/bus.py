"""`Bus`: declare, publish, consume. What users import."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import AbstractAsyncContextManager, contextmanager
from datetime import datetime
from types import SimpleNamespace, TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from crossbus.adapter import Adapter, Backlog, Change, ReplayFrom
from crossbus.clock import Clock, SystemClock
from crossbus.config import Configuration, load, warn_if_in_memory
from crossbus.connections import Connections, Provision
from crossbus.declaring import Declarations, check_choice
from crossbus.delivery import Delivery
from crossbus.errors import ConfigurationError, DeclarationError
from crossbus.event import Event
from crossbus.event_types import to_event
from crossbus.forking import closed_error, note_open
from crossbus.handlers import HandleMiddleware
from crossbus.interop import from_cloudevent, is_cloudevent
from crossbus.letters import DeadLetters
from crossbus.portable import check_portable, check_provider
from crossbus.processing import Processor
from crossbus.publishing import Publisher, Receipt
from crossbus.publishing_many import publish_all
from crossbus.running import Runner, call_hook
from crossbus.subscriptions import SubscriptionHandle
from crossbus.telemetry.making import Telemetries
from crossbus.telemetry.options import TelemetryOptions
from crossbus.topology import Subscription, Topic, check_name

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

    from crossbus.explain import Explanation
    from crossbus.health import Health

__all__ = ["Bus", "PublishMiddleware", "Validation"]

logger = logging.getLogger("crossbus")

PublishMiddleware = Callable[[Event, Callable[[Event], Awaitable[Receipt]]], Awaitable[Receipt]]
"""Wraps publishing: `async def middleware(event, call_next)`; returns the receipt."""
Validation = Literal["portable", "provider"]
"""Which limits publishing enforces: those of the portable profile, or only those of the provider in use."""

H = TypeVar("H", bound=Callable[..., Any])


class _Turn:
    """An opening or a closing under way, and the task that does it."""

    def __init__(self) -> None:
        self.task = asyncio.current_task()
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Bus(Declarations):
    """One publish/subscribe interface; the provider is a matter of configuration.

    Args:
        url: Where events go, such as ``local:`` or ``pubsub:my-project``. Default: the profile.
        profile: The name of a profile in the configuration. `url`, `profile`, ``CROSSBUS_URL``,
            ``CROSSBUS_PROFILE`` and the file's ``default_profile`` are looked at in this order.
        config: Path of the configuration, or a mapping with its contents. Default: ``crossbus.toml``.
        source: The `source` of events that have none.
        provision: Whether opening creates what is declared. ``auto``: only on `local:`, an emulator or a loopback
            endpoint. ``always`` and ``never`` mean what they say.
        validate: ``portable`` holds published events to the limits that every provider has; ``provider`` only to
            those of the one in use.
        adapter: A ready adapter instead of a profile: for tests, and for programs that build their own.
        publish_middleware: Wraps every publish, the first outermost.
        handle_middleware: Wraps every handling, the first outermost, outside of a subscription's own.
        clock: What leases, delays and timeouts are measured by. Default: the real time.
        drain_limit: Seconds that closing waits for handlers and publishes under way.
        publish_timeout: Seconds after which a failing publish is tried no more.
        tracer_provider: OpenTelemetry's; default: the global one, whenever it is set.
        meter_provider: The same for metrics.
        telemetry: What spans, metrics and logs say. Default: `TelemetryOptions`' defaults.

    Raises:
        ConfigurationError: nothing is configured, or wrongly. Raised here, before anything is opened.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        profile: str | None = None,
        config: str | os.PathLike[str] | Mapping[str, Any] | None = None,
        source: str | None = None,
        provision: Provision = "auto",
        validate: Validation = "portable",
        adapter: Adapter | None = None,
        publish_middleware: Sequence[PublishMiddleware] = (),
        handle_middleware: Sequence[HandleMiddleware] = (),
        clock: Clock | None = None,
        drain_limit: float = 25.0,
        publish_timeout: float = 60.0,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        telemetry: TelemetryOptions | None = None,
    ) -> None:
        check_choice("provision", provision, ("auto", "always", "never"))
        check_choice("validate", validate, ("portable", "provider"))
        if adapter is not None and (url is not None or profile is not None):
            raise ConfigurationError("Bus(adapter=...) takes no url and no profile: the adapter has its own")
        configuration: Configuration | None = None
        if adapter is None:
            configuration = load(url, profile=profile, config=config)
            warn_if_in_memory(configuration.default)
        elif config is not None:
            configuration = load("local:", config=config)  # for its topics; where they live is given
        super().__init__(configuration)
        self.clock: Clock = clock or (adapter.clock if adapter is not None else SystemClock())
        """What leases, delays and timeouts are measured by."""
        self.source = source
        self.state = SimpleNamespace()
        """A place for what handlers need, such as a database pool made by an `on_start` hook."""
        self.drain_limit = drain_limit
        self._validate = validate
        self._publish_timeout = publish_timeout
        self._telemetry = Telemetries(telemetry, tracer_provider, meter_provider)
        self._connections = Connections(
            self._configuration if adapter is None else None, adapter, clock=self.clock, provision=provision
        )
        self._publishers: dict[str, Publisher] = {}
        self._publish_middleware = tuple(publish_middleware)
        self._handle_middleware = tuple(handle_middleware)
        self._is_open = False
        self._opening: _Turn | None = None
        self._closing: _Turn | None = None
        self._runner = Runner(self)

    # --- opening and closing ------------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """True between opening and closing."""
        return self._is_open

    async def open(self) -> None:
        """Connect, check what is declared, and create it where that is allowed. Opening twice is harmless.

        Raises `NotFound` for what is declared and not there, `UnsupportedError` for what the adapter cannot do,
        and the provider's portable errors.
        """
        while await self._wait_for(self._opening or (None if self._is_open else self._closing)):
            pass
        if self._is_open:
            return
        note_open(self)
        self._is_open = True
        self._opening = turn = _Turn()
        try:
            await self._connections.open_default()
            await self._ensure()
            for hook in self._start_hooks:
                await call_hook(hook, self)
        except BaseException:
            self._is_open = False
            await self._disconnect()
            raise
        finally:
            self._opening = None
            turn.done.set_result(None)

    async def close(self) -> None:
        """Drain and disconnect: handlers and publishes under way finish, within `drain_limit`. Idempotent."""
        await self._wait_for(self._opening)
        if self._closing is not None:
            await self._wait_for(self._closing, self.drain_limit)
        elif self._is_open:
            await self._close()

    async def _close(self) -> None:
        self._closing = turn = _Turn()
        failed: Exception | None = None
        try:
            await self._runner.stop(self.drain_limit)  # handlers may publish while they end
            for hook in self._stop_hooks:
                try:
                    await call_hook(hook, self)
                except Exception as error:
                    logger.exception("a stop hook failed")
                    failed = failed or error
        finally:
            self._is_open = False
            try:
                await self._disconnect()
            finally:
                self._closing = None
                turn.done.set_result(None)
        if failed is not None:
            raise failed

    async def _disconnect(self) -> None:
        publishers, self._publishers = list(self._publishers.values()), {}
        try:
            await asyncio.gather(*(publisher.close(self.drain_limit) for publisher in publishers))
        finally:
            await self._connections.close()

    async def _wait_for(self, turn: _Turn | None, limit: float | None = None) -> bool:
        """Wait for an opening or closing under way. False if there is none, or this is in a hook or handler of it."""
        task = asyncio.current_task()
        if turn is None or task is turn.task or self._runner.is_handling(task):
            return False
        await asyncio.wait({turn.done}, timeout=limit)
        return True

    async def __aenter__(self) -> Bus:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def _ensure(self) -> None:
        topology = self.topology
        await self._connections.ensure(topology.topics, topology.subscriptions)

    def _check_open(self, what: str) -> None:
        if not self._is_open:
            raise closed_error(self, what)

    @contextmanager
    def _retargeted(
        self, adapter: Adapter, clock: Clock, processor: Callable[..., Processor], drain_limit: float
    ) -> Iterator[None]:
        """Have this bus use another adapter and clock in a block, for all its topics. For `crossbus.testing`.

        The bus must be closed at both ends. What is declared in the block, and what it changes in `state`, is
        gone after it.
        """
        if self._is_open:
            raise DeclarationError("the bus is open already: a test opens it itself, on a broker of its own")
        before = dict(vars(self))
        state = dict(vars(self.state))
        self._topics, self._subscriptions = dict(self._topics), dict(self._subscriptions)
        self._start_hooks, self._stop_hooks = list(self._start_hooks), list(self._stop_hooks)
        self._publishers = {}
        self._connections = Connections(None, adapter, clock=clock, provision="always")
        self._runner = Runner(self, processor)
        self.clock, self.drain_limit = clock, drain_limit
        try:
            yield
        finally:
            vars(self).update(before)
            vars(self.state).clear()
            vars(self.state).update(state)

    # --- publishing ---------------------------------------------------------------------------------------------

    async def publish(self, topic: str, event: Any) -> Receipt:
        """Publish one event, and return when the provider has it.

        Args:
            topic: The name of a topic that exists.
            event: An `Event`, an event of the `cloudevents` package, or an instance of a class registered with
                `event_type`.

        Raises:
            InvalidEvent, EventTooLarge: the event breaks a rule; nothing was sent.
            ProviderError: what the provider said, by its portable code, after the retries of a retryable one.
            BusClosedError: the bus is not open.
        """
        publisher = self._publishers.get(topic)
        if publisher is None or not self._is_open:
            publisher = await self._publisher(topic)
        if event.__class__ is not Event or event._source is None:
            event = self._event(event)
        if self._publish_middleware:
            return await self._through_middleware(publisher)(event)
        return await publisher.publish(event)

    async def publish_many(self, topic: str, events: Iterable[Any] | AsyncIterable[Any]) -> list[Receipt]:
        """Publish many events in batches; returns their receipts in order.

        Takes any iterable, also one that is endless for the memory: only a bounded number waits at once. One event
        that fails does not keep the others from being published.

        Raises:
            PartialPublishError: some were not published; has a result for each event, in order.
            BusClosedError: the bus is not open.
        """
        publisher = await self._publisher(topic)
        through = self._through_middleware(publisher) if self._publish_middleware else None
        return await publish_all(publisher, events, make_event=self._event, through=through)

    def _through_middleware(self, publisher: Publisher) -> Callable[[Event], Awaitable[Receipt]]:
        call: Callable[[Event], Awaitable[Receipt]] = publisher.publish
        for layer in reversed(self._publish_middleware):
            call = functools.partial(_publish_layer, layer, call)

        async def through(event: Event) -> Receipt:
            with publisher.holding():
                return await call(event)

        return through

    def _event(self, given: Any) -> Event:
        if isinstance(given, Event):
            event = given
        elif is_cloudevent(given):
            event = from_cloudevent(given)
        else:
            event = to_event(given)
        if event._source is None and self.source is not None:
            return event.with_attributes(source=self.source)
        return event

    async def _publisher(self, topic: str) -> Publisher:
        self._check_open(f"publishing to {topic!r}")
        publisher = self._publishers.get(topic)
        if publisher is None:
            declared = self._topics.get(topic)
            if declared is None:
                check_name("topic", topic)
                declared = Topic(topic)
                if self._configuration is not None:
                    self._configuration.check_topic(topic)
                    declared = self._configuration.apply_topic(declared)
                adapter = await self._connections.adapter_of(declared)
            else:
                await self._connections.ensure([declared], [])
                adapter = await self._connections.adapter_of(declared)
            self._check_open(f"publishing to {topic!r}")
            publisher = self._publishers.setdefault(topic, self._make_publisher(declared, adapter))
        return publisher

    def _make_publisher(self, topic: Topic, adapter: Adapter) -> Publisher:
        capabilities = adapter.capabilities
        check: Callable[[Event], None]
        if topic.kind == "dead_letter":
            check = _unchecked
        elif self._validation(topic) == "portable":
            check = check_portable
        else:
            check = functools.partial(_check_provider, capabilities)
        return Publisher(
            topic,
            adapter,
            clock=self.clock,
            telemetry=self._telemetry.of_topic(topic, adapter),
            check=check,
            timeout=self._publish_timeout,
        )

    def _validation(self, topic: Topic) -> Validation:
        configured = None if self._configuration is None else self._configuration.validate_for(topic.name)
        return configured or self._validate

    def _dead_letter_publisher(self, subscription: Subscription, adapter: Adapter) -> Publisher:
        topic = subscription.dead_letter
        publisher = self._publishers.get(topic.name)
        if publisher is None:
            publisher = self._publishers[topic.name] = self._make_publisher(topic, adapter)
        return publisher

    # --- consuming ----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Consume every subscription that has a handler, until SIGTERM, SIGINT or cancellation; then drain.

        Opens the bus if need be, and closes it then. Signal handlers are installed in the main thread only. Raises
        what makes consuming impossible, such as a subscription that was removed.
        """
        await self._runner.run()

    def running(self) -> AbstractAsyncContextManager[Bus]:
        """Consume in the background of an `async with` block, and drain at its end. Opens the bus if need be."""
        return self._runner.running()

    def deliveries(
        self, topic: str, name: str, *, max: int = 10
    ) -> AbstractAsyncContextManager[AsyncIterator[Delivery]]:
        """Pull deliveries instead of handling them.

        ``async with bus.deliveries("orders", "billing") as deliveries: async for delivery in deliveries: ...``.
        Settle each with `ack`, `retry` or `reject`; leases are kept meanwhile. At most `max` are in hand; at the
        end of the block what is not settled is given back.
        """
        return self._runner.deliveries(self._declared(topic, name), max)

    async def pause(self, topic: str, name: str) -> None:
        """Stop fetching for a subscription in this process; what no handler has begun is given back."""
        self._runner.pause(self._declared(topic, name))

    async def resume(self, topic: str, name: str) -> None:
        """Go on after a pause, by `pause` or by a breaker."""
        self._runner.resume(self._declared(topic, name))

    def health(self) -> Health:
        """Say whether the loops move and every subscription is being consumed. Callable from any thread."""
        return self._runner.health()

    # --- looking after ------------------------------------------------------------------------------------------

    async def provision(self, *, prune: bool = False, dry_run: bool = False) -> list[Change]:
        """Create and update what is declared; with `prune` delete what crossbus made and is declared no more.

        Returns the changes; with `dry_run` they are only planned. Never touches what is external.
        """
        self._check_open("provisioning")
        changes: list[Change] = []
        for adapter, planned in await self._connections.plan(self.topology, prune=prune):
            if not dry_run:
                await adapter.provision(planned)
            changes.extend(planned)
        return changes

    def dead_letters(self, topic: str, name: str) -> DeadLetters:
        """Return the dead letter of a declared subscription: to list, redrive and purge."""
        handle, adapter = self._at(topic, name, "dead letters")
        telemetry = self._telemetry.of_topic(handle.declaration.topic, adapter)
        return DeadLetters(adapter, handle.declaration, telemetry)

    async def replay(
        self, topic: str, name: str, *, time: datetime | None = None, position: str | None = None
    ) -> int | None:
        """Deliver past events again to one subscription, from a time or a position: a message id, or a snapshot's name.

        Returns how many, where the provider tells. Raises `UnsupportedError` where it cannot replay so.
        """
        handle, adapter = self._at(topic, name, "replay")
        start = ReplayFrom(time, position)
        capability = "replay_time" if time is not None else "replay_position"
        adapter.capabilities.require(capability, adapter.name, f"replay of {topic}/{name}")
        return await adapter.replay(handle.declaration, start)

    async def backlog(self, topic: str, name: str) -> Backlog:
        """Count what waits in a subscription, is in hand, and is dead."""
        handle, adapter = self._at(topic, name, "backlog")
        return await adapter.backlog(handle.declaration)

    def explain(self, topic: str, name: str) -> Explanation:
        """Say which part of a subscription's filter the provider evaluates, and what is evaluated here."""
        from crossbus.explain import explain_subscription

        handle, adapter = self._at(topic, name, "explain")
        return explain_subscription(handle.declaration, adapter)

    def adapter_for(self, topic: str | None = None) -> Adapter:
        """Return the open adapter of a topic (default: of the default profile): the way out to what only it can do."""
        self._check_open("adapter_for")
        declared = None if topic is None else self._topics.get(topic, Topic(topic))
        adapter = self._connections.opened(declared)
        if adapter is None:
            raise DeclarationError(
                f"no adapter is open for topic {topic!r}; declare it before opening the bus"
            )
        return adapter

    def _at(self, topic: str, name: str, what: str) -> tuple[SubscriptionHandle, Adapter]:
        handle = self._declared(topic, name)
        self._check_open(f"{what} of {topic}/{name}")
        adapter = self._connections.opened(handle.declaration.topic)
        if adapter is None:
            raise DeclarationError(f"subscription {topic}/{name} was declared after the bus was opened")
        return handle, adapter


async def _publish_layer(
    middleware: PublishMiddleware, call_next: Callable[[Event], Awaitable[Receipt]], event: Event
) -> Receipt:
    return await middleware(event, call_next)


def _unchecked(event: Event) -> None:
    """Check nothing: a dead-letter record holds an event that was valid once."""


def _check_provider(capabilities: Any, event: Event) -> None:
    check_provider(event, capabilities)
