"""Draw what commands print on a terminal: docs/assets/*.svg, from the real commands on a real server.

python scripts/gen_terminal_shots.py                              writes them anew
python scripts/gen_terminal_shots.py --width 72 --to /tmp/narrow  the same for a narrower terminal, to look at
"""

from __future__ import annotations

import argparse
import fcntl
import io
import json
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent
ASSETS = ROOT / "docs" / "assets"
PROGRAM = """
from crossbus import Bus, Event, Reject, RetryPolicy
from release import NUMBER

bus = Bus(source="/shop")

@bus.subscribe("orders", "billing", retry=RetryPolicy(attempts=2, first_delay=0))
async def bill(event: Event) -> None:
    if NUMBER == 1 and event.data["currency"] == "SEK":
        raise Reject("unknown currency")
    if NUMBER == 1 and event.data["vip"]:
        raise LookupError(f"no such customer: {event.data['customer']}")

bus.subscribe("orders", "audit")
"""
FORMAT = (
    """<svg viewBox="0 0 {terminal_width} {height}" xmlns="http://www.w3.org/2000/svg" role="img">
<style>
.{unique_id}-matrix {{ font-family: "DejaVu Sans Mono", Menlo, Consolas, monospace; """
    """font-size: {char_height}px; line-height: {line_height}px; }}
.{unique_id}-title {{ font-family: sans-serif; font-size: 18px; font-weight: bold; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal"><rect width="{terminal_width}" height="{terminal_height}"/></clipPath>
{lines}</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""
)
"""As rich has it, but with the fonts that are there: its own fetches one from elsewhere."""


class Terminal:
    """Commands, one after the other, and what they print."""

    def __init__(self, folder: Path, width: int, url: str) -> None:
        self.folder = folder
        self.width = width
        self._environment = {
            name: value for name, value in os.environ.items() if not name.startswith("CROSSBUS_")
        }
        self._environment |= {
            "CROSSBUS_URL": url,
            "CROSSBUS_RUN_DIR": str(folder),
            "TERM": "xterm-256color",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        self._environment.pop("NO_COLOR", None)

    def type(self, *commands: str) -> Text:
        """Run commands as a person types them, and return what stands on the terminal then."""
        shown = Text()
        for command in commands:
            shown.append_text(_prompt(command)).append("\n")
            shown.append_text(Text.from_ansi(self._run(command))).append("\n")
        return shown

    def _run(self, command: str) -> str:
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 60, self.width, 0, 0))
        process = subprocess.Popen(  # noqa: S603 (commands of this file)
            command.split(),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=self.folder,
            env=self._environment,
        )
        os.close(theirs)
        found = b""
        try:
            while part := os.read(ours, 65536):
                found += part
        except OSError:  # so Linux says that the other end was closed
            pass
        os.close(ours)
        assert process.wait() == 0, found.decode()
        lines = found.decode().replace("\r\n", "\n").split("\n")
        return "\n".join(line.rpartition("\r\x1b[K")[2] for line in lines).rstrip()

    @contextmanager
    def beside(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """Run a command beside the others."""
        process = subprocess.Popen(  # noqa: S603 (commands of this file)
            [sys.executable, "-m", "crossbus", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.folder,
            env=self._environment,
        )
        try:
            yield process
        finally:
            process.terminate()
            process.communicate()


def _prompt(command: str) -> Text:
    return Text("$ ", "green").append(command, "bold default")


def main() -> None:
    """Draw all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=96, help="columns of the terminal")
    parser.add_argument("--to", type=Path, default=ASSETS)
    given = parser.parse_args()
    given.to.mkdir(parents=True, exist_ok=True)

    def draw(name: str, shown: Text, title: str) -> None:
        console = Console(record=True, width=given.width, file=io.StringIO(), force_terminal=True)
        console.print(shown, highlight=False)
        svg = console.export_svg(title=title, code_format=FORMAT, unique_id=name)
        text = re.sub(r"[ \t]+$", "", svg, flags=re.M)
        (given.to / f"{name}.svg").write_text(text, "utf-8")

    with tempfile.TemporaryDirectory(prefix="cb-") as folder:
        draw("demo", _demo(Terminal(Path(folder), given.width, "local:")), "crossbus demo")
        _night(Path(folder), given.width, draw)


def _demo(terminal: Terminal) -> Text:
    """The demonstration, from where events are handled."""
    lines = terminal.type("crossbus demo --fast").split("\n", allow_blank=True)
    begin = next(n for n, line in enumerate(lines) if line.plain.startswith("4  Handle"))
    return Text("\n").join([_prompt("crossbus demo"), Text("..."), *lines[begin:]])


def _night(folder: Path, width: int, draw: Callable[[str, Text, str], None]) -> None:
    (folder / "shop.py").write_text(PROGRAM)
    _publish_file(folder / "orders.jsonl")
    broker = Terminal(folder, width, "local:")
    with broker.beside("serve", "--port", "8787", "--path", "broker.db") as server:
        assert server.stdout is not None
        assert "listening" in server.stdout.readline(), "port 8787 is taken"
        terminal = Terminal(folder, width, "local+http://127.0.0.1:8787")
        (folder / "release.py").write_text("NUMBER = 1\n")
        with _consuming(terminal):
            terminal.type("crossbus publish orders orders.jsonl")
            _until(terminal, 90)
            what = terminal.type(
                "crossbus dlq summary orders/billing",
                "crossbus dlq list orders/billing --reason failed --limit 3",
            )
            draw("night-why", what, "3 a.m.: what is it?")
            stop = terminal.type("crossbus pause orders/billing", "crossbus stats")
        (folder / "release.py").write_text("NUMBER = 2\n")
        with _consuming(terminal):
            mend = terminal.type(
                "crossbus dlq redrive orders/billing --rate 50", "crossbus resume orders/billing"
            )
            _until(terminal, 0)
            draw(
                "night-mend", stop + mend + terminal.type("crossbus stats"), "pause, the fix, redrive, resume"
            )


@contextmanager
def _consuming(terminal: Terminal) -> Iterator[None]:
    for file in terminal.folder.glob("__pycache__/release*"):  # written in the same second, of the same size
        file.unlink()
    with terminal.beside("run", "shop:bus") as run:
        assert run.stdout is not None
        assert any("consuming" in line for line in iter(run.stdout.readline, ""))
        yield


def _until(terminal: Terminal, dead: int) -> None:
    """Wait until so many are dead, and nothing waits any more."""
    end = time.monotonic() + 60
    while True:
        lines = terminal.type("crossbus stats orders/billing --output json").plain.splitlines()
        found = json.loads(next(line for line in lines if line.startswith("{")))
        if found["dead"] == dead and not found["waiting"] and not found["in_hand"]:
            return
        assert time.monotonic() < end, found
        time.sleep(0.1)


def _publish_file(path: Path) -> None:
    lines = []
    for n in range(240):
        data = {
            "order": f"o-{n}",
            "customer": f"c-{n}",
            "currency": "SEK" if n % 8 == 3 else "EUR",
            "vip": n % 4 == 1,
        }
        event = {"specversion": "1.0", "id": f"e-{n}", "type": "shop.placed", "source": "/shop", "data": data}
        lines.append(json.dumps(event))
    path.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
