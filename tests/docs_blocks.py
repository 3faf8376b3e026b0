"""Finds the code blocks of a Markdown page, and runs them the way a reader would."""

from __future__ import annotations

import ast
import asyncio
import doctest
import os
import re
import signal
import subprocess
import sys
import threading
import types
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w+)(?P<options>[^\n]*)\n(?P<text>.*?)^(?P=indent)```$", re.M | re.S
)
_TITLE = re.compile(r'title="([^"]+)"')
LIMIT = 60.0
"""Seconds that one command may take."""


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    language: str
    title: str
    text: str
    line: int
    """Where it begins in the page, counted from 1."""


def blocks(page: Path) -> list[Block]:
    """Return the blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(text):
        title = _TITLE.search(match["options"])
        indent = len(match["indent"])
        body = "".join(
            line[indent:] if line.strip() else line for line in match["text"].splitlines(keepends=True)
        )
        found.append(
            Block(match["language"], title[1] if title else "", body, text.count("\n", 0, match.start()) + 1)
        )
    return found


class Reader:
    """Does what a page tells: writes its files, runs its Python in one module, runs its commands."""

    def __init__(self, page: Path, folder: Path) -> None:
        self.page = page
        self.folder = folder
        self.module = types.ModuleType(f"page_{page.stem.replace('-', '_')}")

    def follow(self) -> None:
        """Do it all. Raises what a block raises, and AssertionError for output that is not as printed."""
        sys.modules[self.module.__name__] = self.module  # dataclasses and annotations look their module up
        try:
            for block in blocks(self.page):
                self.do(block)
        finally:
            del sys.modules[self.module.__name__]

    def do(self, block: Block) -> None:
        """Do what one block tells."""
        if block.title:
            if block.language == "python":
                compile(block.text, f"{self.page.name}: {block.title}", "exec")
            path = self.folder / block.title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            self.execute(block)
        elif block.language == "console":
            for command, expected in transcript(block.text):
                self.type(command, expected, block.line)

    def execute(self, block: Block) -> None:
        """Run Python; `await` may stand outside a function, as in an asyncio prompt."""
        # Lines before it are kept empty, so that a traceback names the line of the page.
        code = compile(
            "\n" * block.line + block.text,
            str(self.page),
            "exec",
            flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
            dont_inherit=True,
        )
        made = eval(code, self.module.__dict__)
        if made is not None:
            asyncio.run(made)

    def type(self, command: str, expected: str, line: int) -> None:
        """Run a command; its output must be as printed, where `...` stands for anything and `^C` interrupts it."""
        interrupted = expected.endswith("^C\n")
        wanted = expected.removesuffix("^C\n")
        code, output = shell(command, self.folder, lines=wanted.count("\n") if interrupted else None)
        where = f"{self.page.name}:{line}: $ {command}"
        flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        assert doctest.OutputChecker().check_output(wanted, output, flags), (
            f"{where}\n--- wanted\n{wanted}--- got\n{output}"
        )
        assert code == 0, f"{where}\nended with {code}:\n{output}"


def transcript(text: str) -> list[tuple[str, str]]:
    """Divide a terminal's text into commands and their output. `$ ` begins a command, `> ` goes on with it."""
    found: list[tuple[str, str]] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], ""))
        elif line.startswith("> ") and found and not found[-1][1]:
            found[-1] = (f"{found[-1][0]}\n{line[2:]}", "")
        else:
            command, output = found[-1]
            found[-1] = (command, f"{output}{line}\n")
    return found


def shell(command: str, folder: Path, lines: int | None) -> tuple[int, str]:
    """Run a command in bash; with `lines`, interrupt it when it has printed so many. Returns exit code and output."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CROSSBUS_")}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    environment |= {"PYTHONUNBUFFERED": "1", "COLUMNS": "100", "NO_COLOR": "1"}
    process = subprocess.Popen(
        ["bash", "-c", command],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    stop = threading.Timer(LIMIT, os.killpg, (process.pid, signal.SIGKILL))
    stop.start()
    try:
        assert process.stdout is not None
        output = ""
        while line := process.stdout.readline():
            output += line
            if lines is not None and output.count("\n") == lines:
                os.killpg(process.pid, signal.SIGINT)
        return process.wait(), output
    finally:
        stop.cancel()
        process.stdout.close()
