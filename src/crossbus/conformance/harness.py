"""`Harness`: what the author of an adapter writes, so that the kit can run on it."""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal

from crossbus.adapter import Adapter
from crossbus.capabilities import Capabilities
from crossbus.clock import Clock
from crossbus.conformance.cases import Skipped
from crossbus.conformance.proxy import Cut
from crossbus.errors import ErrorCode
from crossbus.topology import Subscription, Topic, Topology

__all__ = ["Harness", "Stop"]

Stop = Literal["terminate", "kill"]
"""How a process ends: by SIGTERM, which it may heed, or by SIGKILL, which it cannot."""


class Harness(ABC):
    """Gives the kit adapters to try, and says what lies under them.

    Required are `make_adapter` and `capabilities`. The seams at the end belong to one capability each; a harness whose
    adapter has the capability gives the seam too, or the case is reported as skipped for want of it.
    """

    name: str = ""
    """What the report calls this run: ``local:``, ``pubsub on its emulator``."""
    what_lies_under: str = ""
    """The server, its version, emulator or real service."""
    scale: float = 1.0
    """1.0 runs the sizes of the cases in full; slow stand-ins run smaller ones, and the report says so."""
    patience: float = 1.0
    """By how much to stretch the time that things may take to arrive."""
    last_verified: str = "never"
    """When the kit last passed on the real service, as a date; until then, honestly, never."""
    worlds: bool = True
    """True if adapters made for different worlds share nothing, as private brokers do. An account is one world."""
    lease: float = 3.0
    """Seconds of the leases that the cases let end. Raised to the adapter's own minimum."""

    # --- required ------------------------------------------------------------------------------------------------

    @abstractmethod
    def make_adapter(self, world: str, clock: Clock) -> Adapter:
        """Make an adapter, not opened yet. Adapters of one `world` meet at one broker; each run of a case has its own.

        Called several times for one world: each Bus of a case gets an adapter of its own.
        """

    @property
    @abstractmethod
    def capabilities(self) -> Capabilities:
        """What the adapter can do: usually the `capabilities` of its class."""

    # --- optional ------------------------------------------------------------------------------------------------

    def make_clock(self) -> Any | None:
        """Return a new clock that can be moved (`crossbus.testing.Clock`), if the adapter lives by the clock given.

        The kit then lets time pass as fast as the work is done. None for real time.
        """
        return None

    def names(self) -> str:
        """Return a prefix for the names of one run of a case: unique, and allowed at the start of a topic's name."""
        return f"kit-{secrets.token_hex(4)}"

    async def clean(self, world: str, clock: Clock, prefix: str) -> None:
        """Remove what a run made: what `plan(prune=True)` would delete and bears the run's prefix in its name."""
        if not self.capabilities.has("provision"):
            return
        adapter = self.make_adapter(world, clock)
        await adapter.open()
        try:
            changes = await adapter.plan(Topology(), prune=True)
            await adapter.provision([one for one in changes if one.action == "delete" and prefix in one.name])
        finally:
            await adapter.close()

    async def send_raw(
        self, adapter: Adapter, topic: Topic, body: bytes, attributes: Mapping[str, Any]
    ) -> None:
        """Put a message that is no CloudEvent into a topic, as a program without crossbus would."""
        await adapter.send_foreign(topic, body, attributes)

    async def position(self, adapter: Adapter, subscription: Subscription) -> str | None:
        """Return a position from which a replay brings what is published from now on (capability `replay_position`).

        None if the message id of the next event is one; a harness whose provider has marks of another kind makes one.
        """
        return None

    def provider_errors(self) -> Sequence[tuple[BaseException, ErrorCode, bool]]:
        """Return exceptions of the SDK, each with the portable code it must have, and whether to retry."""
        return ()

    # --- seams, each of one capability -----------------------------------------------------------------------------

    def url(self, world: str) -> str:
        """Return the URL by which another process reaches this world (capability `processes`)."""
        raise Skipped("processes", f"the harness {self.name!r} gives no URL for another process")

    def environment(self, world: str) -> Mapping[str, str]:
        """Return the variables that another process needs beside the URL, such as a key; it has those of this one."""
        return {}

    async def restart(self, world: str, how: Stop = "terminate") -> None:
        """Stop the provider, start it again, and return when it answers (capability `restarts`).

        It keeps what it had answered for: what a provider that holds all in memory would lose is no restart, so its
        harness gives no such seam, and says why in the `Skipped` that it raises.
        """
        raise Skipped("restarts", f"the harness {self.name!r} cannot restart the provider")

    def cut(self, world: str, how: Cut = "refused") -> AbstractAsyncContextManager[None]:
        """Cut the network for the time of the block (capability `network`)."""
        raise Skipped("network", f"the harness {self.name!r} cannot cut the connection")

    def slow(
        self, world: str, *, delay: float = 0.0, bytes_per_second: float | None = None
    ) -> AbstractAsyncContextManager[None]:
        """Make the network slow or narrow for the time of the block, in each direction (capability `network`)."""
        raise Skipped("network", f"the harness {self.name!r} cannot slow the network down")

    async def expire_credentials(self, world: str) -> None:
        """Let the credentials in use expire, and new ones come (capability `credentials`)."""
        raise Skipped("credentials", f"the harness {self.name!r} cannot let credentials expire")

    def broken_credentials(self, what: str) -> tuple[Adapter, str]:
        """Return an adapter that lacks something, and a word that the one-line error must hold.

        `what` is ``invalid``, ``permission`` or ``configuration`` (no region or project) (capability `credentials`).
        """
        raise Skipped("credentials", f"the harness {self.name!r} cannot make the credentials {what}")
