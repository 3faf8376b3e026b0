"""Errors: each of the provider's has its portable one, and says what to do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from crossbus.conformance.cases import case
from crossbus.conformance.trial import Trial
from crossbus.errors import CrossbusError, ErrorCode, NotFound, ProviderError, provider_error
from crossbus.topology import Subscription, Topic


@case("errors/provider-codes", "each provider code has its portable code, and says whether to retry")
async def provider_codes(t: Trial) -> None:
    bus, topic = t.bus(), t.topic()
    bus.topic(topic)
    missing = t.topic()
    async with bus:
        adapter = bus.adapter_for(topic)
        for error, code, retryable in t.harness.provider_errors():
            found = adapter.error_code(error)
            assert found == (code, retryable), (
                f"{error!r} has the portable code {found}, not {(code, retryable)}"
            )
        for strange in (ValueError("not the SDK's"), KeyError("x"), RuntimeError()):
            assert adapter.error_code(strange) is None, (
                f"{strange!r} is not the SDK's, but has a portable code"
            )
        known = provider_error(ErrorCode.THROTTLED, "too many requests")
        assert adapter.error_code(known) in (None, (ErrorCode.THROTTLED, True)), (
            f"Throttled has the portable code {adapter.error_code(known)}"
        )
        (outcome,) = await adapter.send(Topic(missing), [adapter.encode(Topic(missing), t.events(1)[0])])
        if outcome.retryable:  # put in by a wrapper
            (outcome,) = await adapter.send(Topic(missing), [adapter.encode(Topic(missing), t.events(1)[0])])
        assert outcome.code in (ErrorCode.NOT_FOUND, ErrorCode.THROTTLED, ErrorCode.UNAVAILABLE), (
            f"publishing to a topic that is not there answered {outcome.code}"
        )
        try:
            await bus.publish(missing, t.events(1)[0])
        except NotFound as error:
            assert error.code is ErrorCode.NOT_FOUND and not error.retryable, (
                "NotFound says that it may be retried"
            )
            assert "\n" not in str(error), f"the error has more than one line: {error}"
            assert missing in str(error), f"the error does not name what is missing: {error}"
        else:
            raise AssertionError("publishing to a topic that is not there went well")


@case(
    "errors/closed-adapter", "an adapter that is not open answers with an error of crossbus, not of its own"
)
async def closed_adapter(t: Trial) -> None:
    adapter = await t.adapter()
    topic = Topic(t.topic())
    wire = adapter.encode(topic, t.events(1)[0])
    await adapter.close()
    await adapter.close()
    subscription = Subscription(topic=topic, name="closed")
    calls: list[Callable[[], Awaitable[Any]]] = [
        lambda: adapter.send(topic, [wire]),
        lambda: adapter.open_receiver(subscription, 1),
    ]
    for call in calls:
        try:
            answer = await call()
        except CrossbusError:
            continue
        except Exception as error:
            assert adapter.error_code(error) is not None, (
                f"a closed adapter raised {type(error).__name__}: {error}"
            )
            continue
        outcomes = answer if isinstance(answer, (list, tuple)) else ()
        assert outcomes and outcomes[0].code is not None, "a closed adapter did what it was asked"


@case(
    "errors/bad-credentials",
    "bad credentials: one line that says what to set",
    starred=True,
    requires={"credentials"},
)
async def bad_credentials(t: Trial) -> None:
    await _one_line(t, "invalid")


@case(
    "errors/missing-permission",
    "a missing permission: one line that names it",
    starred=True,
    requires={"credentials"},
)
async def missing_permission(t: Trial) -> None:
    await _one_line(t, "permission")


@case(
    "errors/missing-configuration",
    "a missing region or project: one line that says what to set",
    starred=True,
    requires={"credentials"},
)
async def missing_configuration(t: Trial) -> None:
    await _one_line(t, "configuration")


async def _one_line(t: Trial, what: str) -> None:
    adapter, word = t.harness.broken_credentials(what)
    topic = Topic(t.topic())
    try:
        await adapter.open()
        outcomes = await adapter.send(topic, [adapter.encode(topic, t.events(1)[0])])
        text = outcomes[0].message
        assert outcomes[0].code is not None, f"publishing with {what} credentials went well"
    except CrossbusError as error:
        text = str(error)
        if isinstance(error, ProviderError):
            assert not error.retryable, (
                f"{type(error).__name__} for {what} credentials says that it may be retried"
            )
    finally:
        await adapter.close()
    assert "\n" not in text, f"the error for {what} credentials has more than one line: {text}"
    assert word in text, f"the error for {what} credentials does not say {word!r}: {text}"
