"""The two consumers of `tests.trace_programs`, made when they are asked for: one process runs one of them."""

from __future__ import annotations

from tests.trace_programs import consumer as bus
from tests.trace_programs import sync_consumer as sync_bus

__all__ = ["bus", "sync_bus"]
