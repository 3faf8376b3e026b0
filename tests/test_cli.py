"""The command line as a user meets it: real processes, real signals, exit codes, one line for each mistake."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from crossbus import Bus
from crossbus.adapter import SendOutcome
from crossbus.cli import conformance as conformance_module
from crossbus.cli import main
from crossbus.cli import publish as publish_module
from crossbus.cli.app import app
from crossbus.errors import ConfigurationError, ErrorCode

LIMIT = 60.0


def environment(**changes: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CROSSBUS_")}
    return clean | {"COLUMNS": "100", "PYTHONUNBUFFERED": "1"} | changes


def crossbus(
    *words: str, stdin: str | bytes = b"", cwd: Path | None = None, **changes: str
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "crossbus", *words],
        input=stdin.encode() if isinstance(stdin, str) else stdin,
        capture_output=True,
        cwd=cwd,
        env=environment(**changes),
        timeout=LIMIT,
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


@contextmanager
def started(
    *words: str, cwd: Path | None = None, code: str | None = None, **changes: str
) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, *(("-c", code) if code else ("-m", "crossbus", *words))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env=environment(**changes),
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def refused(done: subprocess.CompletedProcess[str], *says: str, code: int = 2) -> None:
    """Assert that a mistake was answered in one line."""
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if not line.startswith("note: ")]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    for text in says:
        assert text.lower() in lines[0].lower()  # typer writes TOPIC or topic, by its version


def event(id: str, **changes: object) -> str:
    members = {"specversion": "1.0", "id": id, "source": "/test", "type": "com.acme.tested", **changes}
    return json.dumps({name: value for name, value in members.items() if value is not None})


# --- as a whole -----------------------------------------------------------------------------------------------------


def test_no_command_is_help() -> None:
    done = crossbus()
    assert done.returncode == 0
    for command in ("demo", "publish", "run", "serve", "conformance"):
        assert command in done.stdout
    assert done.stderr == ""
    assert crossbus("--help").stdout.split() == done.stdout.split()


@pytest.mark.parametrize("command", ["demo", "publish", "run", "serve", "conformance"])
def test_each_command_has_help_with_examples(command: str) -> None:
    done = crossbus(command, "--help")
    assert done.returncode == 0
    assert f"crossbus {command}" in done.stdout.partition("Examples")[2]


def test_version() -> None:
    from importlib.metadata import version

    assert crossbus("--version").stdout == f"crossbus {version('crossbus')}\n"


def test_a_misspelt_command_or_option_is_one_line() -> None:
    refused(crossbus("publsh"), "publsh", "publish", "crossbus --help")
    refused(crossbus("publish", "--ulr", "local:"), "--ulr", "crossbus publish --help")
    refused(crossbus("publish"), "topic", "crossbus publish --help")


def test_the_command_line_loads_what_it_needs_when_it_needs_it() -> None:
    code = "import sys, crossbus.cli; print([m for m in ('typer', 'rich', 'asyncio.runners') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=LIMIT)
    assert "typer" not in done.stdout
    assert "rich" not in done.stdout


def test_a_closed_pipe_ends_quietly() -> None:
    command = f"{sys.executable} -m crossbus demo --fast | head -n 1"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, env=environment(), timeout=LIMIT
    )
    assert done.stderr == ""


# --- publish --------------------------------------------------------------------------------------------------------


def test_a_bad_line_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    lines = [event("1"), event("2", type=None), event("3"), "{", event("5", subject="a\u0000b"), event("6")]
    (tmp_path / "events.jsonl").write_text("\n".join(lines))
    done = crossbus("publish", "orders", "events.jsonl", "--url", "local:", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout == "published 3 of 6 to orders\n"
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert [line.split(":")[1] for line in errors] == [" line 2", " line 4", " line 5"]
    assert "type" in errors[0]
    assert "subject" in errors[2]


@pytest.mark.parametrize(
    "text",
    [
        f"{event('1')}\n{event('2')}\n",
        f"[{event('1')}, {event('2')}]",
        json.dumps([json.loads(event("1")), json.loads(event("2"))], indent=4),
        "\n".join(json.dumps(json.loads(event(id)), indent=2) for id in "12"),
    ],
    ids=["lines", "batch", "tall batch", "tall events"],
)
@pytest.mark.parametrize("file", [[], ["-"]], ids=["no file", "dash"])
def test_every_form_from_standard_input(text: str, file: list[str]) -> None:
    done = crossbus("publish", "orders", *file, stdin=text, CROSSBUS_URL="local:")
    assert (done.returncode, done.stdout) == (0, "published 2 of 2 to orders\n")


def test_what_was_read_is_what_is_published(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    published = []

    class Recording(Bus):
        async def publish_many(self, topic, events):  # type: ignore[no-untyped-def]
            events = list(events)
            published.extend((topic, each) for each in events)
            return await super().publish_many(topic, events)

    monkeypatch.setattr(publish_module, "Bus", Recording)
    file = tmp_path / "events.jsonl"
    file.write_text(event("1", source=None, data={"n": 2**60}) + "\n" + event("2", tenant="t-1"))
    with pytest.raises(SystemExit) as ended:
        main(["publish", "orders", str(file), "--url", "local:", "--source", "/shop"])
    assert ended.value.code == 0
    assert [(topic, each.id, each.source) for topic, each in published] == [
        ("orders", "1", "/shop"),
        ("orders", "2", "/test"),
    ]
    assert published[0][1].data == {"n": 2**60}
    assert published[1][1].extensions == {"tenant": "t-1"}


def test_an_event_without_source_needs_one() -> None:
    done = crossbus("publish", "orders", "--url", "local:", stdin=event("1", source=None))
    assert done.returncode == 1
    assert "line 1" in done.stderr
    assert "source" in done.stderr


def test_a_name_with_capitals_is_lower_cased_and_said() -> None:
    done = crossbus("publish", "orders", "--url", "local:", stdin=event("1", methodName="x"))
    assert (done.returncode, done.stdout) == (0, "published 1 of 1 to orders\n")
    assert "line 1: extension methodName was lower-cased" in done.stderr


def test_an_event_that_is_too_large_or_no_text_is_named() -> None:
    text = b"\n".join(
        [
            event("1", data="x" * 1_000_001).encode(),
            event("2").encode().replace(b"/test", b"/\xff"),
            event("3").encode().replace(b'"3"', b"NaN"),
            event("4").encode(),
        ]
    )
    done = crossbus("publish", "orders", "--url", "local:", stdin=text)
    assert (done.returncode, done.stdout) == (1, "published 1 of 4 to orders\n")
    for number, what in ((1, "1,000,000"), (2, "UTF-8"), (3, "JSON")):
        assert any(f"line {number}:" in line and what in line for line in done.stderr.splitlines()), (
            done.stderr
        )


def test_no_events_is_no_failure_and_said() -> None:
    done = crossbus("publish", "orders", "--url", "local:", stdin="\n")
    assert (done.returncode, done.stdout) == (0, "published 0 of 0 to orders\n")
    assert "no events" in done.stderr


def test_memory_nobody_else_can_see_is_said_in_one_line() -> None:
    done = crossbus("publish", "orders", "--url", "local:", stdin=event("1"))
    assert len(done.stderr.splitlines()) == 1
    assert "no other process can see" in done.stderr


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    refused(crossbus("publish", "orders", cwd=tmp_path), "CROSSBUS_URL", "local:")
    refused(crossbus("publish", "orders", "nothing.jsonl", "--url", "local:", cwd=tmp_path), "nothing.jsonl")
    refused(crossbus("publish", "orders", ".", "--url", "local:", cwd=tmp_path), ".")
    refused(crossbus("publish", "Orders", "--url", "local:", stdin=event("1")), "Orders", "a-z")
    refused(crossbus("publish", "orders", "--url", "lokal:"), "lokal", "local")
    refused(crossbus("publish", "orders", "--url", "local:?paht=x"), "paht")
    refused(crossbus("publish", "orders", "--profile", "production", cwd=tmp_path), "production")
    refused(crossbus("publish", "orders", "--url", "local:", stdin=event("1").encode("utf-16")), "UTF-16")


def test_a_topic_that_the_configuration_does_not_list(tmp_path: Path) -> None:
    (tmp_path / "crossbus.toml").write_text(
        'default_profile = "desk"\n[profiles.desk]\nurl = "local:"\n[topics.orders]\n[topics.invoices]\n'
    )
    refused(crossbus("publish", "ordrs", stdin=event("1"), cwd=tmp_path), "ordrs", "orders")
    assert crossbus("publish", "orders", stdin=event("1"), cwd=tmp_path).returncode == 0


def test_events_go_as_they_come_and_an_interrupt_keeps_the_count() -> None:
    with started("publish", "orders", "--url", "local:", CROSSBUS_DEBUG="1") as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(event("1") + "\nno event\n" + event("3") + "\n")
        process.stdin.flush()
        # The error of line 2 is said while the pipe is open, after lines 1 to 3 came in one piece.
        while "line 2" not in (line := process.stderr.readline()):
            assert line
        process.stdin.write(event("4") + "\nno event\n")
        process.stdin.flush()
        while "line 5" not in (line := process.stderr.readline()):
            assert line
        process.send_signal(signal.SIGINT)
        stdout, _ = process.communicate(timeout=LIMIT)
    assert stdout == "interrupted after line 5: published 3 of 5 to orders\n"
    assert process.returncode == 130


HANGING = """
import asyncio
from crossbus_local import LocalAdapter
from crossbus.cli import main

send = LocalAdapter.send

async def hang(self, topic, wires):
    if any(b"e-3" in wire.body for wire in wires):
        print("hanging", flush=True)
        await asyncio.sleep(1000)
    return await send(self, topic, wires)

LocalAdapter.send = hang
main(["publish", "orders", "--url", "local:"])
"""


def test_a_second_interrupt_stops_at_once_and_keeps_the_count() -> None:
    with started(code=HANGING) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(event("e-1") + "\n" + event("e-2") + "\nno event\n")
        process.stdin.flush()
        while "line 3" not in process.stderr.readline():
            pass
        process.stdin.write(event("e-3") + "\n")
        process.stdin.flush()
        assert process.stdout.readline() == "hanging\n"
        process.send_signal(signal.SIGINT)
        assert "once more stops at once" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        stdout, _ = process.communicate(timeout=10)
    assert stdout.startswith("stopped: published 2 of 4 to orders for certain")
    assert process.returncode == 130


INTERRUPTED_AT_EXIT = """
import atexit, os, signal, sys, time

atexit.register(lambda: (os.kill(os.getpid(), signal.SIGINT), time.sleep(30)))
sys.argv = ["crossbus", "--version"]
from crossbus.cli import main
main()
"""


def test_an_interrupt_while_the_process_exits_is_quiet() -> None:
    with started(code=INTERRUPTED_AT_EXIT) as process:
        stdout, stderr = process.communicate(timeout=LIMIT)
    assert stdout.startswith("crossbus ")
    assert (process.returncode, stderr) == (-signal.SIGINT, "")


def test_what_would_fail_for_every_event_stops_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from crossbus_local import LocalAdapter

    async def forbidden(self, topic, wires):  # type: ignore[no-untyped-def]
        return [
            SendOutcome(code=ErrorCode.PERMISSION_DENIED, message="ask for orders:publish") for _ in wires
        ]

    monkeypatch.setattr(LocalAdapter, "send", forbidden)
    monkeypatch.setattr(publish_module, "_CHUNK", 200)
    file = tmp_path / "events.jsonl"
    file.write_text("".join(event(str(number)) + "\n" for number in range(1000)))
    with pytest.raises(SystemExit) as ended:
        main(["publish", "orders", str(file), "--url", "local:"])
    assert ended.value.code == 2
    printed = capsys.readouterr()
    assert re.match(r"published 0 of \d\d? to orders\n", printed.out)
    assert len(printed.err.splitlines()) < 10
    assert "orders:publish" in printed.err.splitlines()[-1]


def test_a_file_larger_than_the_memory_it_may_take(tmp_path: Path) -> None:
    line = event("1", data="x" * 3_000) + "\n"
    with (tmp_path / "large.jsonl").open("w") as file:
        for _ in range(100):
            file.write(line * 300)
    assert (tmp_path / "large.jsonl").stat().st_size > 90_000_000
    # In a process of its own, so that only this child counts; and unmeasured, since coverage takes memory too.
    measured = environment()
    measured.pop("COVERAGE_PROCESS_START", None)
    code = (
        "import resource, subprocess, sys\n"
        "subprocess.run([sys.executable, '-m', 'crossbus', *sys.argv[1:]], check=True)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "publish", "orders", "large.jsonl", "--url", "local:"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=measured,
        timeout=LIMIT,
        check=True,
    )
    said, kilobytes = done.stdout.splitlines()
    assert said == "published 30,000 of 30,000 to orders"
    assert int(kilobytes) < 120_000


# --- run ------------------------------------------------------------------------------------------------------------

PROGRAM = """
import asyncio
from crossbus import Bus, Event

bus = Bus(source="/test")

@bus.subscribe("orders", "billing")
async def bill(event: Event) -> None:
    print("begun", event.id, flush=True)
    await asyncio.sleep(0.5)
    print("done", event.id, flush=True)

@bus.on_start
async def feed(bus: Bus) -> None:
    await bus.publish("orders", Event(type="com.acme.tested", id="e-1"))

def make():
    return bus

number = 5
"""


SYNC_PROGRAM = """
import time
from crossbus import Event, SyncBus

bus = SyncBus(source="/test")
bus.topic("bills")

@bus.subscribe("orders", "billing")
def bill(event: Event) -> None:
    print("begun", event.id, flush=True)
    time.sleep(0.5)
    bus.publish("bills", Event(type="com.acme.billed"))
    print("done", event.id, flush=True)

@bus.on_start
def feed(bus: SyncBus) -> None:
    bus.publish("orders", Event(type="com.acme.tested", id="e-1"))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(PROGRAM)
    return tmp_path


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("program", ["shop:bus", "shop", "shop:make"])
def test_run_handles_until_a_signal_and_finishes_what_is_in_hand(
    folder: Path, program: str, number: signal.Signals
) -> None:
    with started("run", program, "--url", "local:", cwd=folder) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun e-1\n"
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=LIMIT)
    assert stdout == "done e-1\n"
    assert process.returncode == 0
    assert "only events that this program publishes itself" in stderr
    assert "orders/billing" in stderr
    assert "Traceback" not in stderr


def test_run_tells_what_it_does_not_find(folder: Path) -> None:
    def run(program: str) -> subprocess.CompletedProcess[str]:
        return crossbus("run", program, "--url", "local:", cwd=folder)

    refused(run("shpo:bus"), "no module 'shpo'", "did you mean 'shop'?")
    refused(run("shop:buss"), "'buss'", "did you mean 'bus'?")
    refused(run("shop.py:bus"), "shop:bus")
    refused(run("shop:number"), "int", "shop:bus")
    refused(run("shop:Event"), "shop:Event")
    refused(run("shop-two:bus"), "MODULE:BUS")
    refused(run("json"), "json", "no Bus")


def test_run_needs_a_bus_with_a_handler_and_a_configuration(folder: Path) -> None:
    (folder / "bare.py").write_text("from crossbus import Bus\nbus = Bus()\nother = Bus()\n")
    refused(crossbus("run", "bare:bus", "--url", "local:", cwd=folder), "handler")
    refused(crossbus("run", "bare", "--url", "local:", cwd=folder), "bare:bus", "bare:other")
    refused(crossbus("run", "shop:bus", cwd=folder), "CROSSBUS_URL", "shop.py", "line 5")


def test_run_refuses_a_program_that_runs_itself_when_it_is_imported(folder: Path) -> None:
    (folder / "eager.py").write_text(f"{PROGRAM}\nasyncio.run(bus.run())\n")
    (folder / "plain.py").write_text(f"{SYNC_PROGRAM}\nbus.run()\n")
    for name in ("eager", "plain"):
        refused(
            crossbus("run", name, "--url", "local:", cwd=folder),
            name,
            "while crossbus run imports it",
            "__main__",
        )


def test_run_takes_a_profile_of_a_file(folder: Path) -> None:
    (folder / "other.toml").write_text('[profiles.desk]\nurl = "local:desk"\n')
    words = ("run", "shop:bus", "--profile", "desk", "--config", "other.toml")
    with started(*words, cwd=folder, CROSSBUS_URL="nonsense:") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun e-1\n"
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=LIMIT)
    assert "local:desk is in the memory" in stderr


def test_run_refuses_an_option_that_the_program_overrules(folder: Path) -> None:
    (folder / "stubborn.py").write_text(PROGRAM.replace("Bus(", 'Bus("local:own", '))
    refused(crossbus("run", "stubborn:bus", "--url", "local:other", cwd=folder), "--url local:other", "Bus()")
    refused(crossbus("run", "stubborn:bus", "--profile", "desk", cwd=folder), "--profile desk")
    refused(
        crossbus("run", "shop:bus", "--profile", "desk", "--url", "local:", cwd=folder), "--url", "--profile"
    )


def test_run_of_a_bus_without_asyncio(folder: Path) -> None:
    (folder / "plain.py").write_text(SYNC_PROGRAM)
    with started("run", "plain:bus", "--url", "local:", cwd=folder) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun e-1\n"
        process.send_signal(signal.SIGTERM)
        stdout, stderr = process.communicate(timeout=LIMIT)
    assert stdout == "done e-1\n"
    assert process.returncode == 0, stderr
    assert "Traceback" not in stderr


@pytest.mark.parametrize(
    ("code", "last"),
    [
        ("def broken():\n    return 1 / 0\n\nbroken()\n", "ZeroDivisionError: division by zero"),
        ("import nothing_of_that_name\n", "ModuleNotFoundError: No module named 'nothing_of_that_name'"),
        ("def broken(:\n", "SyntaxError: "),
        ("raise SystemExit('no')\n", "SystemExit: no"),
    ],
)
def test_a_mistake_in_the_users_module_is_shown_where_it_is(folder: Path, code: str, last: str) -> None:
    (folder / "broken.py").write_text(code)
    done = crossbus("run", "broken:bus", "--url", "local:", cwd=folder)
    assert done.returncode == 1
    assert done.stdout == ""
    *report, error = done.stderr.splitlines()
    assert error.startswith("error: broken cannot be imported: ")
    assert report[-1].startswith(last)
    assert str(folder / "broken.py") in done.stderr
    assert "/cli/" not in done.stderr
    assert "importlib" not in done.stderr


def test_a_refused_declaration_is_one_line_that_says_where(folder: Path) -> None:
    (folder / "bad.py").write_text(
        'from crossbus import Bus\nbus = Bus()\nbus.subscribe("Orders", "billing")\n'
    )
    refused(crossbus("run", "bad:bus", "--url", "local:", cwd=folder), "'Orders'", "bad.py", "line 3")


# --- conformance ------------------------------------------------------------------------------------------------------


def test_conformance_runs_what_is_selected_and_sums_up() -> None:
    done = crossbus("conformance", "local:", "--select", "batch", "--select", "errors/*")
    assert done.returncode == 0, done.stdout
    *lines, summary = [line for line in done.stdout.splitlines() if line]
    assert {line.split()[1].partition("/")[0] for line in lines} == {"batch", "errors"}
    assert any(line.startswith("✓ batch/") for line in lines)
    assert "skipped: local: has no `credentials`" in done.stdout
    assert re.match(r"local: .*: \d+ passed, 0 failed, \d+ skipped", summary)
    assert done.stderr == ""


def test_conformance_as_json() -> None:
    done = crossbus("conformance", "local:", "--select", "batch", "--scale", "0.5", "--json")
    report = json.loads(done.stdout)
    assert report["scale"] == 0.5
    assert {result["status"] for result in report["results"]} == {"passed"}
    assert "batch/" in done.stderr


def test_conformance_tells_failures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from crossbus_local import LocalAdapter

    async def forgetful(self, topic, wires):  # type: ignore[no-untyped-def]
        return [SendOutcome("1") for _ in wires]

    monkeypatch.setattr(LocalAdapter, "send", forgetful)
    with pytest.raises(SystemExit) as ended:
        main(["conformance", "local:", "--select", "basic/send-and-receive"])
    assert ended.value.code == 1
    printed = capsys.readouterr().out
    assert "✗ basic/send-and-receive: failed" in printed
    assert "0 passed, 1 failed" in printed


def test_conformance_asks_before_it_touches_an_account(monkeypatch: pytest.MonkeyPatch) -> None:
    from crossbus_local import LocalAdapter

    touched = []
    monkeypatch.setattr(LocalAdapter, "is_local", False)
    monkeypatch.setattr(LocalAdapter, "open", lambda self: touched.append(self))
    runner = CliRunner()
    command = ["conformance", "local:", "--select", "basic/send-and-receive"]
    monkeypatch.setattr(conformance_module, "_somebody_is_there", lambda: True)
    assert isinstance(runner.invoke(app, command, input="n\n").exception, SystemExit)
    monkeypatch.setattr(conformance_module, "_somebody_is_there", lambda: False)
    answer = runner.invoke(app, command)
    assert isinstance(answer.exception, ConfigurationError)
    assert "--yes" in str(answer.exception)
    assert touched == []


def test_conformance_of_what_there_is_not() -> None:
    refused(crossbus("conformance", "local:", "--select", "nonsense"), "nonsense", "envelope")
    refused(crossbus("conformance", "lokal:"), "lokal", "local")


# --- mistakes of crossbus -------------------------------------------------------------------------------------------


def test_a_mistake_in_crossbus_is_one_line_and_debug_shows_the_rest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("of our own")

    monkeypatch.setattr(publish_module, "publish_file", broken)
    for words, tracebacks in (([], 0), (["--debug"], 1)):
        with pytest.raises(SystemExit) as ended:
            main(["publish", "orders", *words])
        assert ended.value.code == 3
        stderr = capsys.readouterr().err
        assert "error: RuntimeError: of our own" in stderr
        assert stderr.count("Traceback") == tracebacks
        assert ("--debug shows" in stderr) is not bool(tracebacks)
