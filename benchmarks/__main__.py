"""Run all benchmarks, or those named: `python -m benchmarks [--write] [throughput latency ...]`."""

from __future__ import annotations

import argparse
import datetime
import importlib
import subprocess
import sys

from benchmarks.measure import ROOT, conditions

PAGE = ROOT / "docs" / "reference" / "benchmarks.md"
HEAD = """# Benchmarks

Made by `python -m benchmarks --write`; do not edit. Peers are measured side by side in one run: each sample in a
process of its own, all peers in turn, five rounds unless a table says otherwise, and the median of them. A number says
little about your machine; the ratio to a peer on the same machine says more. Nothing here is a test.
"""


def names() -> list[str]:
    """Return the names of all benchmarks: `event` for bench_event.py."""
    return sorted(path.stem.removeprefix("bench_") for path in (ROOT / "benchmarks").glob("bench_*.py"))


def section(name: str) -> tuple[str, list[str]]:
    """Run one benchmark; return what it prints and the targets it missed."""
    module = importlib.import_module(f"benchmarks.bench_{name}")
    if hasattr(module, "tables"):
        tables = module.tables()
        return "\n\n".join(map(str, tables)), [f"{name}: {miss}" for table in tables for miss in table.misses]
    done = subprocess.run(
        [sys.executable, "-m", module.__name__], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return f"### {name}\n\n```text\n{done.stdout.strip()}\n```", []


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"which: {', '.join(names())} (default: all)")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)} as well")
    chosen = parser.parse_args()
    unknown = set(chosen.names) - set(names())
    if unknown:
        parser.error(f"no benchmark is named {', '.join(sorted(unknown))}; there are {', '.join(names())}")
    parts, missed = [f"## Conditions\n\n- Date: {datetime.date.today()}\n{conditions()}"], []
    print(parts[0], flush=True)
    for name in chosen.names or names():
        text, misses = section(name)
        print(f"\n{text}", flush=True)
        parts.append(text)
        missed += misses
    print("\nAll targets reached." if not missed else "\nTargets not reached:\n- " + "\n- ".join(missed))
    if chosen.write:
        body = [parts[0], "## Results", *parts[1:]]
        PAGE.write_text(HEAD + "\n" + "\n\n".join(body) + "\n", encoding="utf-8")
        print(f"wrote {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
