"""Templates of events: ``events/TYPE.json`` beside the configuration file, an event in JSON with data to change."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from crossbus.codecs import decode_json
from crossbus.config import Configuration
from crossbus.errors import ConfigurationError, DecodeError, nearest
from crossbus.event import Event, new_id

__all__ = ["FOLDER", "event_of_template"]

FOLDER: Final = "events"
"""Where templates stand, beside the configuration file; without one in the current directory."""
_KINDS: Final = {
    str: "a text",
    bool: "true or false",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "an object",
}


def event_of_template(
    name: str, changes: Sequence[str], configuration: Configuration, **attributes: Any
) -> Event:
    """Make an event of a template, with an id and a time of its own.

    Args:
        name: The event type, or the path of a file.
        changes: ``PATH=VALUE`` each: a place in the data, with dots between its keys, and what is to stand there.
        configuration: Beside whose file the templates stand.
        **attributes: What takes the place of the template's attributes.

    Raises:
        ConfigurationError: there is no such template, it is no event, or a change does not fit it.
    """
    path = _find(name, configuration)
    members = _read(path)
    for text in changes:
        _change(members, text, path)
    members |= {"specversion": "1.0", "id": new_id(), "time": datetime.now(UTC).isoformat()} | attributes
    members.setdefault("source", "/crossbus/cli")
    try:
        return decode_json(msgspec.json.encode(members))
    except DecodeError as error:
        raise ConfigurationError(f"the template {path} is no event: {error}") from None


def _find(name: str, configuration: Configuration) -> Path:
    if name.endswith(".json") or "/" in name:
        return Path(name)
    folder = (Path() if configuration.path is None else configuration.path.parent) / FOLDER
    path = folder / f"{name}.json"
    if not path.exists():
        there = sorted(file.stem for file in folder.glob("*.json"))
        known = f"{nearest(name, there)} (of {len(there)} in {folder})" if there else f"make it: {path}"
        raise ConfigurationError(f"there is no template {name!r}; {known}")
    return path


def _read(path: Path) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(path.read_bytes())
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"the template {path} is no JSON: {error}") from None
    if not isinstance(found, dict) or not isinstance(found.get("type"), str):
        raise ConfigurationError(
            f'the template {path} is no event: write an object with a type, such as {{"type": "com.acme.order.placed", '
            '"source": "/shop", "data": {"order": "o-1"}}'
        )
    return found


def _change(members: dict[str, Any], text: str, path: Path) -> None:
    where, equals, value = text.partition("=")
    if not equals or not where:
        raise ConfigurationError(f"--set {text!r}: write PATH=VALUE, such as total=12.5 or customer.name=Ann")
    *above, last = ("data", *where.split("."))
    place: Any = members
    for part in above:
        place = place[_key(place, part, where, path)]
    key = _key(place, last, where, path)
    place[key] = _fitting(place[key], value, where, path)


def _key(place: Any, part: str, where: str, path: Path) -> Any:
    """Return the key or index of a part of the path. What the template lacks is a slip of the keyboard."""
    if isinstance(place, list) and part.isdecimal() and int(part) < len(place):
        return int(part)
    if isinstance(place, dict) and part in place:
        return part
    if isinstance(place, dict) and place and part != "data":
        raise ConfigurationError(f"--set {where}: {path} has no {part!r} there; {nearest(part, place)}")
    raise ConfigurationError(f"--set {where}: {path} has nothing at {part!r}")


def _fitting(before: object, value: str, where: str, path: Path) -> object:
    """Return the value in the form of what it replaces."""
    if isinstance(before, str):
        return value
    try:
        found = msgspec.json.decode(value)
    except msgspec.DecodeError:
        found = value
    kinds = [_KINDS.get(type(each)) for each in (before, found)]
    if before is not None and found is not None and kinds[0] != kinds[1]:
        raise ConfigurationError(
            f"--set {where}={value}: {path} has {kinds[0]} there, and this is {kinds[1]}"
        )
    return found
