"""What is managed over the native protocol: topics, subscriptions, dead letters, backlog and replay. In JSON."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from crossbus import __version__
from crossbus.adapter import ReplayFrom
from crossbus.errors import Conflict, InvalidRequest, nearest
from crossbus_local.engine import Engine
from crossbus_local.http.options import ServerOptions
from crossbus_local.http.temporary import Temporary
from crossbus_local.protocol import (
    PROTOCOL,
    Info,
    Replay,
    backlog_to_json,
    encode_json,
    snapshot_to_json,
)
from crossbus_local.provisioning import Snapshot
from crossbus_local.settings_json import settings_from_json

if TYPE_CHECKING:
    from crossbus_local.http.native import Call

__all__ = ["Control", "check_keys"]

LONGEST_TEMPORARY: Final = 3600.0
"""The most seconds for which a temporary subscription stays without being used."""
_DONE: Final = b"{}"
_decode_json = msgspec.json.Decoder().decode
_decode_replay = msgspec.json.Decoder(Replay).decode


class Control:
    """Each method answers one kind of request."""

    def __init__(self, engine: Engine, options: ServerOptions) -> None:
        self._engine = engine
        self._options = options
        self._temporary: Temporary | None = None

    @property
    def temporary(self) -> Temporary:
        """The temporary subscriptions. Made by the first request, when there is an event loop."""
        if self._temporary is None:
            self._temporary = Temporary(self._engine)
        return self._temporary

    async def info(self, call: Call) -> bytes:
        """Say what this is."""
        _ = self.temporary
        storage = "memory" if self._options.path is None else "sqlite"
        return encode_json(Info(__version__, PROTOCOL, self._engine.identity, storage, self._engine.history))

    async def list(self, call: Call) -> bytes:
        """List what there is."""
        return encode_json(snapshot_to_json(Snapshot(self._engine.topics(), self._engine.dead_letters())))

    async def put_topic(self, call: Call) -> bytes:
        """Make a topic; one that is there stays as it is."""
        check_keys("key", _object(call.body), ())
        self._engine.create_topic(*call.names)
        return _DONE

    async def delete_topic(self, call: Call) -> bytes:
        """Delete a topic; one that is not there stays away."""
        self._engine.delete_topic(*call.names)
        return _DONE

    async def put_subscription(self, call: Call) -> bytes:
        """Make a subscription, or change its settings; ``?temporary=SECONDS`` for one that ends unless it is used."""
        topic, name = call.names
        settings = settings_from_json(_object(call.body))
        seconds = _seconds(call.query["temporary"]) if "temporary" in call.query else None
        if seconds is not None and self.temporary.is_durable(topic, name):
            raise Conflict(f"subscription {topic}/{name} is there, and not temporary; take another name")
        if seconds is None and self.temporary.is_durable(topic, name) is False:
            raise Conflict(
                f"subscription {topic}/{name} is there, and temporary: it would end with its events; delete it first, "
                "or take another name"
            )
        self._engine.put_subscription(topic, name, settings, temporary=seconds is not None)
        if seconds is not None:
            self.temporary.keep(topic, name, seconds)
        return _DONE

    async def delete_subscription(self, call: Call) -> bytes:
        """Delete a subscription and what waits in it."""
        topic, name = call.names
        self.temporary.forget(topic, name)
        self._engine.delete_subscription(topic, name)
        return _DONE

    async def put_dead_letter(self, call: Call) -> bytes:
        """Make a dead letter; one that is there stays as it is."""
        check_keys("key", _object(call.body), ())
        self._engine.create_dead_letter(*call.names)
        return _DONE

    async def delete_dead_letter(self, call: Call) -> bytes:
        """Delete a dead letter and its records."""
        self._engine.delete_dead_letter(*call.names)
        return _DONE

    async def backlog(self, call: Call) -> bytes:
        """Count what waits in a subscription."""
        topic, name = call.names
        return encode_json(backlog_to_json(self._engine.backlog(topic, name)))

    async def pause(self, call: Call) -> bytes:
        """Hand out nothing of a subscription until it is resumed."""
        return self._pause(call, True)

    async def resume(self, call: Call) -> bytes:
        """Hand out what waits in a subscription again."""
        return self._pause(call, False)

    def _pause(self, call: Call, paused: bool) -> bytes:
        check_keys("key", _object(call.body), ())
        topic, name = call.names
        return encode_json({"changed": self._engine.pause_subscription(topic, name, paused)})

    async def replay(self, call: Call) -> bytes:
        """Deliver past events again."""
        topic, name = call.names
        try:
            asked = _decode_replay(call.body)
            time = None if asked.time is None else datetime.fromtimestamp(asked.time, UTC)
            start = ReplayFrom(time, asked.position)
        except (msgspec.DecodeError, ValueError, OverflowError, OSError) as error:
            raise InvalidRequest(f"replay: {error}") from None
        return encode_json({"count": self._engine.replay(topic, name, start)})


def _object(body: bytes) -> dict[str, Any]:
    if not body:
        return {}
    try:
        found = _decode_json(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"the body is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise InvalidRequest("the body must be a JSON object")
    return found


def check_keys(what: str, given: Iterable[str], allowed: tuple[str, ...]) -> None:
    """Raise `InvalidRequest` for a key that is not allowed."""
    for key in given:
        if key not in allowed:
            raise InvalidRequest(f"unknown {what} {key[:80]!r}; {nearest(key[:80], allowed)}")


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= LONGEST_TEMPORARY:
        raise InvalidRequest(
            f"temporary={text[:40]}: it must be a number of seconds above 0 and up to {LONGEST_TEMPORARY:g}"
        )
    return seconds
