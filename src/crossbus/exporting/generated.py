"""`crossbus.generated.toml`: what tools found out that a profile has to say, beside the file that people write.

It holds one thing: the older generations that consumers of a subscription still have to read, where its filter was
changed and the provider cannot change filters. Who may list subscriptions finds them himself.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from crossbus.config import Configuration
from crossbus.errors import ConfigurationError
from crossbus.exporting.files import write
from crossbus.topology import Subscription, Topology
from crossbus.urls import URL_PROFILE

__all__ = ["GENERATED", "keep_generations", "without_generated"]

GENERATED: Final = "crossbus.generated.toml"
KEY: Final = "generations"
"""The option that the file says of subscriptions."""

_Table = dict[str, dict[str, list[str]]]
"""By profile and subscription, the generations."""


def keep_generations(configuration: Configuration | None, found: Mapping[str, Sequence[str]]) -> list[str]:
    """Write the generations of subscriptions into the profile taken; of others, what the file says stays.

    Returns what the user should know, in lines. Raises `ConfigurationError` if the file holds what is not of this kind.
    """
    if configuration is None or configuration.path is None or configuration.default.name == URL_PROFILE:
        return [
            f"{key} is read from older generations too ({', '.join(names)}): a consumer that may not list them "
            f"needs them as its options.{KEY} in a profile"
            for key, names in found.items()
            if names
        ]
    profile, lines, ours = configuration.default, [], {}
    for key, names in found.items():
        said = _said(configuration, key)
        if said is None:
            ours[key] = list(names)
        elif said != list(names):
            lines.append(
                f"{configuration.label} says options.{KEY} of {key} itself; it should be {json.dumps(names)}"
            )
    file = configuration.path.parent / GENERATED
    content = _read(file)
    if not any(ours.values()) and not _at(content, "profiles", profile.name):
        return lines
    table = _table_of(content, file)
    before = table.get(profile.name, {})
    table[profile.name] = {key: names for key, names in {**before, **ours}.items() if names}
    if write(file, _text(table)):
        lines.append(
            f"{GENERATED} is written: the older generations of subscriptions in profile {profile.name}"
        )
    if table[profile.name] and not _is_included(configuration):
        lines.append(
            f"{configuration.label} does not include it, so that consumers which may not list subscriptions miss them: "
            f'add include = ["{GENERATED}"] to it'
        )
    return lines


def without_generated(configuration: Configuration | None, topology: Topology) -> Topology:
    """Return a topology without the generations that the file says: who provisions looks which there are."""
    if configuration is None:
        return topology

    def bare(one: Subscription) -> Subscription:
        if KEY not in one.options or _said(configuration, str(one)) is not None:
            return one
        return one.replace(options={name: value for name, value in one.options.items() if name != KEY})

    return Topology(topology.topics, tuple(map(bare, topology.subscriptions)))


def _said(configuration: Configuration, key: str) -> list[str] | None:
    """Return the generations that people say of a subscription; None if they say nothing."""
    assert configuration.document is not None
    source = configuration.document.source
    for label, content in source.parts or ((source.label, source.content),):
        if label == _label(configuration):
            continue
        for holder in (_at(content, "profiles", configuration.default.name), content):
            said = _at(holder, "subscriptions", key, "options", KEY)
            if said is not None:
                return list(said)
    return None


def _is_included(configuration: Configuration) -> bool:
    assert configuration.document is not None
    return _label(configuration) in dict(configuration.document.source.parts)


def _label(configuration: Configuration) -> str:
    return str(Path(configuration.label).parent / GENERATED)


def _at(table: Any, *path: str) -> Any:
    for key in path:
        table = table.get(key) if isinstance(table, Mapping) else None
    return table


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{str(file)!r} cannot be read: {error}") from error


def _table_of(content: dict[str, Any], file: Path) -> _Table:
    table: _Table = {}
    for profile, settings in (_at(content, "profiles") or {}).items():
        for key in _at(settings, "subscriptions") or {}:
            table.setdefault(profile, {})[key] = _at(settings, "subscriptions", key, "options", KEY)
    if content and _content(table) != content:
        raise ConfigurationError(
            f"{str(file)!r} holds what crossbus did not write there: move it into a file of its own, and include that"
        )
    return table


def _content(table: _Table) -> dict[str, Any]:
    return {
        "profiles": {
            profile: {"subscriptions": {key: {"options": {KEY: names}} for key, names in settings.items()}}
            for profile, settings in table.items()
        }
    }


def _text(table: _Table) -> str:
    lines = [
        "# Written by crossbus; crossbus.toml includes it. Older generations of subscriptions, which consumers read",
        "# until they are pruned.",
    ]
    for profile, settings in sorted(table.items()):
        for key, names in sorted(settings.items()):
            lines += [
                "",
                f'[profiles.{profile}.subscriptions."{key}".options]',
                f"{KEY} = {json.dumps(names)}",
            ]
    return "\n".join(lines) + "\n"
