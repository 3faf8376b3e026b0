"""Wrong adapters, and wrong servers, for the cases in which a network, a server or credentials fail."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from tests.troubled import TroubledAdapter, TroubledReceiver, refused
from tests.wrong_adapters import fails

from crossbus.adapter import LeaseOutcome, Received, SendOutcome, Settlement, Wire
from crossbus.errors import ErrorCode, ProviderError, provider_error
from crossbus.topology import Topic

T = TypeVar("T")


@fails(
    "resilience/connection-cut",
    "resilience/publish-unanswered",
    "resilience/settle-unanswered",
    "resilience/provider-restarts",
)
class GivesUpWhenCut(TroubledAdapter):
    async def asked(self, request: Callable[[], Awaitable[T]], size: int = 200) -> T:
        try:
            return await super().asked(request, size)
        except ProviderError as error:
            raise provider_error(ErrorCode.UNAVAILABLE, str(error), retryable=False) from None


@fails("resilience/connection-swallowed")
class WaitsForever(TroubledAdapter):
    class receiver(TroubledReceiver):
        async def receive(self, max: int, wait: float) -> Sequence[Received]:
            try:
                return await super().receive(max, wait)
            except ProviderError:  # what follows a timeout, and it has none
                await asyncio.Event().wait()
                raise


@fails("resilience/publish-unanswered")
class DoesNotWaitForAnswers(TroubledAdapter):
    async def send(self, topic: Topic, wires: Sequence[Wire]) -> Sequence[SendOutcome]:
        if self.trouble.cut is not None:
            return [SendOutcome("sent")] * len(wires)
        return await super().send(topic, wires)


@fails("resilience/settle-unanswered")
class UndoesUnansweredAcks(TroubledAdapter):
    class receiver(TroubledReceiver):
        async def settle(self, settlements: Sequence[Settlement]) -> Sequence[LeaseOutcome]:
            if self.adapter.trouble.cut == "unanswered":
                return [LeaseOutcome.OK] * len(settlements)
            return await super().settle(settlements)


@fails("resilience/slow-network")
class HasNoPatience(TroubledAdapter):
    async def asked(self, request: Callable[[], Awaitable[T]], size: int = 200) -> T:
        if self.trouble.delay > 0.1:
            raise refused("no answer within 0.2 s")
        return await super().asked(request, size)


@fails("resilience/narrow-network")
class SendsAgainTooSoon(TroubledAdapter):
    async def send(self, topic: Topic, wires: Sequence[Wire]) -> Sequence[SendOutcome]:
        if self.trouble.rate is not None and not self.sent_again:
            self.sent_again = True
            await super().send(topic, wires)
        return await super().send(topic, wires)

    sent_again = False


@fails("resilience/provider-killed")
class LosesWhatIsNotWritten(TroubledAdapter):
    """The first that a server takes after it was killed was answered for by the one before, and not written."""

    async def send(self, topic: Topic, wires: Sequence[Wire]) -> Sequence[SendOutcome]:
        if "kill" in self.trouble.ended:
            self.trouble.ended.remove("kill")
            return [SendOutcome("taken")] * len(wires)
        return await super().send(topic, wires)


@fails("resilience/credentials-rotate")
class KeepsItsCredentials(TroubledAdapter):
    def refresh(self) -> None: ...


@fails("errors/bad-credentials", "errors/missing-permission", "errors/missing-configuration")
class SaysNothingUseful(TroubledAdapter):
    @staticmethod
    def complaint(what: str) -> str:
        return "Traceback:\n  401"
