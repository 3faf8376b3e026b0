"""The proxy of the kit: each kind of cut, delay and throttling, seen from a plain TCP client."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from crossbus.conformance import Proxy

LIMIT = 20.0


class Echo:
    """A server that answers what it is told with the same in capitals, and notes it."""

    def __init__(self) -> None:
        self.heard = b""
        self.sockets: list[socket.socket] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = self.listener.getsockname()[:2]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            self.sockets.append(sock)
            threading.Thread(target=self._answer, args=(sock,), daemon=True).start()

    def _answer(self, sock: socket.socket) -> None:
        try:
            while data := sock.recv(65536):
                self.heard += data
                sock.sendall(data.upper())
            sock.close()
        except OSError:
            pass

    def close(self) -> None:
        self.listener.close()
        for sock in self.sockets:
            sock.close()


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    server.close()


@pytest.fixture
def proxy(echo: Echo, caplog: pytest.LogCaptureFixture) -> Iterator[Proxy]:
    with Proxy(echo.address) as proxy:
        yield proxy
    assert not caplog.records, "the proxy's event loop has something to complain of"


def connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection((proxy.host, proxy.port), timeout=LIMIT)


def ask(sock: socket.socket, question: bytes) -> bytes:
    sock.sendall(question)
    answer = b""
    while len(answer) < len(question):
        if not (more := sock.recv(65536)):
            break
        answer += more
    return answer


def is_silent(sock: socket.socket) -> bool:
    sock.settimeout(0.3)
    try:
        sock.recv(1)
    except TimeoutError:
        return True
    finally:
        sock.settimeout(LIMIT)
    return False


def wait_until_heard(echo: Echo, what: bytes) -> None:
    end = time.monotonic() + LIMIT
    while what not in echo.heard:
        assert time.monotonic() < end, f"the server never heard {what!r}"
        time.sleep(0.01)


def test_forwards_both_ways_and_counts(proxy: Proxy) -> None:
    with connect(proxy) as one, connect(proxy) as other:
        large = b"x" * 3_000_000
        assert ask(one, b"hello") == b"HELLO"
        sender = threading.Thread(target=other.sendall, args=(large,))
        sender.start()
        got = 0
        while got < len(large):
            got += len(other.recv(65536))
        sender.join()
        assert ask(one, b"again") == b"AGAIN"
    assert proxy.connections == 2
    assert proxy.passed[0] == len(large) + 10


def test_end_of_one_side_reaches_the_other(proxy: Proxy) -> None:
    with connect(proxy) as sock:
        sock.sendall(b"last words")
        sock.shutdown(socket.SHUT_WR)
        answer = b""
        while more := sock.recv(100):
            answer += more
        assert answer == b"LAST WORDS"


def test_cut_refused_resets_and_refuses_and_comes_back_on_the_same_port(proxy: Proxy) -> None:
    for _ in range(3):
        with connect(proxy) as sock:
            assert ask(sock, b"hello") == b"HELLO"
            proxy.cut("refused")
            with pytest.raises(ConnectionResetError):
                sock.recv(1)
            with pytest.raises(ConnectionRefusedError):
                connect(proxy)
        proxy.restore()
        with connect(proxy) as sock:
            assert ask(sock, b"back") == b"BACK"


def test_cut_swallowed_says_nothing_to_old_and_new_and_old_ones_stay_silent(proxy: Proxy, echo: Echo) -> None:
    with connect(proxy) as old:
        assert ask(old, b"hello") == b"HELLO"
        proxy.cut("swallowed")
        with connect(proxy) as new:
            old.sendall(b"anybody?")
            new.sendall(b"anybody?")
            assert is_silent(old)
            assert is_silent(new)
            proxy.restore()
            old.sendall(b"now?")
            assert is_silent(old)
            with connect(proxy) as newest:
                assert ask(newest, b"now") == b"NOW"
    assert echo.heard == b"hellonow"


def test_cut_unanswered_carries_out_but_does_not_answer_and_resets_in_the_end(
    proxy: Proxy, echo: Echo
) -> None:
    with connect(proxy) as old:
        assert ask(old, b"hello") == b"HELLO"
        proxy.cut("unanswered")
        old.sendall(b"do it")
        wait_until_heard(echo, b"do it")
        assert is_silent(old)
        with connect(proxy) as new:
            new.sendall(b"and that")
            wait_until_heard(echo, b"and that")
            assert is_silent(new)
            proxy.restore()
            for sock in (old, new):
                with pytest.raises(ConnectionResetError):
                    sock.recv(1)
    with connect(proxy) as sock:
        assert ask(sock, b"back") == b"BACK"


def test_reset_ends_what_is_there_and_takes_new_ones(proxy: Proxy) -> None:
    with connect(proxy) as sock:
        assert ask(sock, b"hello") == b"HELLO"
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
    with connect(proxy) as sock:
        assert ask(sock, b"back") == b"BACK"


def test_delay_holds_back_each_direction_without_narrowing_it(proxy: Proxy) -> None:
    proxy.delay(0.2)
    with connect(proxy) as sock:
        began = time.monotonic()
        assert ask(sock, b"hello") == b"HELLO"
        assert time.monotonic() - began >= 0.4
        for number in range(5):  # under way at the same time: ten of them take no ten delays
            sock.sendall(b"%d" % number)
            time.sleep(0.02)
        assert ask(sock, b"") == b""
        proxy.delay(0)


def test_is_not_slow_itself(proxy: Proxy) -> None:
    with connect(proxy) as sock:
        assert ask(sock, b"hello") == b"HELLO"
        (link,) = proxy._links
        for writer in link.writers:  # Nagle's algorithm would hold back each answer by 40 ms
            assert writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_throttle_lets_so_many_bytes_pass(proxy: Proxy) -> None:
    proxy.throttle(20_000)
    with connect(proxy) as sock:
        began = time.monotonic()
        assert ask(sock, b"x" * 20_000) == b"X" * 20_000
        assert time.monotonic() - began >= 1.0
        proxy.restore()
        assert ask(sock, b"quick") == b"QUICK"


def test_target_may_change_and_may_be_away(proxy: Proxy) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        proxy.target = nobody.getsockname()
        with pytest.raises(ConnectionResetError), connect(proxy) as sock:
            sock.recv(1)
    other = Echo()
    try:
        proxy.target = other.address
        with connect(proxy) as sock:
            assert ask(sock, b"elsewhere") == b"ELSEWHERE"
    finally:
        other.close()


def test_server_that_dies_ends_the_connection(proxy: Proxy, echo: Echo) -> None:
    with connect(proxy) as sock:
        assert ask(sock, b"hello") == b"HELLO"
        echo.sockets[0].shutdown(socket.SHUT_RDWR)
        assert sock.recv(1) == b""


def test_goes_on_while_the_event_loop_of_the_test_is_blocked(proxy: Proxy) -> None:
    import asyncio

    async def blocked() -> bytes:
        with connect(proxy) as sock:  # blocks this loop
            return ask(sock, b"blocking")

    assert asyncio.run(blocked()) == b"BLOCKING"


def test_close_ends_everything_and_twice_is_harmless(echo: Echo) -> None:
    proxy = Proxy(echo.address)
    proxy.start()
    sock = connect(proxy)
    assert ask(sock, b"hello") == b"HELLO"
    proxy.close()
    proxy.close()
    with sock, pytest.raises(ConnectionResetError):
        sock.recv(1)
    with pytest.raises(ConnectionRefusedError):
        connect(proxy)
    with pytest.raises(RuntimeError, match="not running"):
        proxy.cut()


@pytest.mark.parametrize(
    ("method", "value", "message"),
    [
        ("cut", "softly", "refused, swallowed, unanswered"),
        ("delay", -1, "a number of seconds from 0"),
        ("delay", float("nan"), "a number of seconds from 0"),
        ("throttle", 0, "above 0"),
    ],
)
def test_bad_input_is_refused(proxy: Proxy, method: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(proxy, method)(value)
