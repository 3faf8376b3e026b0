"""How every benchmark measures: a fresh process for each sample, peers in turn, the median of the samples."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROUNDS = 5


@dataclass
class Table:
    """One table of results, as it is printed and as it stands in the documentation."""

    title: str
    columns: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)
    note: str = ""
    """What was measured and how; under the table."""
    misses: list[str] = field(default_factory=list)
    """Targets that were not reached, one line each."""

    def __str__(self) -> str:
        cells = [list(self.columns), *(list(row) for row in self.rows)]
        widths = [max(len(row[column]) for row in cells) for column in range(len(self.columns))]
        lines = []
        for index, row in enumerate(cells):
            padded = [
                cell.ljust(width) if column == 0 else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            lines.append(f"| {' | '.join(padded)} |")
            if index == 0:
                rule = [
                    "-" * width if column == 0 else f"{'-' * (width - 1)}:"
                    for column, width in enumerate(widths)
                ]
                lines.append(f"| {' | '.join(rule)} |")
        parts = [f"### {self.title}", "\n".join(lines)]
        if self.note:
            parts.append(self.note)
        if self.misses:
            parts.append("\n".join(f"- Not reached: {miss}" for miss in self.misses))
        return "\n\n".join(parts)


def sample(module: str, *arguments: str) -> dict[str, float]:
    """Run one measurement of a module in a process of its own; it prints one line of JSON."""
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{module}", *arguments],
        cwd=ROOT,
        env={**os.environ, "CROSSBUS_URL": "", "CROSSBUS_PROFILE": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"benchmarks.{module} {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def in_turn(
    module: str, peers: Sequence[str], *arguments: str, rounds: int = ROUNDS
) -> dict[str, dict[str, float]]:
    """Measure every peer once, then every peer again, and so on: what slows the machine slows all of them.

    Returns the median of each figure, by peer.
    """
    samples: dict[str, list[dict[str, float]]] = {peer: [] for peer in peers}
    for number in range(rounds):
        for peer in peers:
            print(
                f"\r{module}: round {number + 1} of {rounds}, {peer:40}", end="", file=sys.stderr, flush=True
            )
            samples[peer].append(sample(module, peer, *arguments))
    print(f"\r{'':80}\r", end="", file=sys.stderr)
    return {
        peer: {figure: statistics.median(each[figure] for each in found) for figure in found[0]}
        for peer, found in samples.items()
    }


def against(target: str, reached: bool) -> list[str]:
    """Return the line for `Table.misses` if a target was not reached."""
    return [] if reached else [target]


def per_second(value: float) -> str:
    """Write a rate for people: 41,300."""
    return f"{round(value, -2):,.0f}"


def conditions() -> str:
    """Say on what the figures were measured: machine, Python, versions of the peers."""
    versions: Mapping[str, str] = {name: _version(name) for name in ("crossbus", "msgspec", *PEERS)}
    return "\n".join(
        (
            f"- Machine: {_cpu()}, {os.cpu_count()} processors, {platform.system()} {platform.machine()}",
            f"- Python: {platform.python_implementation()} {platform.python_version()}",
            f"- Versions: {', '.join(f'{name} {version}' for name, version in versions.items())}",
        )
    )


PEERS = ("cloudevents", "faststream", "kombu")


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _cpu() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or "unknown processor"
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    return names[0] if names else "unknown processor"
