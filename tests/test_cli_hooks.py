"""What `crossbus run` says of a hook of the program that fails: that it is the program's, and where."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.test_cli import crossbus

PROGRAM = """
from crossbus import {bus}, Event

bus = {bus}(source="/test")

@bus.subscribe("orders", "billing")
def bill(event: Event) -> None: ...

@bus.{when}
{hook}:
    connect()

def connect() -> None:
    raise RuntimeError("no database at db.example")
"""


@pytest.mark.parametrize("words", [(), ("--workers", "1")], ids=["one-process", "workers"])
@pytest.mark.parametrize(
    ("bus", "hook"),
    [("Bus", "async def set_up(bus)"), ("Bus", "def set_up(bus)"), ("SyncBus", "def set_up(bus)")],
)
def test_a_start_hook_that_fails_is_the_programs(
    tmp_path: Path, bus: str, hook: str, words: tuple[str, ...]
) -> None:
    (tmp_path / "shop.py").write_text(PROGRAM.format(bus=bus, hook=hook, when="on_start"))
    done = crossbus("run", "shop:bus", "--url", "local:", *words, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    lines = done.stderr.splitlines()
    assert "error: the program's hook set_up() failed: RuntimeError: no database at db.example" in lines
    assert "mistake in crossbus" not in done.stderr
    files = [line for line in lines if line.startswith("  File ")]
    assert [line.partition(" in ")[2] for line in files] == ["set_up", "connect"], done.stderr


def test_what_a_hook_asks_of_crossbus_is_said_as_ever(tmp_path: Path) -> None:
    text = PROGRAM.format(bus="Bus", hook="async def set_up(bus)", when="on_start")
    (tmp_path / "shop.py").write_text(
        text.replace("    connect()\n", "    await bus.publish('x', Event(type='t'))\n")
    )
    done = crossbus("run", "shop:bus", "--url", "local:", cwd=tmp_path)
    assert done.returncode == 2
    assert "error: " in done.stderr
    assert "Traceback" not in done.stderr
