"""`crossbus provision` on the local broker and on what stands in for each cloud."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests import eventbridge_harness
from tests.cli_here import here
from tests.declared import PROGRAM, alone, in_world, write
from tests.server_process import Server
from tests.support import run
from tests.test_cli import LIMIT, environment, refused
from tests.test_cli_dlq import WORLDS, World

from crossbus import Bus, Event, exact
from crossbus.topology import Topology


@pytest.fixture(params=list(WORLDS))
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    with alone(request.param, tmp_path) as made:
        yield made


@pytest.fixture(params=["memory", "pubsub", "eventbridge", "eventgrid"])
def cloud(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    with alone(request.param, tmp_path) as made:
        yield made


@pytest.fixture
def server(tmp_path: Path) -> Iterator[World]:
    with alone("memory", tmp_path) as made:
        yield made


def states(world: World) -> set[str]:
    """What `inspect` says of the subscriptions and topics that the program declares."""

    async def look() -> set[str]:
        adapter = world.adapter()
        await adapter.open()
        one = world.subscription.replace(filter=exact(type="com.acme.a"))
        found = await adapter.inspect(Topology((one.topic,), (one, one.replace(name="audit", filter=None))))
        await adapter.close()
        return {f"{each.name.rpartition('/')[2]} {each.state}" for each in found}

    return run(look(), limit=60)


def actions(text: str) -> list[str]:
    return sorted({line.split("\t")[0] for line in text.splitlines()})


def test_what_is_declared_is_created_once(world: World, tmp_path: Path) -> None:
    shown = in_world(world, "provision", "shop:bus", "--dry-run", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert actions(shown.stdout) == ["create"]
    assert "nothing was changed" in shown.stderr
    assert not any(state.endswith(" ok") for state in states(world))

    done = in_world(world, "provision", "shop:bus", "--yes", "-o", "json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(row["action"], row["kind"], row["name"]) for row in rows] == [
        tuple(line.split("\t")[:3]) for line in shown.stdout.splitlines()
    ]
    assert all(row["done"] for row in rows)
    assert f"{len(rows)} of {len(rows)} changes are made" in done.stderr
    assert "billing missing" not in states(world)

    for more in ([], ["--prune"]):
        again = in_world(world, "provision", "shop:bus", *more, cwd=tmp_path)
        assert (again.returncode, again.stdout) == (0, ""), again.stderr
        assert "nothing to do" in again.stderr


def test_nothing_is_deleted_without_prune(cloud: World, tmp_path: Path) -> None:
    assert in_world(cloud, "provision", "shop:bus", "--yes", cwd=tmp_path).returncode == 0
    write(tmp_path, cloud, "\n".join(PROGRAM.splitlines()[:-1]))
    done = in_world(cloud, "provision", "shop:bus", "--yes", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "delete" not in done.stdout
    assert "audit missing" not in states(cloud)
    done = in_world(cloud, "provision", "shop:bus", "--yes", "--prune", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert actions(done.stdout) == ["delete"]
    assert "to delete" in done.stderr or "changes are made" in done.stderr
    assert "audit missing" in states(cloud)
    assert "billing missing" not in states(cloud)


def test_what_is_external_is_never_touched(cloud: World, tmp_path: Path) -> None:
    assert in_world(cloud, "provision", "shop:bus", "--yes", cwd=tmp_path).returncode == 0
    write(
        tmp_path,
        cloud,
        "from crossbus import Bus\nbus = Bus()\nbus.topic({topic!r}, external=True)\n"
        'bus.subscribe({topic!r}, "billing", external=True, lease={lease}, backstop=7)\n',
    )
    done = in_world(cloud, "provision", "shop:bus", "--yes", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "nothing to do" in done.stderr


# --- asking -------------------------------------------------------------------------------------------------------


def test_without_anybody_to_ask_it_refuses(server: World, tmp_path: Path) -> None:
    done = in_world(server, "provision", "shop:bus", cwd=tmp_path)
    assert done.returncode == 2
    assert actions(done.stdout) == ["create"], "what it would do is shown"
    assert "error: " in done.stderr
    assert re.search(
        r"\d+ to create, in local\+http: there is nobody to ask; --yes carries it out", done.stderr
    )
    assert "billing missing" in states(server)


@pytest.mark.parametrize(
    ("answer", "code", "state", "words"),
    [
        ("y", 0, "ok", ()),
        ("n", 130, "missing", ()),
        ("", 130, "missing", ()),
        ("n", 130, "missing", ("-o", "json")),
    ],
)
def test_on_a_terminal_it_asks(
    server: World, tmp_path: Path, answer: str, code: int, state: str, words: tuple[str, ...]
) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "crossbus", "provision", "shop:bus", *words],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=tmp_path,
        env=environment(CROSSBUS_URL=server.url, COLUMNS="120", TERM="dumb"),
        start_new_session=True,
    ) as process:
        os.close(theirs)
        seen = until(ours, b"[y/N]")
        os.write(ours, answer.encode() + b"\n")
        assert process.wait(LIMIT) == code
        os.close(ours)
    text = seen.decode()
    assert "action" in text, "a table, with its columns"
    assert "to create, in local+http. Go on?" in text
    assert f"billing {state}" in states(server)


def until(terminal: int, wanted: bytes) -> bytes:
    seen, end = b"", time.monotonic() + LIMIT
    while wanted not in seen and time.monotonic() < end:
        if select.select([terminal], [], [], 1)[0]:
            seen += os.read(terminal, 4096)
    assert wanted in seen, seen
    return seen


# --- mistakes -----------------------------------------------------------------------------------------------------


def test_what_the_provider_cannot_hold_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with alone("eventbridge", tmp_path) as world:
        text = PROGRAM + 'bus.subscribe(TOPIC, "strict", ordered=True)\n'
        write(tmp_path, world, text)
        refused(
            in_world(world, "provision", "shop:bus", "--yes", cwd=tmp_path),
            f"subscription {world.topic}/strict is ordered: eventbridge cannot do that",
        )
        assert "billing missing" in states(world)


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        "from crossbus import Bus\nbus = Bus()\nempty = Bus()\nbus.topic('orders')\n"
    )
    refused(here("provision", "shop:empty", cwd=tmp_path, CROSSBUS_URL="local:"), "declares no topic")
    refused(
        here("provision", "shop:bus", "--yes", cwd=tmp_path, CROSSBUS_URL="local:"),
        "in the memory of one process",
    )
    refused(here("provision", "shop:bus", "--profile", "zzz", cwd=tmp_path), "names the profile 'zzz'")


# --- half way -----------------------------------------------------------------------------------------------------


def test_what_fails_half_way_says_how_far_it_came_and_goes_on(tmp_path: Path) -> None:
    with eventbridge_harness.world(eventbridge_harness.server()) as aws:
        world = World("eventbridge", aws.url("cli"), dict(aws.env))
        write(tmp_path, world)
        moto, key = aws.server, aws.key("cli")
        moto.set(key, errors=[["AccessDeniedException", "PutRule"]])
        done = in_world(world, "provision", "shop:bus", "--yes", "-o", "json", cwd=tmp_path)
        assert done.returncode == 2
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        made = [row["done"] for row in rows]
        assert made == sorted(made, reverse=True)
        assert 0 < sum(made) < len(made)
        assert f"{sum(made)} of {len(made)} changes are made; run it again" in done.stderr
        assert "PutRule" in done.stderr.splitlines()[-1]
        moto.set(key, errors=[])
        done = in_world(world, "provision", "shop:bus", "--yes", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "nothing to do" in in_world(world, "provision", "shop:bus", cwd=tmp_path).stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_what_is_stopped_half_way_goes_on_when_it_is_run_again(
    tmp_path: Path, number: signal.Signals
) -> None:
    with eventbridge_harness.world(eventbridge_harness.server()) as aws:
        world = World("eventbridge", aws.url("cli", networked=True), dict(aws.env))
        write(tmp_path, world)
        aws.proxy("cli").delay(0.05)

        def made() -> int:
            return aws.server.counts(aws.key("cli")).get("CreateEventBus", 0)

        before = made()
        with world.started("provision", "shop:bus", "--yes", cwd=tmp_path) as process:
            end = time.monotonic() + LIMIT
            while made() == before:
                assert time.monotonic() < end
                assert process.poll() is None
                time.sleep(0.02)
            aws.proxy("cli").delay(
                0.5
            )  # the rest of the changes takes long enough to come between, on any machine
            process.send_signal(number)
            _, errors = process.communicate(timeout=LIMIT)
        if number != signal.SIGKILL:
            assert process.returncode == 130, errors
            assert re.search(r"[1-9]\d* of \d+ changes are made; run it again to make the rest", errors)
        aws.proxy("cli").delay(0)
        shown = in_world(world, "provision", "shop:bus", "--dry-run", cwd=tmp_path)
        assert len(shown.stdout.splitlines()) > 0, "some are left to do"
        done = in_world(world, "provision", "shop:bus", "--yes", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "nothing to do" in in_world(world, "provision", "shop:bus", cwd=tmp_path).stderr


def test_a_plan_of_several_profiles_names_them(tmp_path: Path) -> None:
    with Server() as one, Server() as other:
        (tmp_path / "crossbus.toml").write_text(
            f'[profiles.here]\nurl = "{one.url}"\n[profiles.there]\nurl = "{other.url}"\n'
            '[topics]\norders = {}\ninvoices = { profile = "there" }\n'
        )
        (tmp_path / "shop.py").write_text(
            "from crossbus import Bus\nbus = Bus()\nbus.topic('orders')\nbus.topic('invoices')\n"
        )
        done = here("provision", "shop:bus", "--profile", "here", "--yes", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stdout == "create\ttopic\torders\t\there\ncreate\ttopic\tinvoices\t\tthere\n"
        done = here("topology", "diff", "shop:bus", "--profile", "there", "--cloud", cwd=tmp_path)
        assert (done.returncode, done.stdout) == (1, "- topic orders: orders is missing\n")


# --- generations --------------------------------------------------------------------------------------------------

CONFIG = """
include = ["crossbus.generated.toml"]

[profiles.production]
url = "{url}"
"""


def test_a_changed_filter_leaves_a_generation_that_consumers_read(tmp_path: Path) -> None:
    with alone("pubsub", tmp_path) as world:
        url = world.url
        (tmp_path / "crossbus.toml").write_text(CONFIG.format(url=url).replace("include", "# include"))

        def provision(*words: str) -> subprocess.CompletedProcess[str]:
            done = here("provision", "shop:bus", "--profile", "production", "--yes", *words, cwd=tmp_path)
            assert done.returncode == 0, done.stderr
            return done

        provision()
        generated = tmp_path / "crossbus.generated.toml"
        assert not generated.exists(), "there is nothing to say"
        run(publish(url, world.topic, Event(type="com.acme.a", source="/shop", id="before")), limit=60)

        write(tmp_path, world, filter='prefix(type="com.acme.")')
        done = provision()
        assert len(done.stdout.splitlines()) == 1
        assert "crossbus.generated.toml is written" in done.stderr
        assert "crossbus.toml does not include it" in done.stderr
        (tmp_path / "crossbus.toml").write_text(CONFIG.format(url=url))
        done = provision()
        assert "nothing to do" in done.stderr
        assert "crossbus.generated.toml" not in done.stderr, "it is as it was, and included"
        key = f'subscriptions."{world.topic}/billing".options.generations'
        shown = here("config", "show", "--profile", "production", cwd=tmp_path).stdout
        (line,) = [line for line in shown.splitlines() if key in line]
        assert re.search(
            rf"\t{world.topic}--billing--[0-9a-f]{{8}}\tcrossbus.generated.toml: profiles.production", line
        )

        run(publish(url, world.topic, Event(type="com.acme.b", source="/shop", id="after")), limit=60)
        assert run(consume(tmp_path, world.topic), limit=60) == {"before", "after"}

        done = provision("--prune")
        assert "nothing to do" in done.stderr, "its retention is not over"
        forced = CONFIG.format(url=f"{url}&prune=force")
        (tmp_path / "crossbus.toml").write_text(forced)
        done = provision("--prune")
        assert actions(done.stdout) == ["delete"]
        assert (
            "options.generations"
            not in here("config", "show", "--profile", "production", cwd=tmp_path).stdout
        )
        assert "nothing to do" in provision("--prune").stderr


async def publish(url: str, topic: str, event: Event) -> None:
    async with Bus(url) as bus:
        await bus.publish(topic, event)


async def consume(folder: Path, topic: str) -> set[str]:
    """Take what waits in the subscription, as the profile has it."""
    bus = Bus(profile="production", config=folder / "crossbus.toml", provision="never")
    bus.subscribe(topic, "billing")
    bus.subscriptions[0].declaration = bus.subscriptions[0].declaration.replace(
        native_filter={"pubsub": 'hasPrefix(attributes.ce-type, "com.acme.")'}
    )
    found: set[str] = set()
    async with bus, bus.deliveries(topic, "billing") as deliveries:
        async with asyncio.timeout(LIMIT):
            async for delivery in deliveries:
                found.add(delivery.event.id)
                await delivery.ack()
                if len(found) == 2:
                    break
    return found
