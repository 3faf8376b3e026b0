"""The emulator for developers: found, started, stopped; and the first program of the documentation on it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from crossbus.cli import main
from crossbus.errors import ConfigurationError
from crossbus_pubsub import emulator as module
from crossbus_pubsub.emulator import Emulator, find_emulator

PROGRAM = """
import asyncio
from dataclasses import dataclass
from crossbus import Bus, Event, exact

bus = Bus()

@dataclass
class OrderPlaced:
    order: str
    total: float

@bus.subscribe("orders", "billing", filter=exact(type="com.acme.order.placed"))
async def bill(order: OrderPlaced, event: Event) -> None:
    print(event.id, order.total, flush=True)

async def main() -> None:
    async with bus:
        await bus.publish(
            "orders",
            Event(id="e-1", type="com.acme.order.placed", source="/shop", data={"order": "o-1", "total": 12.5}),
        )
        await bus.run()

asyncio.run(main())
"""


def environment(**more: str) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("CROSSBUS_") and name not in ("GOOGLE_CLOUD_PROJECT", "PUBSUB_EMULATOR_HOST")
    }
    return {**kept, "PYTHONUNBUFFERED": "1", **more}


@pytest.mark.parametrize("url", ["local:", "pubsub:program-1", "pubsub:"])
def test_one_program_on_any_provider(emulator: Emulator, tmp_path: Path, url: str) -> None:
    file = tmp_path / "shop.py"
    file.write_text(PROGRAM, encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, file],
        env=environment(
            CROSSBUS_URL=url, PUBSUB_EMULATOR_HOST=emulator.address, GOOGLE_CLOUD_PROJECT="program-2"
        ),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "e-1 12.5\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    process.stdout.close()


def test_command_says_what_to_set_and_ends_when_asked(emulator: Emulator) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "crossbus", "emulator", "pubsub", "--port", "0"],
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    lines: list[str] = []
    while "CROSSBUS_URL" not in (lines or [""])[-1]:
        lines.append(process.stdout.readline())
        assert lines[-1], "it ended"
    (variable,) = [line for line in lines if "PUBSUB_EMULATOR_HOST=" in line]
    address = variable.strip().rpartition("=")[2]
    with urllib.request.urlopen(f"http://{address}/", timeout=10) as answer:
        assert answer.status == 200
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    process.stdout.close()
    with socket.socket() as probe:
        host, _, port = address.partition(":")
        assert probe.connect_ex((host, int(port))) != 0, "the emulator outlived its command"


def test_a_port_that_is_taken_is_said_to_be(emulator: Emulator) -> None:
    with pytest.raises(
        ConfigurationError, match=f"cannot listen on 127.0.0.1:{emulator.port}: the address is taken"
    ):
        Emulator(emulator.port).start()


def test_the_version_is_that_of_the_file(emulator: Emulator) -> None:
    assert re.fullmatch(r"[0-9]+\.[0-9.]+", module.version())


def test_stopping_twice_is_harmless(emulator: Emulator) -> None:
    with Emulator(memory=64) as another:
        assert not another.has_ended
        assert "listening" in another.log()
    another.stop()
    assert another.has_ended


def test_what_to_install_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "_PLACES", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("CLOUDSDK_ROOT_DIR", raising=False)
    with pytest.raises(ConfigurationError, match="gcloud components install pubsub-emulator"):
        find_emulator()
    launcher = tmp_path / "platform" / "pubsub-emulator" / "bin" / "cloud-pubsub-emulator"
    launcher.parent.mkdir(parents=True)
    launcher.touch()
    monkeypatch.setenv("CLOUDSDK_ROOT_DIR", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(ConfigurationError, match="needs Java"):
        find_emulator()
    monkeypatch.setenv("JAVA_HOME", "/java")
    assert find_emulator() == launcher


def test_an_unknown_emulator_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["emulator", "pubsbu"])
    assert ended.value.code == 2
    assert "did you mean 'pubsub'" in capsys.readouterr().err
