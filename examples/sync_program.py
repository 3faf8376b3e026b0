"""Without asyncio: `SyncBus` is the same bus for plain functions and threads.

CROSSBUS_URL=local: python sync_program.py
"""

import queue

from crossbus import Event, SyncBus

bus = SyncBus(source="/shop")
billed: "queue.Queue[str]" = queue.Queue()


@bus.subscribe("orders", "billing")
def bill(order: dict) -> None:
    """Handle an order: a plain function, called in a thread."""
    billed.put(order["order"])


def main() -> None:
    """Publish two orders and handle them. A service would call `bus.run()`, which ends at SIGTERM."""
    with bus:
        for number in (1, 2):
            bus.publish("orders", Event(type="com.acme.order.placed", data={"order": f"o-{number}"}))
        with bus.running():
            print("billed", *sorted(billed.get(timeout=10) for _ in range(2)))


if __name__ == "__main__":
    main()
