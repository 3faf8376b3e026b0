"""Telemetry that nobody listens to, for tests below the Bus."""

from __future__ import annotations

from crossbus.adapter import Adapter
from crossbus.clock import SystemClock
from crossbus.telemetry.consuming import ConsumeTelemetry
from crossbus.telemetry.making import Telemetries
from crossbus.telemetry.publishing import PublishTelemetry
from crossbus.topology import Subscription, Topic


def publishing_silently(adapter: Adapter, topic: Topic) -> PublishTelemetry:
    return Telemetries(None, None, None).of_topic(topic, adapter)


def consuming_silently(adapter: Adapter) -> ConsumeTelemetry:
    subscription = Subscription(topic=Topic("orders"), name="billing")
    return Telemetries(None, None, None).of_subscription(subscription, adapter, SystemClock())
