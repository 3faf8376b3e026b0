"""Batches: publish many events at once, and handle many at once.

    CROSSBUS_URL=local: python batches.py

`publish_many` takes any iterable and divides it by what the provider allows. A handler of `list[Event]` gets what is
there, up to `batch`, and answers for each event: None (done), `Retry` or `Reject`.
"""

import asyncio

from crossbus import Bus, Event, PartialPublishError, Reject, Retry

bus = Bus(source="/sensors")
stored: list[int] = []
done = asyncio.Event()


@bus.subscribe("readings", "store", batch=50)
async def store(events: list[Event]) -> list[Retry | Reject | None]:
    """Store a batch with one call of the database, say; refuse what makes no sense."""
    outcomes: list[Retry | Reject | None] = []
    for event in events:
        value = event.data["value"]
        stored.append(value)
        outcomes.append(Reject("no such temperature") if value < 0 else None)
    if len(stored) == 120:
        done.set()
    return outcomes


async def main() -> None:
    """Publish 120 readings in one call, then some of which one is too large."""
    async with bus:
        readings = (Event(type="com.acme.reading", data={"value": value}) for value in range(-1, 119))
        receipts = await bus.publish_many("readings", readings)
        print(f"published {len(receipts)}")
        async with bus.running():
            await done.wait()
        print(
            f"handled {len(stored)}, dead letters: {len(await bus.dead_letters('readings', 'store').list())}"
        )

        large = [Event(type="com.acme.photo", data="x" * size) for size in (10, 2_000_000, 20)]
        try:
            await bus.publish_many("readings", large)
        except PartialPublishError as error:
            for result in error.results:
                print("published" if result.receipt else f"refused: {type(result.error).__name__}")


if __name__ == "__main__":
    asyncio.run(main())
