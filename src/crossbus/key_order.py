"""Order per key: of the deliveries of one ordering key, one at a time."""

from __future__ import annotations

from bisect import insort
from operator import itemgetter

from crossbus.delivery import Delivery

__all__ = ["KeyOrder"]

_Place = tuple[int, Delivery]
_number = itemgetter(0)


class _Line:
    """One key: the delivery that holds it, those that wait behind, and those that are being given back.

    Each has a number, in the order in which they first came; a message that comes again keeps it.
    """

    __slots__ = ("behind", "count", "gone", "holder", "leaving", "number")

    def __init__(self, holder: Delivery) -> None:
        self.holder: Delivery | None = holder
        self.number = self.count = 0
        self.behind: list[_Place] = []
        self.leaving: dict[str, _Place] = {}
        """By message id. As long as the provider has not answered, later ones may still come before them."""
        self.gone: dict[str, int] = {}
        """The numbers of those that were given back, by message id."""

    def add(self, delivery: Delivery) -> None:
        again = self.leaving.pop(delivery.message_id, None)
        number = self.gone.pop(delivery.message_id, None) if again is None else again[0]
        if number is None:
            number = self.count = self.count + 1
        insort(self.behind, (number, delivery), key=_number)

    def leave(self, delivery: Delivery) -> None:
        if self.holder is delivery:
            self.holder = None
            self.leaving[delivery.message_id] = self.number, delivery

    def left(self, delivery: Delivery) -> list[Delivery]:
        place = self.leaving.get(delivery.message_id)
        if place is None or place[1] is not delivery:
            return []  # it has come again already
        del self.leaving[delivery.message_id]
        self.gone[delivery.message_id] = place[0]
        return self.take_after(place[0])

    def done(self) -> None:
        self.holder = None
        if self.gone:
            self.gone = {id: number for id, number in self.gone.items() if number > self.number}

    def advance(self) -> Delivery | None:
        """Let the first that waits hold the key, if it is free and nothing before it is on its way out."""
        if self.holder is not None or not self.behind:
            return None
        number = self.behind[0][0]
        if any(leaving < number for leaving, _ in self.leaving.values()):
            return None
        self.number, self.holder = self.behind.pop(0)
        return self.holder

    def take_after(self, number: int) -> list[Delivery]:
        taken = [place for place in self.behind if place[0] > number]
        if taken:
            self.behind = [place for place in self.behind if place[0] <= number]
            self.leaving.update({delivery.message_id: (n, delivery) for n, delivery in taken})
        return [delivery for _, delivery in taken]

    def __bool__(self) -> bool:
        return self.holder is not None or bool(self.behind or self.leaving)


class KeyOrder:
    """Holds back what must wait for an earlier delivery of its key.

    What is given back is noted by `leave`, and its end by `left`, so that nothing overtakes it: what came behind it
    in the meantime must be given back too.
    """

    def __init__(self) -> None:
        self._lines: dict[str, _Line] = {}

    def admit(self, delivery: Delivery) -> bool:
        """True if the delivery may be handled now, and holds its key; else it waits behind those of its key."""
        key = delivery.received.key
        if key is None:
            return True
        line = self._lines.get(key)
        if line is None:
            self._lines[key] = _Line(delivery)
            return True
        line.add(delivery)
        return line.advance() is delivery

    def take_behind(self, delivery: Delivery) -> list[Delivery]:
        """Take out what waits behind the delivery that holds a key, to be given back. Nothing if it holds none."""
        line = self._line(delivery)
        return line.take_after(-1) if line is not None and line.holder is delivery else []

    def take_all(self) -> list[Delivery]:
        """Take out all that waits, to be given back. Those that hold their keys keep them."""
        return [delivery for line in self._lines.values() for delivery in line.take_after(-1)]

    def leave(self, delivery: Delivery) -> None:
        """A delivery is being given back: it holds its key no more."""
        line = self._line(delivery)
        if line is not None:
            line.leave(delivery)

    def left(self, delivery: Delivery) -> tuple[list[Delivery], Delivery | None]:
        """A delivery was given back, and comes again: return what must be given back too, and who may go on now."""
        line = self._line(delivery)
        if line is None:
            return [], None
        stale = line.left(delivery)
        return stale, self._advance(line, delivery)

    def done(self, delivery: Delivery) -> Delivery | None:
        """A delivery is done: return the next of its key, which may be handled now."""
        line = self._line(delivery)
        if line is None or line.holder is not delivery:
            return None
        line.done()
        return self._advance(line, delivery)

    def _advance(self, line: _Line, delivery: Delivery) -> Delivery | None:
        following = line.advance()
        if not line:
            del self._lines[delivery.received.key]  # type: ignore[arg-type]
        return following

    def _line(self, delivery: Delivery) -> _Line | None:
        key = delivery.received.key
        return None if key is None else self._lines.get(key)

    def __len__(self) -> int:
        """How many wait."""
        return sum(len(line.behind) for line in self._lines.values())
