"""What several test modules need."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run(coroutine: Coroutine[Any, Any, T], *, limit: float = 30.0) -> T:
    """Run a coroutine to its end; fail rather than hang."""

    async def limited() -> T:
        return await asyncio.wait_for(coroutine, limit)

    return asyncio.run(limited())
