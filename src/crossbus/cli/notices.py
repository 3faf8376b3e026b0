"""What the user should know of the bus that he uses, in one line each."""

from __future__ import annotations

from crossbus.adapter import Adapter

__all__ = ["blind", "in_memory", "invisible", "only_here"]


def in_memory(adapter: Adapter) -> bool:
    """True if what is published through this adapter stays in this process, and ends with it."""
    return (
        adapter.is_local
        and not adapter.capabilities.has("processes")
        and "path" not in adapter.profile.parameters
    )


def invisible(adapter: Adapter) -> str | None:
    """What `publish` says of a bus that nobody else can see; None for any other."""
    if not in_memory(adapter):
        return None
    return (
        f"{_shown(adapter)} is in the memory of this process: no other process can see these events, and they are gone "
        "when the command ends; local+http://HOST:PORT, or a cloud, is shared"
    )


def blind(adapter: Adapter) -> str:
    """What is said of a bus in the memory of another process, where this one sees nothing."""
    return (
        f"{_shown(adapter)} is in the memory of one process, and this command is another: it can see nothing there; "
        "run `crossbus serve`, and use local+http://HOST:PORT in your program and here"
    )


def only_here(adapter: Adapter) -> str | None:
    """What `run` says of a bus into which nobody else can publish; None for any other."""
    if not in_memory(adapter):
        return None
    return f"{_shown(adapter)} is in the memory of this process: only events that this program publishes itself arrive"


def _shown(adapter: Adapter) -> str:
    return f"{adapter.profile.scheme}:{adapter.profile.target}"
