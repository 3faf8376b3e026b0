"""`crossbus pause` and `resume`: real processes, a real server, real sockets."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.server_process import Server
from tests.test_cli import crossbus, refused
from tests.test_cli_workers import PROGRAM, publish, ready, running, until
from tests.test_probes import get
from tests.worlds import WORLDS

pytestmark = pytest.mark.skipif(os.name != "posix", reason="there are no unix sockets")

FED = """
import asyncio, os
from crossbus import Breaker, Bus, Event, Reject

bus = Bus(source="/test")

@bus.subscribe("orders", "billing", breaker=Breaker(rejected=1, of=1))
async def bill(event: Event) -> None:
    print(f"begun {event.id} {os.getpid()}\\n", end="", flush=True)
    if event.id == "bad" and not vars(bus.state).setdefault("mended", False):
        bus.state.mended = True
        raise Reject("bad")

@bus.on_start
async def feed(bus: Bus) -> None:
    async def publishing() -> None:
        number = 0
        while True:
            await bus.publish("orders", Event(type="t", id="bad" if number == 3 else f"e-{number}"))
            number += 1
            await asyncio.sleep(0.05)

    bus.state.task = asyncio.create_task(publishing())

@bus.on_stop
async def end(bus: Bus) -> None:
    bus.state.task.cancel()
"""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(PROGRAM)
    (tmp_path / "fed.py").write_text(FED)
    (tmp_path / "quiet.py").write_text(FED.replace("number == 3", "False"))
    return tmp_path


@pytest.fixture
def sockets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A folder of sockets of this test's own. Its path must be short."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="cb-") as short:
        yield {"CROSSBUS_RUN_DIR": short}


def test_a_server_is_told_and_all_consumers_wait(
    folder: Path, server: Server, sockets: dict[str, str]
) -> None:
    with running(
        "shop:bus", "--workers", "2", "--health", ":0", "--url", server.url, cwd=folder, **sockets
    ) as run:
        until(lambda: ready(run))
        words = ("orders/billing", "--url", server.url)
        done = crossbus("pause", *words, cwd=folder, **sockets)
        where = f"on the server 127.0.0.1:{server.port}"
        assert done.stdout == f"paused orders/billing for all its consumers, {where}\n", done.stderr
        done = crossbus("pause", *words, cwd=folder, **sockets)
        assert done.stdout.endswith(f"{where} (it was paused there before)\n")
        publish(server.url, "e-1")
        with pytest.raises(AssertionError, match="did not come"):
            until(run.begun, limit=1.0)
        done = crossbus("resume", *words, cwd=folder, **sockets)
        assert done.returncode == 0
        assert done.stdout.splitlines()[0] == f"resumed orders/billing for all its consumers, {where}"
        until(lambda: run.said("^done e-1"))
        assert run.end() == 0


def test_processes_are_told_where_the_provider_cannot_hold_it(folder: Path, sockets: dict[str, str]) -> None:
    words = ("orders/billing", "--url", "local:")
    with running(
        "quiet:bus", "--workers", "2", "--health", ":0", "--url", "local:", cwd=folder, **sockets
    ) as run:
        until(lambda: ready(run))
        done = crossbus("pause", *words, cwd=folder, **sockets)
        assert done.returncode == 0, done.stderr
        assert done.stdout == (
            f"paused orders/billing in crossbus run quiet:bus (process {run.process.pid}, 2 consumers), and nowhere "
            "else\n"
        )
        until(lambda: get(run.address, "/readyz")[0] == 503)
        assert get(run.address, "/livez")[0] == 200
        done = crossbus("resume", *words, "--output", "json", cwd=folder, **sockets)
        answer = json.loads(done.stdout)
        assert (answer["paused"], answer["for_all"]) == (False, False)
        assert [each["was"]["state"] for each in answer["runs"][0]["processes"]] == ["paused", "paused"]
        assert [each["is"]["state"] for each in answer["runs"][0]["processes"]] == ["running", "running"]
        until(lambda: ready(run))
        assert run.end() == 0
    assert list(Path(sockets["CROSSBUS_RUN_DIR"]).rglob("*.sock")) == []


def test_a_worker_that_is_started_anew_begins_paused(
    folder: Path, server: Server, sockets: dict[str, str]
) -> None:
    words = ("orders/billing", "--url", "local:")
    with running(
        "quiet:bus", "--workers", "1", "--health", ":0", "--url", "local:", cwd=folder, **sockets
    ) as run:
        until(lambda: ready(run))
        assert crossbus("pause", *words, cwd=folder, **sockets).returncode == 0
        children = Path(f"/proc/{run.process.pid}/task/{run.process.pid}/children")
        if not children.exists():
            pytest.skip("waits for a system that lists the children of a process")
        (worker,) = children.read_text().split()
        os.kill(int(worker), signal.SIGKILL)
        until(lambda: run.said("SIGKILL; another is started"))

        def opened() -> bool:
            done = crossbus("pause", *words, "--output", "json", cwd=folder, **sockets)
            if done.returncode != 0:
                return False  # it is not there yet
            (process,) = json.loads(done.stdout)["runs"][0]["processes"]
            return bool(process["was"]["state"] == "paused")

        until(opened)  # type: ignore[arg-type]
        assert run.begun().keys() <= {int(worker)}, "it handled something although it was paused"
        assert crossbus("resume", *words, cwd=folder, **sockets).returncode == 0
        until(lambda: ready(run))
        assert run.end() == 0


def test_a_worker_that_is_still_being_started_is_paused_as_well(
    folder: Path, sockets: dict[str, str]
) -> None:
    """The program is open in the first worker while the second imports it."""
    slow = """
import os, time
try:
    os.mkdir("first")
except FileExistsError:
    time.sleep(2)
"""
    (folder / "slow.py").write_text(slow + FED.replace("number == 3", "False"))
    words = ("orders/billing", "--url", "local:")
    with running("slow:bus", "--workers", "2", "--url", "local:", cwd=folder, **sockets) as run:
        until(lambda: run.said("consuming"))
        done = crossbus("pause", *words, cwd=folder, **sockets)
        assert done.returncode == 0, done.stderr
        assert f"(process {run.process.pid}, 2 consumers)" in done.stdout
        assert len(run.begun()) == 1
        assert crossbus("resume", *words, cwd=folder, **sockets).returncode == 0
        until(lambda: len(run.begun()) == 2)
        assert run.end() == 0


def test_one_process_is_told_and_says_that_its_breaker_paused_it(
    folder: Path, sockets: dict[str, str]
) -> None:
    words = ("orders/billing", "--url", "local:")
    with running("fed:bus", "--health", ":0", "--url", "local:", cwd=folder, **sockets) as run:
        until(lambda: run.said("begun bad"))
        until(lambda: get(run.address, "/readyz")[0] == 503)
        done = crossbus("resume", *words, cwd=folder, **sockets)
        assert done.stdout == (
            f"resumed orders/billing in crossbus run fed:bus (process {run.process.pid}, 1 consumer), and nowhere "
            "else\n"
            "  it was paused by its breaker: 1 of the last 1 events were rejected\n"
        )
        until(lambda: ready(run))
        assert run.end() == 0


def test_stats_say_who_is_paused_and_how_the_breaker_stands(
    folder: Path, server: Server, sockets: dict[str, str]
) -> None:
    words = ("stats", "orders/billing", "--url", server.url)

    def state(*more: str) -> str:
        return crossbus(*words, *more, cwd=folder, **sockets).stdout.rstrip("\n").rpartition("\t")[2]

    with running(
        "fed:bus", "--workers", "2", "--health", ":0", "--url", server.url, cwd=folder, **sockets
    ) as run:
        until(lambda: len(run.said("begun bad")) == 2)
        until(lambda: get(run.address, "/readyz")[0] == 503)
        open_ = "paused by its breaker: 1 of the last 1 events were rejected"
        until(lambda: state() == f"2 {open_}")
        found = json.loads(crossbus(*words, "-o", "json", cwd=folder, **sockets).stdout)
        assert found["paused"] is False
        assert [(one["state"], one["breaker"]) for one in found["consumers"]] == [("paused", "open")] * 2
        assert {(one["program"], one["pid"]) for one in found["consumers"]} == {("fed:bus", run.process.pid)}
        assert crossbus("pause", *words[1:], cwd=folder, **sockets).returncode == 0
        assert state() == f"paused for all, 2 {open_}"
        assert crossbus("resume", *words[1:], cwd=folder, **sockets).returncode == 0
        until(lambda: state() == "2 running")
        found = json.loads(crossbus(*words, "-o", "json", cwd=folder, **sockets).stdout)
        assert {one["breaker"] for one in found["consumers"]} == {"closed"}
        # Another bus has a subscription of that name too.
        with (
            Server() as other,
            running("quiet:bus", "--health", ":0", "--url", other.url, cwd=folder, **sockets) as elsewhere,
        ):
            until(lambda: ready(elsewhere))
            assert state() == "2 running"
            assert elsewhere.end() == 0
        assert run.end() == 0
    assert state() == ""
    (Path(sockets["CROSSBUS_RUN_DIR"]) / "crossbus").chmod(0o755)
    done = crossbus(*words, cwd=folder, **sockets)
    assert done.returncode == 0
    assert "only you can open" in done.stderr


@pytest.mark.parametrize("kind", ["pubsub", "eventbridge", "eventgrid"])
def test_processes_are_told_on_each_cloud(kind: str, tmp_path: Path, sockets: dict[str, str]) -> None:
    with WORLDS[kind](tmp_path) as world:
        program = PROGRAM.replace('"orders"', repr(world.topic)).replace("lease=10", f"lease={world.lease}")
        (tmp_path / "shop.py").write_text(program)
        told = {"cwd": tmp_path, **sockets}
        with running(
            "shop:bus",
            "--workers",
            "2",
            "--health",
            ":0",
            CROSSBUS_URL=world.url,
            **told,
            **world.environment,
        ) as run:
            until(lambda: ready(run))
            done = world.crossbus("pause", world.where, **told)
            assert (
                f"paused {world.where} in crossbus run shop:bus (process {run.process.pid}, 2 " in done.stdout
            )
            assert get(run.address, "/readyz")[0] == 503 or until(lambda: not ready(run))
            found = json.loads(world.crossbus("stats", world.where, "-o", "json", **told).stdout)
            assert found["paused"] is None
            assert [one["state"] for one in found["consumers"]] == ["paused", "paused"]
            done = world.crossbus("publish", world.topic, "--type", "t", "--id", "e-1", **told)
            assert done.returncode == 0, done.stderr
            assert run.begun() == {}, "it handled something while it was paused"
            done = world.crossbus("resume", world.where, **told)
            assert done.returncode == 0, done.stderr
            until(lambda: run.said("^done e-1"))
            until(lambda: ready(run))
            assert run.end() == 0


def test_what_is_not_there_is_said(folder: Path, server: Server, sockets: dict[str, str]) -> None:
    def pause(*words: str) -> object:
        return crossbus("pause", *words, cwd=folder, **sockets)

    refused(
        pause("orders/billing", "--url", "local:"), "no crossbus run of this user on this machine consumes"
    )
    refused(pause("orders/billing"), "no bus is configured")
    refused(pause("orders", "--url", "local:"), "'orders' is no subscription: write TOPIC/NAME")
    refused(pause("Orders/billing", "--url", "local:"), "'Orders'")
    refused(pause("orders/billing", "--url", server.url), "orders", "not there")
    with running("quiet:bus", "--health", ":0", "--url", "local:", cwd=folder, **sockets) as run:
        until(lambda: ready(run))
        refused(pause("orders/other", "--url", "local:"), "consumes orders/other")
        refused(pause("orders/billing", "--url", "local:elsewhere"), "consumes orders/billing")
        assert run.end() == 0


def test_a_socket_that_a_killed_process_left_is_passed_over(folder: Path, sockets: dict[str, str]) -> None:
    with running("quiet:bus", "--health", ":0", "--url", "local:", cwd=folder, **sockets) as run:
        until(lambda: ready(run))
        run.process.kill()
        run.process.wait()
    (left,) = Path(sockets["CROSSBUS_RUN_DIR"]).rglob("*.sock")
    refused(crossbus("pause", "orders/billing", "--url", "local:", cwd=folder, **sockets), "no crossbus run")
    assert not left.exists()


def test_a_folder_that_others_can_open_is_refused_and_the_program_runs_without(
    folder: Path, sockets: dict[str, str]
) -> None:
    path = Path(sockets["CROSSBUS_RUN_DIR"]) / "crossbus"
    path.mkdir()
    path.chmod(0o755)
    refused(
        crossbus("pause", "orders/billing", "--url", "local:", cwd=folder, **sockets),
        "is not a folder of yours that only you can open",
    )
    with running("quiet:bus", "--health", ":0", "--url", "local:", cwd=folder, **sockets) as run:
        until(lambda: ready(run))
        assert run.said("note: crossbus pause will not reach this process: .*only you can open")
        assert run.end() == 0
    path.rmdir()
    with contextlib.suppress(OSError):
        path.symlink_to(folder)
        refused(
            crossbus("pause", "orders/billing", "--url", "local:", cwd=folder, **sockets), "only you can open"
        )
