"""What opening checks of what is declared: that it exists, that the adapter can do it, and what may be created."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from tests.scripted import ScriptedAdapter
from tests.support import run

from crossbus import Bus, Change, DeclarationError, Event, NotFound, RetryPolicy, UnsupportedError, exact
from crossbus.adapter import Finding
from crossbus.capabilities import LeaseLimits
from crossbus.topology import Topology


def event(id: str = "e-1", **fields: Any) -> Event:
    return Event(**{"id": id, "type": "t", "source": "/s", **fields})


@contextmanager
def refused(kind: type[Exception], text: str) -> Iterator[None]:
    """Expect exactly this text."""
    with pytest.raises(kind) as caught:
        yield
    assert str(caught.value) == text


def looking(*findings: Finding) -> ScriptedAdapter:
    adapter = ScriptedAdapter()
    adapter.findings = list(findings)
    return adapter


def test_what_is_declared_and_not_there_is_not_found_and_nothing_is_created() -> None:
    async def scenario() -> None:
        adapter = looking(Finding("subscription", "orders/billing", "queue orders--billing", "missing"))
        bus = Bus(adapter=adapter)
        bus.subscribe("orders", "billing")
        with refused(
            NotFound,
            "subscription 'orders/billing' does not exist on scripted (looked for queue orders--billing); create it "
            "with crossbus provision or await bus.provision(), or as you create other resources",
        ):
            await bus.open()
        assert not bus.is_open
        assert adapter.provisioned == []
        assert adapter.closed == 1

    run(scenario())


def test_what_may_not_be_looked_at_is_one_warning_for_each_permission(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        adapter = looking(
            Finding("topic", "orders", "bus", "unknown", "events:DescribeEventBus is not allowed"),
            Finding("topic", "invoices", "bus", "unknown", "events:DescribeEventBus is not allowed"),
            Finding("subscription", "orders/billing", "queue", "unknown", "sqs:GetQueueUrl is not allowed"),
            Finding("subscription", "orders/audit", "queue", "ok"),
        )
        bus = Bus(adapter=adapter)
        bus.subscribe("orders", "billing")
        async with bus:
            await bus.publish("orders", event())
        assert adapter.published == ["e-1"]

    run(scenario())
    assert [record.getMessage() for record in caplog.records] == [
        "cannot check orders on scripted, going on: events:DescribeEventBus is not allowed",
        "cannot check orders/billing on scripted, going on: sqs:GetQueueUrl is not allowed",
    ]


def test_what_differs_from_its_declaration_is_said(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        adapter = looking(
            Finding("subscription", "orders/billing", "queue", "differs", "lease 30 s, not 60 s")
        )
        bus = Bus(adapter=adapter)
        bus.subscribe("orders", "billing")
        async with bus:
            assert bus.is_open

    run(scenario())
    assert [record.getMessage() for record in caplog.records] == [
        "subscription orders/billing differs from its declaration: lease 30 s, not 60 s"
    ]


@pytest.mark.parametrize(
    ("provision", "local", "created"),
    [("auto", False, 0), ("auto", True, 1), ("always", False, 1), ("never", True, 0)],
)
def test_what_is_declared_is_created_where_that_is_allowed(provision: Any, local: bool, created: int) -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        adapter.local = local
        bus = Bus(adapter=adapter, provision=provision)
        bus.topic("orders")
        async with bus:
            assert adapter.provisioned == [Change("create", "topic", "orders")] * created
            bus.topic("invoices")  # declared later: when it is needed
            await bus.publish("invoices", event())
            await bus.publish("invoices", event())
            assert [change.name for change in adapter.provisioned] == ["orders", "invoices"][: 2 * created]

    run(scenario())


@pytest.mark.parametrize(
    ("raised", "expected", "text"),
    [
        (ConnectionError("refused"), "Unavailable", "scripted: refused"),
        (PermissionError("no"), "PermissionDenied", "scripted: no"),
        (NotFound("as it is"), "NotFound", "as it is"),
        (ZeroDivisionError("a defect"), "ZeroDivisionError", "a defect"),
    ],
)
def test_what_the_sdk_raises_while_opening_is_portable(raised: Exception, expected: str, text: str) -> None:
    class Failing(ScriptedAdapter):
        async def inspect(self, topology: Topology) -> Any:
            raise raised

    async def scenario() -> None:
        bus = Bus(adapter=Failing())
        bus.topic("orders")
        with pytest.raises(type(raised) if expected == "ZeroDivisionError" else Exception) as caught:
            await bus.open()
        assert (type(caught.value).__name__, str(caught.value)) == (expected, text)
        if caught.value is not raised:
            assert caught.value.__cause__ is raised
        assert not bus.is_open

    run(scenario())


@pytest.mark.parametrize(
    ("capability", "capabilities", "declared", "text"),
    [
        (
            "ordering",
            {"without": ["ordering"]},
            {"ordered": True},
            "subscription orders/billing is ordered: scripted cannot do that; it has no ordering (",
        ),
        (
            "attempts",
            {"without": ["attempts"]},
            {},
            "subscription orders/billing has a limit of 5 attempts, but scripted does not tell attempt numbers "
            'there; use RetryPolicy(attempts="unlimited")',
        ),
        (
            "extend_lease",
            {"lease": LeaseLimits(minimum=10, maximum=600)},
            {"lease": 5},
            "subscription orders/billing: a lease of 5 s; scripted allows 10 to 600 s",
        ),
        (
            "extend_lease",
            {"lease": LeaseLimits(minimum=10, maximum=600)},
            {"lease": 601},
            "subscription orders/billing: a lease of 601 s; scripted allows 10 to 600 s",
        ),
        (
            "backstop",
            {"without": ["backstop"]},
            {"backstop": 50},
            "subscription orders/billing has a backstop: scripted cannot do that; it has no backstop (",
        ),
        (
            "backstop",
            {"backstop": (5, 100)},
            {"backstop": 101},
            "subscription orders/billing: a backstop of 101 receives; scripted allows 5 to 100",
        ),
    ],
)
def test_what_the_adapter_lacks_is_refused_at_start_by_name(
    capability: str, capabilities: dict[str, Any], declared: dict[str, Any], text: str
) -> None:
    async def scenario() -> None:
        bus = Bus(adapter=ScriptedAdapter(**capabilities))
        bus.subscribe("orders", "billing", **declared)
        with pytest.raises(UnsupportedError) as caught:
            await bus.open()
        assert str(caught.value).startswith(text)
        assert caught.value.capability == capability
        assert not bus.is_open

    run(scenario())


def test_what_the_adapter_has_is_let_through() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter(
            without=["attempts"], backstop=(5, 100), lease=LeaseLimits(minimum=10, maximum=600)
        )
        bus = Bus(adapter=adapter)
        retry = RetryPolicy(attempts="unlimited")
        bus.subscribe("orders", "billing", ordered=True, retry=retry, lease=10, backstop=100)
        async with bus:
            assert bus.is_open

    run(scenario())


def test_an_external_subscription_with_a_filter_must_say_what_happens_to_the_rest() -> None:
    async def scenario() -> None:
        bus = Bus(adapter=ScriptedAdapter())
        bus.subscribe("orders", "billing", resource="queue", external=True, filter=exact(type="t"))
        with refused(
            DeclarationError,
            "subscription orders/billing is external and has a filter: say what happens to the events it does not "
            'match, which are somebody\'s: on_mismatch="release", "dead_letter" or "drop"',
        ):
            await bus.open()

    run(scenario())
