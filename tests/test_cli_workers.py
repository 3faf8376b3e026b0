"""`crossbus run` with several processes: real processes, real signals, a real broker between them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.server_process import Server
from tests.test_cli import LIMIT, crossbus, environment, refused
from tests.test_probes import get

from crossbus import Bus, Event

pytestmark = pytest.mark.skipif(os.name != "posix", reason="there are no POSIX signals")

PROGRAM = """
import asyncio, os
from crossbus import Bus, Event

bus = Bus(source="/test", drain_limit=20)

@bus.subscribe("orders", "billing", lease=10, concurrency=1)
async def bill(event: Event) -> None:
    print(f"begun {event.id} {os.getpid()}\\n", end="", flush=True)  # one write: others write there too
    while os.path.exists("hold"):
        await asyncio.sleep(0.02)
    print(f"done {event.id} {os.getpid()}\\n", end="", flush=True)
"""


class Run:
    """A `crossbus run` that runs, and what it says, as it says it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.output: list[str] = []
        self.errors: list[str] = []
        self._threads = [
            threading.Thread(target=self._read, args=pair, daemon=True)
            for pair in ((process.stdout, self.output), (process.stderr, self.errors))
        ]
        for thread in self._threads:
            thread.start()

    def _read(self, source: Iterable[str], lines: list[str]) -> None:
        for line in source:
            lines.append(line.rstrip("\n"))  # noqa: PERF401 - others read them meanwhile

    def clean_up(self) -> None:
        """End what is left, also of workers that have no supervisor any more."""
        self.process.kill()
        self.process.wait()
        for pid in self.begun():
            assert pid > 0
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for thread in self._threads:
            thread.join(LIMIT)
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        code = self.process.wait(LIMIT)
        for thread in self._threads:
            thread.join(LIMIT)
        return code

    def said(self, pattern: str) -> list[str]:
        return [line for line in [*self.output, *self.errors] if re.search(pattern, line)]

    def begun(self) -> dict[int, str]:
        """By process, the event that it began."""
        return {
            int(line.split()[2]): line.split()[1] for line in list(self.output) if line.startswith("begun")
        }

    @property
    def address(self) -> tuple[str, int]:
        (line,) = until(lambda: self.said("health on http://"))
        found = re.search(r"http://(.*):(\d+)/livez", line)
        assert found
        return found[1], int(found[2])


def until(what: Callable[[], object], *, limit: float = LIMIT) -> list[str]:
    ends = time.monotonic() + limit
    while not (found := what()):
        assert time.monotonic() < ends, "it did not come to that"
        time.sleep(0.02)
    return found  # type: ignore[return-value]


@contextmanager
def running(
    *words: str, cwd: Path, command: tuple[str, ...] = ("-m", "crossbus", "run"), **changes: str
) -> Iterator[Run]:
    process = subprocess.Popen(
        [sys.executable, *command, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env=environment(**changes),
        process_group=0,
    )
    run = Run(process)
    try:
        yield run
    except AssertionError:
        print("\n".join(["--- output", *run.output, "--- errors", *run.errors]))
        raise
    finally:
        run.clean_up()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(PROGRAM)
    return tmp_path


@pytest.fixture
def url(server: Server) -> Iterator[str]:
    """A broker whose topic holds nothing yet."""
    yield server.url
    server.kill()
    server.start()


def publish(url: str, *ids: str) -> None:
    async def body() -> None:
        async with Bus(url, source="/test") as bus:
            for id in ids:
                await bus.publish("orders", Event(type="com.acme.tested", id=id))

    asyncio.run(body())


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z" if Path("/proc").exists() else True


def ready(run: Run) -> bool:
    with contextlib.suppress(OSError):
        return get(run.address, "/readyz")[0] == 200
    return False


def test_workers_share_the_events_and_drain_at_a_signal(folder: Path, url: str) -> None:
    (folder / "hold").touch()
    with running("shop:bus", "--workers", "2", "--health", ":0", "--url", url, cwd=folder) as run:
        until(lambda: ready(run))
        publish(url, "e-1", "e-2")
        until(lambda: len(run.begun()) == 2)
        assert sorted(run.begun().values()) == ["e-1", "e-2"]
        assert get(run.address, "/livez") == (200, "alive\n")
        run.process.send_signal(signal.SIGTERM)
        until(lambda: not ready(run))
        assert get(run.address, "/readyz") == (503, "not ready\n")
        assert get(run.address, "/livez") == (200, "alive\n")
        assert not run.said("^done")
        (folder / "hold").unlink()
        assert run.process.wait(LIMIT) == 0
        until(lambda: len(run.said("^done")) == 2)
        assert not any(map(is_there, run.begun()))
    assert run.said("consuming orders/billing in 2 processes")
    assert not run.said("Traceback|worker")


def test_a_killed_worker_is_started_anew_and_its_event_is_handled(folder: Path, url: str) -> None:
    (folder / "hold").touch()
    with running("shop:bus", "--workers", "2", "--health", ":0", "--url", url, cwd=folder) as run:
        until(lambda: ready(run))
        publish(url, "e-1")
        until(run.begun)
        (victim,) = run.begun()
        os.kill(victim, signal.SIGKILL)
        until(lambda: run.said(r"worker \d was ended by SIGKILL; another is started in 1 s"))
        (folder / "hold").unlink()
        until(lambda: run.said("^done e-1"))  # by another, when the lease has ended
        until(lambda: ready(run))
        assert get(run.address, "/livez") == (200, "alive\n")
        assert run.end() == 0
        assert not run.said(f"^done e-1 {victim}$")


def test_ctrl_c_is_the_supervisors(folder: Path, url: str) -> None:
    """A terminal sends SIGINT to all of its group: the workers must not take it for a second signal."""
    (folder / "hold").touch()
    with running("shop:bus", "--workers", "2", "--url", url, cwd=folder) as run:
        until(lambda: run.said("consuming"))
        publish(url, "e-1")
        until(run.begun)
        os.killpg(run.process.pid, signal.SIGINT)
        (folder / "hold").unlink()
        assert run.process.wait(LIMIT) == 0
        until(lambda: run.said("^done e-1"))


def test_a_second_signal_stops_at_once(folder: Path, url: str) -> None:
    (folder / "hold").touch()
    with running("shop:bus", "--workers", "2", "--health", ":0", "--url", url, cwd=folder) as run:
        until(lambda: ready(run))
        publish(url, "e-1")
        until(run.begun)
        run.process.send_signal(signal.SIGINT)
        until(lambda: not ready(run))
        assert run.end(signal.SIGINT) == 130
        assert not any(map(is_there, run.begun()))
        assert not run.said("^done|Traceback")


def test_without_their_supervisor_workers_drain(folder: Path, url: str) -> None:
    (folder / "hold").touch()
    with running("shop:bus", "--workers", "2", "--url", url, cwd=folder) as run:
        until(lambda: run.said("consuming"))
        publish(url, "e-1")
        until(run.begun)
        (pid,) = run.begun()
        run.process.kill()
        run.process.wait(LIMIT)
        time.sleep(0.1)
        assert is_there(pid)
        (folder / "hold").unlink()
        until(lambda: run.said("^done e-1"))
        until(lambda: not is_there(pid))


def test_a_worker_that_does_not_drain_is_killed(folder: Path, url: str) -> None:
    program = PROGRAM.replace("drain_limit=20", "drain_limit=0").replace(
        "await asyncio.sleep(0.02)", "time.sleep(1)"
    )
    (folder / "stuck.py").write_text(f"import time\n{program}")
    (folder / "impatient.py").write_text(
        "from crossbus.cli import main, supervisor\nsupervisor.GRACE = 1\n"
        "if __name__ == '__main__':\n    main(['run', 'stuck:bus', '--workers', '1'])\n"
    )
    (folder / "hold").touch()
    with running(cwd=folder, command=("impatient.py",), CROSSBUS_URL=url) as run:
        until(lambda: run.said("consuming"))
        publish(url, "e-1")
        until(run.begun)
        assert run.end() == 1
        assert run.said("error: worker 1 did not end in 1 s and is killed; its events come again")
        assert not any(map(is_there, run.begun()))


def test_a_mistake_that_every_worker_would_make_is_told_once(folder: Path) -> None:
    words = ("run", "--workers", "3", "--url", "local:")
    refused(crossbus(*words, "shpo:bus", cwd=folder), "no module 'shpo'", "did you mean 'shop'?")
    (folder / "broken.py").write_text("raise SystemExit('no')\n")
    done = crossbus(*words, "broken:bus", cwd=folder)
    assert done.returncode == 1
    assert done.stderr.count("error: broken cannot be imported") == 1
    (folder / "gone.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    done = crossbus(*words, "gone:bus", cwd=folder)
    assert done.returncode == 1
    assert done.stderr == "error: worker 1 was ended by SIGKILL before it consumed anything\n"
    (folder / "stubborn.py").write_text(PROGRAM.replace("Bus(", 'Bus("local:own", '))
    refused(crossbus(*words, "stubborn:bus", cwd=folder), "--url local: does not reach stubborn:bus")


def test_options_that_cannot_be(folder: Path) -> None:
    refused(crossbus("run", "shop:bus", "--workers", "0", cwd=folder), "--workers")
    refused(
        crossbus("run", "shop:bus", "--health", "nowhere", cwd=folder), "--health 'nowhere' is no address"
    )
    with running("shop:bus", "--health", "127.0.0.1:0", "--url", "local:", cwd=folder) as run:
        host, port = run.address
        until(lambda: ready(run))
        for words in ((), ("--workers", "2")):
            done = crossbus(
                "run", "shop:bus", "--url", "local:", "--health", f"{host}:{port}", *words, cwd=folder
            )
            refused(done, f"health cannot listen on {host}:{port}")
        assert run.end() == 0


def test_it_starts_anew_when_a_file_changes(folder: Path, url: str) -> None:
    with running("shop:bus", "--reload", "--url", url, cwd=folder) as run:
        until(lambda: run.said("consuming orders/billing in 1 process;"))
        publish(url, "e-1")
        until(lambda: run.said("^done e-1"))
        (folder / "shop.py").write_text("this is no Python\n")
        until(lambda: run.said("shop.py changed: starting anew"))
        until(lambda: run.said("worker 1 ended with exit code 1; it is started anew when a file changes"))
        (folder / "notes.txt").write_text("nobody cares")
        (folder / "shop.py").write_text(PROGRAM.replace('f"done', 'f"done anew'))
        publish(url, "e-2")
        until(lambda: run.said("^done anew e-2"))
        assert run.end() == 0
    assert not run.said("notes.txt")


def test_a_worker_whose_loop_is_blocked_is_not_alive(folder: Path, url: str) -> None:
    program = PROGRAM.replace("lease=10", "lease=2").replace("await asyncio.sleep(0.02)", "time.sleep(0.02)")
    (folder / "blocking.py").write_text(f"import time\n{program}")
    (folder / "hold").touch()
    with running("blocking:bus", "--workers", "2", "--health", ":0", "--url", url, cwd=folder) as run:
        until(lambda: ready(run))
        publish(url, "e-1")
        until(lambda: get(run.address, "/livez")[0] == 503)
        (folder / "hold").unlink()
        until(lambda: get(run.address, "/livez")[0] == 200)
        assert run.end() == 0
