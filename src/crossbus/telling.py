"""`DeliveryLog`: what the log says of deliveries, each with the fields by which logs are searched.

Standard logging only: no handler is configured, and nothing of an event's data is said. While a delivery is handled its
span is current, so that whatever correlates logs with traces finds it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from crossbus.delivery import Delivery
from crossbus.wire import WIRE_VERSION

if TYPE_CHECKING:
    from crossbus.telemetry.consuming import ConsumeTelemetry
    from crossbus.topology import Subscription

__all__ = ["DeliveryLog"]

logger = logging.getLogger("crossbus")


class DeliveryLog:
    """Logs for one subscription."""

    def __init__(self, subscription: Subscription, telemetry: ConsumeTelemetry) -> None:
        self._where = str(subscription)
        self._telemetry = telemetry

    def _say(
        self,
        level: int,
        delivery: Delivery,
        error: BaseException | None,
        text: str,
        *values: Any,
        trace: bool = False,
    ) -> None:
        logger.log(
            level,
            "%s: " + text,
            self._where,
            *values,
            exc_info=error if trace else None,
            extra=self._telemetry.fields(delivery, error),
        )

    def _shown(self, error: BaseException) -> str:
        return f"{type(error).__name__}: {self._telemetry.text_of(error)}"

    def unknown_wire(self, delivery: Delivery, wire: int) -> None:
        """It is in a form that this release does not read."""
        text = "message %s has wire form %d, and this release reads up to %d: given back for a newer one"
        self._say(logging.ERROR, delivery, None, text, delivery.message_id, wire, WIRE_VERSION)

    def unforeseen(self, delivery: Delivery, problem: BaseException) -> None:
        """Something failed that was not the handler."""
        if self._telemetry.redacts:  # a traceback ends with the text of its exception
            text = "message %s is given back: %s"
            self._say(logging.ERROR, delivery, problem, text, delivery.message_id, self._shown(problem))
        else:
            text = "message %s is given back"
            self._say(logging.ERROR, delivery, problem, text, delivery.message_id, trace=True)

    def failed_after_settling(self, delivery: Delivery, name: str | None, error: BaseException) -> None:
        """The handler failed, but had settled the event itself."""
        text = "%s failed after it had settled the event itself: %s"
        self._say(logging.WARNING, delivery, error, text, name, self._shown(error))

    def pauses(self, delivery: Delivery, name: str | None, error: BaseException) -> None:
        """The subscription is paused, because data does not fit."""
        text = "paused: %s, for %s"
        self._say(logging.ERROR, delivery, error, text, self._telemetry.text_of(error), name)

    def failed(
        self, delivery: Delivery, name: str | None, error: BaseException, attempts: object, delay: float
    ) -> None:
        """The handler failed, and the event comes again."""
        text = "%s failed at attempt %s of %s, again in %.1f s: %s"
        values = (name, delivery.attempt, attempts, delay, self._shown(error))
        self._say(logging.WARNING, delivery, error, text, *values)

    def not_dead(self, delivery: Delivery, what: str, problem: BaseException) -> None:
        """The dead-letter record could not be written."""
        text = "message %s is %s: %s"
        self._say(
            logging.ERROR,
            delivery,
            problem,
            text,
            delivery.message_id,
            what,
            self._telemetry.text_of(problem),
        )

    def dead(self, delivery: Delivery, reason: str, error: BaseException | None) -> None:
        """The event is in the dead letter."""
        why = "" if error is None else f" ({self._shown(error)})"
        text = "message %s is in the dead letter: %s%s"
        self._say(logging.ERROR, delivery, error, text, delivery.message_id, reason, why)

    def lost(self, delivery: Delivery) -> None:
        """The lease ended."""
        self._say(logging.WARNING, delivery, None, "the lease of message %s was lost", delivery.message_id)

    def settled_too_late(self, delivery: Delivery, delay: float | None) -> None:
        """The lease had ended when it was settled."""
        text = "message %s was %s, but its lease was lost before it was settled; it may be handled again"
        what = "handled" if delay is None else "given back"
        self._say(logging.WARNING, delivery, None, text, delivery.message_id, what)

    def comes_early(self, delivery: Delivery, delay: float, left: float) -> None:
        """The provider holds it no longer than so many seconds."""
        text = "message %s was to come again after %.0f s, and comes after %.0f s: the provider holds it no longer"
        self._say(logging.WARNING, delivery, None, text, delivery.message_id, delay, left)
