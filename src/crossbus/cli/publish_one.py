"""`crossbus publish TOPIC --type ...` and `--template ...`: one event, made of the arguments."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from crossbus.bus import Bus
from crossbus.cli.exits import ExitCode, note
from crossbus.cli.logs import show_log
from crossbus.cli.notices import invisible
from crossbus.cli.templates import event_of_template
from crossbus.errors import ConfigurationError
from crossbus.event import Event

__all__ = ["publish_one"]


def publish_one(
    topic: str,
    *,
    type: str | None,
    template: str | None,
    changes: Sequence[str],
    data: str | None,
    subject: str | None,
    id: str | None,
    extensions: Sequence[str],
    source: str | None,
    url: str | None,
    profile: str | None,
    config: str | None,
) -> ExitCode:
    """Publish one event and say its id. Raises `CrossbusError` for an event that is not allowed, or not taken."""
    show_log()
    given = {"source": source, "subject": subject, "id": id}
    attributes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    added = dict(map(_extension, extensions))
    bus = Bus(url, profile=profile, config=config)
    bus.topic(topic)
    if template is not None:
        assert bus._configuration is not None
        event = event_of_template(template, changes, bus._configuration, **attributes, **added)
    else:
        if data is not None:
            attributes["data"] = _data(data)
        event = Event(**{"type": type, "source": "/crossbus/cli", **attributes}, extensions=added)

    async def main() -> None:
        async with bus:
            if (text := invisible(bus.adapter_for(topic))) is not None:
                note(text)
                show_log("crossbus.local")
            await bus.publish(topic, event)

    asyncio.run(main())
    print(f"published {event.id} to {topic}", flush=True)
    return ExitCode.OK


def _data(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ConfigurationError(
            f'--data is no JSON ({error}): write --data \'{{"order": "o-1"}}\', or a text as --data \'"hello"\''
        ) from None


def _extension(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ConfigurationError(f"--extension {text!r}: write NAME=VALUE, such as tenant=t-1")
    return name, value
