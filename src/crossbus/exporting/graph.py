"""A topology document as a Mermaid graph: topics, subscriptions with their filters, and dead letters.

https://mermaid.js.org/syntax/flowchart.html; GitHub, GitLab and this documentation's theme draw it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from crossbus.exporting.making import Document
from crossbus.filters import parse

__all__ = ["as_mermaid"]

_SPECIAL = re.compile(r'[#"<>`&\\\n]')


def as_mermaid(document: Document, provider: str = "") -> str:
    """Draw a document. What `provider` cannot hold is marked so."""
    return "\n".join(_lines(document["topology"], provider)) + "\n"


def _lines(topology: dict[str, Any], provider: str) -> Iterator[str]:
    yield "flowchart LR"
    ids = {name: f"t{number}" for number, name in enumerate(sorted(topology["topics"]))}
    for name, id in ids.items():
        topic = topology["topics"][name]
        yield f'  {id}(["{_text(name)}"])'
        if provider in topic.get("refused", {}):
            yield f"  class {id} refused"
        elif topic.get("external"):
            yield f"  class {id} external"
    for number, (key, one) in enumerate(sorted(topology["subscriptions"].items())):
        id = f"s{number}"
        attempts = "without limit" if one["attempts"] is None else f"{one['attempts']} attempts"
        about = [key, *(["ordered"] if one["ordered"] else []), attempts]
        filter = parse(one["filter"]) if one["filter"] else None
        label = "" if filter is None else f'|"{_text(str(filter))}"|'
        yield f'  {ids.get(one["topic"], "t_")} -->{label} {id}["{"<br/>".join(map(_text, about))}"]'
        yield f'  {id} -.-> d{number}[("{_text(key)} dead letter")]'
        if provider in one.get("refused", {}):
            yield f"  class {id} refused"
    yield "  classDef external stroke-dasharray: 5 5"
    yield "  classDef refused stroke:#c00,stroke-width:3px"


def _text(text: str) -> str:
    """Return a text of which nothing is Mermaid's or HTML's."""
    return _SPECIAL.sub(lambda found: f"#{ord(found[0])};", text)
