"""What carries events over the native protocol: publish, receive, settle, extend, and records. In MessagePack."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from crossbus.adapter import LeaseOutcome, Received, Settlement, Wire
from crossbus.errors import InvalidRequest
from crossbus_local.base import EVENT_BYTES
from crossbus_local.engine import Engine
from crossbus_local.http.channels import Channels
from crossbus_local.http.native_control import Control
from crossbus_local.protocol import (
    Abandon,
    Deliveries,
    Extend,
    LeaseAnswers,
    Publish,
    Published,
    PutBackAnswer,
    PutBackForm,
    PutBackOne,
    Receive,
    Records,
    Settle,
    SettleOne,
    WireForm,
    data_decoder,
    encode_data,
)
from crossbus_local.receiver import LocalReceiver

if TYPE_CHECKING:
    from crossbus_local.http.native import Call

__all__ = ["Data"]

ROOM: Final = 16_000_000
"""The bytes of bodies in one answer, beside those of its last delivery."""
SETTLED: Final = 50_000
"""How many settled leases are remembered, for those whose client lost the answer."""

_publish = data_decoder(Publish)
_receive = data_decoder(Receive)
_abandon = data_decoder(Abandon)
_settle = data_decoder(Settle)
_extend = data_decoder(Extend)
_records = data_decoder(Records)
_put_back = data_decoder(PutBackForm)
_NONE: Final = encode_data(Deliveries([]))
_T = TypeVar("_T")


class Data:
    """Each method answers one kind of request."""

    def __init__(self, engine: Engine, channels: Channels, control: Control) -> None:
        self._engine = engine
        self._channels = channels
        self._control = control
        self._prefix = f"{engine.identity}-"
        self._settled = _Settled()

    # --- publishing ---------------------------------------------------------------------------------------------

    async def publish(self, call: Call) -> bytes:
        """Put events into a topic."""
        return encode_data(Published(self._engine.publish(call.names[0], _wires(call))))

    async def put(self, call: Call) -> bytes:
        """Put events into one subscription."""
        topic, name = call.names
        return encode_data(Published(self._engine.put(topic, name, _wires(call))))

    async def publish_dead(self, call: Call) -> bytes:
        """Put records into a dead letter."""
        return encode_data(Published(self._engine.publish_dead(call.names[0], _wires(call))))

    # --- consuming ----------------------------------------------------------------------------------------------

    async def receive(self, call: Call) -> bytes:
        """Hand out deliveries, as soon as there is one."""
        topic, name = call.names
        asked = _read(_receive, call)
        self._control.temporary.used(topic, name, asked.wait)
        if asked.lost:
            await self._channels.abandon(asked.channel, asked.lost, asked.arrived)
        receiver = LocalReceiver(self._engine, topic, name, asked.lease, ROOM)
        taken = await self._channels.receive(
            asked.channel, asked.number, receiver, asked.max, asked.wait, call.gone
        )
        return encode_data(Deliveries(self._leased(taken))) if taken else _NONE

    async def abandon(self, call: Call) -> bytes:
        """Give up what was asked for."""
        asked = _read(_abandon, call)
        await self._channels.abandon(asked.channel, asked.lost, asked.arrived)
        return _NONE

    async def settle(self, call: Call) -> bytes:
        """Acknowledge deliveries, or give them back."""
        asked = _read(_settle, call).settlements
        queue = self._engine.find(*call.names)
        outcomes = self._engine.settle(
            queue, [Settlement(self._token(one.lease), one.delay) for one in asked]
        )
        return _answers(self._settled.note(asked, outcomes))

    async def extend(self, call: Call) -> bytes:
        """Make leases last longer."""
        asked = _read(_extend, call)
        topic, name = call.names
        self._control.temporary.used(topic, name)
        tokens = [self._token(lease) for lease in asked.leases]
        return _answers(self._engine.extend(self._engine.find(topic, name), tokens, asked.seconds))

    # --- dead letters -------------------------------------------------------------------------------------------

    async def browse(self, call: Call) -> bytes:
        """Show records of a dead letter: up to ``limit``, after the one whose lease is ``after``."""
        limit = call.query.get("limit", "100")
        if not (limit.isascii() and limit.isdigit() and 1 <= int(limit) <= 1000):
            raise InvalidRequest(f"limit={limit[:40]}: it must be a whole number from 1 to 1000")
        after = self._token(call.query["after"]) if "after" in call.query else 0
        if after < 0:
            raise InvalidRequest("after: it is no lease of this broker; browse from the beginning")
        return encode_data(
            Deliveries(self._leased(self._engine.browse(call.names[0], int(limit), after=after, room=ROOM)))
        )

    async def delete_records(self, call: Call) -> bytes:
        """Remove records of a dead letter."""
        tokens = [self._token(lease) for lease in _read(_records, call).leases]
        return _answers(self._engine.delete_records(call.names[0], tokens))

    async def put_back(self, call: Call) -> bytes:
        """Put events into a subscription in the place of their records."""
        asked = _read(_put_back, call)
        _check_sizes("records", asked.records)
        first, there = self._engine.put_back(
            call.names[0],
            asked.topic,
            asked.subscription,
            [(self._token(one.lease), _wire(one)) for one in asked.records],
        )
        return encode_data(PutBackAnswer(first, there))

    # --- leases -------------------------------------------------------------------------------------------------

    def _leased(self, taken: Sequence[Received]) -> list[Received]:
        for one in taken:
            one.lease = f"{self._prefix}{one.lease}"
        return list(taken)

    def _token(self, lease: str) -> int:
        """Return the engine's token of a lease; -1, which none is, for one of another broker."""
        number = lease[len(self._prefix) :]
        known = lease.startswith(self._prefix) and number.isascii() and number.isdigit() and len(number) < 20
        return int(number) if known else -1


class _Settled:
    """The last leases that were settled, to tell those whose client lost the answer what it was."""

    def __init__(self) -> None:
        self._last: deque[tuple[str, bool]] = deque(maxlen=SETTLED)
        self._known: set[tuple[str, bool]] = set()

    def note(self, asked: Sequence[SettleOne], outcomes: list[LeaseOutcome]) -> list[LeaseOutcome]:
        for n, one in enumerate(asked):
            what = one.lease, one.delay is None
            if outcomes[n] is LeaseOutcome.OK:
                if len(self._last) == SETTLED:
                    self._known.discard(self._last[0])
                self._last.append(what)
                self._known.add(what)
            elif one.again and what in self._known:
                outcomes[n] = LeaseOutcome.OK
        return outcomes


def _answers(outcomes: Sequence[LeaseOutcome]) -> bytes:
    return encode_data(LeaseAnswers([outcome.value for outcome in outcomes]))


def _wires(call: Call) -> list[Any]:
    wires: list[WireForm] = _read(_publish, call).wires
    _check_sizes("wires", wires)
    return wires


def _check_sizes(name: str, given: Sequence[WireForm | PutBackOne]) -> None:
    for n, one in enumerate(given):
        if len(one.body) > EVENT_BYTES:
            raise InvalidRequest(f"{name}[{n}] has {len(one.body):,} bytes; the limit is {EVENT_BYTES:,}")


def _wire(one: PutBackOne) -> Wire:
    return Wire(one.body, one.attributes, len(one.body), one.key)


def _read(decoder: msgspec.msgpack.Decoder[_T], call: Call) -> _T:
    try:
        return decoder.decode(call.body)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise InvalidRequest(f"the body is not what is asked for here: {error}") from None
