"""Dead letters from the command line, in real processes: on the local broker, and on what stands in for each cloud."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.otlp import receiving
from tests.server_process import Server
from tests.support import run
from tests.test_cli import crossbus, refused
from tests.worlds import EXACT, WORLDS, World

from crossbus.topology import Subscription
from crossbus_eventbridge import making


@pytest.fixture(params=list(WORLDS))
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    with WORLDS[request.param](tmp_path) as made:
        yield made


@pytest.fixture(params=EXACT)
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    with WORLDS[request.param](tmp_path) as made:
        yield made


def ids(numbers: Sequence[int] | range) -> list[str]:
    return sorted(f"e-{n}" for n in numbers)


# --- looking --------------------------------------------------------------------------------------------------------


def test_looking_shows_all_and_moves_nothing(world: World, tmp_path: Path) -> None:
    world.fill(24)
    assert world.summary() == {"failed": 16, "no customer": 8}
    assert world.summary("--type", "com.acme.b", "--reason", "no*") == {"no customer": 4}
    assert world.summary("--since", "1h") == {"failed": 16, "no customer": 8}
    assert world.summary("--since", "10s") == {}

    done = world.crossbus("dlq", "summary", world.where)
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert sorted((line[0], line[1], line[2], line[3]) for line in lines) == [
        ("4", "no customer", "com.acme.a", "shop.bill"),
        ("4", "no customer", "com.acme.b", "shop.bill"),
        ("8", "failed", "com.acme.a", "shop.bill"),
        ("8", "failed", "com.acme.b", "shop.bill"),
    ]
    if world.kind in EXACT:
        assert done.stderr == ""
    else:
        assert "only by handing it out" in done.stderr
        assert "if it is killed, for up to" in done.stderr

    done = world.crossbus("dlq", "list", world.where, "--limit", "5", "--reason", "failed")
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert len(lines) == 5
    assert {line[2] for line in lines} == {"failed"}
    assert all(line[6].startswith("ValueError: \\x1b[31m") for line in lines), "no text steers a terminal"
    assert "there are more than 5" in done.stderr

    done = world.crossbus("dlq", "list", world.where, "-o", "json")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert sorted(one["event"]["id"] for one in found) == ids(range(24))

    done = world.crossbus("dlq", "show", world.where, "e-7")
    assert "reason       failed" in done.stdout
    assert "attempts     5" in done.stdout
    assert '"n": 7' in done.stdout

    exported = tmp_path / "out" / "dead.jsonl"
    exported.parent.mkdir()
    done = world.crossbus("dlq", "export", world.where, str(exported))
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in exported.read_text().splitlines()]
    assert sorted(one["event"]["id"] for one in found) == ids(range(24))
    assert exported.stat().st_mode & 0o077 == 0
    assert world.summary() == {"failed": 16, "no customer": 8}, "all is where it was"


# --- mending --------------------------------------------------------------------------------------------------------


def test_redriving_puts_back_what_is_chosen_once(world: World) -> None:
    world.fill(24)
    done = world.crossbus("dlq", "redrive", world.where, "--reason", "no *", "--dry-run")
    assert "8 would be put back" in done.stderr
    assert world.summary() == {"failed": 16, "no customer": 8}
    done = world.crossbus("dlq", "redrive", world.where, "--reason", "no *", "--limit", "5")
    assert (done.returncode, done.stdout) == (0, f"put back 5 of {world.where}\n"), done.stderr
    done = world.crossbus("dlq", "redrive", world.where, "--reason", "no *", "-o", "json")
    assert json.loads(done.stdout)["done"] == 3
    done = world.crossbus("dlq", "redrive", world.where, "e-1", "e-2")
    assert done.stdout == f"put back 2 of {world.where}\n", done.stderr
    refused(world.crossbus("dlq", "redrive", world.where, "e-1"), "no dead letter 'e-1'", "nothing was done")
    assert world.waiting(10) == ids([*range(0, 24, 3), 1, 2]), "with their ids"
    assert world.summary() == {"failed": 14}
    assert world.crossbus("dlq", "redrive", world.where).stdout == f"put back 14 of {world.where}\n"
    assert world.crossbus("dlq", "redrive", world.where).stdout == f"put back 0 of {world.where}\n"
    assert world.summary() == {}


def test_purging_keeps_in_a_file_what_it_removes(world: World, tmp_path: Path) -> None:
    world.fill(12)
    folder = tmp_path / "here"
    folder.mkdir()
    refused(world.crossbus("dlq", "purge", world.where, cwd=folder), "nobody to ask", "--yes")
    assert list(folder.iterdir()) == []
    done = world.crossbus("dlq", "purge", world.where, "--reason", "failed", "--yes", cwd=folder)
    assert done.stdout == f"removed 8 of {world.where}\n", done.stderr
    (file,) = folder.iterdir()
    assert file.name.startswith(f"{world.topic}--billing--dead-")
    kept = [json.loads(line)["event"]["id"] for line in file.read_text().splitlines()]
    assert sorted(kept) == ids([n for n in range(12) if n % 3])
    assert world.summary() == {"no customer": 4}
    refused(world.crossbus("dlq", "purge", world.where, "--yes", "--export", str(file)), "is there already")
    done = world.crossbus("dlq", "purge", world.where, "--reason", "x", "--yes", cwd=folder)
    assert done.stdout == f"removed 0 of {world.where}\n"
    assert len(list(folder.iterdir())) == 1, "an empty file is none"


def test_what_is_put_back_stands_in_the_trace_of_its_event(broker: World) -> None:
    broker.fill(3, traced=True)
    with receiving() as received:
        done = broker.crossbus("dlq", "redrive", broker.where, OTEL_EXPORTER_OTLP_ENDPOINT=received.url)
        assert done.returncode == 0, done.stderr
        spans = [span for span in received.spans if span.name.startswith("redrive ")]
    assert {span.service for span in spans} == {"crossbus-dlq"}
    assert sorted(span.trace_id for span in spans) == [f"{n + 1:032x}" for n in range(3)]


def test_two_at_once_put_nothing_back_twice(broker: World) -> None:
    broker.fill(3000)
    words = ("dlq", "redrive", broker.where, "-o", "json")
    with broker.started(*words) as one, broker.started(*words) as other:
        counts = [json.loads(process.communicate(timeout=60)[0]) for process in (one, other)]
    assert sum(count["done"] for count in counts) == 3000
    assert all(count["twice"] == 0 for count in counts)
    assert broker.waiting(3000) == ids(range(3000))


def test_killed_half_way_it_goes_on_and_nothing_comes_twice(broker: World) -> None:
    broker.fill(2000)
    with broker.started("dlq", "redrive", broker.where, "--rate", "200") as process:
        while sum(broker.summary().values()) == 2000:
            pass
        process.kill()
        process.wait()
    left = sum(broker.summary().values())
    assert 0 < left < 2000
    done = broker.crossbus("dlq", "redrive", broker.where)
    assert done.stdout == f"put back {left:,} of {broker.where}\n"
    assert broker.waiting(2000) == ids(range(2000))


def test_interrupted_it_finishes_its_step_and_says_how_far_it_came(world: World) -> None:
    world.fill(60)
    with world.started("dlq", "redrive", world.where, "--rate", "4") as process:
        if world.kind in EXACT:
            while sum(world.summary().values()) == 60:
                pass
        else:
            assert process.stderr is not None
            assert "only by handing it out" in process.stderr.readline()
            time.sleep(4)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    count = int(out.removeprefix("interrupted: put back ").partition(" ")[0])
    assert 0 < count < 60, err
    assert "the same command goes on" in err
    assert sum(world.summary().values()) == 60 - count
    assert world.crossbus("dlq", "redrive", world.where).stdout == f"put back {60 - count} of {world.where}\n"
    assert world.waiting(60) == ids(range(60))


def test_an_interrupted_look_ends_quietly_and_hides_nothing(world: World) -> None:
    world.fill(30)
    for number in (signal.SIGINT, signal.SIGTERM):
        with world.started("dlq", "export", world.where, "-") as process:
            if world.kind in EXACT:
                assert process.stdout is not None
                process.stdout.readline()
            else:
                assert process.stderr is not None
                assert "only by handing it out" in process.stderr.readline()
            process.send_signal(number)
            _, err = process.communicate(timeout=30)
            assert process.returncode in (0, 130, -number), err  # the last: it was done, and at its exit
            assert "Traceback" not in err
    assert sum(world.summary().values()) == 30


def test_a_closed_pipe_is_harmless(broker: World) -> None:
    broker.fill(2000)
    command = f"{sys.executable} -m crossbus dlq list {broker.where} --limit 2000 -o json | head -1"
    done = subprocess.run(
        ["bash", "-c", command],
        capture_output=True,
        text=True,
        env={**os.environ, "CROSSBUS_URL": broker.url},
    )
    assert len(done.stdout.splitlines()) == 1
    assert "Traceback" not in done.stderr
    assert sum(broker.summary().values()) == 2000


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    refused(crossbus("dlq", "summary", "orders/billing", "--url", "local:"), "memory of one process", "serve")
    refused(crossbus("stats", "orders/billing", "--url", "local:shop"), "memory of one process")
    refused(crossbus("tail", "orders", "--url", "local:"), "memory of one process")
    refused(crossbus("replay", "orders/billing", "--time", "1h", "--url", "local:"), "memory of one process")
    missing = tmp_path / "none.db"
    refused(crossbus("dlq", "list", "orders/billing", "--url", f"local:?path={missing}"), "no file")
    assert not missing.exists()
    with Server() as server:
        url = ("--url", server.url)
        refused(crossbus("dlq", "summary", "orders", *url), "TOPIC/NAME")
        refused(crossbus("dlq", "summary", "orders/billing", *url), "orders--billing--dead")
        refused(crossbus("dlq", "summary", "orders/billing", "--since", "yesterday", *url), "--since", "2h")
        refused(crossbus("dlq", "list", "orders/billing", "--since", "2026-11-26T03:00", *url), "time zone")
        refused(crossbus("replay", "orders/billing", *url), "--time", "--position")
        refused(crossbus("tail", "orders", *url), "orders")
        refused(crossbus("tail", "orders", "--filter", "{", *url), "--filter")
        done = crossbus("stats", *url)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "note: there are no subscriptions\n")
        assert crossbus("stats", "orders/billing", *url).returncode == 1


async def _delete(adapter: Any, subscription: Subscription) -> None:
    if adapter.name == "pubsub":
        name = adapter.names.subscription(subscription, "")
        await adapter.client.call("DeleteSubscription", subscription=name)
    elif adapter.name == "eventbridge":
        await making.delete_queue(adapter, subscription)
    elif adapter.name == "eventgrid":
        place = adapter.topic_name(subscription.topic), adapter.subscription_name(subscription)
        await adapter.control().delete_subscription(*place)
    else:
        await adapter.client.json("DELETE", adapter._path(subscription))


def test_a_subscription_that_is_gone_loses_no_record(world: World) -> None:
    world.fill(10)

    async def remove() -> None:
        adapter = world.adapter()
        await adapter.open()
        await _delete(adapter, world.subscription)
        await adapter.close()

    run(remove())
    done = world.crossbus("dlq", "redrive", world.where)
    refused(
        done, "billing", "not exist" if world.kind == "eventbridge" else "was not put back (0 before it were)"
    )
    assert sum(world.summary().values()) == 10
