"""`crossbus demo`: a small shop on the local broker, which explains itself line by line.

Its events stand in ``events.jsonl``: the shop's own, and five of Google's and Microsoft's services as their public
specifications show them (googleapis/google-cloudevents, Apache-2.0; Azure/azure-rest-api-specs, MIT). ``program.py``
is the shop as a program to start from.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

__all__ = ["play", "print_program"]


def play(events: Path | None = None, *, fast: bool = False) -> int:
    """Play the shop, or the events of a file; return an exit code.

    Args:
        events: A file of CloudEvents: JSON lines, a JSON event or a JSON batch. A line that is none is named, and
            the others go on. None for the shop's own.
        fast: No pauses for reading. There are none either when nobody looks: if the output is no terminal.
    """
    import asyncio

    from crossbus.demo.cast import cast_of_file, cast_of_shop
    from crossbus.demo.screen import Screen
    from crossbus.demo.story import tell

    screen = Screen(fast=fast)
    cast = cast_of_shop() if events is None else cast_of_file(events)
    return asyncio.run(tell(cast, screen))


def print_program() -> int:
    """Print the shop as a program to start from; return an exit code."""
    print(files(__name__).joinpath("program.py").read_text("utf-8"), end="")
    return 0
