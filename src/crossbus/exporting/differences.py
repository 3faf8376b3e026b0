"""In what two topology documents differ, in lines for people and as data."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, NamedTuple

from crossbus.exporting.making import Document

__all__ = ["Difference", "differences"]

_SIGNS: Final = {"added": "+", "removed": "-", "changed": "~", "unknown": "?"}


class Difference(NamedTuple):
    """One difference. `str` of it is a line."""

    change: Literal["added", "removed", "changed", "unknown"]
    """`unknown` if a permission to look is lacking."""
    kind: Literal["topic", "subscription", "topology", "resource"]
    """`resource` for something of the provider's that nobody declares."""
    name: str
    """The logical name, as ``orders/billing``; of a resource, the provider's."""
    key: str = ""
    """What of it is another: ``pubsub.filter``. Empty for all of it."""
    before: Any = None
    after: Any = None
    detail: str = ""
    """More, in words."""

    def __str__(self) -> str:
        text = f"{_SIGNS[self.change]} {self.kind} {self.name}".rstrip()
        if self.key:
            text += f": {self.key} {_shown(self.before)} -> {_shown(self.after)}"
        return f"{text}: {self.detail}" if self.detail else text


def differences(before: Document, after: Document) -> list[Difference]:
    """Return in what the second document differs from the first, topics before subscriptions, by name."""
    one, other = before["topology"], after["topology"]
    found = [
        Difference("changed", "topology", "", name, one.get(name), other.get(name))
        for name in ("profile", "names")
        if one.get(name) != other.get(name)
    ]
    found += _of("topic", one["topics"], other["topics"])
    found += _of("subscription", one["subscriptions"], other["subscriptions"])
    return found


def _of(
    kind: Literal["topic", "subscription"], before: Mapping[str, Any], after: Mapping[str, Any]
) -> Iterator[Difference]:
    for name in sorted({*before, *after}):
        if name not in before:
            yield Difference("added", kind, name)
        elif name not in after:
            yield Difference("removed", kind, name)
        else:
            one, other = dict(_leaves(before[name])), dict(_leaves(after[name]))
            for key in sorted({*one, *other}):
                if one.get(key) != other.get(key):
                    yield Difference("changed", kind, name, key, one.get(key), other.get(key))


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Give the single values in something; None is as good as absent, for so terraform's optional attributes are."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}" if path else str(key))
    elif value is not None:
        yield path, value


def _shown(value: Any) -> str:
    if value is None or value == "":
        return "(none)"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
