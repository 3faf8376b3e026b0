"""One long poll: what it brings, and what becomes of it if nobody waits for it any more."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec

from crossbus.adapter import LeaseOutcome
from crossbus.errors import DecodeError
from crossbus.json_parts import elements_of, members_of, utf8_of
from crossbus_eventgrid.failures import outcome_of_code
from crossbus_eventgrid.identity import message_id
from crossbus_eventgrid.rest import Place, Rest

__all__ = ["Polling", "Taken", "settle_tokens"]

GRACE: Final = 0.5
"""Seconds that the answer of a poll that was given up may still take. Event Grid cannot be told that nobody waits:
what it hands out while the connection ends is locked, and comes again only when the lock ends."""
TOKENS_AT_ONCE: Final = 100
"""The most lock tokens of one request: as many as one receive can hand out."""


class Taken(NamedTuple):
    """An event as it was handed out."""

    token: str
    attempt: int
    """How often it was handed out, this time included."""
    body: bytes
    message_id: str


class _Broker(msgspec.Struct):
    lock_token: str = msgspec.field(name="lockToken")
    delivery_count: int = msgspec.field(name="deliveryCount", default=1)


class _Entry(msgspec.Struct):
    broker: _Broker = msgspec.field(name="brokerProperties")
    event: msgspec.Raw


class _Answer(msgspec.Struct):
    value: list[_Entry] = []


class _Problem(msgspec.Struct):
    code: str = ""


class _Failed(msgspec.Struct):
    lock_token: str = msgspec.field(name="lockToken")
    error: _Problem | None = None


class _Settled(msgspec.Struct):
    succeeded: list[str] = msgspec.field(name="succeededLockTokens", default_factory=list)
    failed: list[_Failed] = msgspec.field(name="failedLockTokens", default_factory=list)


_decode = msgspec.json.Decoder(_Answer).decode
_decode_broker = msgspec.json.Decoder(_Broker).decode
_decode_settled = msgspec.json.Decoder(_Settled).decode


class Polling:
    """The polls of one subscription."""

    def __init__(self, rest: Rest, place: Place) -> None:
        self._rest = rest
        self._place = place
        self._given_up: set[asyncio.Task[None]] = set()
        self._closing: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def poll(self, most: int, wait: int, patience: float | None = None) -> list[Taken]:
        """Take up to `most` events, as soon as there is one, or none after `wait` seconds.

        With `patience` it is given up after so many seconds, since no wait is shorter than 10. Of a poll that is
        given up, cancelled or closed, the answer is waited for a moment longer, elsewhere, and what it brings is
        released.
        """
        if self._closing.done():
            return []
        call = asyncio.ensure_future(
            self._rest.operate(
                self._place, "receive", None, query={"maxEvents": most, "maxWaitTime": wait}, wait=wait
            )
        )
        try:
            either: set[asyncio.Future[Any]] = {call, self._closing}
            await asyncio.wait(either, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self._give_up(call)
            raise
        if not call.done():
            self._give_up(call)
            return []
        return _taken(call.result())

    def _give_up(self, call: asyncio.Future[bytes]) -> None:
        task = asyncio.get_running_loop().create_task(self._release(call), name="crossbus eventgrid release")
        self._given_up.add(task)
        task.add_done_callback(self._given_up.discard)

    async def _release(self, call: asyncio.Future[bytes]) -> None:
        done, _ = await asyncio.wait({call}, timeout=GRACE)
        if not done:
            call.cancel()
            await asyncio.wait({call})
        with contextlib.suppress(Exception, asyncio.CancelledError):
            tokens = [taken.token for taken in _taken(call.result())]
            if tokens:
                await settle_tokens(self._rest, self._place, "release", tokens, {"releaseDelayInSeconds": 0})

    async def quiet(self) -> None:
        """Wait until the polls that were given up have ended, and what they brought is released."""
        if self._given_up:
            await asyncio.wait(set(self._given_up))

    async def close(self) -> None:
        """End the polls, and wait until what they still bring is released."""
        if not self._closing.done():
            self._closing.set_result(None)
            await asyncio.sleep(0)  # those who wait in a poll give it up now
        await self.quiet()


def _taken(answer: bytes) -> list[Taken]:
    try:
        entries = [(one.broker, bytes(one.event)) for one in _decode(answer).value]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        entries = _taken_apart(answer)
    return [
        Taken(broker.lock_token, broker.delivery_count, body, message_id(body)) for broker, body in entries
    ]


def _taken_apart(answer: bytes) -> list[tuple[_Broker, bytes]]:
    """Read an answer in which one event is what the fast reader refuses: bytes that are no UTF-8, nesting too deep."""
    try:
        answer = utf8_of(answer)
    except DecodeError:
        answer = answer.decode("utf-8", "replace").encode("utf-8")
    found = []
    for entry in elements_of(members_of(answer, judged=False)["value"]):
        members = members_of(bytes(entry), judged=False)
        found.append((_decode_broker(members["brokerProperties"]), members["event"]))
    return found


async def settle_tokens(
    rest: Rest, place: Place, operation: str, tokens: Sequence[str], query: dict[str, int] | None = None
) -> list[LeaseOutcome]:
    """Acknowledge, release or renew lock tokens; answers for each, in order."""
    outcomes: list[LeaseOutcome] = []
    for start in range(0, len(tokens), TOKENS_AT_ONCE):
        part = tokens[start : start + TOKENS_AT_ONCE]
        body = json.dumps({"lockTokens": part}, separators=(",", ":")).encode()
        answer = _decode_settled(await rest.operate(place, operation, body, query=query))
        failed = {
            one.lock_token: outcome_of_code(one.error.code if one.error else "") for one in answer.failed
        }
        succeeded = set(answer.succeeded)
        for token in part:
            outcome = failed.get(token)
            if outcome is None:
                outcome = LeaseOutcome.OK if token in succeeded else LeaseOutcome.FAILED
            outcomes.append(outcome)
    return outcomes
