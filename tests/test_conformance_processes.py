"""Processes under the kit: servers that start, end, do not start and do not end; consumers that are watched."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence

import pytest
from tests.harnesses import LocalHarness, MemoryHarness
from tests.soak import Soak
from tests.support import run
from tests.test_cli import crossbus

from crossbus.conformance import ServerHarness, ServerProcess, Skipped, Trial, all_cases, answers_http
from crossbus.conformance.children import Child

WEB = (
    "import http.server as h; h.HTTPServer(('127.0.0.1', {port}), h.SimpleHTTPRequestHandler).serve_forever()"
)
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); "


def python(program: str) -> list[str]:
    return [sys.executable, "-c", program]


def web(port: int) -> list[str]:
    return python(WEB.format(port=port))


# --- a server -----------------------------------------------------------------------------------------------------


def test_server_starts_and_ends_and_starts_again() -> None:
    server = ServerProcess(web)
    assert not server.is_running
    server.start()
    try:
        first = server.port
        server.start()  # it runs: nothing happens
        assert server.is_running
        assert server.port == first
        server.restart("kill")
        server.restart("terminate")
        assert server.is_running
    finally:
        server.close()
    server.close()
    assert not server.is_running


def test_server_that_ends_at_once_is_an_error_with_what_it_said() -> None:
    server = ServerProcess(lambda port: python("raise SystemExit('no such option: --port')"))
    with pytest.raises(RuntimeError, match="exit code 1: no such option: --port"):
        server.start()
    server.close()


def test_server_that_does_not_answer_is_an_error_and_is_ended() -> None:
    server = ServerProcess(lambda port: python("import time; time.sleep(60)"), limit=0.5)
    with pytest.raises(RuntimeError, match=r"did not answer within 0\.5 s: it said nothing"):
        server.start()
    assert not server.is_running
    server.close()


def test_server_that_does_not_heed_sigterm_is_an_error_and_is_killed() -> None:
    server = ServerProcess(lambda port: python(STUBBORN + WEB.format(port=port)), limit=20)
    server.start()
    server._limit = 0.5
    with pytest.raises(RuntimeError, match=r"did not end within 0\.5 s after SIGTERM"):
        server.stop()
    assert not server.is_running
    server.close()


def test_server_ends_with_what_it_started_itself() -> None:
    child = "import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', {web!r}]).returncode)"
    server = ServerProcess(lambda port: python(child.format(web=WEB.format(port=port))))
    server.start()
    port = server.port
    server.close()
    assert not answers_http(port)


# --- a harness with a server --------------------------------------------------------------------------------------


class WebHarness(ServerHarness):
    name = "web"

    def command(self, port: int) -> Sequence[str]:
        return web(port)

    def address(self, host: str, port: int) -> str:
        return f"local:{port}"

    def variables(self, host: str, port: int) -> Mapping[str, str]:
        return {"KIT_TEST_ADDRESS": f"{host}:{port}", "PATH": os.environ["PATH"]}


def status(harness: ServerHarness) -> int:
    connection = http.client.HTTPConnection(harness.proxy.host, harness.proxy.port, timeout=10)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status
    finally:
        connection.close()


def test_harness_puts_its_server_behind_a_network() -> None:
    async def provoke(harness: WebHarness) -> None:
        async with harness.cut("w"):
            with pytest.raises(ConnectionRefusedError):
                status(harness)
        assert status(harness) == 200
        async with harness.slow("w", delay=0.01, bytes_per_second=100_000):
            assert status(harness) == 200
        with pytest.raises(Skipped, match="holds all in memory; a restart loses it") as caught:
            await harness.restart("w")
        assert caught.value.missing == "restarts"
        harness.durable = True
        before = harness.server.port, harness.url("w")
        await harness.restart("w", "kill")
        assert status(harness) == 200
        assert harness.url("w") == before[1], "who is connected must find it where it was"

    with WebHarness() as harness:
        assert harness.url("w") == f"local:{harness.proxy.port}"
        assert os.environ["KIT_TEST_ADDRESS"] == f"127.0.0.1:{harness.proxy.port}"
        assert harness.environment("w")["KIT_TEST_ADDRESS"] == os.environ["KIT_TEST_ADDRESS"]
        assert status(harness) == 200
        run(provoke(harness), limit=120)
    assert "KIT_TEST_ADDRESS" not in os.environ
    assert "PATH" in os.environ
    harness.close()


# --- a consumer in another process --------------------------------------------------------------------------------


class ScriptedChild(Child):
    """A child that says what it is told to."""

    async def start_program(self, program: str) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *python(program), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        self._reading = [asyncio.create_task(self._listen()), asyncio.create_task(self._note_complaints())]


SAY = "import time; print({lines!r}, flush=True); "
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); "


def scripted(program: str, then: str) -> None:
    async def watch() -> None:
        harness = LocalHarness()
        async with Trial(harness, all_cases()[0]) as trial:
            child = ScriptedChild(trial, "the child", {})
            await child.start_program(program)
            try:
                await child.until(lambda: child.ready, "it was not ready", within=20)
                assert child.got == ["a b", "c"]
                assert child.done == ["a b"]
                await getattr(child, then)()
            finally:
                await child.kill()

    real = LocalHarness.make_clock
    LocalHarness.make_clock = lambda self: None  # type: ignore[assignment,method-assign,return-value]
    try:
        run(watch())
    finally:
        LocalHarness.make_clock = real  # type: ignore[method-assign]


LINES = "got a b\ndone a b\ngot c\nready"


def test_child_is_watched_and_killed() -> None:
    scripted(SAY.format(lines=LINES) + "time.sleep(60)", "kill")


def test_child_that_drains_ends_in_order() -> None:
    scripted(DEAF + SAY.format(lines=f"{LINES}\nended"), "stop")


def test_child_that_ends_by_the_signal_is_a_failure() -> None:
    with pytest.raises(
        AssertionError, match=f"did not end in order after SIGTERM: exit code -{signal.SIGTERM:d}"
    ):
        scripted(SAY.format(lines=LINES) + "time.sleep(60)", "stop")


def test_child_that_ends_early_is_a_failure_at_once_with_what_it_complained_of() -> None:
    with pytest.raises(AssertionError, match="ended with exit code 1; it was not ready; it said: no broker"):
        scripted("raise SystemExit('no broker')", "stop")


def test_child_consumes_until_sigterm() -> None:
    """The real one, on a broker of its own: there is nobody to publish, so it gets nothing."""

    async def watch() -> None:
        options = {"url": "local:", "topic": "orders", "name": "billing"}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "crossbus.conformance.child", json.dumps(options)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        _, complaints = await process.communicate()
        assert process.returncode == 1
        assert b"NotFound" in complaints  # it creates nothing

    run(watch())


# --- the command line, on a server --------------------------------------------------------------------------------


def test_command_runs_the_kit_on_a_server_with_processes_but_without_breaking_what_is_not_its_own() -> None:
    cases = ("resilience/killed-consumer", "resilience/provider-killed", "resilience/connection-cut")
    with MemoryHarness() as harness:
        url = f"local+http://127.0.0.1:{harness.server.port}"
        selected = [word for case in cases for word in ("--select", case)]
        done = crossbus("conformance", url, *selected, "--json")
        connection = http.client.HTTPConnection("127.0.0.1", harness.server.port, timeout=10)
        connection.request("GET", "/crossbus/v1/topics")
        left = connection.getresponse()
        topics = left.read()
        connection.close()
    assert done.returncode == 0, done.stderr
    results = {one["case"]: one for one in json.loads(done.stdout)["results"]}
    assert {name: one["status"] for name, one in results.items()} == {
        "resilience/killed-consumer": "passed",
        "resilience/provider-killed": "skipped",
        "resilience/connection-cut": "skipped",
    }
    assert "cannot restart the provider" in results["resilience/provider-killed"]["detail"]
    assert "cannot cut the connection" in results["resilience/connection-cut"]["detail"]
    assert left.status == 200
    assert b"kit-" not in topics, "what the kit made is still there"


# --- the soak, which is run by hand -------------------------------------------------------------------------------


def test_a_short_soak_loses_nothing_and_says_so() -> None:
    words = "--on memory --events 400 --rate 200 --kill-every 1 --cuts 1 --outage 0.5 --seed 2"
    done = subprocess.run(
        [sys.executable, "-m", "tests.soak", *words.split()], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "LOST: 0   DEAD-LETTERED: 0   -> ok" in done.stdout
    assert "1 cuts of 0.5 s each: refused" in done.stdout


def test_a_soak_that_lost_something_fails() -> None:
    wanted = Soak(harness=LocalHarness(), events=3, rate=1.0, kill_every=1.0, cuts=0, outage=1.0, seed=1)
    wanted.handled.update(["1", "2", "2"])
    assert not wanted.ok
    assert "LOST: 1   DEAD-LETTERED: 0   -> FAILED" in wanted.report()
    wanted.handled.update(["3"])
    assert wanted.ok
    wanted.dead = 1
    assert not wanted.ok
