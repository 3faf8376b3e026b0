"""`crossbus tail`: the events of a topic as they come, by a subscription that is gone afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Iterator
from datetime import UTC

from crossbus.adapter import Adapter, Received, Receiver, Settlement
from crossbus.asking import guarded
from crossbus.cli.exits import ExitCode, fail, note
from crossbus.cli.interrupts import terminate_as_interrupted
from crossbus.cli.left_over import LeftOver, leaving, left_over
from crossbus.cli.logs import show_log
from crossbus.cli.places import connected
from crossbus.cli.showing import form_of, one_line
from crossbus.codecs import encode_json
from crossbus.errors import ConfigurationError, CrossbusError, DeclarationError, DecodeError, PermissionDenied
from crossbus.event import Event
from crossbus.filters import Filter, parse
from crossbus.topology import Subscription
from crossbus.wire import take_own

__all__ = ["clean_up", "watch_topic"]

_CAPABILITY = "temporary_subscriptions"
_BATCH = 100
_WAIT = 20.0


def watch_topic(
    topic: str,
    *,
    filter: str | None,
    form: str | None,
    limit: int | None,
    url: str | None,
    profile: str | None,
    config: str | None,
) -> ExitCode:
    """Show events until Ctrl-C, or until so many came.

    Raises `PermissionDenied`, naming what is needed, if the subscription may not be made.
    """
    show_log()
    terminate_as_interrupted()
    wanted = _filter(filter)
    form = form or form_of(None)

    async def main() -> None:
        async with connected(url, profile, config) as places:
            adapter, declared = await places.topic(topic)
            adapter.capabilities.require(_CAPABILITY, adapter.name, f"tail {topic}")
            needs = None if adapter.is_local else adapter.permissions.get(_CAPABILITY)
            note(f"tail makes a subscription of its own on {topic}, and removes it at the end{_needs(needs)}")
            try:
                async with adapter.temporary_subscription(declared, wanted) as subscription:
                    with leaving(_identity(adapter), subscription):
                        await _watch(adapter, subscription, wanted, form, limit)
            except Exception as error:
                found = await _portable(adapter, error)
                if isinstance(found, PermissionDenied) and needs:
                    raise type(found)(f"{found}; tail needs {needs}") from error
                raise found from None

    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        note("stopped")
    return ExitCode.OK


async def _portable(adapter: Adapter, error: Exception) -> BaseException:
    async def failing() -> None:
        raise error

    try:
        await guarded(adapter, failing())
    except Exception as found:
        return found
    return error


def _needs(permissions: str | None) -> str:
    return f"; it needs {permissions}" if permissions else ""


def _filter(text: str | None) -> Filter | None:
    if text is None:
        return None
    try:
        return parse(json.loads(text))
    except (ValueError, DeclarationError) as error:
        raise ConfigurationError(
            f"""--filter is no filter: {error}; write one such as {{"exact": {{"type": "com.acme.order.placed"}}}}"""
        ) from None


async def _watch(
    adapter: Adapter, subscription: Subscription, wanted: Filter | None, form: str, limit: int | None
) -> None:
    residual = None if wanted is None else adapter.compile(wanted).residual
    low, high = adapter.capabilities.receive_wait
    receiver = await guarded(adapter, adapter.open_receiver(subscription, _BATCH))
    note(f"watching {subscription.topic.name}; Ctrl-C ends it")
    left = limit
    try:
        while left is None or left > 0:
            most = _BATCH if left is None else min(_BATCH, left)
            most = min(most, adapter.capabilities.receive_batch)
            came = await guarded(adapter, receiver.receive(most, min(max(_WAIT, low), high)))
            for received in came:
                shown = _show(adapter, received, residual, form)
                left = left if left is None or not shown else left - 1
            sys.stdout.flush()
            await _settle(adapter, receiver, came)
    finally:
        await receiver.close()


async def _settle(adapter: Adapter, receiver: Receiver, came: object) -> None:
    settlements = [Settlement(received.lease) for received in came]  # type: ignore[attr-defined]
    if settlements:
        with contextlib.suppress(CrossbusError):  # it would come again, and be shown again
            await guarded(adapter, receiver.settle(settlements))


def _show(adapter: Adapter, received: Received, residual: Filter | None, form: str) -> bool:
    try:
        event, own = take_own(adapter.decode(received))
    except DecodeError as error:
        fail(f"message {received.message_id} is no CloudEvent: {one_line(str(error))}")
        return True
    if own.subscription is not None or (residual is not None and not residual.matches(event)):
        return False  # a redriven copy is another subscription's
    if form == "json":
        sys.stdout.buffer.write(encode_json(event) + b"\n")
        sys.stdout.buffer.flush()
    elif form == "whole":
        for line in json.dumps(json.loads(encode_json(event)), indent=2, ensure_ascii=False).splitlines():
            print(one_line(line))
        print()
    else:
        print(("\t" if form == "lines" else "  ").join(map(one_line, _line(event))))
    return True


def _line(event: Event) -> Iterator[str]:
    yield "-" if event.time is None else event.time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    yield event.type
    yield event.id
    yield event.source or "-"
    yield event.subject or "-"
    data = event.data_bytes
    yield data.decode("utf-8", "backslashreplace") if data else "-"


# --- after a crash --------------------------------------------------------------------------------------------------


def _identity(adapter: Adapter) -> str:
    return f"{adapter.profile.scheme}:{adapter.profile.target}"


def clean_up(topic: str, *, url: str | None, profile: str | None, config: str | None) -> ExitCode:
    """Remove the subscriptions that a tail of this topic left that was killed; those of running ones stay."""
    show_log()

    async def main() -> ExitCode:
        removed, code = 0, ExitCode.OK
        async with connected(url, profile, config) as places:
            adapter, declared = await places.topic(topic)
            for found in left_over(_identity(adapter), topic):
                subscription = Subscription(topic=declared, name=found.name, filter=_filter_of(found))
                try:
                    await guarded(adapter, adapter.remove_temporary(subscription))
                except CrossbusError as error:
                    fail(f"{subscription}: {one_line(str(error))}")
                    code = ExitCode.FAILED
                else:
                    removed += 1
                    found.forget()
        print(f"removed {removed} subscriptions that a killed tail left on {topic}")
        return code

    return asyncio.run(main())


def _filter_of(found: LeftOver) -> Filter | None:
    return None if found.filter is None else parse(found.filter)
