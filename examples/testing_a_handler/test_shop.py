"""Tests of the handler in shop.py. Run with: pytest"""

import pytest
import shop

from crossbus import Bus, Event
from crossbus.testing import SyncTestBus


@pytest.fixture
def crossbus_bus() -> Bus:
    """The Bus that the fixture `bus` tests."""
    return shop.bus


def order(total: object) -> Event:
    return Event(type="com.acme.order.placed", data={"order": "o-1", "total": total})


def test_an_order_is_billed(bus: SyncTestBus) -> None:
    bus.publish("orders", order(total=10.0))
    bus.wait_idle()
    assert bus.handled("orders", "billing")[0].outcome == "ack"
    assert [bill.data["amount"] for bill in bus.published("bills")] == [12.0]


def test_other_events_are_not_billed(bus: SyncTestBus) -> None:
    bus.publish("orders", Event(type="com.acme.order.cancelled", data={"order": "o-1"}))
    bus.wait_idle()
    assert bus.handled("orders", "billing") == []


def test_an_order_without_a_sensible_total_is_put_aside(bus: SyncTestBus) -> None:
    bus.publish("orders", order(total="ten"))
    bus.wait_idle()
    (letter,) = bus.dead_letters("orders", "billing")
    assert letter.reason == "invalid data"
    assert bus.published("bills") == []


def test_a_bill_that_fails_is_tried_again(bus: SyncTestBus, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(shop, "tax", lambda total: 1 / 0)
        bus.publish("orders", order(total=10.0))
        bus.wait_idle()
    bus.advance(1)  # the first retry comes within a second
    assert [one.outcome for one in bus.handled("orders", "billing")] == ["retry", "ack"]
