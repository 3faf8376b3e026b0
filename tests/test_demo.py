"""The demo: what it plays is real, it ends in time, and it reads well wherever it is printed."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from tests.test_cli import LIMIT, crossbus, environment, event, refused

from crossbus.codecs import decode_json

SHOP = Path(__file__).parent.parent / "src" / "crossbus" / "demo"
ESCAPES = re.compile(r"\x1b\[([0-9;]*)m")


def in_terminal(*words: str, columns: int, **changes: str) -> tuple[str, float]:
    """Run the demo in a terminal of so many columns; return what it printed, and how long it took."""
    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    variables = environment(TERM="xterm-256color", **changes)
    variables.pop("COLUMNS", None)
    for name in ("NO_COLOR", "FORCE_COLOR"):
        if name not in changes:
            variables.pop(name, None)
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "crossbus", "demo", *words],
        stdin=side,
        stdout=side,
        stderr=side,
        env=variables,
    )
    os.close(side)
    printed = b""
    try:
        while select.select([main], [], [], LIMIT)[0]:
            try:
                if not (piece := os.read(main, 65536)):
                    break
            except OSError:  # the other side is closed: Linux says so by EIO
                break
            printed += piece
        assert process.wait(LIMIT) == 0, printed.decode()
    finally:
        process.kill()
        process.wait()
        os.close(main)
    return printed.decode().replace("\r\n", "\n"), time.monotonic() - began


def test_the_shop_is_played_to_its_end() -> None:
    done = crossbus("demo")
    assert done.returncode == 0
    assert done.stderr == ""
    text = " ".join(done.stdout.split())
    for said in (
        "Publish 11 events",
        "o-1003 attempt 1 raises ConnectionError",
        "o-1003 attempt 2 raises ConnectionError",
        "o-1003 attempt 3 returns: acknowledged",
        "o-1004 attempt 1 raises Reject('no exchange rate for CHF'): into the dead letter",
        "reason no exchange rate for CHF",
        "o-1004 attempt 1 returns: acknowledged",
        "Meanwhile the others handled theirs",
        "11 events published, 23 deliveries handled, 2 retries, 1 dead letter, 1 redriven.",
        "Left over: 0 waiting, 0 dead.",
        "crossbus demo --code > shop.py",
    ):
        assert said in text
    assert text.index("o-1003 attempt 2") > text.index(
        "o-1004 attempt 1 raises"
    )  # nothing waited for the retry
    for name, count in (("billing", 4), ("eu-desk", 3), ("operations", 5), ("archive", 11)):
        assert re.search(rf"{name} +{count} +█{{{count}}}\n", done.stdout)


def test_a_pipe_gets_plain_lines() -> None:
    done = crossbus("demo")
    assert "\x1b" not in done.stdout
    assert not [line for line in done.stdout.splitlines() if line != line.rstrip()]
    assert all(len(line) <= 100 for line in done.stdout.splitlines())


def test_a_pipe_that_is_not_unicode_gets_ascii() -> None:
    done = crossbus("demo", PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert done.stdout.isascii()
    assert "x o-1004" in done.stdout


@pytest.mark.parametrize("columns", [60, 120])
def test_a_terminal_gets_colour_within_its_width_and_ten_seconds(columns: int) -> None:
    printed, seconds = in_terminal(columns=columns)
    assert {"1", "32", "33", "31"} <= set(";".join(ESCAPES.findall(printed)).split(";"))
    assert max(len(line) for line in ESCAPES.sub("", printed).splitlines()) <= min(columns, 100)
    assert 2 < seconds < 10


def test_fast_does_not_pause() -> None:
    _, seconds = in_terminal("--fast", columns=80)
    assert seconds < 6


def test_no_color_is_honoured() -> None:
    printed, _ = in_terminal("--fast", columns=80, NO_COLOR="1")
    codes = set(";".join(ESCAPES.findall(printed)).split(";"))
    assert not codes & {str(code) for base in (30, 40, 90, 100) for code in range(base, base + 8)}


def test_a_users_events_are_played_and_bad_lines_named(tmp_path: Path) -> None:
    lines = [
        event("a", type="org.one"),
        "no event",
        event("b", type="org.two"),
        "{}",
        event("c", type="org.two"),
    ]
    lines.append(event("d", subject="x" * 1025))
    (tmp_path / "mine.jsonl").write_text("\n".join(lines) + "\n")
    done = crossbus("demo", "--events", "mine.jsonl", cwd=tmp_path)
    assert done.returncode == 1
    text = " ".join(done.stdout.split())
    assert "line 2: " in text
    assert "line 4: " in text
    assert "line 6: " in text
    assert 'exact(type="org.two")' in text
    assert "a attempt 3 returns: acknowledged" in text
    assert "c attempt 1 raises Reject" in text
    assert "3 events published" in text
    assert "1 dead letter, 1 redriven. Left over: 0 waiting, 0 dead." in text


@pytest.mark.parametrize("form", ["one", "batch", "twice the same"])
def test_a_users_file_may_be_any_form(tmp_path: Path, form: str) -> None:
    text = {
        "one": json.dumps(json.loads(event("a")), indent=2),
        "batch": f"[{event('a')}, {event('b')}]",
        "twice the same": f"{event('a')}\n{event('a')}\n",
    }[form]
    (tmp_path / "mine.json").write_text(text)
    done = crossbus("demo", "--events", "mine.json", cwd=tmp_path)
    assert done.returncode == 0
    assert "0 waiting, 0 dead" in " ".join(done.stdout.split())


def test_a_file_without_events_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "none.jsonl").write_text("no event\n")
    refused(crossbus("demo", "--events", "none.jsonl", cwd=tmp_path), "none.jsonl", "line 1")
    (tmp_path / "none.jsonl").write_text("")
    refused(crossbus("demo", "--events", "none.jsonl", cwd=tmp_path), "none.jsonl")
    refused(crossbus("demo", "--events", "missing.jsonl", cwd=tmp_path), "missing.jsonl")


def test_a_large_file_is_played_in_part_and_that_is_said(tmp_path: Path) -> None:
    (tmp_path / "many.jsonl").write_text("".join(f"{event(str(number))}\n" for number in range(500)))
    done = crossbus("demo", "--events", "many.jsonl", cwd=tmp_path)
    assert done.returncode == 0
    assert "the first 200" in done.stdout


def test_the_events_are_cloudevents_and_five_are_real() -> None:
    events = [decode_json(line) for line in (SHOP / "events.jsonl").read_bytes().splitlines()]
    assert len({(each.source, each.id) for each in events}) == len(events)
    assert sum(each.type.startswith(("google.", "Microsoft.")) for each in events) == 5


def test_code_is_a_program_that_runs(tmp_path: Path) -> None:
    printed = crossbus("demo", "--code")
    assert printed.returncode == 0
    (tmp_path / "shop.py").write_text(printed.stdout)
    done = subprocess.run(
        [sys.executable, "shop.py"],
        cwd=tmp_path,
        env=environment(CROSSBUS_URL="local:"),
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode == 0, done.stderr
    assert "billed o-2: 80.00" in done.stdout
