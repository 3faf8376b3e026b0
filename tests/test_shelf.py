"""The shelf of dead letters: taken, seen by all who look, whole or by pages, removed or given back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import ClassVar

import pytest
from tests.support import run

from crossbus import shelf
from crossbus.adapter import LeaseOutcome, Received
from crossbus.shelf import STALE, Shelf, without_body


class Drawer(Shelf[Received]):
    """Records that wait somewhere, and hide from whoever has not taken them."""

    def __init__(self, *ids: str) -> None:
        super().__init__("orders--dead")
        self.waiting = {
            id: Received(id, id.encode(), {}, id, published=float(len(ids) - n)) for n, id in enumerate(ids)
        }
        self.taken = 0
        self.batches: list[int] = []
        self.ending: set[str] = set()
        """Records whose leases end before each batch."""
        self.given_back: list[str] = []
        self.fault: Exception | None = None

    async def _fill(self, limit: int | None) -> None:
        self.taken += 1
        if self.fault is not None:
            raise self.fault
        self.held |= self.waiting
        self.waiting = {}

    async def _take(self, most: int) -> list[str] | None:
        if self.fault is not None:
            raise self.fault
        came = [*self.waiting][:most]
        self.held |= {id: self.waiting.pop(id) for id in came}
        self.batches.append(len(came))
        return came or None

    async def _keep(self) -> None:
        for id in self.ending:
            if (held := self.held.pop(id, None)) is not None:
                self.waiting[id] = Received(id, id.encode(), {}, id, published=held.published)

    def _bare(self, held: Received) -> Received:
        return without_body(held)

    def _received(self, held: Received) -> Received:
        return held

    def _age(self, held: Received) -> float:
        return held.published or 0.0

    async def _remove(self, ids: Sequence[str]) -> list[LeaseOutcome]:
        if any(id not in self.held for id in ids):
            await self._fill(None)
        return [LeaseOutcome.OK if self.held.pop(id, None) else LeaseOutcome.LOST for id in ids]

    async def _put_back(self, held: Sequence[Received]) -> None:
        if self.fault is not None:
            raise self.fault
        self.given_back += [one.message_id for one in held]
        self.waiting |= {
            one.message_id: Received(one.lease, one.message_id.encode(), {}, one.message_id) for one in held
        }


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf, "KEEP", 0.05)


async def ended(drawer: Drawer) -> None:
    """Wait for what is given back by itself."""
    while drawer._timer is not None or (drawer._task is not None and not drawer._task.done()):  # noqa: ASYNC110
        await asyncio.sleep(0.01)


def test_the_oldest_are_seen_first_and_all_come_back_by_themselves() -> None:
    async def main() -> None:
        drawer = Drawer("new", "old")
        assert [one.message_id for one in await drawer.look(1)] == ["old"]
        assert not drawer.waiting
        await ended(drawer)
        assert sorted(drawer.given_back) == ["new", "old"]
        assert sorted(drawer.waiting) == ["new", "old"]
        assert not drawer.held

    run(main())


def test_what_was_removed_is_not_given_back_and_what_is_not_there_is_lost() -> None:
    async def main() -> None:
        drawer = Drawer("a", "b")
        await drawer.look(10)
        assert await drawer.remove(["a"]) == [LeaseOutcome.OK]
        assert drawer.taken == 1, "it was held, and need not be taken again"
        assert await drawer.remove(["a", "b"]) == [LeaseOutcome.LOST, LeaseOutcome.OK]
        await drawer.close()
        assert drawer.given_back == []

    run(main())


def test_who_looks_again_puts_it_off_and_closing_does_not_wait() -> None:
    async def main() -> None:
        drawer = Drawer("a")
        await drawer.look(10)
        first = drawer._timer
        await drawer.look(10)
        assert first is not None
        assert first.cancelled()
        assert drawer.given_back == []
        await drawer.close()
        assert drawer.given_back == ["a"]
        await drawer.close()
        assert drawer.given_back == ["a"]

    run(main())


def test_looks_take_turns() -> None:
    async def main() -> None:
        drawer = Drawer("a")
        found = await asyncio.gather(*(drawer.look(10) for _ in range(5)))
        assert all([one.message_id for one in seen] == ["a"] for seen in found)
        await drawer.close()

    run(main())


def test_a_problem_of_looking_is_raised_and_one_of_giving_back_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        drawer = Drawer("a")
        await drawer.look(10)
        drawer.fault = OSError("no network")
        with pytest.raises(OSError, match="no network"):
            await drawer.look(10)
        await ended(drawer)
        await drawer.close()

    run(main())
    assert [record.getMessage() for record in caplog.records] == [
        "dead letters of orders--dead could not be given back, and come again when their leases end: no network"
    ]


# --- by pages -----------------------------------------------------------------------------------------------------


async def paged(drawer: Drawer, size: int = 2) -> list[list[str]]:
    async with aclosing(drawer.pages(size)) as pages:
        return [[one.body.decode() for one in page] async for page in pages]


def test_pages_come_as_they_are_taken_and_are_held_without_bodies_until_the_look_ends() -> None:
    async def main() -> None:
        drawer = Drawer("a", "b", "c")
        async with aclosing(drawer.pages(2)) as pages:
            assert [one.body for one in await anext(pages)] == [b"a", b"b"]
            assert [one.body for one in drawer.held.values()] == [b"", b""]
            assert await drawer.remove(["b"]) == [LeaseOutcome.OK]
            assert [one.body for one in await anext(pages)] == [b"c"]
        await ended(drawer)
        assert drawer.given_back == ["a", "c"]

    run(main())


def test_what_is_held_for_a_look_by_pages_is_not_given_back_while_it_goes_on() -> None:
    async def main() -> None:
        drawer = Drawer("a", "b")
        async with aclosing(drawer.pages(1)) as pages:
            await anext(pages)
            await drawer.remove(["x"])
            await ended(drawer)
            assert drawer.given_back == []
        await ended(drawer)
        assert sorted(drawer.given_back) == ["a", "b"]

    run(main())


def test_a_look_by_pages_ends_at_the_most_that_it_may_hold_but_not_for_what_is_removed() -> None:
    class Small(Drawer):
        most: ClassVar[int] = 3

    async def main() -> None:
        drawer = Small("a", "b", "c", "d", "e")
        assert await paged(drawer) == [["a", "b"], ["c"]]
        await drawer.close()
        drawer = Small(*"abcdefghij")
        seen = []
        async with aclosing(drawer.pages(2)) as pages:
            async for page in pages:
                seen += [one.message_id for one in page]
                await drawer.remove([one.lease for one in page])
        assert "".join(seen) == "abcdefghij"
        await drawer.close()
        assert drawer.given_back == []

    run(main())


def test_a_look_by_pages_ends_when_what_it_held_begins_to_come_again() -> None:
    async def main() -> None:
        drawer = Drawer("a", "b")
        drawer.ending = {"a", "b"}
        assert await paged(drawer) == [["a", "b"]]
        assert len(drawer.batches) == STALE + 1
        await drawer.close()

    run(main())


def test_a_batch_of_which_nothing_is_held_does_not_end_a_look_by_pages() -> None:
    class Renewing(Drawer):
        async def _take(self, most: int) -> list[str] | None:
            if len(self.batches) <= 2 * STALE:
                self.batches.append(0)
                return []
            return await super()._take(most)

    async def main() -> None:
        drawer = Renewing("a")
        assert await paged(drawer) == [["a"]]
        await drawer.close()

    run(main())


def test_whoever_looks_meanwhile_sees_all_with_bodies_and_takes_nothing_from_the_look_by_pages() -> None:
    async def main() -> None:
        drawer = Drawer("a", "b", "c", "d")
        async with aclosing(drawer.pages(1)) as pages:
            seen = [one.body for one in await anext(pages)]
            assert sorted(one.body for one in await drawer.look(10)) == [b"a", b"b", b"c", b"d"]
            async for page in pages:
                seen += [one.body for one in page]
        assert sorted(seen) == [b"a", b"b", b"c", b"d"]
        await drawer.close()

    run(main())


def test_closing_gives_back_what_a_look_by_pages_holds() -> None:
    async def main() -> None:
        drawer = Drawer("a", "b")
        pages = drawer.pages(1)
        await anext(pages)
        await drawer.close()
        assert drawer.given_back == ["a"]
        await pages.aclose()
        await ended(drawer)

    run(main())


def test_a_problem_of_taking_ends_a_look_by_pages_and_gives_back() -> None:
    async def main() -> None:
        drawer = Drawer("a", "b")
        pages = drawer.pages(1)
        await anext(pages)
        drawer.fault = OSError("no network")
        with pytest.raises(OSError, match="no network"):
            await anext(pages)
        drawer.fault = None
        await ended(drawer)
        assert drawer.given_back == ["a"]

    run(main())
