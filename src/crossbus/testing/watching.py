"""`Handled`: what became of one delivery; and the `Processor` that notes it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from crossbus.deadlines import Run
from crossbus.delivery import Delivery
from crossbus.event import Event
from crossbus.processing import Processor

if TYPE_CHECKING:
    from crossbus.consuming import Consumer

__all__ = ["Handled", "Outcome", "watching"]

Outcome = Literal["ack", "retry", "reject", "release", "drop"]
"""What became of a delivery. See `Handled.outcome`."""


@dataclass(frozen=True, slots=True, repr=False)
class Handled:
    """One delivery to a subscription, and what became of it. From `TestBus.handled`."""

    event: Event
    topic: str
    subscription: str
    handler: str | None
    """The name of the handler; None if none was called, as for a duplicate that middleware suppressed."""
    attempt: int | None
    """Counted from 1."""
    outcome: Outcome
    """
    * ``ack``: the handler returned.
    * ``retry``: it failed, or asked for it; the event comes again after a delay.
    * ``reject``: the event is in the dead letter.
    * ``release``: the event was given back without a failure of its own: the handler was cancelled, the
      subscription is paused, or the filter of an external subscription does not match and the event is not its own.
    * ``drop``: nobody handles it, and it is acknowledged: ``on_unhandled="drop"`` or ``on_mismatch="drop"``.
    """
    error: BaseException | None
    """What the handler raised, or what was wrong with the event."""

    def __repr__(self) -> str:
        by = f" by {self.handler}" if self.handler else ""
        why = f" ({type(self.error).__name__}: {self.error})" if self.error is not None else ""
        where = f"{self.topic}/{self.subscription}"
        name = f"{self.event.type} {self.event.id}"
        return f"<Handled {name} of {where}{by}, attempt {self.attempt}: {self.outcome}{why}>"


def watching(note: Callable[[Handled], None]) -> Callable[..., Processor]:
    """Return what makes processors that tell `note` of every delivery that they have settled."""

    def make(consumer: Consumer, handlers: Any, *arguments: Any, **options: Any) -> Processor:
        if handlers is None:  # the pull form: whoever pulls knows what he does
            return Processor(consumer, handlers, *arguments, **options)
        return _Watching(consumer, handlers, *arguments, note=note, **options)

    return make


class _Why:
    """What led to the end of one delivery, as far as it is known."""

    __slots__ = ("error", "failed", "given_up", "returned")

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.failed = False
        self.returned = False
        self.given_up = False


class _Watching(Processor):
    """A processor that sees why each delivery ends, and from `_Spy` how."""

    def __init__(
        self, consumer: Consumer, *arguments: Any, note: Callable[[Handled], None], **options: Any
    ) -> None:
        super().__init__(consumer, *arguments, **options)
        self._consumer = _Spy(consumer, self._ended)  # type: ignore[assignment]
        self._note = note
        self._why: dict[Delivery, _Why] = {}
        self._noted: set[Delivery] = set()

    def acknowledge(self, delivery: Delivery) -> None:
        """Note that the handler returned, or that nobody handles the event."""
        why = self._why_of(delivery)
        why.returned = why.error is None
        why.error = None
        super().acknowledge(delivery)

    async def _decide(
        self, delivery: Delivery, error: BaseException, run: Run, task: asyncio.Task[Any]
    ) -> None:
        self._why_of(delivery).error = error
        await super()._decide(delivery, error, run, task)

    async def failed(self, delivery: Delivery, error: Exception, name: str | None) -> None:
        """Note the error, which may be another than the handler's: its timeout."""
        why = self._why_of(delivery)
        why.failed = True
        why.error = error
        await super().failed(delivery, error, name)

    async def give_up(
        self, delivery: Delivery, reason: str, error: BaseException | None, handler: str | None
    ) -> None:
        """Note that the event is on its way to the dead letter."""
        why = self._why_of(delivery)
        why.given_up = True
        why.error = error or why.error
        await super().give_up(delivery, reason, error, handler)

    def _why_of(self, delivery: Delivery) -> _Why:
        return self._why.setdefault(delivery, _Why())

    def _ended(self, delivery: Delivery, is_done: bool) -> None:
        why = self._why.pop(delivery, None) or _Why()
        # Noted already if the handler settled it itself. No event if it cannot be read, or is for another subscription.
        if delivery in self._noted or delivery._event is None:
            return
        self._noted.add(delivery)
        outcome: Outcome
        if is_done:
            outcome = "reject" if why.given_up else "ack" if why.returned else "drop"
        else:
            outcome = "retry" if why.failed and not why.given_up else "release"
        run = self.runs.of(asyncio.current_task())
        self._note(
            Handled(
                delivery._event,
                delivery.topic,
                delivery.subscription,
                run.handler.name if run is not None and run.handler is not None else None,
                delivery.attempt,
                outcome,
                why.error,
            )
        )


class _Spy:
    """Stands between a processor and its consumer."""

    def __init__(self, consumer: Consumer, ended: Callable[[Delivery, bool], None]) -> None:
        self._spied = consumer
        self._ended = ended

    def __getattr__(self, name: str) -> Any:
        return getattr(self._spied, name)

    def settle(self, delivery: Delivery, delay: float | None) -> None:
        self._ended(delivery, delay is None)
        self._spied.settle(delivery, delay)

    def give_back(self, delivery: Delivery, delay: float) -> None:
        self._ended(delivery, False)
        self._spied.give_back(delivery, delay)
