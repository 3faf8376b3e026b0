"""`Proxy`: a network that can be cut, slowed and narrowed, between a program and its server.

It forwards TCP connections from a port of its own on loopback, in a thread with an event loop of its own, so that it
goes on while the program that is tested blocks. It knows nothing of what it forwards.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Literal, TypeVar, get_args

__all__ = ["Cut", "Proxy"]

Cut = Literal["refused", "swallowed", "unanswered"]
"""What becomes of connections while the network is cut.

``refused``: those there are end with a reset, new ones are refused, as when a host or its server is gone.
``swallowed``: nothing passes in either direction and nothing says so, new connections included, as when a firewall or a
NAT gateway has forgotten them. They never speak again, not even when the network is back: who waits for an answer must
give up by himself, and connect anew.
``unanswered``: what the client says reaches the server, and what the server says is lost: requests are carried out, and
nobody learns of it. When the network is back these connections end with a reset.
"""

CHUNK: Final = 65_536
"""The most bytes read at once."""
NARROW_CHUNK: Final = 1024
"""The same while the network is narrow, so that none waits long for another's turn."""
HELD: Final = 1_048_576
"""The most bytes of one direction that are on their way; beyond that the sender is made to wait."""
_RESET: Final = struct.pack("ii", 1, 0)

T = TypeVar("T")


class Proxy:
    """A TCP proxy on loopback: ``with Proxy(("127.0.0.1", 8787)) as proxy``. Its methods may be called from any thread.

    Args:
        target: The host and port of the server; `target` may be changed, for a server that comes again elsewhere.
    """

    host: str = "127.0.0.1"

    def __init__(self, target: tuple[str, int]) -> None:
        self.target = target
        """Where connections go that come from now on."""
        self.connections = 0
        """How many connections have come."""
        self.passed = [0, 0]
        """How many bytes have passed: to the server, and from it."""
        self._network = _Network()
        self._links: set[_Link] = set()
        self._server: asyncio.Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        # Bound for as long as the proxy lives, so that nobody gets the port while connections to it are refused: not
        # even a client of ours, which could otherwise be given it as its own port and connect to itself.
        self._place = _bound(0)
        self.port: int = self._place.getsockname()[1]

    # --- beginning and end --------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to accept connections."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="crossbus proxy", daemon=True)
        self._thread.start()
        self._call(self._listen())

    def close(self) -> None:
        """End all connections, and refuse new ones. Idempotent."""
        if self._loop is not None and self._thread is not None:
            self._call(self._end())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
            self._loop = self._thread = None
        self._place.close()

    def __enter__(self) -> Proxy:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- what the network does ----------------------------------------------------------------------------------

    def cut(self, how: Cut = "refused") -> None:
        """Cut the network, until `restore`. Raises `ValueError` for a cut that is none of `Cut`."""
        if how not in get_args(Cut):
            raise ValueError(f"cut({how!r}): it is one of {', '.join(get_args(Cut))}")
        self._call(self._cut(how))

    def reset(self) -> None:
        """End the connections there are with a reset; new ones pass."""
        self._call(self._reset())

    def restore(self) -> None:
        """Let new connections pass again, at full speed. See `Cut` for what becomes of those there are."""
        self._call(self._restore())

    def delay(self, seconds: float) -> None:
        """Hold back everything for so long, in each direction; 0 ends it."""
        if not seconds >= 0:
            raise ValueError(f"delay({seconds!r}): it is a number of seconds from 0")
        self._call(self._change(delay=float(seconds)))

    def throttle(self, bytes_per_second: float | None) -> None:
        """Let so many bytes pass in each direction, of all connections together; None ends it."""
        if bytes_per_second is not None and not bytes_per_second > 0:
            raise ValueError(f"throttle({bytes_per_second!r}): it is a number of bytes above 0, or None")
        self._call(self._change(rate=bytes_per_second))

    # --- in the thread ------------------------------------------------------------------------------------------

    def _call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        if self._loop is None:
            coroutine.close()
            raise RuntimeError("the proxy is not running; start it first")
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout=30)

    async def _listen(self) -> None:
        if self._server is None:
            listener = _bound(self.port)
            self._server = await asyncio.start_server(self._accept, sock=listener, limit=CHUNK, backlog=512)

    async def _unlisten(self) -> None:
        server, self._server = self._server, None
        if server is None:
            return
        # A connection that was accepted, but not taken over yet, would be left unclosed by `Server.close`.
        for listener in server.sockets:
            asyncio.get_running_loop().remove_reader(listener)
        for _ in range(3):
            await asyncio.sleep(0)
        server.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        link = _Link(self, reader, writer)
        if self._network.cut == "refused":  # accepted just before
            link.reset()
            return
        self._links.add(link)
        link.task = asyncio.current_task()
        try:
            await link.run()
        except asyncio.CancelledError:  # by `reset`
            pass
        finally:
            self._links.discard(link)
            link.close()

    async def _cut(self, how: Cut) -> None:
        self._network.cut = how
        if how == "refused":
            await self._unlisten()
            await self._reset()
            return
        for link in self._links:
            link.lose(how)

    async def _reset(self) -> None:
        for link in list(self._links):
            link.reset()

    async def _restore(self) -> None:
        self._network = _Network()
        for link in list(self._links):
            if link.lost == "unanswered":
                link.reset()
        await self._listen()

    async def _change(self, **values: Any) -> None:
        for name, value in values.items():
            setattr(self._network, name, value)

    async def _end(self) -> None:
        await self._unlisten()
        for _ in range(2):  # what was being accepted is a link a moment later
            tasks = [link.task for link in self._links if link.task is not None]
            await self._reset()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.sleep(0.02)


@dataclass(slots=True)
class _Network:
    """What the network is like at the moment."""

    cut: Cut | None = None
    delay: float = 0.0
    rate: float | None = None
    free: list[float] | None = None
    """When each direction has room again, while it is narrow."""

    def room(self, direction: int, size: int, now: float) -> float:
        """Take room for so many bytes, and return when they have passed."""
        if self.rate is None:
            return now
        if self.free is None:
            self.free = [now, now]
        self.free[direction] = max(self.free[direction], now) + size / self.rate
        return self.free[direction]


class _Link:
    """One connection: from a client to the proxy, and from there to the server."""

    def __init__(self, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.proxy = proxy
        self.reader = reader
        self.writers = [writer]
        self.task: asyncio.Task[None] | None = None
        self.lost: Cut | None = None
        """What befell it: it is never whole again."""
        cut = proxy._network.cut
        if cut is not None:
            self.lose(cut)

    def lose(self, how: Cut) -> None:
        """Let what passes be lost from now on. What is swallowed once is never answered."""
        if self.lost != "swallowed":
            self.lost = how

    def loses(self, direction: int) -> bool:
        return self.lost == "swallowed" or (self.lost == "unanswered" and direction == 1)

    async def run(self) -> None:
        try:
            reader, writer = await asyncio.open_connection(*self.proxy.target, limit=CHUNK)
        except OSError:  # the server is not there
            self.reset()
            return
        self.writers.append(writer)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass(0, self.reader, writer))
                group.create_task(self._pass(1, reader, self.writers[0]))
        except* OSError:  # one end is gone, and so the other goes
            self.reset()

    async def _pass(self, direction: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        queue = _Queue()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._deliver(direction, queue, writer))
            while data := await reader.read(self._chunk):
                if not self.loses(direction):
                    network, now = self.proxy._network, asyncio.get_running_loop().time()
                    await queue.put(data, network.room(direction, len(data), now) + network.delay)
            await queue.put(b"", 0.0)

    @property
    def _chunk(self) -> int:
        return CHUNK if self.proxy._network.rate is None else NARROW_CHUNK

    async def _deliver(self, direction: int, queue: _Queue, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        data = b"."
        while data:
            data, due = await queue.get()
            if (wait := due - loop.time()) > 0:
                await asyncio.sleep(wait)
            if self.loses(direction):
                continue
            if data:
                writer.write(data)
                await writer.drain()
                self.proxy.passed[direction] += len(data)
            else:
                writer.write_eof()

    def reset(self) -> None:
        """End both halves with a reset, so that nothing that was written arrives after all."""
        for writer in self.writers:
            sock = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()
        if self.task is not None and self.task is not asyncio.current_task():  # which ends by itself
            self.task.cancel()

    def close(self) -> None:
        for writer in self.writers:
            writer.close()


class _Queue:
    """What is on its way in one direction, and when it is due."""

    def __init__(self) -> None:
        self._items: deque[tuple[bytes, float]] = deque()
        self._size = 0
        self._changed = asyncio.Event()

    async def put(self, data: bytes, due: float) -> None:
        while self._size >= HELD:
            self._changed.clear()
            await self._changed.wait()
        self._items.append((data, due))
        self._size += len(data)
        self._changed.set()

    async def get(self) -> tuple[bytes, float]:
        while not self._items:
            self._changed.clear()
            await self._changed.wait()
        data, due = self._items.popleft()
        self._size -= len(data)
        self._changed.set()
        return data, due


def _bound(port: int) -> socket.socket:
    """Return a socket bound to a port of loopback, beside others of ours."""
    # Said to be TCP's: else asyncio sets no TCP_NODELAY on what it accepts, and the proxy itself would be slow.
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "SO_REUSEPORT"):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind((Proxy.host, port))
    return sock
