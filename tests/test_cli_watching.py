"""`crossbus tail`, `stats`, `replay` and `publish` of one event: in real processes, on each provider's stand-in."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.server_process import Server
from tests.support import run
from tests.test_cli import crossbus, environment, refused
from tests.worlds import EXACT, WORLDS, World


@pytest.fixture(params=list(WORLDS))
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    with WORLDS[request.param](tmp_path) as made:
        made.environment["XDG_STATE_HOME"] = str(tmp_path / "state")
        yield made


@pytest.fixture(params=EXACT)
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    with WORLDS[request.param](tmp_path) as made:
        made.environment["XDG_STATE_HOME"] = str(tmp_path / "state")
        yield made


def subscriptions(world: World) -> int:
    """Return how many subscriptions the topic has, temporary ones included."""

    async def scenario() -> int:
        adapter = world.adapter()
        await adapter.open()
        found = await adapter._found()  # type: ignore[attr-defined]
        await adapter.close()
        return len(found.topics[world.topic].queues)

    return run(scenario())


def await_watching(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if "watching" in line:
            return said
    raise AssertionError(said)


@contextmanager
def piped(code: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def publish(world: World, id: str, type: str = "com.acme.placed") -> None:
    words = ("publish", world.topic, "--type", type, "--id", id, "--source", "/shop")
    done = world.crossbus(
        *words, "--data", '{"order": "o-1"}', "--subject", "s-1", "--extension", "tenant=t-1"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"published {id} to {world.topic}\n"


def test_tail_shows_what_comes_and_takes_it_from_nobody(world: World) -> None:
    world.fill(0)
    filter = '{"prefix": {"type": "com.acme.p"}}'
    with world.started("tail", world.topic, "--filter", filter, "--json", "--limit", "2") as process:
        said = await_watching(process)
        publish(world, "e-1")
        publish(world, "e-2", "com.acme.sent")
        publish(world, "e-3")
        out, _ = process.communicate(timeout=40)
    assert process.returncode == 0
    found = [json.loads(line) for line in out.splitlines()]
    assert sorted(one["id"] for one in found) == ["e-1", "e-3"]
    assert found[0]["data"] == {"order": "o-1"}
    assert found[0]["tenant"] == "t-1"
    assert "removes it at the end" in said
    assert world.waiting(3) == ["e-1", "e-2", "e-3"]


def test_tail_ends_at_an_interrupt_and_leaves_nothing(broker: World) -> None:
    broker.fill(0)
    with broker.started("tail", broker.topic, "-o", "lines") as process:
        await_watching(process)
        assert subscriptions(broker) == 2
        publish(broker, "e-1")
        assert process.stdout is not None
        line = process.stdout.readline().rstrip("\n").split("\t")
        assert line[1:] == ["com.acme.placed", "e-1", "/shop", "s-1", '{"order":"o-1"}']
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    assert process.returncode == 0
    assert subscriptions(broker) == 1
    assert list(Path(broker.environment["XDG_STATE_HOME"]).rglob("*.json")) == []


def test_what_a_killed_tail_left_is_removed_and_that_of_a_running_one_is_not(broker: World) -> None:
    broker.fill(0)
    with broker.started("tail", broker.topic) as running:
        await_watching(running)
        with broker.started("tail", broker.topic, "--filter", '{"exact": {"type": "x"}}') as killed:
            await_watching(killed)
            killed.kill()
            killed.wait()
        assert subscriptions(broker) == 3
        done = broker.crossbus("tail", broker.topic, "--clean")
        assert done.stdout == f"removed 1 subscriptions that a killed tail left on {broker.topic}\n", (
            done.stderr
        )
        assert subscriptions(broker) == 2
        publish(broker, "e-1")
        assert running.stdout is not None
        assert "e-1" in running.stdout.readline()
    assert broker.crossbus("tail", broker.topic, "--clean").stdout.startswith("removed 1 ")


def test_stats_count_what_waits(world: World) -> None:
    world.fill(10)
    world.crossbus("dlq", "redrive", world.where, "--limit", "4")
    time.sleep(0.1)
    done = world.crossbus("stats", world.where, "-o", "json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["subscription"] == world.where
    if world.kind in ("pubsub", "eventgrid"):
        assert (found["waiting"], found["dead"]) == (None, None)
        assert "does not tell how much waits" in done.stderr
    else:
        assert (found["waiting"], found["dead"]) == (4, 6)
    if world.kind in EXACT:
        assert found["oldest_age"] >= 0


def test_stats_of_what_the_file_lists_again_and_again(broker: World, tmp_path: Path) -> None:
    broker.fill(3)
    config = tmp_path / "crossbus.toml"
    config.write_text(f'[subscriptions."{broker.where}"]\nlease = 30\n')
    words = ("stats", "--watch", "--every", "0.1", "-o", "lines", "--config", str(config))
    with broker.started(*words) as process:
        assert process.stdout is not None
        for _ in range(3):
            assert process.stdout.readline().rstrip("\n").split("\t")[1:] == [
                broker.where,
                "0",
                "0",
                "",
                "3",
                "",
            ]
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    assert process.returncode == 0


def test_what_is_not_named_is_what_the_broker_has(broker: World, tmp_path: Path) -> None:
    broker.fill(3)
    other = World(broker.kind, broker.url)
    other.fill(0)
    both = sorted([broker.where, other.where])
    done = broker.crossbus("stats", cwd=tmp_path)
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == both, done.stderr
    done = broker.crossbus("dlq", "summary", cwd=tmp_path)
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert {tuple(line[:2]) for line in lines} == {(broker.where, "1")}
    assert len(lines) == 3
    done = broker.crossbus("dlq", "summary", "-o", "json", cwd=tmp_path)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert {one["subscription"]: one["count"] for one in found} == {broker.where: 3, other.where: 0}
    done = broker.crossbus("dlq", "summary", "-o", "table", cwd=tmp_path)
    assert done.stdout.startswith("3 dead letters in 1 of 2 subscriptions\n")
    # Names of another template are another profile's.
    (tmp_path / "crossbus.toml").write_text(
        f'[profiles.prod]\nurl = "{broker.url}"\nnames = "prod-{{name}}"\n'
        f'[subscriptions."{broker.topic}/gone"]\nlease = 30\n'
    )
    done = crossbus("stats", "--profile", "prod", cwd=tmp_path)
    refused(done, f"{broker.topic}/gone", f"prod-{broker.topic}", code=1)


def test_those_that_a_program_declares(world: World, tmp_path: Path) -> None:
    world.fill(2)
    (tmp_path / "shop.py").write_text(
        "from crossbus import Bus, Event\n"
        "bus = Bus()\n"
        f"@bus.subscribe({world.topic!r}, 'billing', lease={world.lease})\n"
        "async def bill(event: Event) -> None: ...\n"
    )
    done = world.crossbus("stats", "shop:bus", "-o", "json", cwd=tmp_path)
    assert [json.loads(line)["subscription"] for line in done.stdout.splitlines()] == [world.where], (
        done.stderr
    )
    done = world.crossbus("dlq", "summary", "shop:bus", "-o", "json", cwd=tmp_path)
    assert [json.loads(line)["count"] for line in done.stdout.splitlines()] == [2], done.stderr
    refused(world.crossbus("stats", "shop:bus", world.where, cwd=tmp_path), "one MODULE:BUS")
    refused(world.crossbus("dlq", "summary", "shop:none", cwd=tmp_path), "none")
    if world.kind not in EXACT:
        refused(world.crossbus("stats", cwd=tmp_path), "no subscription was named", "MODULE:BUS")


def test_replay_brings_past_events_to_one_subscription(broker: World) -> None:
    broker.fill(0)
    publish(broker, "e-1")
    publish(broker, "e-2")
    assert broker.waiting(2) == ["e-1", "e-2"]
    done = broker.crossbus("replay", broker.where, "--time", "1h")
    assert done.stdout == f"replaying 2 events to {broker.where}\n", done.stderr
    assert broker.waiting(2) == ["e-1", "e-2"]


def test_one_event_of_options() -> None:
    local = ("--url", "local:")
    done = crossbus("publish", "orders", "--type", "t", *local)
    assert done.stdout.startswith("published ")
    refused(crossbus("publish", "orders", "--type", "t", "--data", "{order", *local), "--data is no JSON")
    refused(crossbus("publish", "orders", "--type", "t", "--extension", "x", *local), "NAME=VALUE")
    refused(crossbus("publish", "orders", "--type", "t", "--extension", "A_b=1", *local), "A_b")
    refused(crossbus("publish", "orders", "--data", "1", *local), "--type")
    refused(crossbus("publish", "orders", "file", "--type", "t", *local), "one of the two")


def test_a_closed_pipe_ends_tail() -> None:
    code = "import subprocess, sys; tail = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE); "
    code += "print(tail.stdout.readline().decode(), end='', flush=True); tail.stdout.close(); sys.exit(tail.wait())"
    with Server() as server:
        url = ("--url", server.url)
        crossbus("publish", "orders", "--type", "t", *url)
        words = (sys.executable, "-m", "crossbus", "tail", "orders", *url)
        with piped(code, *words) as process:
            await_watching(process)
            while process.poll() is None:
                crossbus("publish", "orders", "--type", "t", *url)
            out, err = process.communicate()
    assert len(out.splitlines()) == 1
    assert "Traceback" not in err
    assert process.returncode == 1
